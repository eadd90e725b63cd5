//! The system calls, as a C library would know them: a result, or a negative error number.
//!
//! Their names and arguments are what probes are written against (`sys_open path=+0($arg1):string`), so they keep C's
//! calling convention and are never inlined.

use core::slice;

use super::descriptors::OpenFile;
use super::errno::Errno;
use super::tree::Stat;
use super::{DESCRIPTORS, TREE};

/// Open for writing.
pub(crate) const O_WRONLY: u64 = 1;
/// Make the file, or empty it.
pub(crate) const O_CREAT: u64 = 0x40;
/// The longest path, with its end.
const PATH_MAX: usize = 256;

fn returned(result: Result<i64, Errno>) -> i64 {
    result.unwrap_or_else(Errno::returned)
}

/// Opens a file: its descriptor, or `-ENOENT`, `-ENOTDIR`, `-EISDIR`, `-EMFILE`, `-EINVAL`, `-EROFS`, `-ENOSPC`,
/// `-EFAULT`, `-ENAMETOOLONG`.
///
/// # Safety
///
/// `path` is null or points to readable bytes up to a zero or to `PATH_MAX`, whichever comes first.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) unsafe extern "C" fn sys_open(path: *const u8, flags: u64) -> i64 {
    // SAFETY: the caller's promise is the same.
    let path = unsafe { path_from(path) };
    returned(path.and_then(|path| open(path, flags)))
}

fn open(path: &str, flags: u64) -> Result<i64, Errno> {
    if path.is_empty() {
        return Err(Errno::NoEntry);
    }
    let writable = match flags {
        0 => false,
        O_WRONLY => true,
        flags if flags == O_WRONLY | O_CREAT => true,
        _ => return Err(Errno::Invalid),
    };
    let mut tree = TREE.lock();
    let inode = if flags & O_CREAT != 0 { tree.inode_create(path)? } else { tree.path_lookup(path)? };
    let stat = tree.inode_stat(inode)?;
    if stat.directory == 1 {
        return Err(Errno::IsDirectory);
    }
    if writable && stat.writable == 0 {
        return Err(Errno::ReadOnly);
    }
    drop(tree);
    DESCRIPTORS.lock().fd_alloc(OpenFile { inode, offset: 0, writable })
}

/// Reads from where the last reading ended: how many bytes, 0 at the end, or `-EBADF`, `-EFAULT`.
///
/// # Safety
///
/// `buffer` is null or points to `len` bytes that nobody else uses.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) unsafe extern "C" fn sys_read(fd: u64, buffer: *mut u8, len: usize) -> i64 {
    if buffer.is_null() || isize::try_from(len).is_err() {
        return Errno::Fault.returned();
    }
    // SAFETY: not null, and the caller promises the rest; a length fits as checked.
    let buffer = unsafe { slice::from_raw_parts_mut(buffer, len) };
    returned(read(fd, buffer))
}

fn read(fd: u64, buffer: &mut [u8]) -> Result<i64, Errno> {
    // Both locks, always in this order: a read and its offset are one.
    let mut descriptors = DESCRIPTORS.lock();
    let file = descriptors.fd_get(fd)?;
    let count = TREE.lock().inode_read(file.inode, file.offset, buffer)?;
    file.offset += count;
    Ok(count as i64)
}

/// Writes where the last writing ended, all or nothing: how many bytes, or `-EBADF`, `-ENOSPC`, `-EFAULT`.
///
/// # Safety
///
/// `buffer` is null or points to `len` readable bytes.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) unsafe extern "C" fn sys_write(fd: u64, buffer: *const u8, len: usize) -> i64 {
    if buffer.is_null() || isize::try_from(len).is_err() {
        return Errno::Fault.returned();
    }
    // SAFETY: not null, and the caller promises the rest; a length fits as checked.
    let buffer = unsafe { slice::from_raw_parts(buffer, len) };
    returned(write(fd, buffer))
}

fn write(fd: u64, buffer: &[u8]) -> Result<i64, Errno> {
    let mut descriptors = DESCRIPTORS.lock();
    let file = descriptors.fd_get(fd)?;
    if !file.writable {
        return Err(Errno::BadFile);
    }
    let count = TREE.lock().inode_write(file.inode, file.offset, buffer)?;
    file.offset += count;
    Ok(count as i64)
}

/// Closes a file: 0, or `-EBADF`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn sys_close(fd: u64) -> i64 {
    returned(DESCRIPTORS.lock().fd_put(fd).map(|_| 0))
}

/// Tells what is known of a file: 0, or what opening it would return.
///
/// # Safety
///
/// `path` as for [`sys_open`]; `stat` is null or may be written.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) unsafe extern "C" fn sys_stat(path: *const u8, stat: *mut Stat) -> i64 {
    // SAFETY: the caller's promise is the same.
    let path = unsafe { path_from(path) };
    let found = path.and_then(|path| {
        let tree = TREE.lock();
        tree.path_lookup(path).and_then(|inode| tree.inode_stat(inode))
    });
    // SAFETY: the caller promises that it is null or may be written.
    match (found, unsafe { stat.as_mut() }) {
        (Ok(found), Some(stat)) => {
            *stat = found;
            0
        }
        (Ok(_), None) => Errno::Fault.returned(),
        (Err(errno), _) => errno.returned(),
    }
}

/// The path at an address.
///
/// # Safety
///
/// As for [`sys_open`].
#[inline(never)]
unsafe fn path_from<'path>(path: *const u8) -> Result<&'path str, Errno> {
    if path.is_null() {
        return Err(Errno::Fault);
    }
    for len in 0..PATH_MAX {
        // SAFETY: no byte before this one was the end, so the caller promises this one.
        if unsafe { *path.add(len) } == 0 {
            // SAFETY: these bytes have just been read.
            let bytes = unsafe { slice::from_raw_parts(path, len) };
            return core::str::from_utf8(bytes).map_err(|_| Errno::Invalid);
        }
    }
    Err(Errno::NameTooLong)
}
