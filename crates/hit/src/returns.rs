//! Return probes: one instance for each activation of a probed function.
//!
//! At a function's entry an instance is taken from the pool and the return address is replaced by the instance's own
//! *stub*: an address that holds a breakpoint and belongs to that instance alone. When the function returns, the trap
//! at the stub names the instance, which knows where to go on. The identity is the stub, never the depth of the stack
//! or the order of calls, so coroutines, signal handlers and stacks that are switched or copied stay right.
//!
//! A replaced return address is a lie to everything that walks the stack. Unwinders know no unwind information for a
//! stub: an exception would end the program there. So the truth is put back while an unwinder runs:
//!
//! * [`Returns::restore`]: an unwinder starts. Every instance of the thread gets its true address back.
//! * [`Returns::land`]: it has chosen the frame to go on in. The frames below are gone (*unwound*); those above are
//!   armed again. [`Returns::walked`]: it only looked.
//! * [`Returns::jump`]: `longjmp`. [`Returns::exit`]: the thread ends.
//!
//! Then, exactly: entries = returned + unwound + still active.
//!
//! An instance that was unwound keeps its return address and is used again last, because a process that copies stacks
//! (greenlets) may still return through it. If that happens, no unwound instance is used again in that process.
//!
//! Sources: Linux `kernel/kprobes.c` (`kretprobe`, maxactive, nmissed), `include/linux/rethook.h`; Itanium C++ ABI,
//! level I (`_Unwind_*`). A host that may not write return addresses probes the return sites instead ([`Kind::ReturnSite`]).
//!
//! [`Kind::ReturnSite`]: crate::Kind::ReturnSite

use crate::path::{chain, record};
use crate::site::{Counters, Kind, Probe, Site, live};
use crate::{Cause, Host, Isa};
use sync::primitive::{AtomicU32, AtomicU64, Ordering};
use sync::{ActiveSet, FreeList};

/// How many argument registers an instance keeps, for fetch arguments that a return probe reads.
pub const SAVED_ARGUMENTS: usize = 6;

/// Slots this close above the stack pointer are of the stack that is unwound, whoever armed them: a coroutine may have
/// moved to another thread.
const NEAR: u64 = 64 << 10;
/// A `longjmp` further than this goes to another stack; it is a switch, not an unwinding.
const ONE_STACK: u64 = 64 << 20;

/// The owner of an instance that was inherited from a parent process.
const ANYBODY: u64 = u64::MAX;

/// States of an instance.
mod state {
    pub(super) const FREE: u32 = 0;
    /// Its stub stands in the return slot.
    pub(super) const ARMED: u32 = 1;
    /// The true return address stands there, because an unwinder runs.
    pub(super) const RESTORED: u32 = 2;
    /// Its activation ended without returning.
    pub(super) const UNWOUND: u32 = 3;
}

/// One activation of a probed function. Written by the thread that has it; others read it when they unwind.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Instance {
    /// The true return address.
    pub return_address: AtomicU64,
    /// Where it stood: the address of the return slot.
    pub slot: AtomicU64,
    /// The thread that made the call.
    owner: AtomicU64,
    /// Index of the site.
    site: AtomicU64,
    state: AtomicU32,
    /// Which of the site's return probes want this return.
    mask: AtomicU32,
    /// For the free list.
    link: AtomicU32,
    /// The pool's epoch when it was taken.
    epoch: AtomicU32,
    /// The argument registers at the entry.
    pub arguments: [AtomicU64; SAVED_ARGUMENTS],
    _pad: [AtomicU64; 4],
}

const _: () = assert!(size_of::<Instance>() == 128);

impl Instance {
    fn get(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }

    fn set(&self, state: u32) {
        self.state.store(state, Ordering::Release);
    }

    fn slot(&self) -> u64 {
        self.slot.load(Ordering::Relaxed)
    }

    fn is_owned_by(&self, thread: u64) -> bool {
        let owner = self.owner.load(Ordering::Relaxed);
        owner == thread || owner == ANYBODY
    }

    fn returns_to(&self) -> u64 {
        self.return_address.load(Ordering::Relaxed)
    }
}

/// Offset of an instance's state, for a control that works from outside.
pub const STATE_OFFSET: usize = core::mem::offset_of!(Instance, state);
/// The state of an instance whose stub stands in its slot.
pub const STATE_ARMED: u32 = state::ARMED;
/// The state of an instance whose slot holds the true return address for now.
pub const STATE_RESTORED: u32 = state::RESTORED;

