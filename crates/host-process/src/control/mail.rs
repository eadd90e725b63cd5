//! The tool's side of a mailbox: events from the agent, and system calls made by the thread that told them.

use super::shared::SharedMap;
use super::stop::{Remote, checked};
use super::{HostError, Result};
use crate::abi::mail;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync::primitive::{AtomicU32, Ordering};

/// How long the agent may take for a system call.
const PATIENCE: Duration = Duration::from_secs(5);

/// The thread behind a mailbox, while it waits for us.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) pid: i32,
    pub(crate) shared: Arc<SharedMap>,
    pub(crate) bank: usize,
}

impl Mail {
    /// Lets the agent go on.
    pub(crate) fn resume(&self) {
        if let Some(bank) = self.shared.bank(self.bank) {
            set(&bank.mailbox.state, mail::RESUME);
        }
    }
}

impl Mail {
    /// Waits until the agent has read that it may go on: its mailbox is about to be wiped. Who comes meanwhile may go on too.
    pub(crate) fn wait_for_end(&self) {
        let Some(bank) = self.shared.bank(self.bank) else { return };
        let start = Instant::now();
        while bank.mailbox.lock.load(Ordering::Acquire) != 0 && start.elapsed() < Duration::from_secs(1) {
            if bank.mailbox.state.load(Ordering::Acquire) == mail::EVENT {
                self.resume();
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Remote for Mail {
    fn call(&mut self, what: &'static str, number: i64, args: [u64; 6]) -> Result<u64> {
        let Some(bank) = self.shared.bank(self.bank) else { return Err(HostError::Gone { pid: self.pid }) };
        let mailbox = &bank.mailbox;
        mailbox.number.store(number.cast_unsigned(), Ordering::Relaxed);
        for (word, value) in mailbox.args.iter().zip(args) {
            word.store(value, Ordering::Relaxed);
        }
        set(&mailbox.state, mail::CALL);
        let start = Instant::now();
        while mailbox.state.load(Ordering::Acquire) != mail::DONE {
            wait(&mailbox.state, mail::CALL, Duration::from_millis(50));
            if start.elapsed() > PATIENCE || !super::process::is_alive(self.pid) {
                return Err(HostError::Gone { pid: self.pid });
            }
        }
        checked(self.pid, what, mailbox.result.load(Ordering::Relaxed))
    }
}

fn set(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
    // SAFETY: a wake-up touches no memory but the word's address.
    unsafe { libc::syscall(libc::SYS_futex, (&raw const *word), libc::FUTEX_WAKE, i32::MAX) };
}

/// Sleeps until `word` is no longer `value`, somebody wakes us, or the time is over.
pub(crate) fn wait(word: &AtomicU32, value: u32, time: Duration) {
    let limit = libc::timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: i64::from(time.subsec_nanos()) };
    // SAFETY: the word and the timeout live across the call, which writes neither.
    unsafe { libc::syscall(libc::SYS_futex, (&raw const *word), libc::FUTEX_WAIT, value, &raw const limit) };
}
