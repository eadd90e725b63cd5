//! Breakpoints that are not kprobes', and who is asked.

use crate::probes::plain;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use host_bare::{Die, Next, Notifier, Regs, Verdict};

use super::{LOG, STEPPINGS, TAKER, take, with};
use crate::arch::{cpu, time};
use crate::probes::hooks::CHAIN;
use crate::probes::tests::{check, counts, remove, same, stepping};
use crate::probes::with_control;
use crate::{ksyms, sched};

global_asm!(
    ".pushsection .text.notifiers_foreign, \"ax\"",
    ".globl notifiers_foreign",
    ".type notifiers_foreign, @function",
    "notifiers_foreign:",
    "mov rax, rdi",
    "inc rax",
    ".globl notifiers_foreign_at",
    "notifiers_foreign_at: int3",
    "notifiers_foreign_next: lea rax, [rax + rdi*2]",
    "push rax",
    "pop rax",
    "ret",
    ".size notifiers_foreign, . - notifiers_foreign",
    ".popsection",
    // Ends with the breakpoint, which is behind the last instruction that is probed.
    ".pushsection .text.notifiers_jumps, \"ax\"",
    ".globl notifiers_jumps",
    ".type notifiers_jumps, @function",
    "notifiers_jumps: lea rax, [rdi + 1]",
    "jmp 2f",
    "1: lea rax, [rax + rax]",
    "ret",
    "2: nop",
    "int3",
    "jmp 1b",
    ".size notifiers_jumps, . - notifiers_jumps",
    ".popsection",
);

unsafe extern "C" {
    safe fn notifiers_foreign(value: u64) -> u64;
    safe fn notifiers_jumps(value: u64) -> u64;
    static notifiers_foreign_at: [u8; 0];
}

/// What a trap at the foreign breakpoint shows: the address behind it.
fn behind() -> u64 {
    (&raw const notifiers_foreign_at) as u64 + 1
}

fn address(name: &str) -> Result<u64, String> {
    ksyms::lookup(name).map(|s| s.address).map_err(|e| e.to_string())
}

/// Counts at every instruction of a function that takes a probe.
fn count_everywhere(name: &str) -> Result<usize, String> {
    let symbol = ksyms::lookup(name).map_err(|e| e.to_string())?;
    let mut code = vec![0; symbol.size as usize];
    crate::arch::copy::read(symbol.address, &mut code);
    let places: Vec<u64> = isa::x86::boundaries(&code, symbol.address).starts().collect();
    let refused = with_control(|c| c.count_all("notifiers", &places))?;
    Ok(places.len() - refused.len())
}

/// Hits and misses of all probes, which are removed.
fn take_counts() -> Result<(u64, u64), String> {
    let sum = |(hits, missed), c: host_bare::Counts| (hits + c.hits, missed + c.missed);
    let counts = with_control(|c| c.list().map(|l| l.counts).fold((0, 0), sum))?;
    with_control(|c| c.remove_all())?.map_err(|e| e.to_string())?;
    with_control(|c| c.records())?;
    Ok(counts)
}

fn passes<const WHO: u64>(die: Die, regs: &mut Regs) -> Verdict {
    LOG.note(WHO, die, regs);
    Verdict::Pass
}

/// Those of a priority in the order of their registration, and kprobes before all: its own traps come to nobody else.
pub(super) fn order() -> Result<(), String> {
    static FIVE: Notifier = Notifier::new(5, passes::<5>);
    static MINUS: Notifier = Notifier::new(-5, passes::<9>);
    static HIGHEST: Notifier = Notifier::new(i32::MAX, passes::<1>);
    static FIVE_TOO: Notifier = Notifier::new(5, passes::<6>);
    let ((), unclaimed) = with(&[&FIVE, &TAKER, &MINUS, &HIGHEST, &FIVE_TOO], || {
        same("result", notifiers_foreign(5), 16)?;
        let asked: Vec<u64> = LOG.take().iter().map(|e| e[0]).collect();
        same("asked", asked, vec![1, 5, 6, 0])?;
        same("twice", CHAIN.register(&FIVE), false)?;
        for how in STEPPINGS {
            stepping(how, || {
                same("probes", count_everywhere("notifiers_helper")? > 0, true)?;
                core::hint::black_box(super::notifiers_helper(core::hint::black_box(1)));
                let (hits, missed) = take_counts()?;
                check(hits >= 1 && missed == 0, || format!("{hits} hits, {missed} missed"))?;
                same("asked about a probe", LOG.take(), vec![])
            })?;
        }
        Ok(())
    })?;
    same("unclaimed", unclaimed, 0)?;
    same("a notifier is still there", CHAIN.unregister(&MINUS), false)
}