/// Words that the pool needs besides its instances. Zeroed words are an unused pool.
#[repr(C)]
#[derive(Debug)]
pub struct Pool {
    free: AtomicU64,
    unwound: AtomicU64,
    used: AtomicU32,
    none: AtomicU32,
    /// Not 0: the process copies stacks, no unwound instance may be used again.
    keep_unwound: AtomicU32,
    /// Counts the times that control began anew: probes of an earlier time are gone, their instances only go home.
    pub epoch: AtomicU32,
}

impl Pool {
    /// Offset of the number of instances that were ever used, for a control that works from outside.
    pub const USED_OFFSET: usize = core::mem::offset_of!(Pool, used);
}

/// A stack that the kernel switched to for a signal handler: `[low, high)`; empty when there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignalStack {
    /// Lowest address.
    pub low: u64,
    /// One past the highest address.
    pub high: u64,
}

impl SignalStack {
    fn holds(self, address: u64) -> bool {
        self.low <= address && address < self.high
    }
}

/// A view of the pool: its instances, and where their stubs are. Stub `i` is at `stubs + i * stride`.
#[derive(Clone, Copy, Debug)]
pub struct Returns<'a> {
    /// The pool's words.
    pub pool: &'a Pool,
    /// The instances.
    pub instances: &'a [Instance],
    /// Address of the first stub.
    pub stubs: u64,
    /// Bytes from one stub to the next.
    pub stride: u64,
}

/// Counts an instance against a probe's `maxactive`; false when it has them all out.
pub(crate) fn admit(probe: &Probe) -> bool {
    let limit = probe.maxactive.load(Ordering::Relaxed);
    let before = probe.active.fetch_add(1, Ordering::Relaxed);
    if before < limit {
        return true;
    }
    probe.active.fetch_sub(1, Ordering::Relaxed);
    false
}

/// Takes an instance for a function that was just entered. `mask` holds the bits of the probes that want its return;
/// when the pool is empty each of them has missed it.
pub(crate) fn arm<H: Host>(host: &H, site: &Site, index: u64, mask: u32, regs: &<H::Isa as Isa>::Regs) {
    let returns = host.returns();
    let slot = H::Isa::return_slot(regs);
    let Some((id, instance)) = returns.take() else {
        return retract(host, site, mask);
    };
    let true_address = host.load(slot);
    instance.return_address.store(true_address, Ordering::Relaxed);
    instance.slot.store(slot, Ordering::Relaxed);
    instance.owner.store(host.thread(), Ordering::Relaxed);
    instance.site.store(index, Ordering::Relaxed);
    instance.mask.store(mask, Ordering::Relaxed);
    instance.epoch.store(returns.pool.epoch.load(Ordering::Relaxed), Ordering::Relaxed);
    for (saved, value) in instance.arguments.iter().zip(H::Isa::arguments(regs)) {
        saved.store(value, Ordering::Relaxed);
    }
    instance.set(state::ARMED);
    if !host.exchange(slot, true_address, returns.stub(id)) {
        // Another thread writes the return slot of a function that is just being entered: leave it alone.
        instance.set(state::FREE);
        returns.free().push(id);
        retract(host, site, mask);
    }
}

/// The probes in `mask` were admitted and counted, but no instance is left: make it a miss.
fn retract<H: Host>(host: &H, site: &Site, mask: u32) {
    for_each_waiting(host, site, mask, |probe, counters| {
        probe.active.fetch_sub(1, Ordering::Relaxed);
        counters.hits.fetch_sub(1, Ordering::Relaxed);
        Counters::add(&counters.missed);
    });
}

/// Handles a trap at a stub; false when `address` is none.
pub(crate) fn hit<H: Host>(host: &H, address: u64, regs: &mut <H::Isa as Isa>::Regs) -> bool {
    let returns = host.returns();
    let Some((id, instance)) = returns.at(address) else {
        return false;
    };
    let was = instance.get();
    H::Isa::set_pc(regs, instance.returns_to());
    let place = host.enter();
    returns.for_each_waiting(host, instance, |probe, counters| {
        match was {
            state::FREE => return,
            state::UNWOUND => counters.unwound.fetch_sub(1, Ordering::Relaxed),
            _ => u64::from(probe.active.fetch_sub(1, Ordering::Relaxed)),
        };
        Counters::add(&counters.returns);
        if live(&probe.state) {
            record(host, probe, counters, regs, Cause::Return(instance));
        }
    });
    match was {
        state::ARMED | state::RESTORED => {
            instance.set(state::FREE);
            returns.free().push(id);
        }
        // Returned once more, through a copy of the stack: unwound instances may not be used again.
        _ => returns.pool.keep_unwound.store(1, Ordering::Relaxed),
    }
    if let Some(place) = place {
        ActiveSet::leave(place);
    }
    true
}

