//! The agent tells the tool something, and does system calls for it until it may go on.
//!
//! Used where the tool must act before the program goes on: an object was mapped whose functions are to be probed, or
//! another program is about to be executed. Nobody waits for a tool that has gone: the tool's heartbeat stands still,
//! and after [`PATIENCE`] the process goes on, alone from then on.

use super::Memory;
use crate::abi::{Mailbox, mail};
use cpu::{nr, syscall};
use sync::primitive::{AtomicU32, Ordering, fence};

/// How long one futex wait lasts, in milliseconds.
const WAIT_MS: u64 = 100;
/// How many waits without a heartbeat.
const PATIENCE: u32 = 20;
/// How often a thread yields to another one that uses the mailbox, before it looks whether a tool is there at all.
const YIELDS: u32 = 1000;

const ETIMEDOUT: i64 = -110;
const ESRCH: i64 = -3;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAKE: u64 = 1;

/// Tells the tool of `what`, with two words about it, and waits until it says go on.
pub(crate) fn tell(memory: Memory, tid: u64, what: u32, words: [u64; 2]) {
    let Some(bank) = memory.bank() else { return };
    if !attended(memory) || !lock(memory, &bank.mailbox, tid as u32) {
        return;
    }
    let mailbox = &bank.mailbox;
    fence(Ordering::SeqCst);
    if !attended(memory) {
        mailbox.lock.store(0, Ordering::Release);
        return;
    }
    // SAFETY: `getpid` has no argument. A vfork child is another process than the one its memory belongs to.
    mailbox.pid.store(unsafe { syscall(nr::GETPID, [0; 6]) }.cast_unsigned(), Ordering::Relaxed);
    mailbox.tid.store(tid, Ordering::Relaxed);
    mailbox.event.store(what, Ordering::Relaxed);
    for (to, word) in mailbox.args.iter().zip(words) {
        to.store(word, Ordering::Relaxed);
    }
    set(mailbox, mail::EVENT);
    ring_doorbell(memory);
    serve(memory, mailbox);
    set(mailbox, mail::IDLE);
    mailbox.lock.store(0, Ordering::Release);
}

/// Wakes the tool.
pub(crate) fn ring_doorbell(memory: Memory) {
    let bell = &memory.shared_header().doorbell;
    bell.fetch_add(1, Ordering::Release);
    futex(bell, FUTEX_WAKE, u32::MAX >> 1, 0);
}

fn attended(memory: Memory) -> bool {
    memory.shared_header().listening.load(Ordering::Relaxed) != 0 && memory.home.alone.load(Ordering::Relaxed) == 0
}

/// Takes the mailbox for thread `tid`; false when nobody listens any more. A holder that has ended (a `vfork` child that
/// was killed while it told something) is robbed.
fn lock(memory: Memory, mailbox: &Mailbox, tid: u32) -> bool {
    while let Err(holder) = mailbox.lock.compare_exchange(0, tid, Ordering::Acquire, Ordering::Relaxed) {
        for _ in 0..YIELDS {
            // SAFETY: `sched_yield` has no argument.
            unsafe { syscall(nr::SCHED_YIELD, [0; 6]) };
        }
        if !attended(memory) {
            return false;
        }
        // SAFETY: signal 0 only asks whether the thread is there.
        if holder != 0 && unsafe { syscall(nr::TKILL, [u64::from(holder), 0, 0, 0, 0, 0]) } == ESRCH {
            let robbed = mailbox.lock.compare_exchange(holder, tid, Ordering::Acquire, Ordering::Relaxed);
            if robbed.is_ok() {
                return true;
            }
        }
    }
    true
}

/// Does what the tool asks until it says go on, or its heart stops.
fn serve(memory: Memory, mailbox: &Mailbox) {
    let heart = &memory.shared_header().heartbeat;
    let (mut beat, mut silent) = (heart.load(Ordering::Relaxed), 0);
    while silent < PATIENCE {
        match mailbox.state.load(Ordering::Acquire) {
            // Idle: the tool has taken its memory back already, and no longer waits for us.
            mail::RESUME | mail::IDLE => return,
            mail::CALL => {
                call(mailbox);
                set(mailbox, mail::DONE);
            }
            state => {
                let timed_out = futex(&mailbox.state, FUTEX_WAIT, state, WAIT_MS) == ETIMEDOUT;
                let now = heart.load(Ordering::Relaxed);
                silent = if now != beat { 0 } else { silent + u32::from(timed_out) };
                beat = now;
            }
        }
    }
    memory.home.alone.store(1, Ordering::Relaxed);
}

fn call(mailbox: &Mailbox) {
    let args = [0, 1, 2, 3, 4, 5].map(|i: usize| mailbox.args[i].load(Ordering::Relaxed));
    let number = mailbox.number.load(Ordering::Relaxed);
    // SAFETY: the tool asks only for calls that make new mappings of its own or synchronize processors; it could make
    // any call by ptrace just as well.
    let result = unsafe { syscall(number, args) };
    mailbox.result.store(result.cast_unsigned(), Ordering::Relaxed);
}

fn set(mailbox: &Mailbox, state: u32) {
    mailbox.state.store(state, Ordering::Release);
    futex(&mailbox.state, FUTEX_WAKE, u32::MAX >> 1, 0);
}

fn futex(word: &AtomicU32, operation: u64, value: u32, milliseconds: u64) -> i64 {
    let timeout = [milliseconds / 1000, milliseconds % 1000 * 1_000_000];
    let timeout = if milliseconds == 0 { 0 } else { (&raw const timeout) as u64 };
    // SAFETY: the word and the timeout live across the call; a futex call writes neither.
    unsafe { syscall(nr::FUTEX, [(&raw const *word) as u64, operation, u64::from(value), timeout, 0, 0]) }
}
