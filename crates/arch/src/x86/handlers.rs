//! Calling the handlers of probes.
//!
//! A handler is an address in the probe's record ([`hit::Handlers`]), put there by whoever has registered it; the types
//! that it was made from are those of `kprobes::Handler`. It is called with a [`Hit`] and, for return probes, with the
//! data of the activation, inside a [`Recovery`]: a fault that it raises ends it. What then becomes of its probe is the
//! host's to say ([`Around::broken`]).
//!
//! # Data of activations
//!
//! The area of a return probe begins with `maxactive` words, in which an activation claims a place under its
//! instance's number ([`sync::Claims`]); the entries follow in the same order. It stays mapped until the probe is
//! unregistered and its grace period over, and nobody comes here for a probe that is unregistered.

#[cfg(feature = "jprobes")]
mod mirror;
#[cfg(feature = "jprobes")]
use mirror::mirror;

use core::sync::atomic::{AtomicU64, Ordering};
use cpu::Recovery;
use hit::{Next, Probe, Watch};
use isa::x86::Regs;
use kprobes::{Cure, Hit};
use sync::Claims;

/// What is being called, and by which probe. One belongs to whoever runs one handler at a time. Zero bytes are one that
/// calls nothing.
///
/// ```
/// # use arch::x86::handlers::{Around, Running, handle};
/// # use hit::{Next, Probe};
/// # use isa::x86::Regs;
/// # use kprobes::Hit;
/// # use std::sync::atomic::Ordering;
/// # static RUNNING: Running = Running::new();
/// # struct Here;
/// # // SAFETY: one thread calls handlers, and the record of its probe holds what this example puts there.
/// # unsafe impl Around for Here {
/// #     fn running(&self) -> Option<&Running> { Some(&RUNNING) }
/// #     fn read(&self, _: u64, _: &mut [u8]) -> bool { false }
/// #     fn broken(&self, _: &Probe) {}
/// # }
/// extern "C" fn before(_: &mut Hit<'_, Regs>) -> Next {
///     assert!(RUNNING.is_calling());
///     // SAFETY: the thread is in a handler, and nothing is to be dropped.
///     unsafe { RUNNING.leave() };
///     Next::Redirected // is not reached
/// }
/// # // SAFETY: zeroed memory is a probe without handlers (`sync::Zeroed`).
/// # let probe: Probe = unsafe { std::mem::zeroed() };
/// # let mut regs = Regs::default();
/// probe.handlers.before.store(before as *const () as u64, Ordering::Relaxed);
/// assert_eq!(handle(&Here, &probe, &mut regs), Next::Step);
///
/// // No handler is being called now, so a fault is none of theirs.
/// assert!(!RUNNING.is_calling());
/// assert!(!RUNNING.contain(&Here, &mut regs, 14));
/// assert!(!RUNNING.recovery().recover(&mut regs));
/// ```
#[derive(Debug, Default)]
#[repr(C)]
pub struct Running {
    recovery: Recovery,
    /// Address of the probe whose handler is called, while one is; 0: its fault handler runs already.
    probe: AtomicU64,
}

