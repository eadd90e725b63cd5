//! Walks over a stack: which instances they meet, and what becomes of those.

use super::instance::{ANYBODY, Instance, phase};
use super::{Returns, SideStack};
use crate::Host;
use core::cell::Cell;
use sync::primitive::Ordering;

/// A slot that another thread has armed belongs to a coroutine that has moved here, if it is this close above the stack
/// pointer and on the same stack.
const NEAR: u64 = 64 << 10;
/// No stack is larger. A `longjmp` further than this goes to another stack.
const ONE_STACK: u64 = 64 << 20;

/// How far the stack at `low` is known to reach.
#[derive(Debug)]
struct Stack {
    low: u64,
    /// Everything up to here belongs to it.
    holds: Cell<u64>,
    /// Nothing from here on does.
    ends: Cell<u64>,
}

impl Stack {
    fn at(low: u64) -> Self {
        Self { low, holds: Cell::new(low), ends: Cell::new(low.saturating_add(ONE_STACK)) }
    }

    /// Whether `address` is above `low` on this stack.
    fn reaches<H: Host>(&self, host: &H, address: u64) -> bool {
        let (holds, ends) = (self.holds.get(), self.ends.get());
        if address < self.low || address >= ends {
            return false;
        }
        if address <= holds {
            return true;
        }
        let one = host.contiguous(holds, address);
        let bound = if one { &self.holds } else { &self.ends };
        bound.set(address);
        one
    }

    fn is_near(&self, address: u64) -> bool {
        address.wrapping_sub(self.low) < NEAR
    }
}

/// Where an unwinder stands: in which thread, on which stack.
struct Walk<'h, H> {
    host: &'h H,
    thread: u64,
    here: Stack,
    /// The stack that a signal has interrupted, when the walk begins on the signal stack and the host knows it.
    interrupted: Option<Stack>,
    side: SideStack,
}

impl<'h, H: Host> Walk<'h, H> {
    fn new(host: &'h H, sp: u64, side: SideStack) -> Self {
        let below = if side.holds(sp) { host.interrupted(sp, side) } else { None };
        Self { host, thread: host.thread(), here: Stack::at(sp), interrupted: below.map(Stack::at), side }
    }

    fn is_on_side_stack(&self) -> bool {
        self.side.holds(self.here.low)
    }

    /// Whether a walk from here outwards meets `instance`.
    fn meets(&self, instance: &Instance) -> bool {
        let owner = instance.owner();
        let mine = owner == self.thread || owner == ANYBODY;
        // Which stack a signal has interrupted is unknown: any of the thread's.
        mine && self.is_on_side_stack() && self.interrupted.is_none()
            || self.is_on_stack(instance, |stack| mine || stack.is_near(instance.slot()))
    }

    /// Whether `instance` is on a stack that is known to be the thread's, and wanted there.
    fn is_on_stack(&self, instance: &Instance, wanted: impl Fn(&Stack) -> bool) -> bool {
        let on = |stack: &Stack| wanted(stack) && stack.reaches(self.host, instance.slot());
        on(&self.here) || self.interrupted.as_ref().is_some_and(on)
    }

    /// Whether the frame of `instance`, which was met, is gone once execution goes on in the frame that begins at `cfa`.
    fn leaves(&self, instance: &Instance, cfa: u64) -> bool {
        let slot = instance.slot();
        if !self.is_on_side_stack() || self.side.holds(cfa) {
            return self.here.low <= slot && slot < cfa;
        }
        let known = self.interrupted.as_ref();
        let outside = |stack: &Stack| stack.low <= slot;
        let one_stack = || cfa.wrapping_sub(slot) < ONE_STACK && self.host.contiguous(slot, cfa);
        self.side.holds(slot) || (slot < cfa && known.map_or_else(one_stack, outside))
    }

    /// Whether a jump to `target` stays on the stack, or leaves the signal stack for the one it has interrupted.
    fn stays(&self, target: u64) -> bool {
        if self.is_on_side_stack() && !self.side.holds(target) {
            return self.interrupted.as_ref().is_none_or(|stack| stack.reaches(self.host, target));
        }
        self.here.reaches(self.host, target)
    }