/// Calls `f` for each return probe of `site` whose bit is in `mask`, also for those that are being unregistered: their
/// `active` must come back to zero.
fn for_each_waiting<H: Host>(host: &H, site: &Site, mask: u32, mut f: impl FnMut(&Probe, &Counters)) {
    for probe in chain(host, site).filter(|p| p.kind() == Some(Kind::Return)) {
        let bit = 1u32.checked_shl(probe.bit.load(Ordering::Relaxed)).unwrap_or(0);
        let counters = host.counters(probe.id.load(Ordering::Relaxed));
        if let (Some(counters), true) = (counters, mask & bit != 0) {
            f(probe, counters);
        }
    }
}

/// An unwinder's position: whose stack, where it stands, and where it goes on.
#[derive(Clone, Copy, Debug)]
struct Walk {
    thread: u64,
    sp: u64,
    signal: SignalStack,
}

impl Walk {
    /// Whether `instance` can be met by a walk from here outwards.
    fn meets(&self, instance: &Instance) -> bool {
        let slot = instance.slot();
        let owned = instance.is_owned_by(self.thread);
        if owned && self.signal.holds(self.sp) {
            return true;
        }
        slot >= self.sp && (owned || slot - self.sp < NEAR)
    }

    /// Whether the frame of `instance` is gone once execution goes on in the frame that begins at `cfa`.
    fn leaves(&self, instance: &Instance, cfa: u64) -> bool {
        let slot = instance.slot();
        if self.signal.holds(self.sp) && !self.signal.holds(cfa) {
            return self.signal.holds(slot) || slot < cfa;
        }
        self.sp <= slot && slot < cfa
    }
}

impl<'a> Returns<'a> {
    /// An unwinder starts at stack pointer `sp`: the true return addresses go back.
    pub fn restore<H: Host>(&self, host: &H, sp: u64, signal: SignalStack) {
        let walk = Walk { thread: host.thread(), sp, signal };
        self.repeat(|id, instance| {
            instance.get() == state::ARMED && walk.meets(instance) && self.put_back(host, id, instance)
        });
    }

    /// The unwinder, whose frame is at `sp`, goes on in the frame whose canonical frame address is `cfa`.
    pub fn land<H: Host>(&self, host: &H, sp: u64, cfa: u64, signal: SignalStack) {
        let walk = Walk { thread: host.thread(), sp, signal };
        self.each(|id, instance| {
            if instance.get() == state::RESTORED && walk.meets(instance) && walk.leaves(instance, cfa) {
                self.unwind(host, id, instance);
            }
        });
        self.rearm(host, &walk);
    }

    /// The unwinder only walked the stack, and returns now with stack pointer `sp`.
    pub fn walked<H: Host>(&self, host: &H, sp: u64, signal: SignalStack) {
        self.rearm(host, &Walk { thread: host.thread(), sp, signal });
    }

    /// `longjmp` from stack pointer `sp` to `target`.
    pub fn jump<H: Host>(&self, host: &H, sp: u64, target: u64, signal: SignalStack) {
        let walk = Walk { thread: host.thread(), sp, signal };
        if !signal.holds(sp) && target.wrapping_sub(sp) > ONE_STACK {
            return;
        }
        self.repeat(|id, instance| {
            let goes = walk.meets(instance) && walk.leaves(instance, target);
            instance.get() == state::ARMED && goes && self.put_back(host, id, instance)
        });
        self.land(host, sp, target, signal);
    }

    /// The running thread ends: what it still has out never returns.
    pub fn exit<H: Host>(&self, host: &H) {
        let thread = host.thread();
        self.each(|id, instance| {
            if matches!(instance.get(), state::ARMED | state::RESTORED) && instance.is_owned_by(thread) {
                self.unwind(host, id, instance);
            }
        });
    }

