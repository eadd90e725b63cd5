//! The notifier chain, and traps that are not kprobes': foreign breakpoints, and single steps of the program's own.

mod breakpoints;
mod steps;

use super::Test;
use crate::arch::trap::{self, Frame};
use crate::probes::hooks::CHAIN;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use host_bare::{Die, Notifier, Regs, Stepping, Verdict};

pub(super) const TESTS: &[Test] = &[
    Test { name: "kprobes is asked first, others by priority", run: breakpoints::order },
    Test { name: "a foreign breakpoint comes unchanged", run: breakpoints::foreign },
    Test { name: "a foreign breakpoint among probes", run: breakpoints::among_probes },
    Test { name: "a foreign breakpoint at the end of a function with probes", run: breakpoints::behind_last },
    Test { name: "the notifier is probed", run: breakpoints::probed_notifier },
    Test { name: "a function that the notifier calls is probed", run: breakpoints::probed_callee },
    Test { name: "a breakpoint in a probe's handler", run: breakpoints::in_handler },
    Test { name: "a notifier sees a fault before the panic", run: breakpoints::fault },
    Test { name: "a notifier takes itself out", run: breakpoints::leaves },
    Test { name: "notifiers come and go while traps happen", run: breakpoints::come_and_go },
    Test { name: "the program's own single steps", run: steps::own },
    Test { name: "the notifier of single steps is probed", run: steps::probed_notifier },
    Test { name: "the program's trap flag survives a probe", run: steps::flag_survives },
    Test { name: "a stepping program turns its flag off behind a probe", run: steps::turned_off },
];

const STEPPINGS: [Stepping; 5] = Stepping::ALL;

/// What notifiers have seen: the first few traps.
struct Log {
    count: AtomicU64,
    entries: [[AtomicU64; 3]; 32],
}

static LOG: Log = Log { count: AtomicU64::new(0), entries: [const { [const { AtomicU64::new(0) }; 3] }; 32] };

impl Log {
    fn clear(&self) {
        self.count.store(0, Relaxed);
    }

    fn note(&self, who: u64, die: Die, regs: &Regs) {
        let what = match die {
            Die::Breakpoint => 3,
            Die::Debug(_) => 1,
            Die::Fault(vector, error) => 1000 + vector * 1000 + error,
        };
        let at = self.count.fetch_add(1, Relaxed) as usize;
        if let Some(entry) = self.entries.get(at) {
            entry.iter().zip([who, what, regs.rip]).for_each(|(to, value)| to.store(value, Relaxed));
        }
    }

    /// Who was asked, what for (3 for a breakpoint, 1 for a debug exception), and where.
    fn take(&self) -> Vec<[u64; 3]> {
        let count = self.count.swap(0, Relaxed) as usize;
        let entry = |e: &[AtomicU64; 3]| [0, 1, 2].map(|i: usize| e[i].load(Relaxed));
        self.entries.iter().take(count).map(entry).collect()
    }
}

/// Traps that came to nobody; they go on.
static UNCLAIMED: AtomicU64 = AtomicU64::new(0);

fn unclaimed(frame: &mut Frame) -> bool {
    UNCLAIMED.fetch_add(1, Relaxed);
    frame.regs.flags &= !isa::x86::flags::TF;
    frame.vector == 3 || frame.vector == 1
}

/// Runs `f` with notifiers, and gives how many traps came to none.
fn with<R>(notifiers: &[&'static Notifier], f: impl FnOnce() -> Result<R, String>) -> Result<(R, u64), String> {
    UNCLAIMED.store(0, Relaxed);
    LOG.clear();
    trap::set_fault_hook(unclaimed);
    let added = notifiers.iter().all(|n| CHAIN.register(n));
    let result = f();
    notifiers.iter().for_each(|n| {
        CHAIN.unregister(n);
    });
    trap::clear_fault_hook();
    if !added {
        return Err("a notifier was there already".to_string());
    }
    Ok((result?, UNCLAIMED.load(Relaxed)))
}

/// Notes a trap, and takes it if it is the program's breakpoint or step.
#[inline(never)]
fn take(die: Die, regs: &mut Regs) -> Verdict {
    LOG.note(0, die, regs);
    core::hint::black_box(helper(regs.rip));
    if matches!(die, Die::Fault(..)) { Verdict::Pass } else { Verdict::Stop }
}

/// What the notifier calls.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn notifiers_helper(value: u64) -> u64 {
    value.rotate_left(7) ^ 0x5555
}

fn helper(value: u64) -> u64 {
    notifiers_helper(value)
}

/// Takes foreign breakpoints and steps.
static TAKER: Notifier = Notifier::new(0, take);
