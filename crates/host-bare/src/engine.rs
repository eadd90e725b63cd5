//! The engine: what a trap needs.

use crate::tables::{Processor, Tables};
use crate::trap::{KernelSpace, TrapHost};
use crate::{Control, Error, Kernel, Regs};
use alloc::boxed::Box;
use arch::x86::X86;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, Ordering};
use hit::returns::Returns;
use hit::{Displaced, Outcome};
use isa::x86::BREAKPOINT;

/// How much room there is.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Instructions that can ever be probed. One counts twice if it is placed by a jump, and again each time it gets its
    /// first probe with another way to step.
    pub sites: usize,
    /// Probes at once.
    pub probes: usize,
    /// Activations of functions with return probes, at once.
    pub instances: usize,
    /// Words of records for each processor: a power of two.
    pub record_words: usize,
    /// Bytes of fetch programs, ever.
    pub program_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sites: 8192, probes: 8192, instances: 4096, record_words: 1 << 15, program_bytes: 1 << 16 }
    }
}

/// What a trap needs, made once.
///
/// A [`Chain`](crate::Chain) asks it first. A kernel with a dispatch of its own asks it by itself:
///
/// ```
/// use host_bare::{Kernel, Outcome, Regs};
///
/// /// A trap with interrupts off; false when it is not kprobes' own.
/// fn is_ours<K: Kernel>(regs: &mut Regs, vector: u64) -> bool {
///     let Some(engine) = K::engine() else { return false };
///     match vector {
///         // Only if DR6 says that the trap flag has raised it.
///         1 => engine.single_step(regs) != Outcome::Foreign,
///         3 => engine.breakpoint(regs) != Outcome::Foreign,
///         // A fault that the kernel has not handled either: it may be a handler's, which ends there.
///         _ => engine.contain(regs, vector),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Engine<K> {
    pub(crate) tables: Tables,
    /// The first instance's stub; each is one breakpoint.
    pub(crate) stubs: u64,
    kernel: PhantomData<K>,
}

impl<K: Kernel> Engine<K> {
    /// Makes the engine, puts it where `K` finds it, and gives the control of it.
    ///
    /// # Errors
    ///
    /// [`Error::Twice`] when there is one already, [`Error::NoCode`] when there is no executable memory for the stubs.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(global: &'static Global<K>) -> Result<Control<K>, Error> {
    /// // All processors are up, the heap is there, and the symbols are read.
    /// let mut control = Engine::start(global, &Limits { sites: 1 << 15, ..Limits::default() })?;
    /// assert!(global.get().is_some());
    /// control.line("p:open sys_open path=+0($arg1):string")?;
    /// # Ok(control)
    /// # }
    /// ```
    pub fn start(global: &'static Global<K>, limits: &Limits) -> Result<Control<K>, Error> {
        let stubs = K::allocate_code(limits.instances).ok_or(Error::NoCode)?;
        let breakpoints = [BREAKPOINT; 64];
        for at in (0..limits.instances).step_by(breakpoints.len()) {
            let count = breakpoints.len().min(limits.instances - at);
            let written = K::write_text(stubs + at as u64, breakpoints.get(..count).unwrap_or_default());
            written.then_some(()).ok_or(Error::NoCode)?;
        }
        let tables = Tables::new(limits, K::processors());
        let engine = Box::leak(Box::new(Self { tables, stubs, kernel: PhantomData }));
        let first = global.0.compare_exchange(core::ptr::null_mut(), engine, Ordering::Release, Ordering::Relaxed);
        first.map_err(|_| Error::Twice)?;
        Ok(Control::new(engine))
    }

    /// The running processor's control block.
    pub(crate) fn processor(&self) -> Option<&Processor> {
        self.tables.processors.get(K::processor())
    }