/// The registers as the processor left them: rip behind the breakpoint.
pub(super) fn foreign() -> Result<(), String> {
    static SEES: Notifier = Notifier::new(7, |die, regs| {
        let wanted = [7 + 1, 7];
        let got = [regs.gpr[isa::x86::gpr::RAX], regs.gpr[isa::x86::gpr::RDI]];
        LOG.note(u64::from(got == wanted), die, regs);
        Verdict::Stop
    });
    let ((), unclaimed) = with(&[&SEES], || {
        same("result", notifiers_foreign(7), 22)?;
        same("seen", LOG.take(), vec![[1, 3, behind()]])
    })?;
    same("unclaimed", unclaimed, 0)?;
    // The control: without the notifier it belongs to nobody.
    let (_, unclaimed) = with(&[], || Ok(notifiers_foreign(7)))?;
    same("unclaimed without a notifier", unclaimed, 1)
}

/// Probes on all other instructions of the function: before, behind, and the breakpoint itself is refused.
pub(super) fn among_probes() -> Result<(), String> {
    for how in STEPPINGS {
        let ((), unclaimed) = with(&[&TAKER], || {
            stepping(how, || {
                let refused = with_control(|c| c.count("notifiers_int3", behind() - 1))?;
                check(refused.is_err(), || "a probe was planted on a foreign breakpoint".into())?;
                same("probes", count_everywhere("notifiers_foreign")?, 6)?;
                for value in 0..4 {
                    same("result", notifiers_foreign(value), 3 * value + 1)?;
                }
                same("hits and misses", take_counts()?, (4 * 6, 0))?;
                same("seen", LOG.take(), vec![[0, 3, behind()]; 4])
            })
        })?;
        same("unclaimed", unclaimed, 0)?;
    }
    Ok(())
}

pub(super) fn behind_last() -> Result<(), String> {
    for how in STEPPINGS {
        let ((), unclaimed) = with(&[&TAKER], || {
            stepping(how, || {
                same("probes", count_everywhere("notifiers_jumps")?, 6)?;
                same("result", notifiers_jumps(20), 42)?;
                same("hits and misses", take_counts()?, (6, 0))?;
                same("seen", LOG.take().len(), 1)
            })
        })?;
        same("unclaimed", unclaimed, 0)?;
    }
    Ok(())
}

/// A probe that is hit while the chain is walked for another's breakpoint: the same chain, a second time.
pub(super) fn probed_notifier() -> Result<(), String> {
    let notifier = take as *const () as u64;
    for how in STEPPINGS {
        let ((), unclaimed) = with(&[&TAKER], || {
            stepping(how, || {
                with_control(|c| c.count("notifiers_take", notifier))?.map_err(|e| e.to_string())?;
                let results = [1, 2, 3].map(|value| notifiers_foreign(value));
                let hits = counts("notifiers_take")?;
                remove(&["notifiers_take"])?;
                same("results", results, [4, 7, 10])?;
                same("hits and misses", (hits.hits, hits.missed), (3, 0))?;
                same("seen", LOG.take(), vec![[0, 3, behind()]; 3])
            })
        })?;
        same("unclaimed", unclaimed, 0)?;
    }
    Ok(())
}

/// All of its instructions, and its return.
pub(super) fn probed_callee() -> Result<(), String> {
    for how in STEPPINGS {
        let ((), unclaimed) = with(&[&TAKER], || {
            stepping(how, || {
                let places = count_everywhere("notifiers_helper")? as u64;
                with_control(|c| c.count_returns("notifiers_return", address("notifiers_helper").unwrap_or(0), 4))?
                    .map_err(|e| e.to_string())?;
                let results = [1, 2, 3].map(|value| notifiers_foreign(value));
                let returned = counts("notifiers_return")?.returned;
                let (hits, missed) = take_counts()?;
                same("results", results, [4, 7, 10])?;
                same("returns", returned, 3)?;
                same("hits and misses", (hits, missed), (3 * places + 3, 0))?;
                same("seen", LOG.take().len(), 3)
            })
        })?;
        same("unclaimed", unclaimed, 0)?;
    }
    Ok(())
}

