//! Probes on any instruction.

use super::spec::{HandlerData, Spec, SpecKind};
use super::{FaultHandler, Handler, Place, PostHandler, PreHandler};
use core::marker::PhantomData;

/// A kprobe: handlers before and after an instruction, and for the faults that it raises. Without any it counts.
///
/// ```
/// use kprobes::{Handler, Hit, Kprobe, Next};
///
/// extern "C" fn pre(_: &mut Hit<'_, u64>) -> Next {
///     Next::Step
/// }
/// // SAFETY: it does nothing.
/// let probe = Kprobe::symbol_offset("sys_open", 4).pre(unsafe { Handler::new(pre) }).disabled();
/// # let _ = probe;
/// ```
///
/// A probe is registered once: registering takes it.
///
/// ```compile_fail
/// # use kprobes::{Kprobe, Spec};
/// # fn register(_: Spec<'_, u64>) {}
/// let probe = Kprobe::symbol("sys_open");
/// register(probe.into());
/// register(probe.into());
/// ```
#[derive(Debug)]
#[must_use = "a probe does nothing until a host registers it"]
pub struct Kprobe<'a, R> {
    place: Place<'a>,
    handlers: HandlerData,
    disabled: bool,
    regs: PhantomData<fn(R)>,
}

impl<'a, R> Kprobe<'a, R> {
    /// A probe at a place.
    ///
    /// ```
    /// # use kprobes::{Kprobe, Place};
    /// let probe: Kprobe<'_, u64> = Kprobe::new(Place::Address(0x1000));
    /// # let _ = probe;
    /// ```
    pub const fn new(place: Place<'a>) -> Self {
        Self { place, handlers: HandlerData::NONE, disabled: false, regs: PhantomData }
    }

    /// A probe at an address.
    ///
    /// ```
    /// let probe: kprobes::Kprobe<'_, u64> = kprobes::Kprobe::address(0x1000);
    /// # let _ = probe;
    /// ```
    pub const fn address(address: u64) -> Self {
        Self::new(Place::Address(address))
    }

    /// A probe at a function's first instruction.
    ///
    /// ```
    /// let probe: kprobes::Kprobe<'_, u64> = kprobes::Kprobe::symbol("libc.so.6:openat");
    /// # let _ = probe;
    /// ```
    pub const fn symbol(name: &'a str) -> Self {
        Self::symbol_offset(name, 0)
    }

    /// A probe at an instruction that begins `offset` bytes behind a symbol.
    ///
    /// ```
    /// let probe: kprobes::Kprobe<'_, u64> = kprobes::Kprobe::symbol_offset("sys_open", 4);
    /// # let _ = probe;
    /// ```
    pub const fn symbol_offset(name: &'a str, offset: u64) -> Self {
        Self::new(Place::Symbol { name, offset })
    }

    /// Sets what runs before the instruction.
    ///
    /// ```
    /// # use kprobes::{Handler, Hit, Kprobe, Next};
    /// extern "C" fn pre(_: &mut Hit<'_, u64>) -> Next {
    ///     Next::Step
    /// }
    /// // SAFETY: it does nothing.
    /// let probe = Kprobe::address(0x1000).pre(unsafe { Handler::new(pre) });
    /// # let _ = probe;
    /// ```
    pub fn pre(mut self, handler: Handler<PreHandler<R>>) -> Self {
        self.handlers.before = handler.get() as usize as u64;
        self
    }

    /// Sets what runs after the instruction, once it has taken its effect. Not after one that has faulted, nor when a
    /// pre-handler has redirected execution.
    ///
    /// ```
    /// # use kprobes::{Handler, Hit, Kprobe};
    /// extern "C" fn post(_: &mut Hit<'_, u64>) {}
    /// // SAFETY: it does nothing.
    /// let probe = Kprobe::address(0x1000).post(unsafe { Handler::new(post) });
    /// # let _ = probe;
    /// ```
    pub fn post(mut self, handler: Handler<PostHandler<R>>) -> Self {
        self.handlers.after = handler.get() as usize as u64;
        self
    }

    /// Sets what is asked when the instruction, or a handler of this probe, has faulted.
    ///
    /// ```
    /// # use kprobes::{Cure, Handler, Hit, Kprobe};
    /// extern "C" fn fault(_: &mut Hit<'_, u64>) -> Cure {
    ///     Cure::No
    /// }
    /// // SAFETY: it does nothing.
    /// let probe = Kprobe::address(0x1000).fault(unsafe { Handler::new(fault) });
    /// # let _ = probe;
    /// ```
    pub fn fault(mut self, handler: Handler<FaultHandler<R>>) -> Self {
        self.handlers.fault = handler.get() as usize as u64;
        self
    }

    /// Sets the word that handlers get by [`Hit::user`](super::Hit::user).
    ///
    /// ```
    /// let probe: kprobes::Kprobe<'_, u64> = kprobes::Kprobe::address(0x1000).user(7);
    /// # let _ = probe;
    /// ```
    pub const fn user(mut self, word: u64) -> Self {
        self.handlers.user = word;
        self
    }

    /// Its handlers are light: in a process they are called on the interrupted stack, from a detour, without a system call.
    /// (Where the probe is placed by a breakpoint, and in a kernel, this changes nothing.)
    ///
    /// ```
    /// # use kprobes::Kprobe;
    /// // SAFETY: it has no handler that could break a promise.
    /// let probe: Kprobe<'_, u64> = unsafe { Kprobe::address(0x1000).light() };
    /// # let _ = probe;
    /// ```
    ///
    /// # Safety
    ///
    /// Beside what [`Handler::new`] asks, its handlers must
    ///
    /// * need no more than 1 KiB of stack;
    /// * use no vector or mask register beyond the lower halves of `xmm0` to `xmm15`, and no x87 register: so is code that
    ///   was compiled for x86-64 without further features, and calls no other;
    /// * call no function of the host's (`print`, `read`, …);
    /// * stand to be interrupted by signals, by one whose handler never comes back, too.
    #[expect(unsafe_code, reason = "a promise for functions that are known by address")]
    pub const unsafe fn light(mut self) -> Self {
        self.handlers.light = true;
        self
    }

    /// It is registered switched off (Linux: `KPROBE_FLAG_DISABLED`).
    ///
    /// ```
    /// let probe: kprobes::Kprobe<'_, u64> = kprobes::Kprobe::address(0x1000).disabled();
    /// # let _ = probe;
    /// ```
    pub const fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }
}

impl<'a, R> From<Kprobe<'a, R>> for Spec<'a, R> {
    fn from(probe: Kprobe<'a, R>) -> Self {
        let HandlerData { before, after, fault, .. } = probe.handlers;
        let kind = if before | after | fault == 0 { SpecKind::Counter } else { SpecKind::Kprobe };
        Self::typed(probe.place, kind, probe.handlers, probe.disabled)
    }
}