    pub(crate) fn returns(&self) -> Returns<'_> {
        let Tables { pool, instances, .. } = &self.tables;
        Returns { pool, instances, stubs: self.stubs, stride: 1 }
    }

    /// A breakpoint trap.
    #[inline(always)]
    pub fn breakpoint(&self, regs: &mut Regs) -> Outcome {
        self.host().map_or(Outcome::Foreign, |host| hit::breakpoint(&host, regs))
    }

    /// A debug exception that the trap flag has raised.
    pub fn single_step(&self, regs: &mut Regs) -> Outcome {
        self.host().map_or(Outcome::Foreign, |host| hit::single_step(&host, regs))
    }

    /// A fault, before anybody looks at it: see [`fault`].
    pub fn fault(&self, regs: &mut Regs, vector: u64) -> Faulted {
        let Some(host) = self.host() else { return Faulted::Elsewhere };
        let Some(displaced) = hit::displaced(&host, regs) else { return Faulted::Elsewhere };
        if !hit::offer(&host, &displaced, regs, vector) {
            return Faulted::InCopy(displaced);
        }
        hit::resume::<X86<KernelSpace<K>>>(displaced, regs);
        Faulted::Cured
    }

    /// A fault that nobody handles: if a probe's handler has raised it, its fault handler is asked; else the handler is
    /// ended, and its probe is off.
    pub fn contain(&self, regs: &mut Regs, vector: u64) -> bool {
        let Some(host) = self.host() else { return false };
        let faulted = *regs;
        let contained = host.processor.running.contain(&host, regs, vector);
        if contained && !host.processor.running.is_calling() {
            K::handler_faulted(&faulted);
        }
        contained
    }

    /// Whether no handler of this owner is called any more, because one has faulted.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(engine: &Engine<K>, owner: u32) {
    /// // In any context: from now on no handler of this module's probes is called.
    /// engine.silence(owner);
    /// assert!(engine.is_silenced(owner));
    /// // Owner 0 is nobody, and is never silenced.
    /// engine.silence(0);
    /// assert!(!engine.is_silenced(0));
    /// # }
    /// ```
    #[must_use]
    pub fn is_silenced(&self, owner: u32) -> bool {
        let word = (owner as usize).checked_sub(1).and_then(|at| self.tables.silenced.get(at));
        word.is_some_and(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// No handler of this owner is called from now on, or again.
    pub fn silence(&self, owner: u32) {
        self.set_silenced(owner, 1);
    }

    pub(crate) fn set_silenced(&self, owner: u32, word: u64) {
        if let Some(to) = (owner as usize).checked_sub(1).and_then(|at| self.tables.silenced.get(at)) {
            to.store(word, Ordering::Relaxed);
        }
    }

    /// What the probe of this number has counted.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(engine: &Engine<K>, probe: &Registered) -> Option<u64> {
    /// // Without the lock around control, so in a handler too.
    /// let missed = engine.counts(probe.id())?.missed;
    /// # Some(missed)
    /// # }
    /// ```
    #[must_use]
    pub fn counts(&self, id: u32) -> Option<crate::Counts> {
        self.tables.counters.get(id as usize).map(crate::Counts::of)
    }

    /// A thread will never run again: its activations of probed functions will not return.
    pub fn thread_ended(&self, thread: u64) {
        if let Some(host) = self.host() {
            // As a handler: it looks at chains, and a grace period must wait for it.
            let place = host.processor.enter();
            self.returns().ended(&host, thread);
            place.into_iter().for_each(sync::ActiveSet::leave);
        }
    }

    pub(crate) fn host(&self) -> Option<TrapHost<'_, K>> {
        Some(TrapHost { engine: self, processor: self.processor()? })
    }
}

/// What a fault is to kprobes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Faulted {
    /// Nothing: it did not happen in a copy of ours.
    Elsewhere,
    /// A displaced instruction has raised it: the registers are those that it has in truth, and this is for
    /// [`after_fault`].
    InCopy(Displaced),
    /// A probe's fault handler has cured it: the kernel returns to the registers at once.
    Cured,
}

impl Faulted {
    /// What is for [`after_fault`].
    #[must_use]
    pub fn displaced(self) -> Option<Displaced> {
        if let Self::InCopy(displaced) = self { Some(displaced) } else { None }
    }
}

/// How many owners of probes (modules) there can be; see [`kprobes::HandlerData::owner`].
pub const OWNERS: usize = 256;