/// The handler runs into a foreign breakpoint: its notifier is asked, its probe is missed, the handler goes on.
pub(super) fn in_handler() -> Result<(), String> {
    static PASSED: AtomicU64 = AtomicU64::new(0);
    fn handler(_: &mut Regs) -> Next {
        PASSED.fetch_add(notifiers_foreign(1), Relaxed);
        Next::Step
    }
    for how in STEPPINGS {
        let ((), unclaimed) = with(&[&TAKER], || {
            stepping(how, || {
                PASSED.store(0, Relaxed);
                with_control(|c| {
                    plain::attach(c, "notifiers_outer", address("notifiers_jumps").unwrap_or(0), handler)?;
                    c.count("notifiers_take", take as *const () as u64)
                })?
                .map_err(|e| e.to_string())?;
                same("result", notifiers_jumps(20), 42)?;
                let (outer, inner) = (counts("notifiers_outer")?, counts("notifiers_take")?);
                remove(&["notifiers_outer", "notifiers_take"])?;
                same("the handler's result", PASSED.load(Relaxed), 4)?;
                same("outer", (outer.hits, outer.missed), (1, 0))?;
                // Once in the handler, once outside.
                same("inner", (inner.hits, inner.missed), (1, 1))?;
                same("seen", LOG.take().len(), 2)
            })
        })?;
        same("unclaimed", unclaimed, 0)?;
    }
    Ok(())
}

/// With vector and error code; what it says about the registers takes effect.
pub(super) fn fault() -> Result<(), String> {
    static CURES: Notifier = Notifier::new(3, |die, regs| {
        LOG.note(3, die, regs);
        let mine = die == Die::Fault(6, 0);
        regs.rip += if mine { 2 } else { 0 };
        if mine { Verdict::Stop } else { Verdict::Pass }
    });
    let ((), unclaimed) = with(&[&CURES, &TAKER], || {
        let at: u64;
        // SAFETY: the notifier goes on behind the instruction.
        unsafe { asm!("lea {at}, [rip + 2f]", "2: ud2", at = out(reg) at) };
        same("seen", LOG.take(), vec![[3, 1000 + 6000, at]])
    })?;
    same("unclaimed", unclaimed, 0)
}

/// Whoever takes itself out is not asked again; the one behind it is asked in the same trap already.
pub(super) fn leaves() -> Result<(), String> {
    static LEAVER: Notifier = Notifier::new(9, leave);
    fn leave(die: Die, regs: &mut Regs) -> Verdict {
        LOG.note(9, die, regs);
        CHAIN.unregister(&LEAVER);
        Verdict::Pass
    }
    let ((), unclaimed) = with(&[&LEAVER, &TAKER], || {
        notifiers_foreign(1);
        notifiers_foreign(2);
        let asked: Vec<u64> = LOG.take().iter().map(|e| e[0]).collect();
        same("asked", asked, vec![9, 0, 0])?;
        same("comes back", CHAIN.register(&LEAVER), true)?;
        notifiers_foreign(3);
        same("asked again", LOG.take().len(), 2)
    })?;
    same("unclaimed", unclaimed, 0)
}

static STOP: AtomicU64 = AtomicU64::new(0);
static TRAPS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);

fn traps(_: usize) {
    while STOP.load(Relaxed) == 0 {
        WRONG.fetch_add(u64::from(notifiers_foreign(3) != 10), Relaxed);
        TRAPS.fetch_add(1, Relaxed);
        sched::yield_now();
    }
}

/// One thread for each processor but ours runs into breakpoints meanwhile (on one processor: between two changes).
pub(super) fn come_and_go() -> Result<(), String> {
    static COMING: [Notifier; 3] =
        [Notifier::new(20, passes::<20>), Notifier::new(0, passes::<21>), Notifier::new(-20, passes::<22>)];
    STOP.store(0, Relaxed);
    TRAPS.store(0, Relaxed);
    WRONG.store(0, Relaxed);
    let (rounds, unclaimed) = with(&[&TAKER], || {
        let threads: Vec<_> = (1..cpu::count().max(2)).map(|n| sched::spawn("notifiers", traps, n)).collect();
        let end = time::now_ns() + 100_000_000;
        let mut rounds = 0_u64;
        let mut failed = 0;
        while time::now_ns() < end {
            failed += COMING.iter().filter(|n| !CHAIN.register(n)).count();
            if rounds.is_multiple_of(8) {
                sched::yield_now();
            }
            failed += COMING.iter().filter(|n| !CHAIN.unregister(n)).count();
            rounds += 1;
        }
        STOP.store(1, Relaxed);
        threads.into_iter().for_each(sched::join);
        same("changes that failed", failed, 0)?;
        Ok(rounds)
    })?;
    same("unclaimed", unclaimed, 0)?;
    same("wrong results", WRONG.load(Relaxed), 0)?;
    let traps = TRAPS.load(Relaxed);
    check(rounds > 100 && traps > 100, || format!("only {rounds} changes and {traps} traps"))
}
