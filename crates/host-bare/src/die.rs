//! The notifier chain: who is asked about a trap, in which order (Linux: `notify_die`, `kernel/notifier.c`).
//!
//! A list of statics, walked without a lock. Registering and removing each is one store of a pointer. A notifier that
//! was removed keeps its own pointer, so whoever stands on it goes on.

use crate::{Kernel, Regs};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use hit::Outcome;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Die {
    /// A breakpoint (`#BP`).
    Breakpoint,
    /// A debug exception (`#DB`), with what the processor's status said (DR6).
    Debug(u64),
    /// A fault that nobody has handled: its vector and error code.
    Fault(u64, u64),
}

/// A notifier's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was mine and is done (Linux: `NOTIFY_STOP`).
    Stop,
    /// Ask the next (Linux: `NOTIFY_DONE`).
    Pass,
}

/// One who is asked.
#[derive(Debug)]
pub struct Notifier {
    priority: i32,
    call: fn(Die, &mut Regs) -> Verdict,
    next: AtomicPtr<Notifier>,
}

impl Notifier {
    /// Higher priorities are asked first.
    #[must_use]
    pub const fn new(priority: i32, call: fn(Die, &mut Regs) -> Verdict) -> Self {
        Self { priority, call, next: AtomicPtr::new(core::ptr::null_mut()) }
    }
}

/// The chain.
///
/// ```
/// use host_bare::{Chain, Die, Notifier, Regs, Verdict};
///
/// static CHAIN: Chain = Chain::new();
/// /// A debugger, which knows one breakpoint.
/// static DEBUGGER: Notifier =
///     Notifier::new(10, |_, regs| if regs.rip == 0x1001 { Verdict::Stop } else { Verdict::Pass });
///
/// assert!(CHAIN.register(&DEBUGGER));
/// assert!(!CHAIN.register(&DEBUGGER), "it is there already");
/// let mut regs = Regs { rip: 0x1001, ..Regs::default() };
/// assert!(CHAIN.notify(Die::Breakpoint, &mut regs));
/// assert!(!CHAIN.notify(Die::Breakpoint, &mut Regs::default()), "nobody knows it");
/// assert!(CHAIN.unregister(&DEBUGGER));
/// assert!(!CHAIN.notify(Die::Breakpoint, &mut regs));
/// ```
#[derive(Debug)]
pub struct Chain {
    head: AtomicPtr<Notifier>,
    /// Held while the chain changes.
    changing: AtomicBool,
}

impl Chain {
    /// Nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: AtomicPtr::new(core::ptr::null_mut()), changing: AtomicBool::new(false) }
    }

    /// Adds a notifier, behind those of its priority. False when it is there already. Not for trap context.
    pub fn register(&'static self, new: &'static Notifier) -> bool {
        self.change(|| {
            if self.walk().any(|(_, notifier)| core::ptr::eq(notifier, new)) {
                return false;
            }
            let mut place = &self.head;
            for (_, notifier) in self.walk().take_while(|(_, notifier)| notifier.priority >= new.priority) {
                place = &notifier.next;
            }
            new.next.store(place.load(Ordering::Relaxed), Ordering::Relaxed);
            place.store(core::ptr::from_ref(new).cast_mut(), Ordering::Release);
            true
        })
    }

    /// Takes a notifier out; false when it is not there. It may still be asked by traps that are under way, and must not
    /// be registered again before those have ended: they go on from it.
    pub fn unregister(&'static self, old: &'static Notifier) -> bool {
        self.change(|| {
            let found = self.walk().find(|(_, notifier)| core::ptr::eq(*notifier, old));
            if let Some((place, _)) = found {
                place.store(old.next.load(Ordering::Relaxed), Ordering::Release);
            }
            found.is_some()
        })
    }

    /// Asks kprobes, and then all until one says that it was his; false when nobody does. (Linux, too, asks kprobes
    /// before the chain: `kprobe_int3_handler`.)
    ///
    /// ```
    /// use host_bare::{Chain, Die, Kernel, Regs};
    ///
    /// static CHAIN: Chain = Chain::new();
    ///
    /// /// What the stub of `#BP` calls; false when nobody knows the breakpoint.
    /// fn on_breakpoint<K: Kernel>(regs: &mut Regs) -> bool {
    ///     CHAIN.trap::<K>(Die::Breakpoint, regs)
    /// }
    ///
    /// /// What the stub of `#DB` calls, with DR6, which it has cleared.
    /// fn on_debug<K: Kernel>(regs: &mut Regs, dr6: u64) -> bool {
    ///     CHAIN.trap::<K>(Die::Debug(dr6), regs)
    /// }
    /// ```
    #[inline(always)]
    pub fn trap<K: Kernel>(&self, die: Die, regs: &mut Regs) -> bool {
        match die {
            // A handler is ended by a fault that nobody else wants.
            Die::Fault(..) => self.notify(die, regs) || is_ours::<K>(die, regs),
            // A watchpoint may come with our step.
            Die::Debug(status) if is_ours::<K>(die, regs) => {
                if status & WATCHPOINTS != 0 {
                    self.notify(Die::Debug(status & !BS), regs);
                }
                true
            }
            Die::Debug(_) => self.notify(die, regs),
            Die::Breakpoint => is_ours::<K>(die, regs) || self.notify(die, regs),
        }
    }

    /// Asks all but kprobes.
    pub fn notify(&self, die: Die, regs: &mut Regs) -> bool {
        self.walk().any(|(_, notifier)| (notifier.call)(die, regs) == Verdict::Stop)
    }

    /// The notifiers in their order, each with the place that leads to it. What follows one is looked up after it was
    /// visited.
    fn walk(&self) -> impl Iterator<Item = (&AtomicPtr<Notifier>, &'static Notifier)> {
        let mut place = &self.head;
        core::iter::from_fn(move || {
            let (before, notifier) = (place, get(place)?);
            place = &notifier.next;
            Some((before, notifier))
        })
    }

    fn change<R>(&self, f: impl FnOnce() -> R) -> R {
        while self.changing.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        let result = f();
        self.changing.store(false, Ordering::Release);
        result
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

fn get(place: &AtomicPtr<Notifier>) -> Option<&'static Notifier> {
    // SAFETY: only `register` stores pointers that are not null, and takes them from `&'static` references.
    unsafe { place.load(Ordering::Acquire).as_ref() }
}

