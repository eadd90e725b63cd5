//! Why a file cannot be used.

use std::path::PathBuf;

/// Why a file is not an object whose functions can be probed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The file does not exist.
    #[error("{}: no such file", .0.display())]
    NotFound(PathBuf),
    /// The file exists, and reading it failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file does not begin with ELF's magic number.
    #[error("{name}: not an ELF file")]
    NotElf {
        /// The file, as the caller named it.
        name: String,
    },
    /// The file is for 32-bit processes.
    #[error("{name}: a 32-bit ELF file ({machine}); only 64-bit programs are supported")]
    Not64Bit {
        /// The file, as the caller named it.
        name: String,
        /// The machine it is for.
        machine: String,
    },
    /// The file is for another processor.
    #[error("{name}: made for {machine}, not for x86-64")]
    OtherMachine {
        /// The file, as the caller named it.
        name: String,
        /// The machine it is for.
        machine: String,
    },
    /// The file is ELF, but nothing that is mapped into a process.
    #[error("{name}: {what}, not a program or a shared object")]
    NotLoadable {
        /// The file, as the caller named it.
        name: String,
        /// What it is instead.
        what: String,
    },
    /// The file ends before something that its headers promise.
    #[error("{name}: truncated: {what} should end at byte {end:#x}, the file has {len:#x}")]
    Truncated {
        /// The file, as the caller named it.
        name: String,
        /// What is cut off.
        what: &'static str,
        /// Where it should end.
        end: u64,
        /// The length of the file.
        len: u64,
    },
    /// The headers contradict themselves.
    #[error("{name}: corrupt: {what}")]
    Corrupt {
        /// The file, as the caller named it.
        name: String,
        /// What is wrong with it.
        what: String,
    },
}
