//! The log: text from anywhere, also from a trap or an interrupt that cannot be masked; it reaches the console later.
//!
//! Who prints on the console waits for the serial line, and for whoever just prints. A probe's handler can do neither.
//! [`write`] puts its text into a ring and returns; what does not fit is dropped and counted. Texts come out in the order
//! in which they were written, each in one piece if it has at most [`PIECE`](buffer::PIECE) bytes.
//!
//! # Who takes it out
//!
//! * The shell, after each command and before a prompt: so what a command has caused stands before the next prompt, at
//!   the same place in every run.
//! * `klogd`, a thread, every [`PERIOD_MS`] milliseconds: what is logged while the shell waits for a line. While a
//!   command runs it waits for the shell, unless the ring fills or the command takes longer than [`PATIENCE_NS`].
//! * A panic, before it prints anything.
//!
//! One at a time: the lock is held for one piece, from the ring to the serial line. A panic cannot wait for it, as its
//! holder may have been stopped; so the piece that is being printed is kept, and printed (again). Lock order: the log's
//! before the console's.

pub(crate) mod buffer;

use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::arch::time;
use crate::lock::IrqLock;
use crate::{console, probes, sched};
use buffer::{Buffer, PIECE};

/// How often `klogd` looks.
const PERIOD_MS: u64 = 10;
/// How long a command's text may wait for the command's end.
const PATIENCE_NS: u64 = 1_000_000_000;

static LOG: Buffer<{ 1 << 14 }> = Buffer::new();
/// Where texts go instead of the console.
static CAPTURED: IrqLock<Option<Vec<u8>>> = IrqLock::new(None);
/// Since when a command runs; 0 for none.
static COMMAND_SINCE: AtomicU64 = AtomicU64::new(0);

/// Logs a text. From anywhere.
pub(crate) fn write(text: &[u8]) {
    LOG.write(text);
}

/// Logs what is formatted, as one text as long as it has at most [`PIECE`](buffer::PIECE) bytes; the rest is cut. From
/// anywhere, if formatting it is for anywhere.
pub(crate) fn print(args: fmt::Arguments<'_>) {
    let mut line = Line { text: [0; PIECE], length: 0 };
    // Only the length can be wrong.
    let _ = line.write_fmt(args);
    write(&line.text[..line.length]);
}

/// A text that is being put together.
struct Line {
    text: [u8; PIECE],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.text[self.length..];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        if count < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Prints all that there is.
pub(crate) fn drain() {
    LOG.drain(&mut |piece| match CAPTURED.lock().as_mut() {
        Some(captured) => captured.extend_from_slice(piece),
        None => console::write(piece),
    });
}

/// What is logged while `f` runs, instead of printing it: for tests, one at a time.
pub(crate) fn captured<R>(f: impl FnOnce() -> R) -> (R, Vec<u8>) {
    drain();
    *CAPTURED.lock() = Some(Vec::new());
    let result = f();
    drain();
    (result, CAPTURED.lock().take().unwrap_or_default())
}

/// Prints what is left, on the processor that panics.
pub(crate) fn drain_in_panic() {
    match LOG.drain_in_panic(&mut console::write) {
        0 => {}
        lost => crate::println!("log: {lost} texts were lost: the log was full"),
    }
}

/// Runs a command of the shell, and prints what it has logged.
pub(crate) fn command<R>(f: impl FnOnce() -> R) -> R {
    COMMAND_SINCE.store(time::now_ns().max(1), Relaxed);
    let result = f();
    drain();
    COMMAND_SINCE.store(0, Relaxed);
    result
}

/// Starts `klogd`.
pub(crate) fn init() {
    sched::spawn("klogd", klogd, 0);
}

fn klogd(_: usize) {
    loop {
        probes::modules::reap();
        if is_due() {
            drain();
        }
        sched::sleep_ms(PERIOD_MS);
    }
}

/// Whether the log is `klogd`'s to print, and not the shell's.
fn is_due() -> bool {
    let since = COMMAND_SINCE.load(Relaxed);
    let shell_waits = since == 0 || time::now_ns().saturating_sub(since) > PATIENCE_NS;
    let (waits, half_full) = LOG.waits();
    half_full || (waits && shell_waits)
}
