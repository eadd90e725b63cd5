//! Handlers: functions that may run in trap context.

use super::Hit;
use hit::{Next, Watch};

/// Runs before the probed instruction.
pub type PreHandler<R> = extern "C" fn(&mut Hit<'_, R>) -> Next;
/// Runs after it.
pub type PostHandler<R> = extern "C" fn(&mut Hit<'_, R>);
/// Runs when it has raised a fault.
pub type FaultHandler<R> = extern "C" fn(&mut Hit<'_, R>) -> Cure;
/// Runs at the entry of a function whose return is probed.
pub type EntryHandler<R, D> = extern "C" fn(&mut Hit<'_, R>, &mut D) -> Watch;
/// Runs when it returns.
pub type ReturnHandler<R, D> = extern "C" fn(&mut Hit<'_, R>, &mut D);

/// What a fault handler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Cure {
    /// The fault is told as if there were no probe.
    No = 0,
    /// Nobody else is told: execution goes on at the registers, and if they still point at the probed instruction, it
    /// is tried again (Linux 2.6: a fault handler that returns 1).
    Yes = 1,
}

/// A function that keeps the rules of trap context.
#[derive(Clone, Copy, Debug)]
pub struct Handler<F>(F);

impl<F: Copy> Handler<F> {
    /// A handler.
    ///
    /// ```
    /// use kprobes::{Handler, Hit, Next, PreHandler};
    ///
    /// extern "C" fn pre(hit: &mut Hit<'_, u64>) -> Next {
    ///     *hit.regs_mut() = 1;
    ///     Next::Step
    /// }
    /// // SAFETY: it does nothing but write a register, which the probed instruction overwrites.
    /// let handler: Handler<PreHandler<u64>> = unsafe { Handler::new(pre) };
    /// # let _ = handler;
    /// ```
    ///
    /// # Safety
    ///
    /// The function runs in the middle of whatever the probed instruction interrupts: in a process on a stack of 64 KiB of
    /// its own, in a kernel on the interrupted one. It must not
    ///
    /// * allocate, wait, or take a lock that the interrupted code could hold (in a process that rules out most of the C
    ///   library);
    /// * panic, unwind or jump out (`jprobe_return` excepted);
    /// * change registers, or memory, in a way that the interrupted code cannot stand;
    /// * be called on data that others change without atomics: handlers run on all processors at once.
    ///
    /// It may hit probes: those are counted as missed. A fault in it ends it and switches its probe off, so it must be
    /// left anywhere without harm to others.
    #[expect(unsafe_code, reason = "to make one is a promise")]
    pub const unsafe fn new(function: F) -> Self {
        Self(function)
    }

    /// The function.
    ///
    /// ```
    /// use kprobes::Handler;
    /// extern "C" fn nothing() {}
    /// // SAFETY: it does nothing.
    /// let handler = unsafe { Handler::new(nothing as extern "C" fn()) };
    /// handler.get()();
    /// ```
    #[must_use]
    pub const fn get(&self) -> F {
        self.0
    }
}