/// A fault with this vector, before anybody looks at it. If a displaced instruction has raised it, the registers become
/// those that it has in truth, and the fault handlers of its probes are asked.
///
/// ```
/// use host_bare::{Faulted, Kernel, Regs, after_fault, fault, guarded};
///
/// /// What the stubs of `#PF`, `#GP`, `#UD` and their like call.
/// fn on_fault<K: Kernel>(regs: &mut Regs, vector: u64, handle: fn(&mut Regs, u64)) {
///     let faulted = fault::<K>(regs, vector);
///     if faulted == Faulted::Cured {
///         return;
///     }
///     // The registers say the true address now: the exception table first, then the kernel's own handling.
///     if !guarded::fix_up(regs) {
///         handle(regs, vector);
///     }
///     after_fault::<K>(faulted.displaced(), regs);
/// }
/// assert_eq!(Faulted::Elsewhere.displaced(), None);
/// ```
pub fn fault<K: Kernel>(regs: &mut Regs, vector: u64) -> Faulted {
    K::engine().map_or(Faulted::Elsewhere, |engine| engine.fault(regs, vector))
}

/// Ends the mirror of a jprobe from which it is called, at any depth. Comes back if no handler runs.
///
/// # Safety
///
/// To be called from within a mirror. What stands on its stack is not dropped.
///
/// ```
/// # use host_bare::Kernel;
/// /// Mirrors `sys_write`, and looks at no other file than the console.
/// extern "C" fn write<K: Kernel>(file: u64, from: u64, bytes: u64) {
///     if file != 1 {
///         // SAFETY: this is a mirror, and nothing on its stack is to be dropped.
///         unsafe { host_bare::jprobe_return::<K>() }
///     }
///     // What is written to the console comes here.
/// }
/// ```
pub unsafe fn jprobe_return<K: Kernel>() {
    if let Some(processor) = K::engine().and_then(Engine::processor) {
        // SAFETY: the same promise; interrupts are off in a handler, so this is the processor that runs it.
        unsafe { processor.running.leave() }
    }
}

/// A fault is handled, and execution is about to go on at `regs`: if that is the instruction that has faulted, it runs
/// again where it was.
pub fn after_fault<K: Kernel>(displaced: Option<Displaced>, regs: &mut Regs) {
    if let Some(displaced) = displaced {
        hit::resume::<X86<KernelSpace<K>>>(displaced, regs);
    }
}

/// Where a return address leads in truth: it may be a return probe's stub. For whoever walks a stack.
///
/// ```
/// # use host_bare::Kernel;
/// /// The caller of the function whose frame `rbp` points at.
/// fn caller<K: Kernel>(rbp: u64) -> Option<u64> {
///     let address = K::read_word(rbp.wrapping_add(8))?;
///     Some(host_bare::true_return_address::<K>(address))
/// }
/// ```
pub fn true_return_address<K: Kernel>(address: u64) -> u64 {
    K::engine().map_or(address, |engine| engine.returns().true_return_address(address))
}

/// The thread with this identity will never run again: see [`Engine::thread_ended`]. Called with interrupts off, by who
/// runs after it; identities are not used again.
///
/// ```
/// # use host_bare::Kernel;
/// /// The scheduler has switched away from a thread that has ended.
/// fn finish<K: Kernel>(ended: u64) {
///     host_bare::thread_ended::<K>(ended);
///     // Only now its stack is freed.
/// }
/// ```
pub fn thread_ended<K: Kernel>(thread: u64) {
    if let Some(engine) = K::engine() {
        engine.thread_ended(thread);
    }
}

/// Where a kernel keeps its engine: a `static`.
///
/// ```
/// use host_bare::Global;
///
/// # struct MyKernel;
/// static ENGINE: Global<MyKernel> = Global::new();
///
/// // What `Kernel::engine` gives: nothing, until `Engine::start` was called.
/// assert!(ENGINE.get().is_none());
/// ```
pub struct Global<K>(pub(crate) AtomicPtr<Engine<K>>);

impl<K> Global<K> {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// The engine.
    #[must_use]
    pub fn get(&self) -> Option<&'static Engine<K>> {
        // SAFETY: the pointer is null or that of a box that was leaked, stored with release after it was filled.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
}

impl<K> Default for Global<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> fmt::Debug for Global<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Global").field(&self.0).finish()
    }
}