/// What handlers are called in.
///
/// ```
/// # use arch::x86::handlers::{Around, Running, faulted, followed, handle};
/// # use hit::{Next, Probe};
/// # use isa::x86::Regs;
/// # use kprobes::{Cure, Hit};
/// # use std::sync::atomic::Ordering;
/// static RUNNING: Running = Running::new();
/// struct Here;
/// // SAFETY: one thread calls handlers, none of them faults, and the record below has handlers of its three kinds.
/// unsafe impl Around for Here {
///     fn running(&self) -> Option<&Running> { Some(&RUNNING) }
///     fn read(&self, _: u64, _: &mut [u8]) -> bool { false }
///     fn broken(&self, _: &Probe) {}
/// }
///
/// extern "C" fn before(_: &mut Hit<'_, Regs>) -> Next { Next::Redirected }
/// extern "C" fn after(hit: &mut Hit<'_, Regs>) { *hit.regs_mut() = Regs { rip: hit.user(), ..*hit.regs() } }
/// extern "C" fn fault(hit: &mut Hit<'_, Regs>) -> Cure { if hit.trap() == 14 { Cure::Yes } else { Cure::No } }
///
/// # // SAFETY: zeroed memory is a probe without handlers (`sync::Zeroed`).
/// # let probe: Probe = unsafe { std::mem::zeroed() };
/// # let mut regs = Regs::default();
/// assert_eq!(handle(&Here, &probe, &mut regs), Next::Step); // its record is empty
/// probe.handlers.before.store(before as *const () as u64, Ordering::Relaxed);
/// probe.handlers.after.store(after as *const () as u64, Ordering::Relaxed);
/// probe.handlers.fault.store(fault as *const () as u64, Ordering::Relaxed);
/// probe.handlers.user.store(7, Ordering::Relaxed);
/// assert_eq!(handle(&Here, &probe, &mut regs), Next::Redirected);
/// followed(&Here, &probe, &mut regs);
/// assert_eq!(regs.rip, 7);
/// assert!(faulted(&Here, &probe, &mut regs, 14) && !faulted(&Here, &probe, &mut regs, 13));
/// ```
///
/// # Safety
///
/// `running` belongs to the running processor or thread for as long as this value lives, and whoever handles faults
/// asks it ([`Running::contain`]). The addresses in the records of probes that `hit` hands over are those of handlers,
/// made by `kprobes::Handler`'s promise, and of areas as this module describes them.
pub unsafe trait Around {
    /// What the running processor or thread keeps of the handler that it calls.
    fn running(&self) -> Option<&Running>;
    /// Reads memory; false when not all of it can be read.
    fn read(&self, address: u64, out: &mut [u8]) -> bool;
    /// The vector registers that carry arguments, as they were interrupted, if the probed code uses them.
    fn vectors(&self) -> Option<[[u64; 2]; 8]> {
        None
    }
    /// Where handlers of this probe may not be called any more: its module has been switched off.
    fn is_silenced(&self, probe: &Probe) -> bool {
        let _ = probe;
        false
    }
    /// A handler of this probe has faulted and was ended.
    fn broken(&self, probe: &Probe);
}

/// Calls a pre-handler, or a jprobe's mirror.
pub fn handle<A: Around>(around: &A, probe: &Probe, regs: &mut Regs) -> Next {
    let function = probe.handlers.before.load(Ordering::Relaxed);
    if probe.flags.load(Ordering::Relaxed) & Probe::MIRROR != 0 {
        mirror(around, probe, function, regs);
        return Next::Step;
    }
    match call(around, probe, function, regs, Told::default(), NO_DATA) {
        Some(said) if said == Next::Redirected as u32 => Next::Redirected,
        _ => Next::Step,
    }
}

/// Calls a post-handler.
pub fn followed<A: Around>(around: &A, probe: &Probe, regs: &mut Regs) {
    call(around, probe, probe.handlers.after.load(Ordering::Relaxed), regs, Told::default(), NO_DATA);
}

/// Calls a fault handler; true when it has cured the fault.
pub fn faulted<A: Around>(around: &A, probe: &Probe, regs: &mut Regs, trap: u64) -> bool {
    let function = probe.handlers.fault.load(Ordering::Relaxed);
    call(around, probe, function, regs, Told { trap, caller: 0 }, NO_DATA) == Some(Cure::Yes as u32)
}

