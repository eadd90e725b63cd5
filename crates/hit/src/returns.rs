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
//! * [`Returns::restore`]: an unwinder starts. Every instance on its stack gets its true address back.
//! * [`Returns::land`]: it has chosen the frame to go on in. The frames below are gone (*unwound*); those above are
//!   armed again. [`Returns::walked`]: it only looked.
//! * [`Returns::jump`]: `longjmp`. [`Returns::exit`]: the thread ends.
//!
//! Then, exactly: entries = returned + unwound + still active.
//!
//! # Whose instances a walk touches
//!
//! Those on the walking thread's own stack, from its stack pointer upwards. Nothing names a stack's end, so it is taken
//! to end where memory does: [`Host::contiguous`]. A guard page lies between the stacks of threads, and between those
//! of most coroutine libraries. What another thread has armed must besides be close to the stack pointer: it is a
//! coroutine's that has moved here. What a forked child has inherited belongs to the first thread that meets it.
//!
//! From a signal handler on a stack of its own the walk goes on at the stack pointer that was interrupted. A host that
//! does not know it ([`Host::interrupted`]) meets all that the thread has armed, on whatever stack, and takes for gone
//! what lies on one stack with the frame where execution goes on.
//!
//! Only the walk that has restored an instance arms it again, or calls it unwound: a thread that walks a neighbour's
//! stack by mistake must not bring a stub under the neighbour's own unwinder. A thread takes over, before it walks,
//! what others have restored of its own.
//!
//! # Races
//!
//! Phases, who may change them, and what becomes of a return that comes while a walker works on the same instance:
//! see [`Instance`]'s module. An activation is accounted for by whoever wins its last change, once, and its place goes
//! to a free list once.
//!
//! # What cannot be known
//!
//! In each of these the program runs on as without probes, and the sum above holds; single counts are off.
//!
//! * *Stacks side by side in one area, without guard pages.* A walk on the lower one also restores what is close above
//!   it. If that returns meanwhile, it does so unseen, and stays active in the counts. A `longjmp` that switches from
//!   the lower to the higher one looks like one that unwinds all that lies between, and is counted so. If the
//!   neighbour, while it runs, neither owns what it has out (it has moved there) nor has restored it, its unwinder may
//!   meet a stub that is armed again under it: of all cases, the one that can end the program.
//! * *A coroutine that its thread has left to another one*, when the first thread walks from its signal stack: as above.
//! * *Second returns.* An instance that was unwound keeps its return address and is used again last, because a process
//!   that copies stacks (greenlets) may still return through it; one that has returned may be returned through again,
//!   because a function may return twice (`setjmp` and its like; control refuses those that it knows). Both go home,
//!   and from then on no instance is used a second time in that process. What was used again *before* cannot be told
//!   from the new activation, and goes where that one goes.
//!
//! Sources: Linux `kernel/kprobes.c` (`kretprobe`, maxactive, nmissed), `include/linux/rethook.h`; Itanium C++ ABI,
//! level I (`_Unwind_*`). A host that may not write return addresses probes the return sites instead ([`Kind::ReturnSite`]).
//!
//! [`Kind::ReturnSite`]: crate::Kind::ReturnSite

#[cfg(feature = "kretprobes")]
mod activation;
mod instance;
#[cfg(not(feature = "kretprobes"))]
mod off;
#[cfg(feature = "kretprobes")]
mod walk;

#[cfg(feature = "kretprobes")]
pub(crate) use activation::{Met, enter, hit};
pub use instance::{Instance, STATE_ARMED, STATE_OFFSET, STATE_PHASE, STATE_RESTORED};
#[cfg(not(feature = "kretprobes"))]
pub(crate) use off::{Met, enter, hit};

use crate::Host;
use crate::path::{chain, counters};
use crate::site::{Counters, Kind, Probe, Site};
use instance::phase;
use sync::FreeList;
use sync::primitive::{AtomicU32, AtomicU64, Ordering};

/// How many argument registers an instance keeps, for fetch arguments that a return probe reads.
pub const SAVED_ARGUMENTS: usize = 6;

