//! Files made, written, read back and compared; and the errors there are.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::Lehmer;
use crate::fs::{self, Errno, File, O_CREAT, O_WRONLY, OPEN_FILES, TEMPORARY_BYTES};
use crate::sched;

const FILES: usize = 8;
const PIECES: usize = 10;
const PIECE: usize = 300;
/// What is written and read back.
pub(super) const BYTES: u64 = (FILES * PIECES * PIECE) as u64;

/// A run that takes all descriptors and fills `/tmp` leaves none to another: one at a time.
static BUSY: AtomicBool = AtomicBool::new(false);

/// The right to use files, until it is dropped.
pub(super) struct Turn(());

impl Turn {
    /// Waits for it; other threads run meanwhile.
    pub(super) fn take() -> Self {
        while BUSY.swap(true, Ordering::Acquire) {
            sched::yield_now();
        }
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

/// How many bytes came back as they were written.
pub(super) fn run() -> Result<u64, String> {
    let _turn = Turn::take();
    let mut random = Lehmer::new();
    let mut bytes = 0;
    for file in 0..FILES {
        bytes += write_and_read(&format!("/tmp/work{file}"), &mut random)?;
    }
    errors()?;
    // What has been written is given back: the next run needs it again.
    (0..FILES).try_for_each(|file| fs::write(&format!("/tmp/work{file}"), b"").map_err(|errno| format!("{errno}")))?;
    Ok(bytes)
}

#[inline(never)]
fn write_and_read(path: &str, random: &mut Lehmer) -> Result<u64, String> {
    let told = |errno: Errno| format!("{path}: {errno}");
    let content: Vec<u8> = (0..PIECES * PIECE).map(|_| random.below(256) as u8).collect();
    let file = File::open(path, O_WRONLY | O_CREAT).map_err(told)?;
    content.chunks(PIECE).try_for_each(|piece| file.write(piece)).map_err(told)?;
    drop(file);
    let same = fs::read(path).map_err(told)? == content && fs::stat(path).map_err(told)?.size == content.len() as u64;
    Ok(if same { content.len() as u64 } else { 0 })
}

/// Each failure with its number.
#[inline(never)]
fn errors() -> Result<(), String> {
    expect(Errno::NoEntry, "a missing file", File::open("/etc/missing", 0))?;
    expect(Errno::NotDirectory, "a path below a file", File::open("/etc/motd/x", 0))?;
    expect(Errno::IsDirectory, "a directory", File::open("/etc", 0))?;
    expect(Errno::Invalid, "a strange flag", File::open("/etc/motd", 1 << 20))?;
    expect(Errno::ReadOnly, "a file of the disk", File::open("/etc/motd", O_WRONLY))?;
    expect(Errno::NameTooLong, "a long path", File::open(&"x".repeat(1000), 0))?;
    expect(Errno::NoSpace, "more than fits", fs::write("/tmp/work0", &alloc::vec![0; TEMPORARY_BYTES + 1]))?;
    let all: Result<Vec<_>, _> = (0..=OPEN_FILES).map(|_| File::open("/etc/motd", 0)).collect();
    expect(Errno::TooManyFiles, "more than can be open", all)
}

fn expect<T>(expected: Errno, what: &str, result: Result<T, Errno>) -> Result<(), String> {
    match result {
        Err(errno) if errno == expected => Ok(()),
        Err(errno) => Err(format!("{what} gives {errno}, not {expected}")),
        Ok(_) => Err(format!("{what} gives no error, but should {expected}")),
    }
}