/// Calls an entry handler for instance `id`, with data that is zero.
///
/// ```
/// # use arch::x86::handlers::{Around, Running, entered, released, returned};
/// # use hit::{Probe, Watch};
/// # use isa::x86::Regs;
/// # use kprobes::{HandlerData, Hit};
/// # use std::sync::atomic::{AtomicU64, Ordering};
/// # static RUNNING: Running = Running::new();
/// # struct Here;
/// # // SAFETY: one thread calls handlers, and the record of its probe holds what this example puts there.
/// # unsafe impl Around for Here {
/// #     fn running(&self) -> Option<&Running> { Some(&RUNNING) }
/// #     fn read(&self, _: u64, _: &mut [u8]) -> bool { false }
/// #     fn broken(&self, _: &Probe) {}
/// # }
/// extern "C" fn entry(hit: &mut Hit<'_, Regs>, argument: &mut u64) -> Watch {
///     *argument = hit.regs().argument(1);
///     Watch::Yes
/// }
/// extern "C" fn ret(hit: &mut Hit<'_, Regs>, argument: &mut u64) {
///     let result = *argument + hit.caller();
///     hit.regs_mut().set(0, result);
/// }
/// # // SAFETY: zeroed memory is a probe without handlers (`sync::Zeroed`).
/// # let probe: Probe = unsafe { std::mem::zeroed() };
/// # let mut regs = Regs::default();
/// // For one activation with data of eight bytes.
/// let area = [const { AtomicU64::new(0) }; HandlerData::area_words(8, 1)];
/// probe.maxactive.store(1, Ordering::Relaxed);
/// probe.handlers.area.store(area.as_ptr() as u64, Ordering::Relaxed);
/// probe.handlers.entry_bytes.store(8, Ordering::Relaxed);
/// probe.handlers.before.store(entry as *const () as u64, Ordering::Relaxed);
/// probe.handlers.after.store(ret as *const () as u64, Ordering::Relaxed);
///
/// regs.set(7, 42); // rdi
/// assert_eq!(entered(&Here, &probe, 3, &mut regs), Watch::Yes);
/// assert_eq!(entered(&Here, &probe, 4, &mut regs), Watch::No); // there is no room for it
/// returned(&Here, &probe, 3, 0x1000, &mut regs);
/// assert_eq!(regs.return_value(), 0x1000 + 42);
/// released(&probe, 3);
/// assert_eq!(entered(&Here, &probe, 4, &mut regs), Watch::Yes);
/// ```
pub fn entered<A: Around>(around: &A, probe: &Probe, id: u32, regs: &mut Regs) -> Watch {
    let Some(data) = claim(probe, id) else { return Watch::No };
    match probe.handlers.before.load(Ordering::Relaxed) {
        0 => Watch::Yes,
        function => match call(around, probe, function, regs, Told::default(), data) {
            Some(said) if said == Watch::Yes as u32 => Watch::Yes,
            _ => Watch::No,
        },
    }
}

/// Calls the handler of a return, of the activation that instance `id` stands for.
pub fn returned<A: Around>(around: &A, probe: &Probe, id: u32, caller: u64, regs: &mut Regs) {
    // Without data it has ended already: this is its second return.
    if let Some(data) = data(probe, |claims| claims.find(key(id))) {
        let function = probe.handlers.after.load(Ordering::Relaxed);
        call(around, probe, function, regs, Told { caller, trap: 0 }, data);
    }
}

/// Gives the data of an activation back.
#[inline(always)]
pub fn released(probe: &Probe, id: u32) {
    if probe.handlers.entry_bytes.load(Ordering::Relaxed) != 0 {
        release(probe, id);
    }
}

#[cold]
#[inline(never)]
fn release(probe: &Probe, id: u32) {
    claims(probe).release(key(id));
}

/// What handlers without data get: an address that is aligned for any.
const NO_DATA: *mut u8 = core::ptr::without_provenance_mut(8);

/// What a handler is told besides the registers.
#[derive(Default)]
struct Told {
    trap: u64,
    caller: u64,
}

/// Calls `function`; what it says, or `None` when it may not run or has faulted.
#[inline(always)]
fn call<A: Around>(
    around: &A,
    probe: &Probe,
    function: u64,
    regs: &mut Regs,
    Told { trap, caller }: Told,
    data: *mut u8,
) -> Option<u32> {
    let address = probe.data.load(Ordering::Relaxed);
    let hit = Hit::new(regs, address, probe.handlers.user.load(Ordering::Relaxed));
    let mut hit = hit.with_trap(trap).returning_to(caller);
    let said = guarded(around, probe, function, |recovery| {
        // SAFETY: all kinds of handlers are C functions of these two arguments, or only the first of them. That this is
        // one, which may end anywhere, is what `Around` promises of probes' records.
        unsafe { recovery.call(function, (&raw mut hit).cast(), data) }
    });
    said.map(|said| said as u32)
}

/// Jprobes were left out of this build; control has registered none.
#[cfg(not(feature = "jprobes"))]
fn mirror<A: Around>(_: &A, _: &Probe, _: u64, _: &Regs) {}

/// Notes which probe's handler runs while `f` calls it. A handler is not called within another one, but for fault
/// handlers of handlers ([`Running::contain`]).
#[inline(always)]
fn guarded<A: Around>(
    around: &A,
    probe: &Probe,
    function: u64,
    f: impl FnOnce(&Recovery) -> Option<u64>,
) -> Option<u64> {
    let running = around.running().filter(|_| function != 0 && !around.is_silenced(probe))?;
    running.probe.store(core::ptr::from_ref(probe) as u64, Ordering::Relaxed);
    let said = f(&running.recovery);
    if said.is_none() {
        broken(around, probe);
    }
    said
}

