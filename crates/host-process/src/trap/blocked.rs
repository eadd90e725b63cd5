//! Which threads believe that they have blocked `SIGTRAP`.
//!
//! The kernel never sees it blocked, or a breakpoint would kill the process; but a program that asks for its mask must
//! find what it has put there, and a `SIGTRAP` that somebody sends meanwhile must wait. A thread's entry is its id, in
//! any word of the window that the id selects; the top bit says that a signal waits.

use super::{Memory, SIGTRAP, SIGTRAP_BIT, signals};
use crate::abi::{self, blocked_thread};
use cpu::{nr, syscall};
use sync::primitive::{AtomicU64, Ordering};

/// A signal that was sent to this thread waits for it.
const WAITING: u64 = 1 << 63;
/// A signal that was sent to the process, and that the kernel gave to this thread, waits for it.
const WAITING_FOR_ANY: u64 = 1 << 62;
const MARKS: u64 = WAITING | WAITING_FOR_ANY;
/// `si_code` of `kill(2)`.
const SI_USER: i32 = 0;
const ESRCH: i64 = -3;

fn window(memory: Memory, tid: u64) -> &'static [AtomicU64] {
    memory.home.blocked.get(abi::window(tid)).unwrap_or_default()
}

fn entry(memory: Memory, tid: u64) -> Option<&'static AtomicU64> {
    window(memory, tid).iter().find(|w| blocked_thread(w.load(Ordering::Relaxed)) == tid)
}

/// Whether thread `tid` has blocked `SIGTRAP`.
pub(crate) fn is(memory: Memory, tid: u64) -> bool {
    entry(memory, tid).is_some()
}

/// Thread `tid` blocks or unblocks `SIGTRAP`. A signal that waited is sent again, and arrives after our handler.
pub(crate) fn set(memory: Memory, tid: u64, blocked: bool) {
    match (entry(memory, tid), blocked) {
        (None, true) => insert(memory, tid),
        (Some(word), false) => {
            let marks = word.swap(0, Ordering::Relaxed) & MARKS;
            if marks != 0 {
                send_after_us(tid, marks);
            }
        }
        (Some(_), true) | (None, false) => {}
    }
}

/// Sends the running thread a `SIGTRAP` that arrives when the handler has returned: blocked until then.
fn send_after_us(tid: u64, marks: u64) {
    signals::block(SIGTRAP_BIT);
    // SAFETY: these calls have no memory argument.
    unsafe {
        if marks & WAITING != 0 {
            syscall(nr::TGKILL, [own_pid(), tid, SIGTRAP, 0, 0, 0]);
        }
        // As `kill`, not `tgkill`: a program can tell the two apart, and Go's runtime ends for the latter.
        if marks & WAITING_FOR_ANY != 0 {
            syscall(nr::KILL, [own_pid(), SIGTRAP, 0, 0, 0, 0]);
        }
    }
}

/// All standard signals but those that cannot be blocked, and `SIGTRAP`.
const STANDARD: u64 = 0x7fff_ffff & !SIGTRAP_BIT & !(1 << 8) & !(1 << 18);

/// A `SIGTRAP` was sent to thread `tid`, which has the kernel's `mask`: if it has blocked it, it waits, and this is true.
///
/// A thread that is being born inherits its parent's mask and is not in our table yet. C libraries and Go's runtime block
/// everything while they create one, because it cannot take a signal before it has its thread-local storage.
pub(crate) fn holds_back(memory: Memory, tid: u64, mask: u64, code: i32) -> bool {
    if entry(memory, tid).is_none() && mask & STANDARD == STANDARD {
        insert(memory, tid);
    }
    let Some(word) = entry(memory, tid) else { return false };
    word.fetch_or(if code == SI_USER { WAITING_FOR_ANY } else { WAITING }, Ordering::Relaxed);
    true
}

/// When a window is full of threads that have ended, one of theirs is used; if they all live, the thread is taken not
/// to block `SIGTRAP`.
fn insert(memory: Memory, tid: u64) {
    let pid = own_pid();
    for word in window(memory, tid) {
        let old = word.load(Ordering::Relaxed);
        // SAFETY: signal 0 only asks whether the thread is there.
        let free = old == 0 || unsafe { syscall(nr::TGKILL, [pid, blocked_thread(old), 0, 0, 0, 0]) } == ESRCH;
        if free && word.compare_exchange(old, tid, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

fn own_pid() -> u64 {
    // SAFETY: `getpid` has no argument.
    unsafe { syscall(nr::GETPID, [0; 6]) }.cast_unsigned()
}
