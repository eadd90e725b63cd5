//! The tool's view of the memory that it shares with the traced processes.

use super::{HostError, Result};
use crate::abi::{Bank, Shared, shared_bytes};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// The shared mapping.
///
/// # Invariants
///
/// `base` points to a mapping of `bytes` bytes that holds a [`Shared`] and its banks, and stays mapped as long as this
/// value lives. The other side may change any word at any time; all are atomics.
#[derive(Debug)]
pub(crate) struct SharedMap {
    base: *const Shared,
    bytes: usize,
    banks: usize,
    /// Device and inode, as `/proc/PID/maps` shows them.
    file: (i32, i32, u64),
}

// SAFETY: the pointer is to a shared mapping that no thread owns; all access is through atomics.
unsafe impl Send for SharedMap {}
// SAFETY: as for `Send`.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    pub(crate) fn new(file: &File, banks: usize) -> Result<Self> {
        let bytes = shared_bytes(banks);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file of at least `bytes` bytes, at an address that the kernel chooses.
        let base =
            unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(HostError::io("map the memory shared with the target", io::Error::last_os_error()));
        }
        let data = file.metadata().map_err(|e| HostError::io("look at the shared memory", e))?;
        let file = (libc::major(data.dev()) as i32, libc::minor(data.dev()) as i32, data.ino());
        // INVARIANT: just mapped, with this size; unmapped only in `drop`.
        Ok(Self { base: base.cast_const().cast(), bytes, banks, file })
    }

    /// Device and inode, as `/proc/PID/maps` shows them.
    pub(crate) fn file(&self) -> (i32, i32, u64) {
        self.file
    }

    pub(crate) fn header(&self) -> &Shared {
        // SAFETY: by the type's invariant.
        unsafe { &*self.base }
    }

    pub(crate) fn bank(&self, index: usize) -> Option<&Bank> {
        // SAFETY: by the type's invariant `banks` banks follow the header; the index is checked against that number,
        // not against the one that the target could have changed.
        (index < self.banks).then(|| unsafe { &*self.base.add(1).cast::<Bank>().add(index) })
    }

    pub(crate) fn banks(&self) -> impl Iterator<Item = (usize, &Bank)> {
        (0..self.banks).filter_map(|i| Some((i, self.bank(i)?)))
    }
}

impl SharedMap {
    /// Gives a bank's memory back; it reads as zero from now on, for every process that maps it.
    pub(crate) fn wipe(&self, index: usize) {
        if let Some(bank) = self.bank(index) {
            let at = (&raw const *bank).cast_mut().cast();
            // SAFETY: the bank is inside the mapping and a multiple of a page; all its words are atomics, and zero is
            // a valid value of each.
            unsafe { libc::madvise(at, size_of::<Bank>(), libc::MADV_REMOVE) };
        }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and by the borrow checker nothing refers to it any more.
        unsafe { libc::munmap(self.base.cast_mut().cast(), self.bytes) };
    }
}
