//! Who calls: `init` and `exit` of a module may plant probes, nobody else may.
//!
//! There is one at a time, as the lock of all modules is held meanwhile. Whether it is really the module's `init` or
//! `exit` that calls, and not a handler that has interrupted it, the interrupt flag says: it is off in handlers.

use alloc::vec::Vec;
use core::ops::Range;

use host_bare::Registered;

use crate::arch::interrupts;
use crate::lock::IrqLock;
use crate::sched::{self, ThreadId};

/// Whose `init` or `exit` runs.
static CALLER: IrqLock<Option<Caller>> = IrqLock::new(None);

/// A module whose `init` or `exit` runs.
#[derive(Debug)]
pub(super) struct Caller {
    thread: ThreadId,
    /// What its probes bear.
    pub(super) owner: u32,
    /// Where its handlers are.
    pub(super) text: Range<u64>,
    /// What it has registered.
    pub(super) probes: Vec<Registered>,
}

/// Runs `f` as a module's `init` or `exit`, in which it may change `probes`; gives what there is then.
pub(super) fn run<R>(
    owner: u32,
    text: Range<u64>,
    probes: Vec<Registered>,
    f: impl FnOnce() -> R,
) -> (R, Vec<Registered>) {
    *CALLER.lock() = Some(Caller { thread: sched::current(), owner, text, probes });
    let result = f();
    let caller = CALLER.lock().take();
    (result, caller.map_or_else(Vec::new, |caller| caller.probes))
}

/// Lends the caller to `f`; `None` to whoever is not in `init` or `exit`.
pub(super) fn with<R>(f: impl FnOnce(&mut Caller) -> R) -> Option<R> {
    // First: a handler may have interrupted somebody who holds the lock.
    if !interrupts::enabled() {
        return None;
    }
    // Taken out for the call: kprobes may wait, the lock may not.
    let mut caller = CALLER.lock().take_if(|caller| caller.thread == sched::current())?;
    let result = f(&mut caller);
    *CALLER.lock() = Some(caller);
    Some(result)
}
