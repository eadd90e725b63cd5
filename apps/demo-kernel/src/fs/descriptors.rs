//! Open files.

use super::errno::Errno;
use super::tree::InodeNumber;

/// How many files may be open at once.
pub(crate) const OPEN_FILES: usize = 64;
/// As in a process, where the first three are taken.
const FIRST: usize = 3;

/// An open file.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFile {
    pub(super) inode: InodeNumber,
    pub(super) offset: usize,
    pub(super) writable: bool,
}

/// The table of descriptors; one for the whole kernel.
#[derive(Debug)]
pub(super) struct Descriptors {
    files: [Option<OpenFile>; OPEN_FILES],
}

impl Descriptors {
    pub(super) const fn new() -> Self {
        Self { files: [None; OPEN_FILES] }
    }

    /// Takes the lowest free descriptor.
    ///
    /// # Errors
    ///
    /// `TooManyFiles`.
    #[inline(never)]
    pub(super) fn fd_alloc(&mut self, file: OpenFile) -> Result<i64, Errno> {
        let free = self.files.iter().position(Option::is_none).ok_or(Errno::TooManyFiles)?;
        self.files[free] = Some(file);
        Ok((free + FIRST) as i64)
    }

    /// # Errors
    ///
    /// `BadFile` if it is not open.
    #[inline(never)]
    pub(super) fn fd_get(&mut self, fd: u64) -> Result<&mut OpenFile, Errno> {
        self.slot(fd)?.as_mut().ok_or(Errno::BadFile)
    }

    /// Gives a descriptor back.
    ///
    /// # Errors
    ///
    /// `BadFile` if it is not open.
    #[inline(never)]
    pub(super) fn fd_put(&mut self, fd: u64) -> Result<OpenFile, Errno> {
        self.slot(fd)?.take().ok_or(Errno::BadFile)
    }

    fn slot(&mut self, fd: u64) -> Result<&mut Option<OpenFile>, Errno> {
        let index = usize::try_from(fd).ok().and_then(|fd| fd.checked_sub(FIRST));
        index.and_then(|index| self.files.get_mut(index)).ok_or(Errno::BadFile)
    }
}
