//! One activation, and how it comes from one phase to the next.
//!
//! Two kinds of threads meet at an instance: the one that returns through its stub, and those that walk. A walker must
//! not be overtaken between its look at the slot and its change there, for the instance might be another activation's
//! by then; and a thread that returns must not wait. So a walker *holds* the instance ([`HELD`]) while it works on it.
//! A return goes on meanwhile; only the giving back of the instance is left to whoever of the two is last.
//!
//! ```text
//!        take        arm          return            finish
//!  FREE ------> NEW -----> ARMED ---------> RETURNING -----> FREE
//!                          |   ^            ^
//!                  restore |   | rearm      | return (the slot was armed again, or the trap was under way)
//!                          v   |            |
//!                        RESTORED ----------+
//!                            | land, exit                 return                  take
//!                            +------------> UNWOUND -----------------> SPENT     UNWOUND -----> NEW
//! ```
//!
//! Every arrow but `arm` and `finish` is a compare-exchange, and who wins it accounts for it. `arm` and `finish` are
//! the step of a thread that has the instance for itself, up to a walker's hold.
//!
//! A walker that arms an instance again may come too late, and put the stub into the slot of the *next* call from the
//! same place. It takes the stub back; if that fails, the instance stays armed there, uncounted ([`Instance::stay`]).

use super::SAVED_ARGUMENTS;
use sync::primitive::{AtomicU32, AtomicU64, Ordering};

/// The owner of an instance that was inherited from a parent process.
pub(super) const ANYBODY: u64 = u64::MAX;

/// What an instance is doing.
pub(super) mod phase {
    pub(crate) const FREE: u32 = 0;
    /// Its stub stands in the return slot.
    pub(crate) const ARMED: u32 = 1;
    /// The true return address stands there, because an unwinder runs.
    pub(crate) const RESTORED: u32 = 2;
    /// Its activation ended without returning.
    pub(crate) const UNWOUND: u32 = 3;
    /// Taken, and not yet armed.
    pub(crate) const NEW: u32 = 4;
    /// A thread is in the trap of its return.
    pub(crate) const RETURNING: u32 = 5;
    /// Returned through more than once, or after it was unwound: it is never used again.
    pub(crate) const SPENT: u32 = 6;
}

/// The phase in an instance's state.
const PHASE: u32 = 7;
/// A walker works on the instance: it stays this activation's until the walker lets go.
const HELD: u32 = 8;

/// One activation of a probed function. Written by the thread that has it; others read it when they unwind.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Instance {
    /// The true return address.
    pub return_address: AtomicU64,
    /// Where it stood: the address of the return slot.
    pub slot: AtomicU64,
    /// The thread that made the call.
    pub(super) owner: AtomicU64,
    /// Index of the site.
    pub(super) site: AtomicU64,
    /// Phase, and whether it is held.
    state: AtomicU32,
    /// Which of the site's return probes want this return.
    pub(super) mask: AtomicU32,
    /// For the free list.
    pub(super) link: AtomicU32,
    /// The pool's epoch when it was taken.
    pub(super) epoch: AtomicU32,
    /// The argument registers at the entry.
    pub arguments: [AtomicU64; SAVED_ARGUMENTS],
    /// The thread whose walk has restored it; written by that thread while it holds the instance.
    pub(super) restored_by: AtomicU64,
    /// The highest [`serial`](crate::Probe::serial) of the return probes that were met at the entry. A bit is used again by
    /// later probes, which have higher ones: this activation is none of theirs.
    pub newest: AtomicU64,
    _pad: [AtomicU64; 2],
}

const _: () = assert!(size_of::<Instance>() == 128);

/// Offset of an instance's state, for a control that works from outside.
pub const STATE_OFFSET: usize = core::mem::offset_of!(Instance, state);
/// The bits of a state that say the phase; the others say who works on it.
pub const STATE_PHASE: u32 = PHASE;
/// The phase of an instance whose stub stands in its slot.
pub const STATE_ARMED: u32 = phase::ARMED;
/// The phase of an instance whose slot holds the true return address for now.
pub const STATE_RESTORED: u32 = phase::RESTORED;

impl Instance {
    pub(super) fn phase(&self) -> u32 {
        self.state.load(Ordering::Acquire) & PHASE
    }

    pub(super) fn is_held(&self) -> bool {
        self.state.load(Ordering::Relaxed) & HELD != 0
    }

    pub(super) fn slot(&self) -> u64 {
        self.slot.load(Ordering::Relaxed)
    }