    /// In a process that was just forked, whichever thread it is that lives on owns all that was inherited.
    pub fn adopt(&self) {
        self.each(|_, instance| {
            if instance.get() != state::FREE {
                instance.owner.store(ANYBODY, Ordering::Relaxed);
            }
        });
    }

    /// How many instances were ever used.
    #[must_use]
    pub fn high_water(&self) -> u32 {
        self.free().high_water()
    }

    fn rearm<H: Host>(&self, host: &H, walk: &Walk) {
        self.repeat(|id, instance| {
            if instance.get() != state::RESTORED || !walk.meets(instance) {
                return false;
            }
            let done = host.exchange_guarded(instance.slot(), instance.returns_to(), self.stub(id));
            if done {
                instance.set(state::ARMED);
            }
            done
        });
        // What could not be armed again has no frame any more.
        self.each(|id, instance| {
            if instance.get() == state::RESTORED && walk.meets(instance) {
                self.unwind(host, id, instance);
            }
        });
    }

    fn put_back<H: Host>(&self, host: &H, id: u32, instance: &Instance) -> bool {
        let done = host.exchange_guarded(instance.slot(), self.stub(id), instance.returns_to());
        if done {
            instance.set(state::RESTORED);
        }
        done
    }

    /// Accounts for an activation that never returns, and keeps the instance for last.
    fn unwind<H: Host>(&self, host: &H, id: u32, instance: &Instance) {
        instance.set(state::UNWOUND);
        self.for_each_waiting(host, instance, |probe, counters| {
            probe.active.fetch_sub(1, Ordering::Relaxed);
            Counters::add(&counters.unwound);
        });
        self.unwound().push(id);
    }

    fn for_each_waiting<H: Host>(&self, host: &H, instance: &Instance, f: impl FnMut(&Probe, &Counters)) {
        let now = self.pool.epoch.load(Ordering::Relaxed);
        let Some(site) = host.site(instance.site.load(Ordering::Relaxed)) else {
            return;
        };
        if instance.epoch.load(Ordering::Relaxed) == now {
            for_each_waiting(host, site, instance.mask.load(Ordering::Relaxed), f);
        }
    }

    fn each(&self, mut f: impl FnMut(u32, &Instance)) {
        let used = self.free().high_water();
        for (id, instance) in (0..used).zip(self.instances) {
            f(id, instance);
        }
    }

    /// Applies `f` until it changes nothing more. One slot can belong to several instances, one under the other, when
    /// a probed function leaves by a jump to another; they come off in one order and go back in the other.
    fn repeat(&self, mut f: impl FnMut(u32, &Instance) -> bool) {
        for _ in 0..crate::MAX_CHAIN {
            let mut changed = false;
            self.each(|id, instance| changed |= f(id, instance));
            if !changed {
                return;
            }
        }
    }

    fn take(&self) -> Option<(u32, &'a Instance)> {
        let old = || match self.pool.keep_unwound.load(Ordering::Relaxed) {
            0 => self.unwound().pop(),
            _ => None,
        };
        let id = self.free().pop().or_else(old)?;
        Some((id, self.instances.get(id as usize)?))
    }

    fn at(&self, address: u64) -> Option<(u32, &'a Instance)> {
        let offset = address.checked_sub(self.stubs)?;
        let id = u32::try_from(offset.checked_div(self.stride)?).ok()?;
        let exact = self.stub(id) == address && id < self.free().high_water();
        exact.then_some(id).and_then(|id| Some((id, self.instances.get(id as usize)?)))
    }

    fn stub(&self, id: u32) -> u64 {
        self.stubs.wrapping_add(u64::from(id) * self.stride)
    }

    fn free(&self) -> FreeList<'a, impl Fn(u32) -> Option<&'a AtomicU32> + use<'a>> {
        let capacity = u32::try_from(self.instances.len()).unwrap_or(u32::MAX - 1);
        FreeList::new(&self.pool.free, &self.pool.used, capacity, self.link())
    }

    fn unwound(&self) -> FreeList<'a, impl Fn(u32) -> Option<&'a AtomicU32> + use<'a>> {
        FreeList::new(&self.pool.unwound, &self.pool.none, 0, self.link())
    }

    fn link(&self) -> impl Fn(u32) -> Option<&'a AtomicU32> + use<'a> {
        let instances = self.instances;
        move |id| instances.get(id as usize).map(|i| &i.link)
    }
}
