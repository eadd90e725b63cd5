//! Why a file operation failed, with Linux's numbers and words.

use core::fmt;

/// The reasons there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub(crate) enum Errno {
    /// No such file.
    NoEntry = 2,
    /// Not an open file, or not open for that.
    BadFile = 9,
    /// No address.
    Fault = 14,
    /// A directory is needed.
    NotDirectory = 20,
    /// A directory is no file.
    IsDirectory = 21,
    /// Something is asked for that does not exist.
    Invalid = 22,
    /// All descriptors are in use.
    TooManyFiles = 24,
    /// The area for written files is full.
    NoSpace = 28,
    /// The RAM disk is not written to.
    ReadOnly = 30,
    /// The path has no end.
    NameTooLong = 36,
}

impl Errno {
    const ALL: [Self; 10] = [
        Self::NoEntry,
        Self::BadFile,
        Self::Fault,
        Self::NotDirectory,
        Self::IsDirectory,
        Self::Invalid,
        Self::TooManyFiles,
        Self::NoSpace,
        Self::ReadOnly,
        Self::NameTooLong,
    ];

    /// What a system call returns.
    pub(crate) const fn returned(self) -> i64 {
        -(self as i64)
    }

    /// What a system call has returned; `Invalid` for a number that none returns.
    pub(crate) fn from_returned(value: i64) -> Self {
        Self::ALL.into_iter().find(|errno| errno.returned() == value).unwrap_or(Self::Invalid)
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NoEntry => "No such file or directory",
            Self::BadFile => "Bad file descriptor",
            Self::Fault => "Bad address",
            Self::NotDirectory => "Not a directory",
            Self::IsDirectory => "Is a directory",
            Self::Invalid => "Invalid argument",
            Self::TooManyFiles => "Too many open files",
            Self::NoSpace => "No space left on device",
            Self::ReadOnly => "Read-only file system",
            Self::NameTooLong => "File name too long",
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.returned())
    }
}