    /// Whether another walker works on `instance`, or has done so since it was `seen` in a phase: lets it go on.
    fn waits_for(&self, instance: &Instance, seen: u32) -> bool {
        let busy = (instance.is_held() || instance.phase() != seen) && self.meets(instance);
        if busy {
            self.host.relax();
        }
        busy
    }

    /// Holds `instance` if it is in this phase, and met still: it may have become another activation's meanwhile.
    fn hold(&self, returns: &Returns<'_>, id: u32, instance: &Instance, phase: u32) -> bool {
        if instance.phase() != phase || !self.meets(instance) || !instance.hold(phase) {
            return false;
        }
        let met = self.meets(instance);
        if !met {
            returns.let_go(id, instance);
        }
        met
    }

    /// As [`hold`](Self::hold), for what this thread's walks have restored.
    fn hold_restored(&self, returns: &Returns<'_>, id: u32, instance: &Instance) -> bool {
        let own = || instance.is_restored_by(self.thread);
        if !own() || !self.hold(returns, id, instance, phase::RESTORED) {
            return false;
        }
        let still = own();
        if !still {
            returns.let_go(id, instance);
        }
        still
    }
}

impl Returns<'_> {
    /// An unwinder starts at stack pointer `sp`: the true return addresses go back.
    ///
    /// What a host tells of the program's runtime:
    ///
    /// ```
    /// use hit::Host;
    /// use hit::returns::SideStack;
    ///
    /// enum Runtime {
    ///     UnwinderStarts,
    ///     UnwinderGoesOn { cfa: u64 },
    ///     UnwinderReturns,
    ///     Longjmp { target: u64 },
    ///     ThreadEnds,
    ///     ThreadHasEnded(u64),
    ///     Forked,
    /// }
    ///
    /// fn tell<H: Host>(host: &H, what: Runtime, sp: u64, signal: SideStack) {
    ///     let returns = host.returns();
    ///     match what {
    ///         Runtime::UnwinderStarts => returns.restore(host, sp, signal),
    ///         Runtime::UnwinderGoesOn { cfa } => returns.land(host, sp, cfa, signal),
    ///         Runtime::UnwinderReturns => returns.walked(host, sp, signal),
    ///         Runtime::Longjmp { target } => returns.jump(host, sp, target, signal),
    ///         Runtime::ThreadEnds => returns.exit(host),
    ///         Runtime::ThreadHasEnded(thread) => returns.ended(host, thread),
    ///         Runtime::Forked => returns.adopt(), // in the child
    ///     }
    /// }
    /// ```
    pub fn restore<H: Host>(&self, host: &H, sp: u64, side: SideStack) {
        let walk = Walk::new(host, sp, side);
        self.repeat(|id, instance| match instance.phase() {
            phase::ARMED => self.put_back(&walk, id, instance),
            phase::RESTORED => self.take_over(&walk, id, instance),
            seen => walk.waits_for(instance, seen),
        });
    }

    /// The unwinder, whose frame is at `sp`, goes on in the frame whose canonical frame address is `cfa`.
    pub fn land<H: Host>(&self, host: &H, sp: u64, cfa: u64, side: SideStack) {
        self.go_on(&Walk::new(host, sp, side), cfa);
    }

    /// The unwinder only walked the stack, and returns now with stack pointer `sp`.
    pub fn walked<H: Host>(&self, host: &H, sp: u64, side: SideStack) {
        self.rearm(&Walk::new(host, sp, side));
    }

    /// `longjmp` from stack pointer `sp` to `target`.
    pub fn jump<H: Host>(&self, host: &H, sp: u64, target: u64, side: SideStack) {
        let walk = Walk::new(host, sp, side);
        let mut unwinds = false;
        let between = |i: &Instance| walk.leaves(i, target) && walk.meets(i);
        self.each(|_, i| unwinds |= matches!(i.phase(), phase::ARMED | phase::RESTORED) && between(i));
        if unwinds && !walk.stays(target) {
            return;
        }
        self.repeat(|id, i| i.phase() == phase::ARMED && between(i) && self.put_back(&walk, id, i));
        self.go_on(&walk, target);
    }

    /// The running thread ends: what it still has out never returns. What a forked child has inherited is left alone,
    /// for nobody knows that it is on this thread's stack.
    pub fn exit<H: Host>(&self, host: &H) {
        self.ended(host, host.thread());
    }

    /// The same of another thread, which will never run again.
    pub fn ended<H: Host>(&self, host: &H, thread: u64) {
        self.repeat(|id, instance| {
            let from = instance.phase();
            if !matches!(from, phase::ARMED | phase::RESTORED) || instance.owner() != thread {
                return false;
            }
            if !instance.hold(from) {
                host.relax();
                return true;
            }
            if instance.owner() == thread {
                self.unwind(host, id, instance, from);
            } else {
                self.let_go(id, instance);
            }
            true
        });
    }

    /// In a process that was just forked, whichever thread it is that lives on owns all that was inherited. No other
    /// thread may be running.
    pub fn adopt(&self) {
        self.each(|id, instance| {
            if instance.phase() != phase::FREE {
                instance.owner.store(ANYBODY, Ordering::Relaxed);
                instance.restored_by.store(ANYBODY, Ordering::Relaxed);
            }
            // The thread that held it does not exist here.
            self.let_go(id, instance);
        });
    }

    fn go_on<H: Host>(&self, walk: &Walk<'_, H>, cfa: u64) {
        self.each(|id, instance| {
            let leaves = instance.phase() == phase::RESTORED && walk.leaves(instance, cfa);
            if leaves && walk.hold_restored(self, id, instance) {
                self.unwind(walk.host, id, instance, phase::RESTORED);
            }
        });
        self.rearm(walk);
    }

    fn rearm<H: Host>(&self, walk: &Walk<'_, H>) {
        self.repeat(|id, instance| {
            if !walk.hold_restored(self, id, instance) {
                return false;
            }
            let (slot, home) = (instance.slot(), instance.returns_to());
            let done = walk.host.exchange_guarded(slot, home, self.stub(id));
            let to = if done { phase::ARMED } else { phase::RESTORED };
            if instance.settle(phase::RESTORED, to) {
                return done;
            }
            // Its function has returned meanwhile: the stub stands in another activation's slot now, if in any.
            let undone = !done || walk.host.exchange_guarded(slot, self.stub(id), home);
            if undone || !instance.stay() {
                self.let_go(id, instance);
            }
            false
        });
        // What could not be armed again has no frame any more.
        self.each(|id, instance| {
            if walk.hold_restored(self, id, instance) {
                self.unwind(walk.host, id, instance, phase::RESTORED);
            }
        });
    }

    /// Puts the true address of an armed instance back; true when something has changed, or another walker is about to
    /// do it.
    fn put_back<H: Host>(&self, walk: &Walk<'_, H>, id: u32, instance: &Instance) -> bool {
        if !walk.hold(self, id, instance, phase::ARMED) {
            return walk.waits_for(instance, phase::ARMED);
        }
        if instance.owner() == ANYBODY && walk.is_on_stack(instance, |_| true) {
            instance.owner.store(walk.thread, Ordering::Relaxed);
        }
        instance.restored_by.store(walk.thread, Ordering::Relaxed);
        let done = walk.host.exchange_guarded(instance.slot(), self.stub(id), instance.returns_to());
        self.settle(id, instance, phase::ARMED, if done { phase::RESTORED } else { phase::ARMED });
        done
    }

    /// Another thread has restored an instance that is the walking thread's own, on its own stack: it must not arm it
    /// again under this walk. True when it is just about to.
    fn take_over<H: Host>(&self, walk: &Walk<'_, H>, id: u32, instance: &Instance) -> bool {
        let own = |i: &Instance| i.owner() == walk.thread && walk.is_on_stack(i, |_| true);
        if instance.is_restored_by(walk.thread) || !own(instance) {
            return false;
        }
        if !instance.hold(phase::RESTORED) {
            walk.host.relax();
            return true;
        }
        if own(instance) {
            instance.restored_by.store(walk.thread, Ordering::Relaxed);
        }
        self.settle(id, instance, phase::RESTORED, phase::RESTORED);
        false
    }
}