    pub(super) fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }

    pub(super) fn returns_to(&self) -> u64 {
        self.return_address.load(Ordering::Relaxed)
    }

    /// Whether it was restored by `thread`, or by the thread that has forked this process.
    pub(super) fn is_restored_by(&self, thread: u64) -> bool {
        let by = self.restored_by.load(Ordering::Relaxed);
        by == thread || by == ANYBODY
    }

    /// It was just taken from a list: false when it may not be used again.
    pub(super) fn begin(&self) -> bool {
        let fresh = |state| matches!(state, phase::FREE | phase::UNWOUND).then_some(phase::NEW);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, fresh).is_ok()
    }

    /// What the taker has written is ready for others.
    pub(super) fn arm(&self) {
        self.state.store(phase::ARMED, Ordering::Release);
    }

    /// Its stub was returned through: gives the phase that it was in. Of several threads that return through one
    /// instance, one is told that it was armed or restored, or that it was unwound.
    pub(super) fn depart(&self) -> u32 {
        let to = |phase| match phase {
            phase::ARMED | phase::RESTORED => Some(phase::RETURNING),
            phase::UNWOUND | phase::FREE => Some(phase::SPENT),
            _ => None,
        };
        let next = |state: u32| to(state & PHASE).map(|phase| phase | state & HELD);
        match self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(was) | Err(was) => was & PHASE,
        }
    }

    /// The return is done: true when the instance is to be given back; a walker that holds it will otherwise.
    pub(super) fn finish(&self) -> bool {
        let free = |state: u32| Some(phase::FREE | state & HELD);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).is_ok_and(|was| was & HELD == 0)
    }

    /// It has returned while a walker held it, who has put its stub in a later activation's slot: it stays armed there,
    /// to lead home, and nobody waits for its return. False when it is needed no more: it was returned through already.
    pub(super) fn stay(&self) -> bool {
        if self.state.load(Ordering::Acquire) != phase::FREE | HELD {
            return false;
        }
        self.mask.store(0, Ordering::Relaxed);
        self.settle(phase::FREE, phase::ARMED)
    }

    /// A walker holds the instance, if it is in this phase and nobody else does.
    pub(super) fn hold(&self, phase: u32) -> bool {
        self.state.compare_exchange(phase, phase | HELD, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The walker that holds the instance in phase `from` brings it to `to` and lets go; false when its function has
    /// returned meanwhile, and the walker must [`let_go`](Self::let_go).
    pub(super) fn settle(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from | HELD, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Nobody holds the instance any more: true when it was held and is to be given back now.
    pub(super) fn let_go(&self) -> bool {
        self.state.fetch_and(!HELD, Ordering::AcqRel) == phase::FREE | HELD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        let zero = || AtomicU64::new(0);
        let half = || AtomicU32::new(0);
        Instance {
            return_address: zero(),
            slot: zero(),
            owner: zero(),
            site: zero(),
            state: half(),
            mask: half(),
            link: half(),
            epoch: half(),
            arguments: core::array::from_fn(|_| zero()),
            restored_by: zero(),
            newest: zero(),
            _pad: core::array::from_fn(|_| zero()),
        }
    }

    fn armed() -> Instance {
        let instance = instance();
        assert!(instance.begin());
        instance.arm();
        instance
    }

    #[test]
    fn who_is_last_of_a_return_and_a_walk_gives_the_instance_back() {
        let i = armed();
        assert!(i.hold(phase::ARMED));
        assert_eq!(i.depart(), phase::ARMED);
        assert!(!i.finish(), "a walker holds it");
        assert!(!i.settle(phase::ARMED, phase::RESTORED));
        assert!(i.let_go(), "the walker is last");

        let i = armed();
        assert!(i.hold(phase::ARMED));
        assert_eq!(i.depart(), phase::ARMED);
        assert!(!i.settle(phase::ARMED, phase::RESTORED));
        assert!(!i.let_go(), "its return is not finished");
        assert!(i.finish(), "the return is last");
    }

    #[test]
    fn one_walker_holds_an_instance() {
        let i = armed();
        assert!(i.hold(phase::ARMED) && i.is_held());
        assert!(!i.hold(phase::ARMED));
        assert!(i.settle(phase::ARMED, phase::RESTORED) && !i.is_held());
        assert!(!i.hold(phase::ARMED) && i.hold(phase::RESTORED));
    }

    #[test]
    fn a_second_return_is_told_apart_from_the_first() {
        let i = armed();
        assert_eq!((i.depart(), i.depart()), (phase::ARMED, phase::RETURNING));
        assert!(i.finish());
        assert_eq!((i.depart(), i.depart()), (phase::FREE, phase::SPENT));
        assert!(!i.begin(), "it is never used again");
    }

    #[test]
    fn an_instance_that_stays_returns_once_more() {
        let i = armed();
        assert!(i.hold(phase::ARMED) && i.settle(phase::ARMED, phase::RESTORED) && i.hold(phase::RESTORED));
        assert_eq!(i.depart(), phase::RESTORED);
        assert!(!i.stay(), "its return is not finished");
        assert!(!i.finish() && !i.settle(phase::RESTORED, phase::ARMED));
        assert!(i.stay());
        assert_eq!((i.depart(), i.finish()), (phase::ARMED, true));
    }

    #[test]
    fn an_unwound_instance_returns_once() {
        let i = armed();
        assert!(i.hold(phase::ARMED) && i.settle(phase::ARMED, phase::UNWOUND));
        assert_eq!((i.depart(), i.depart()), (phase::UNWOUND, phase::SPENT));
    }
}
