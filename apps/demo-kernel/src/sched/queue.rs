//! Who waits for what, under the scheduler's lock.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::thread::{Thread, ThreadId};
use crate::arch::cpu;

/// Why a thread leaves its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It could go on.
    Ready,
    /// Until a time, in nanoseconds.
    Sleep(u64),
    /// Until that thread has ended.
    Join(ThreadId),
    /// For ever.
    End,
}

/// Where each thread is.
pub(super) struct Scheduler {
    ready: VecDeque<Box<Thread>>,
    asleep: Vec<(u64, Box<Thread>)>,
    joining: Vec<(ThreadId, Box<Thread>)>,
    running: [Option<Box<Thread>>; cpu::MAX],
    idle: [Option<Box<Thread>>; cpu::MAX],
    /// Ended, but still on its stack until the next thread has arrived.
    ended: [Option<Box<Thread>>; cpu::MAX],
    alive: BTreeSet<ThreadId>,
}

/// For `context_switch`: where the stack pointer is kept, the next one's, the next thread.
pub(super) type Exchange = (*mut u64, u64, u64);

impl Scheduler {
    pub(super) const fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            asleep: Vec::new(),
            joining: Vec::new(),
            running: [const { None }; cpu::MAX],
            idle: [const { None }; cpu::MAX],
            ended: [const { None }; cpu::MAX],
            alive: BTreeSet::new(),
        }
    }

    pub(super) fn alive(&self) -> usize {
        self.alive.len()
    }

    /// Processor `cpu` runs its idle thread.
    pub(super) fn begin(&mut self, cpu: usize, thread: Box<Thread>) {
        self.alive.insert(thread.id);
        self.running[cpu] = Some(thread);
    }

    /// A new thread.
    pub(super) fn add(&mut self, thread: Box<Thread>) {
        self.alive.insert(thread.id);
        self.ready.push_back(thread);
    }

    /// The thread running on `cpu` may run on `only`, or anywhere.
    pub(super) fn pin(&mut self, cpu: usize, only: Option<usize>) {
        if let Some(thread) = &mut self.running[cpu]
            && !thread.idle
        {
            thread.pinned = only;
        }
    }

    /// Whether a thread is ready that `cpu` may run.
    pub(super) fn somebody_waits_for(&self, cpu: usize) -> bool {
        self.ready.iter().any(|thread| thread.may_run_on(cpu))
    }

    /// Makes ready who has slept until `now`.
    pub(super) fn wake(&mut self, now: u64) {
        for (_, thread) in self.asleep.extract_if(.., |(until, _)| *until <= now) {
            self.ready.push_back(thread);
        }
    }

    /// Takes the thread of `cpu` off and puts the next one on; `None` when it is to go on itself.
    pub(super) fn exchange(&mut self, cpu: usize, leave: Leave) -> Option<Exchange> {
        match leave {
            Leave::Join(id) if !self.alive.contains(&id) => return None,
            _ => {}
        }
        let next = self.next(cpu, leave)?;
        let mut previous = self.running[cpu].take()?;
        let save = &raw mut previous.rsp;
        let exchange = (save, next.rsp, &raw const *next as u64);
        self.running[cpu] = Some(next);
        self.put_away(cpu, previous, leave);
        Some(exchange)
    }

    /// The next thread for `cpu`: the first that is ready, or the idle one if the present one cannot go on.
    fn next(&mut self, cpu: usize, leave: Leave) -> Option<Box<Thread>> {
        if let Some(index) = self.ready.iter().position(|thread| thread.may_run_on(cpu)) {
            return self.ready.remove(index);
        }
        let goes_on = leave == Leave::Ready && self.running[cpu].as_ref().is_some_and(|thread| thread.may_run_on(cpu));
        if goes_on { None } else { self.idle[cpu].take() }
    }

    fn put_away(&mut self, cpu: usize, thread: Box<Thread>, leave: Leave) {
        if thread.idle {
            self.idle[cpu] = Some(thread);
            return;
        }
        match leave {
            Leave::Ready => self.ready.push_back(thread),
            Leave::Sleep(until) => self.asleep.push((until, thread)),
            Leave::Join(id) => self.joining.push((id, thread)),
            Leave::End => {
                self.alive.remove(&thread.id);
                for (_, waiting) in self.joining.extract_if(.., |(id, _)| *id == thread.id) {
                    self.ready.push_back(waiting);
                }
                self.ended[cpu] = Some(thread);
            }
        }
    }

    /// The thread that was left for ever, now that `cpu` is off its stack.
    pub(super) fn take_ended(&mut self, cpu: usize) -> Option<Box<Thread>> {
        self.ended[cpu].take()
    }
}