/// The single-step bit of DR6, and those of the four watchpoints (SDM volume 3, section 18.2.3).
const BS: u64 = 1 << 14;
const WATCHPOINTS: u64 = 0xF;

/// Whether a trap is kprobes' own; it is handled then. What of it a kernel's handler needs depends on the kind of trap,
/// which it knows: so this becomes part of that.
#[inline(always)]
fn is_ours<K: Kernel>(die: Die, regs: &mut Regs) -> bool {
    let Some(engine) = K::engine() else { return false };
    let outcome = match die {
        Die::Breakpoint => engine.breakpoint(regs),
        Die::Debug(status) if status & BS != 0 => engine.single_step(regs),
        Die::Fault(vector, _) => return engine.contain(regs, vector),
        Die::Debug(_) => return false,
    };
    outcome != Outcome::Foreign
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    fn log(regs: &mut Regs, name: u64) -> Verdict {
        regs.gpr[0] = regs.gpr[0] * 10 + name;
        if regs.rip == name { Verdict::Stop } else { Verdict::Pass }
    }

    /// Who is asked when `stops` says that it is his.
    fn asked(chain: &Chain, stops: u64) -> (u64, bool) {
        let mut regs = Regs { rip: stops, ..Regs::default() };
        let stopped = chain.notify(Die::Breakpoint, &mut regs);
        (regs.gpr[0], stopped)
    }

    #[test]
    fn notifiers_are_asked_by_priority_and_then_in_order() {
        static CHAIN: Chain = Chain::new();
        static ALL: [Notifier; 4] = [
            Notifier::new(0, |_, r| log(r, 1)),
            Notifier::new(i32::MAX, |_, r| log(r, 2)),
            Notifier::new(0, |_, r| log(r, 3)),
            Notifier::new(-5, |_, r| log(r, 4)),
        ];
        assert_eq!(asked(&CHAIN, 0), (0, false));
        let added: Vec<bool> = ALL.iter().map(|n| CHAIN.register(n)).collect();
        assert_eq!(added, [true; 4]);
        assert!(!CHAIN.register(&ALL[3]), "it is there already");
        assert_eq!(asked(&CHAIN, 0), (2134, false));
        assert_eq!(asked(&CHAIN, 3), (213, true));
        assert!(CHAIN.unregister(&ALL[0]) && !CHAIN.unregister(&ALL[0]));
        assert_eq!(asked(&CHAIN, 0), (234, false));
        assert!(CHAIN.register(&ALL[0]));
        assert_eq!(asked(&CHAIN, 0), (2314, false));
    }
}