/// Words that the pool needs besides its instances. Zeroed words are an unused pool.
#[repr(C)]
#[derive(Debug)]
pub struct Pool {
    free: AtomicU64,
    unwound: AtomicU64,
    /// A list that stays empty: from it come instances that were never used.
    empty: AtomicU64,
    used: AtomicU32,
    none: AtomicU32,
    /// Not 0: the process returns through instances that it has left already, so none may be used a second time.
    never_reuse: AtomicU32,
    /// Counts the times that control began anew: probes of an earlier time are gone, their instances only go home.
    pub epoch: AtomicU32,
}

impl Pool {
    /// Offset of the number of instances that were ever used, for a control that works from outside.
    pub const USED_OFFSET: usize = core::mem::offset_of!(Pool, used);
}

/// A stack of its own that handlers of the probed program's run on (in a process: of its signals): `[low, high)`; empty
/// when there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct SideStack {
    /// Lowest address.
    pub low: u64,
    /// One past the highest address.
    pub high: u64,
}

impl SideStack {
    fn holds(self, address: u64) -> bool {
        self.low <= address && address < self.high
    }
}

/// A view of the pool: its instances, and where their stubs are. Stub `i` is at `stubs + i * stride`.
///
/// ```
/// use hit::returns::{Instance, Pool, Returns};
/// use sync::primitive::{AtomicU32, Ordering};
///
/// // SAFETY: zeroed memory is an unused pool (`sync::Zeroed`).
/// let (pool, instances): (Pool, [Instance; 4]) = unsafe { std::mem::zeroed() };
/// let returns = Returns { pool: &pool, instances: &instances, stubs: 0x9000, stride: 16 };
/// assert_eq!(returns.high_water(), 0);
///
/// // As if a call from 0x1234 were watched.
/// // SAFETY: there the pool has an atomic word of this size.
/// let used = unsafe { &*(&raw const pool).byte_add(Pool::USED_OFFSET).cast::<AtomicU32>() };
/// used.store(1, Ordering::Relaxed);
/// instances[0].return_address.store(0x1234, Ordering::Relaxed);
/// assert_eq!(returns.high_water(), 1);
/// assert_eq!(returns.true_return_address(0x9000), 0x1234); // the stub of the first instance
/// assert_eq!(returns.true_return_address(0x9010), 0x9010); // of one that was never used
/// assert_eq!(returns.true_return_address(0x5678), 0x5678);
/// ```
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

/// A return probe's bit among those of its site.
#[inline(always)]
fn bit(probe: &Probe) -> u32 {
    1u32.wrapping_shl(probe.bit.load(Ordering::Relaxed))
}

/// Calls `f` for each return probe of `site` whose bit is in `mask`, also for those that are being unregistered: their
/// `active` must come back to zero.
fn for_each_waiting<H: Host>(host: &H, site: &Site, mask: u32, mut f: impl FnMut(&Probe, &Counters)) {
    for probe in chain(host, site).filter(|p| p.kind() == Some(Kind::Return)) {
        if mask & bit(probe) == 0 {
            continue;
        }
        if let Some(counters) = counters(host, probe) {
            f(probe, counters);
        }
    }
}

impl<'a> Returns<'a> {
    /// How many instances were ever used.
    #[must_use]
    pub fn high_water(&self) -> u32 {
        self.free().high_water()
    }

    /// Where a return address leads in truth: through the stubs of functions that share a return slot, because one has
    /// left by a jump to the other.
    #[must_use]
    pub fn true_return_address(&self, address: u64) -> u64 {
        let next = |&address: &u64| self.at(address).map(|(_, instance)| instance.returns_to());
        core::iter::successors(Some(address), next).take(crate::MAX_CHAIN).last().unwrap_or(address)
    }

    /// Accounts for an activation that never returns, and keeps the instance for last. The caller holds it in `from`.
    fn unwind<H: Host>(&self, host: &H, id: u32, instance: &Instance, from: u32) {
        if !self.settle(id, instance, from, phase::UNWOUND) {
            return;
        }
        self.for_each_waiting(host, instance, |probe, counters| {
            host.released(probe, id);
            probe.active.fetch_sub(1, Ordering::Relaxed);
            Counters::add(&counters.unwound);
        });
        self.unwound().push(id);
    }

