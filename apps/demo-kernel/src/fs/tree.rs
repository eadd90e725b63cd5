//! Directories and files: inodes and how a path leads to one.
//!
//! The RAM disk's files are where the loader has put them and cannot be written. Below `/tmp` files are made and
//! written; all of them together have [`TEMPORARY_BYTES`].

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::archive::Entry;
use super::errno::Errno;

/// What fits below `/tmp`.
pub(crate) const TEMPORARY_BYTES: usize = 64 << 10;
/// How many files may be there.
const TEMPORARY_FILES: usize = 64;
const TEMPORARY: &str = "tmp";

/// An inode's number. It is the index in the tree, and an inode once made stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InodeNumber(pub(super) usize);

const ROOT: InodeNumber = InodeNumber(0);

/// A directory or a file.
#[derive(Debug)]
enum Inode {
    Directory { entries: BTreeMap<String, InodeNumber>, writable: bool },
    Disk(&'static [u8]),
    Temporary(Vec<u8>),
}

/// What one can know of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Stat {
    /// The inode's number.
    pub(crate) inode: u64,
    /// Bytes; of a directory, how many entries.
    pub(crate) size: u64,
    /// 1 for a directory, else 0.
    pub(crate) directory: u64,
    /// 1 for what can be written, else 0.
    pub(crate) writable: u64,
}

/// All inodes.
#[derive(Debug)]
pub(super) struct Tree {
    inodes: Vec<Inode>,
    temporary_bytes: usize,
    temporary_files: usize,
}

impl Tree {
    /// Before the disk is read.
    pub(super) const fn empty() -> Self {
        Self { inodes: Vec::new(), temporary_bytes: 0, temporary_files: 0 }
    }

    /// Makes the inodes of a disk's files, and `/tmp`. A file in the place of a directory is passed over.
    pub(super) fn fill(&mut self, files: impl Iterator<Item = Entry>) {
        self.inodes.push(Inode::Directory { entries: BTreeMap::new(), writable: false });
        for Entry { path, bytes } in files {
            let (folder, name) = split(&path);
            let Some(folder) = self.make_directories(folder) else { continue };
            self.inode_add(folder, name, Inode::Disk(bytes));
        }
        self.inode_add(ROOT, TEMPORARY, Inode::Directory { entries: BTreeMap::new(), writable: true });
    }

    fn make_directories(&mut self, path: &str) -> Option<InodeNumber> {
        components(path).try_fold(ROOT, |folder, name| match self.dir_find(folder, name) {
            Ok(found) => matches!(self.inode_get(found), Ok(Inode::Directory { .. })).then_some(found),
            Err(_) => self.inode_add(folder, name, Inode::Directory { entries: BTreeMap::new(), writable: false }),
        })
    }

    /// Adds to a directory; none if it is no directory.
    #[inline(never)]
    fn inode_add(&mut self, folder: InodeNumber, name: &str, inode: Inode) -> Option<InodeNumber> {
        let number = InodeNumber(self.inodes.len());
        let Some(Inode::Directory { entries, .. }) = self.inodes.get_mut(folder.0) else { return None };
        entries.insert(name.to_string(), number);
        self.inodes.push(inode);
        Some(number)
    }

    #[inline(never)]
    fn inode_get(&self, number: InodeNumber) -> Result<&Inode, Errno> {
        self.inodes.get(number.0).ok_or(Errno::NoEntry)
    }

    /// Looks one name up.
    #[inline(never)]
    fn dir_find(&self, folder: InodeNumber, name: &str) -> Result<InodeNumber, Errno> {
        let Inode::Directory { entries, .. } = self.inode_get(folder)? else { return Err(Errno::NotDirectory) };
        entries.get(name).copied().ok_or(Errno::NoEntry)
    }

    /// Follows a path from the root, whether it begins with a slash or not.
    ///
    /// # Errors
    ///
    /// `NoEntry`, or `NotDirectory` where it goes on below a file.
    #[inline(never)]
    pub(super) fn path_lookup(&self, path: &str) -> Result<InodeNumber, Errno> {
        let mut way = alloc::vec![ROOT];
        for name in components(path) {
            let here = *way.last().unwrap_or(&ROOT);
            if name != ".." {
                way.push(self.dir_find(here, name)?);
            } else if way.len() > 1 {
                // The root is its own parent.
                way.pop();
            }
        }
        Ok(*way.last().unwrap_or(&ROOT))
    }

    /// Makes a file where there is none, or empties the one there is.
    ///
    /// # Errors
    ///
    /// `ReadOnly` outside `/tmp`, `NoSpace` for too many files, and what [`Self::path_lookup`] has.
    #[inline(never)]
    pub(super) fn inode_create(&mut self, path: &str) -> Result<InodeNumber, Errno> {
        match self.path_lookup(path) {
            Ok(found) => self.inode_truncate(found).map(|()| found),
            Err(Errno::NoEntry) => self.inode_make(path),
            Err(errno) => Err(errno),
        }
    }

