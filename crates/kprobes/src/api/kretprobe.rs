//! Probes on a function's return.

use super::spec::{HandlerData, Spec, SpecKind};
use super::{EntryHandler, Handler, Place, ReturnHandler};
use core::marker::PhantomData;
use sync::Zeroed;

/// The most bytes of data that an activation has (Linux: `KRETPROBE_MAX_DATA_SIZE`).
pub const DATA_BYTES: usize = 4096;

/// A kretprobe: an entry handler, which may decline, a handler at the return, and data of type `D` for each activation
/// of the function, zero at first.
///
/// ```
/// use kprobes::{Handler, Hit, Kretprobe, Watch};
///
/// extern "C" fn entry(_: &mut Hit<'_, u64>, started: &mut u64) -> Watch {
///     *started = 1;
///     Watch::Yes
/// }
/// extern "C" fn returns(_: &mut Hit<'_, u64>, started: &mut u64) {
///     assert_eq!(*started, 1);
/// }
/// // SAFETY: they use nothing but their data.
/// let (entry, returns) = unsafe { (Handler::new(entry as _), Handler::new(returns as _)) };
/// let probe = Kretprobe::<u64, u64>::symbol("sys_open").entry(entry).handler(returns).maxactive(20);
/// # let _ = probe;
/// ```
#[derive(Debug)]
#[must_use = "a probe does nothing until a host registers it"]
pub struct Kretprobe<'a, R, D = ()> {
    place: Place<'a>,
    maxactive: Option<u32>,
    handlers: HandlerData,
    disabled: bool,
    types: PhantomData<fn(R, D)>,
}

impl<'a, R, D: Zeroed + Send + 'static> Kretprobe<'a, R, D> {
    /// A probe on the returns of the function at a place.
    ///
    /// ```
    /// # use kprobes::{Kretprobe, Place};
    /// let probe: Kretprobe<'_, u64> = Kretprobe::new(Place::Address(0x1000));
    /// # let _ = probe;
    /// ```
    pub const fn new(place: Place<'a>) -> Self {
        const {
            assert!(
                size_of::<D>() <= DATA_BYTES && align_of::<D>() <= 8,
                "data of an activation: 4096 bytes at most, aligned to 8 at most"
            );
        };
        let handlers = HandlerData { entry_bytes: size_of::<D>() as u32, ..HandlerData::NONE };
        Self { place, maxactive: None, handlers, disabled: false, types: PhantomData }
    }

    /// A probe on the returns of the function that begins at an address.
    ///
    /// ```
    /// let probe: kprobes::Kretprobe<'_, u64> = kprobes::Kretprobe::address(0x1000);
    /// # let _ = probe;
    /// ```
    pub const fn address(address: u64) -> Self {
        Self::new(Place::Address(address))
    }

    /// A probe on the returns of a function.
    ///
    /// ```
    /// let probe: kprobes::Kretprobe<'_, u64> = kprobes::Kretprobe::symbol("sys_open");
    /// # let _ = probe;
    /// ```
    pub const fn symbol(name: &'a str) -> Self {
        Self::new(Place::Symbol { name, offset: 0 })
    }

    /// Sets what runs at the function's entry, before its first instruction.
    ///
    /// ```
    /// # use kprobes::{Handler, Hit, Kretprobe, Watch};
    /// extern "C" fn entry(_: &mut Hit<'_, u64>, _: &mut ()) -> Watch {
    ///     Watch::No
    /// }
    /// // SAFETY: it does nothing.
    /// let probe = Kretprobe::symbol("sys_open").entry(unsafe { Handler::new(entry) });
    /// # let _ = probe;
    /// ```
    pub fn entry(mut self, handler: Handler<EntryHandler<R, D>>) -> Self {
        self.handlers.before = handler.get() as usize as u64;
        self
    }

    /// Sets what runs when it has returned.
    ///
    /// ```
    /// # use kprobes::{Handler, Hit, Kretprobe};
    /// extern "C" fn returns(_: &mut Hit<'_, u64>, _: &mut ()) {}
    /// // SAFETY: it does nothing.
    /// let probe = Kretprobe::symbol("sys_open").handler(unsafe { Handler::new(returns) });
    /// # let _ = probe;
    /// ```
    pub fn handler(mut self, handler: Handler<ReturnHandler<R, D>>) -> Self {
        self.handlers.after = handler.get() as usize as u64;
        self
    }

    /// How many calls may be under way and watched at once; more are missed. 0, like saying nothing, is the host's own
    /// (Linux: ten, or two for each processor if that is more).
    ///
    /// ```
    /// let probe: kprobes::Kretprobe<'_, u64> = kprobes::Kretprobe::symbol("sys_open").maxactive(20);
    /// # let _ = probe;
    /// ```
    pub const fn maxactive(mut self, calls: u32) -> Self {
        self.maxactive = if calls == 0 { None } else { Some(calls) };
        self
    }

    /// Sets the word that handlers get by [`Hit::user`](super::Hit::user).
    ///
    /// ```
    /// let probe: kprobes::Kretprobe<'_, u64> = kprobes::Kretprobe::symbol("sys_open").user(7);
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
    /// # use kprobes::Kretprobe;
    /// // SAFETY: it has no handler that could break a promise.
    /// let probe: Kretprobe<'_, u64, ()> = unsafe { Kretprobe::address(0x1000).light() };
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

    /// It is registered switched off.
    ///
    /// ```
    /// let probe: kprobes::Kretprobe<'_, u64> = kprobes::Kretprobe::symbol("sys_open").disabled();
    /// # let _ = probe;
    /// ```
    pub const fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }
}

impl<'a, R, D> From<Kretprobe<'a, R, D>> for Spec<'a, R> {
    fn from(probe: Kretprobe<'a, R, D>) -> Self {
        let kind = SpecKind::Kretprobe { maxactive: probe.maxactive };
        Self::typed(probe.place, kind, probe.handlers, probe.disabled)
    }
}