    /// The caller, who holds the instance, is done with it.
    fn settle(&self, id: u32, instance: &Instance, from: u32, to: u32) -> bool {
        let settled = instance.settle(from, to);
        if !settled {
            self.let_go(id, instance);
        }
        settled
    }

    fn let_go(&self, id: u32, instance: &Instance) {
        if instance.let_go() {
            self.free().push(id);
        }
    }

    fn finish(&self, id: u32, instance: &Instance) {
        if instance.finish() {
            self.free().push(id);
        }
    }

    fn for_each_waiting<H: Host>(&self, host: &H, instance: &Instance, mut f: impl FnMut(&Probe, &Counters)) {
        let now = self.pool.epoch.load(Ordering::Relaxed);
        let Some(site) = host.site(instance.site.load(Ordering::Relaxed)) else {
            return;
        };
        if instance.epoch.load(Ordering::Relaxed) == now {
            let newest = instance.newest.load(Ordering::Relaxed);
            for_each_waiting(host, site, instance.mask.load(Ordering::Relaxed), |probe, counters| {
                if probe.serial.load(Ordering::Relaxed) <= newest {
                    f(probe, counters);
                }
            });
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

    #[inline(always)]
    fn take(&self) -> Option<(u32, &'a Instance)> {
        let free = self.pool.never_reuse.load(Ordering::Relaxed) == 0;
        if let Some(id) = free.then(|| self.free().pop()).flatten()
            && let Some(instance) = self.instances.get(id as usize)
            && instance.begin()
        {
            return Some((id, instance));
        }
        self.take_another()
    }

    /// Not from the free list's head. An instance that was returned through a second time while it lay in a list is
    /// thrown away.
    #[cold]
    #[inline(never)]
    fn take_another(&self) -> Option<(u32, &'a Instance)> {
        core::iter::from_fn(|| self.pop()).take(crate::MAX_CHAIN).find_map(|id| {
            let instance = self.instances.get(id as usize)?;
            instance.begin().then_some((id, instance))
        })
    }

    fn pop(&self) -> Option<u32> {
        match self.pool.never_reuse.load(Ordering::Relaxed) {
            0 => self.free().pop().or_else(|| self.unwound().pop()),
            _ => self.unused().pop(),
        }
    }

    #[inline(always)]
    fn at(&self, address: u64) -> Option<(u32, &'a Instance)> {
        let index = address.wrapping_sub(self.stubs).checked_div(self.stride)?;
        let instance = self.instances.get(usize::try_from(index).ok()?)?;
        // Only those that were ever used: so it is a number of 32 bits.
        let used = index < u64::from(self.pool.used.load(Ordering::Acquire));
        (used && self.stub(index as u32) == address).then_some((index as u32, instance))
    }

    /// Whether `address` is among the stubs.
    #[inline]
    pub(crate) fn spans(&self, address: u64) -> bool {
        address.wrapping_sub(self.stubs) < (self.instances.len() as u64).wrapping_mul(self.stride)
    }

    pub(crate) fn stub(&self, id: u32) -> u64 {
        self.stubs.wrapping_add(u64::from(id) * self.stride)
    }

    fn free(&self) -> FreeList<'a, impl Fn(u32) -> Option<&'a AtomicU32> + use<'a>> {
        let capacity = u32::try_from(self.instances.len()).unwrap_or(u32::MAX - 1);
        FreeList::new(&self.pool.free, &self.pool.used, capacity, self.link())
    }

    fn unused(&self) -> FreeList<'a, impl Fn(u32) -> Option<&'a AtomicU32> + use<'a>> {
        let capacity = u32::try_from(self.instances.len()).unwrap_or(u32::MAX - 1);
        FreeList::new(&self.pool.empty, &self.pool.used, capacity, self.link())
    }

    fn unwound(&self) -> FreeList<'a, impl Fn(u32) -> Option<&'a AtomicU32> + use<'a>> {
        FreeList::new(&self.pool.unwound, &self.pool.none, 0, self.link())
    }

    fn link(&self) -> impl Fn(u32) -> Option<&'a AtomicU32> + use<'a> {
        let instances = self.instances;
        move |id| instances.get(id as usize).map(|i| &i.link)
    }
}