    fn inode_make(&mut self, path: &str) -> Result<InodeNumber, Errno> {
        let (folder, name) = split(path);
        let folder = self.path_lookup(folder)?;
        match self.inode_get(folder)? {
            Inode::Directory { writable: true, .. } => {}
            Inode::Directory { .. } => return Err(Errno::ReadOnly),
            _ => return Err(Errno::NotDirectory),
        }
        if self.temporary_files == TEMPORARY_FILES {
            return Err(Errno::NoSpace);
        }
        let made = self.inode_add(folder, name, Inode::Temporary(Vec::new())).ok_or(Errno::NotDirectory)?;
        self.temporary_files += 1;
        Ok(made)
    }

    #[inline(never)]
    fn inode_truncate(&mut self, number: InodeNumber) -> Result<(), Errno> {
        let bytes = self.temporary(number)?;
        let freed = bytes.len();
        bytes.clear();
        self.temporary_bytes -= freed;
        Ok(())
    }

    fn temporary(&mut self, number: InodeNumber) -> Result<&mut Vec<u8>, Errno> {
        match self.inodes.get_mut(number.0).ok_or(Errno::NoEntry)? {
            Inode::Temporary(bytes) => Ok(bytes),
            Inode::Disk(_) => Err(Errno::ReadOnly),
            Inode::Directory { .. } => Err(Errno::IsDirectory),
        }
    }

    /// Copies from a file; 0 at its end.
    ///
    /// # Errors
    ///
    /// `IsDirectory`.
    #[inline(never)]
    pub(super) fn inode_read(&self, number: InodeNumber, offset: usize, to: &mut [u8]) -> Result<usize, Errno> {
        let bytes = match self.inode_get(number)? {
            Inode::Directory { .. } => return Err(Errno::IsDirectory),
            Inode::Disk(bytes) => bytes,
            Inode::Temporary(bytes) => bytes.as_slice(),
        };
        let rest = bytes.get(offset..).unwrap_or_default();
        let count = rest.len().min(to.len());
        to[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    /// Writes at a place in a file: all of it or nothing.
    ///
    /// # Errors
    ///
    /// `NoSpace`, `ReadOnly`, `IsDirectory`.
    #[inline(never)]
    pub(super) fn inode_write(&mut self, number: InodeNumber, offset: usize, from: &[u8]) -> Result<usize, Errno> {
        let free = TEMPORARY_BYTES - self.temporary_bytes;
        let bytes = self.temporary(number)?;
        let end = offset.checked_add(from.len()).ok_or(Errno::NoSpace)?;
        let growth = end.saturating_sub(bytes.len());
        if growth > free {
            return Err(Errno::NoSpace);
        }
        bytes.resize(bytes.len().max(end), 0);
        bytes[offset..end].copy_from_slice(from);
        self.temporary_bytes += growth;
        Ok(from.len())
    }

    /// What is known of a file.
    ///
    /// # Errors
    ///
    /// `NoEntry`.
    #[inline(never)]
    pub(super) fn inode_stat(&self, number: InodeNumber) -> Result<Stat, Errno> {
        let (size, directory, writable) = match self.inode_get(number)? {
            Inode::Directory { entries, writable } => (entries.len(), true, *writable),
            Inode::Disk(bytes) => (bytes.len(), false, false),
            Inode::Temporary(bytes) => (bytes.len(), false, true),
        };
        Ok(Stat { inode: number.0 as u64, size: size as u64, directory: directory.into(), writable: writable.into() })
    }

    /// The names in a directory, with what is known of each; of a file, its own.
    ///
    /// # Errors
    ///
    /// As [`Self::path_lookup`].
    pub(super) fn list(&self, path: &str) -> Result<Vec<(String, Stat)>, Errno> {
        let number = self.path_lookup(path)?;
        let Inode::Directory { entries, .. } = self.inode_get(number)? else {
            return Ok(alloc::vec![(path.to_string(), self.inode_stat(number)?)]);
        };
        entries.iter().map(|(name, number)| Ok((name.clone(), self.inode_stat(*number)?))).collect()
    }

    /// A file of the disk, which stays where it is for ever.
    pub(super) fn disk_file(&self, path: &str) -> Option<&'static [u8]> {
        match self.inode_get(self.path_lookup(path).ok()?).ok()? {
            Inode::Disk(bytes) => Some(bytes),
            _ => None,
        }
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !matches!(*name, "" | "."))
}

/// The folder and the last name.
fn split(path: &str) -> (&str, &str) {
    path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path))
}
