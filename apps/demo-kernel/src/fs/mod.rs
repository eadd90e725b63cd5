//! Files: the RAM disk that was loaded beside the kernel, and an area below `/tmp` that can be written.
//!
//! A few layers, each with functions of its own, so that there is something to probe:
//!
//! ```text
//! sys_open, sys_read, …   syscalls      C's convention, negative error numbers
//!   fd_alloc, fd_get      descriptors   which files are open, and where each is read
//!   path_lookup           tree          from a path to an inode
//!     dir_find, inode_get tree
//!   inode_read, …         tree          bytes
//!   entries               archive       the RAM disk's format, at boot
//! ```
//!
//! # Locks
//!
//! `DESCRIPTORS` before `TREE`; both turn interrupts off, so that a thread is not preempted while another one waits
//! for it with a whole processor. Memory is allocated and copied under them, in pieces of some kilobytes.

mod archive;
mod descriptors;
mod errno;
mod syscalls;
mod tree;

use alloc::string::String;
use alloc::vec::Vec;

pub(crate) use descriptors::OPEN_FILES;
pub(crate) use errno::Errno;
pub(crate) use syscalls::{O_CREAT, O_WRONLY};
pub(crate) use tree::{Stat, TEMPORARY_BYTES};

use self::descriptors::Descriptors;
use self::tree::Tree;
use crate::lock::IrqLock;

static DESCRIPTORS: IrqLock<Descriptors> = IrqLock::new(Descriptors::new());
static TREE: IrqLock<Tree> = IrqLock::new(Tree::empty());

/// Reads the RAM disk. Once, at boot; a kernel that was booted without one has only `/tmp`.
pub(crate) fn init(disk: &'static [u8]) {
    TREE.lock().fill(archive::entries(disk));
}

/// A file of the RAM disk, as it lies in memory.
pub(crate) fn disk_file(path: &str) -> Option<&'static [u8]> {
    TREE.lock().disk_file(path)
}

/// What a directory holds.
///
/// # Errors
///
/// If there is no such path.
pub(crate) fn list(path: &str) -> Result<Vec<(String, Stat)>, Errno> {
    TREE.lock().list(path)
}

/// An open file, closed when it is dropped.
#[derive(Debug)]
pub(crate) struct File {
    fd: u64,
}

impl File {
    /// Opens by the system call.
    ///
    /// # Errors
    ///
    /// As [`syscalls::sys_open`].
    pub(crate) fn open(path: &str, flags: u64) -> Result<Self, Errno> {
        let path = terminated(path);
        // SAFETY: the path ends with a zero.
        let fd = unsafe { syscalls::sys_open(path.as_ptr(), flags) };
        result(fd).map(|fd| Self { fd })
    }

    /// Reads the next bytes; 0 at the end.
    ///
    /// # Errors
    ///
    /// As [`syscalls::sys_read`].
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the buffer is borrowed for this alone, with its length.
        let count = unsafe { syscalls::sys_read(self.fd, buffer.as_mut_ptr(), buffer.len()) };
        result(count).map(|count| count as usize)
    }

    /// Writes all the bytes.
    ///
    /// # Errors
    ///
    /// As [`syscalls::sys_write`].
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Errno> {
        // SAFETY: the bytes are borrowed, with their length.
        result(unsafe { syscalls::sys_write(self.fd, bytes.as_ptr(), bytes.len()) }).map(drop)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // It is open, since nobody else has its number.
        let _ = syscalls::sys_close(self.fd);
    }
}

/// Reads a whole file through system calls.
///
/// # Errors
///
/// As they have.
pub(crate) fn read(path: &str) -> Result<Vec<u8>, Errno> {
    let file = File::open(path, 0)?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 512]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Makes a file with these bytes through system calls.
///
/// # Errors
///
/// As they have.
pub(crate) fn write(path: &str, bytes: &[u8]) -> Result<(), Errno> {
    File::open(path, O_WRONLY | O_CREAT)?.write(bytes)
}

/// What is known of a file, through a system call.
///
/// # Errors
///
/// As [`syscalls::sys_stat`].
pub(crate) fn stat(path: &str) -> Result<Stat, Errno> {
    let path = terminated(path);
    let mut stat = Stat { inode: 0, size: 0, directory: 0, writable: 0 };
    // SAFETY: the path ends with a zero, and the place is ours.
    result(unsafe { syscalls::sys_stat(path.as_ptr(), &raw mut stat) }).map(|_| stat)
}

/// With the zero that C wants.
fn terminated(path: &str) -> Vec<u8> {
    path.bytes().chain([0]).collect()
}

fn result(returned: i64) -> Result<u64, Errno> {
    u64::try_from(returned).map_err(|_| Errno::from_returned(returned))
}
