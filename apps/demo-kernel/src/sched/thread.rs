//! A thread: a name, a stack, and where it goes on.

use alloc::boxed::Box;

use crate::mm::stacks::Stack;

/// A thread's number: never 0, never used twice.
pub(crate) type ThreadId = u64;

/// What the scheduler knows of a thread. In a box, so that its address stays: the per-CPU block refers to it.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(super) id: ThreadId,
    pub(super) name: &'static str,
    /// Runs when there is nothing else, and is never in a queue.
    pub(super) idle: bool,
    /// The only processor it may run on.
    pub(super) pinned: Option<usize>,
    /// The stack pointer while it does not run.
    pub(super) rsp: u64,
    entry: fn(usize),
    argument: usize,
    /// `None` for the stack that a processor began on.
    _stack: Option<Stack>,
}

/// Words that `context_switch` pops before it returns.
const SAVED_REGISTERS: u64 = 6;

impl Thread {
    /// A thread that begins at `start`, which calls [`Thread::run`].
    pub(super) fn new(
        id: ThreadId,
        name: &'static str,
        entry: fn(usize),
        argument: usize,
        start: extern "C" fn() -> !,
    ) -> Box<Self> {
        let stack = Stack::new();
        let top = stack.top();
        // As at a function's entry: the stack is 8 off a multiple of 16. The word above ends backtraces.
        let return_address = top - 24;
        let rsp = return_address - 8 * SAVED_REGISTERS;
        for (offset, value) in (0..SAVED_REGISTERS).map(|i| (8 * i, 0)).chain([(48, start as usize as u64), (56, 0)]) {
            // SAFETY: the stack is this thread's alone, mapped, and the words lie below its top.
            unsafe { ((rsp + offset) as *mut u64).write(value) };
        }
        Box::new(Self { id, name, idle: false, pinned: None, rsp, entry, argument, _stack: Some(stack) })
    }

    /// The thread that a processor is already running as.
    pub(super) fn adopted(id: ThreadId, name: &'static str, cpu: usize) -> Box<Self> {
        let (entry, argument): (fn(usize), usize) = (|_| {}, 0);
        Box::new(Self { id, name, idle: true, pinned: Some(cpu), rsp: 0, entry, argument, _stack: None })
    }

    /// Whether processor `cpu` may run it.
    pub(super) fn may_run_on(&self, cpu: usize) -> bool {
        self.pinned.is_none_or(|pinned| pinned == cpu)
    }

    /// What the thread is for.
    pub(super) fn run(&self) {
        (self.entry)(self.argument);
    }
}