#[cold]
#[inline(never)]
fn broken<A: Around>(around: &A, probe: &Probe) {
    around.broken(probe);
}

impl Running {
    /// One that calls nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { recovery: Recovery::new(), probe: AtomicU64::new(0) }
    }

    /// What calls them.
    #[must_use]
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Whether a handler is being called.
    #[must_use]
    pub fn is_calling(&self) -> bool {
        self.recovery.is_calling()
    }

    /// The registers are those of a fault, `trap`: if a handler has raised it, its probe's fault handler is asked first,
    /// and then the handler ends: the registers become those of its end. False when no handler is being called.
    pub fn contain<A: Around>(&self, around: &A, regs: &mut Regs, trap: u64) -> bool {
        if !self.is_calling() {
            return false;
        }
        // A fault in the fault handler asks nobody.
        let probe = self.probe.swap(0, Ordering::Relaxed) as *const Probe;
        // SAFETY: null, or the probe that `guarded` has noted: its call is under way, and probes' records stay.
        let cured = unsafe { probe.as_ref() }.is_some_and(|probe| self.ask(around, probe, regs, trap));
        self.probe.store(probe as u64, Ordering::Relaxed);
        cured || self.recovery.recover(regs)
    }

    fn ask<A: Around>(&self, around: &A, probe: &Probe, regs: &mut Regs, trap: u64) -> bool {
        let function = probe.handlers.fault.load(Ordering::Relaxed);
        if function == 0 || around.is_silenced(probe) {
            return false;
        }
        let (address, user) = (probe.data.load(Ordering::Relaxed), probe.handlers.user.load(Ordering::Relaxed));
        let mut hit = Hit::new(regs, address, user).with_trap(trap);
        // SAFETY: as in `call`.
        let said = unsafe { self.recovery.call_within(function, (&raw mut hit).cast(), NO_DATA) };
        said.map(|said| said as u32) == Some(Cure::Yes as u32)
    }

    /// Ends the handler that is being called, as if it had returned 0 (Linux: `jprobe_return`). Comes back if there is none.
    ///
    /// # Safety
    ///
    /// To be called from within a handler, by the thread that runs it. What stands on its stack is not dropped.
    pub unsafe fn leave(&self) {
        // SAFETY: the same promise.
        unsafe { self.recovery.leave(0) }
    }
}

/// An instance's key among the claims: not 0.
fn key(id: u32) -> u64 {
    u64::from(id) + 1
}

fn claims(probe: &Probe) -> Claims<'_> {
    let count = probe.maxactive.load(Ordering::Relaxed) as usize;
    let area = probe.handlers.area.load(Ordering::Relaxed) as *const AtomicU64;
    if area.is_null() || !area.is_aligned() {
        return Claims::new(&[]);
    }
    // SAFETY: the area of a registered probe begins with as many words, and is mapped as long as anybody comes here.
    Claims::new(unsafe { core::slice::from_raw_parts(area, count) })
}

/// Finds a place among the claims, and gives the address of its data.
fn data(probe: &Probe, find: impl FnOnce(Claims<'_>) -> Option<usize>) -> Option<*mut u8> {
    let bytes = probe.handlers.entry_bytes.load(Ordering::Relaxed) as usize;
    if bytes == 0 {
        return Some(NO_DATA);
    }
    let index = find(claims(probe))?;
    let count = probe.maxactive.load(Ordering::Relaxed) as usize;
    let offset = 8 * (count + index * bytes.div_ceil(8));
    let area = probe.handlers.area.load(Ordering::Relaxed) as *mut u8;
    Some(area.wrapping_add(offset))
}

/// Claims zeroed data for instance `id`.
fn claim(probe: &Probe, id: u32) -> Option<*mut u8> {
    let entry = data(probe, |claims| claims.claim(key(id)))?;
    let bytes = probe.handlers.entry_bytes.load(Ordering::Relaxed) as usize;
    // SAFETY: the entry lies in the area, has so many bytes, and was just claimed: it is nobody else's.
    unsafe { core::ptr::write_bytes(entry, 0, bytes) };
    Some(entry)
}
