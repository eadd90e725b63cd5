//! What a removal waits for, and what it leaves to come home by itself.

use super::super::{counts, remove, same};
use super::{attach, count_returns, counted, entry, everywhere, remove_all, soon};
use crate::arch::{cpu, interrupts, ipi, time};
use crate::sched;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use host_bare::{Next, Regs};

/// A handler is where [`linger`] says.
static INSIDE: AtomicBool = AtomicBool::new(false);
/// The handler has come to its end.
static ENDED: AtomicBool = AtomicBool::new(false);
/// What the handler has seen: interrupts on, or the breakpoint still there when it should be gone.
static WRONG: AtomicBool = AtomicBool::new(false);
/// Removal is about to begin.
static REMOVING: AtomicBool = AtomicBool::new(false);

const LINGER_NS: u64 = 10_000_000;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn processors_lingered(x: u64) -> u64 {
    core::hint::black_box(x) + 1
}

fn first_byte(address: u64) -> u8 {
    let mut byte = [0];
    crate::arch::copy::read(address, &mut byte);
    byte[0]
}

/// Waits until `until` or for two seconds, answering calls if `serving`, and then for [`LINGER_NS`] more.
fn linger(serving: bool, until: impl Fn() -> bool) {
    INSIDE.store(true, Ordering::Release);
    let give_up = time::now_ns() + 2_000_000_000;
    while !until() {
        if serving {
            ipi::service();
        }
        if time::now_ns() > give_up {
            WRONG.store(true, Ordering::Relaxed);
            break;
        }
    }
    let end = time::now_ns() + LINGER_NS;
    while time::now_ns() < end {
        if serving {
            ipi::service();
        }
    }
    if interrupts::enabled() {
        WRONG.store(true, Ordering::Relaxed);
    }
    ENDED.store(true, Ordering::Release);
}

/// Stays until the breakpoint is gone: nothing but the grace period can keep the removal then.
fn stay_until_gone(regs: &mut Regs) -> Next {
    let address = regs.rip;
    linger(true, || first_byte(address) != 0xcc);
    Next::Step
}

/// Answers no call, so that the breakpoint cannot be taken out.
fn stay_deaf(_: &mut Regs) -> Next {
    linger(false, || REMOVING.load(Ordering::Acquire));
    Next::Step
}

fn removal_waits_for(handler: fn(&mut Regs) -> Next) -> Result<(), String> {
    if cpu::count() == 1 {
        // A handler cannot run while this does.
        return Ok(());
    }
    for flag in [&INSIDE, &ENDED, &WRONG, &REMOVING] {
        flag.store(false, Ordering::Relaxed);
    }
    attach("lingers", entry(processors_lingered), handler)?;
    everywhere(|number| match number {
        0 => {
            soon("a handler that runs", || INSIDE.load(Ordering::Acquire))?;
            REMOVING.store(true, Ordering::Release);
            remove(&["lingers"])?;
            same("the handler has ended", ENDED.load(Ordering::Acquire), true)
        }
        1 => same("the result", processors_lingered(4), 5),
        _ => Ok(()),
    })?;
    same("the handler saw something wrong", WRONG.load(Ordering::Relaxed), false)?;
    remove_all()
}

pub(super) fn waits_in_grace() -> Result<(), String> {
    removal_waits_for(stay_until_gone)
}

pub(super) fn waits_in_patch() -> Result<(), String> {
    removal_waits_for(stay_deaf)
}

const DEPTH: u64 = 50;
static DEEP: AtomicBool = AtomicBool::new(false);
static RELEASED: AtomicBool = AtomicBool::new(false);

/// Calls itself `depth` times and comes back when it is let go.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn processors_deep(depth: u64) -> u64 {
    if depth == 0 {
        DEEP.store(true, Ordering::Release);
        while !RELEASED.load(Ordering::Acquire) {
            sched::yield_now();
        }
        return 0;
    }
    core::hint::black_box(processors_deep(depth - 1)) + 1
}

/// Runs `f` while a thread is deep inside the function.
fn while_deep(f: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    static RESULT: AtomicU64 = AtomicU64::new(0);
    DEEP.store(false, Ordering::Relaxed);
    RELEASED.store(false, Ordering::Relaxed);
    let dive = |_| RESULT.store(processors_deep(DEPTH - 1), Ordering::Relaxed);
    let thread = sched::spawn_on(Some(cpu::count() - 1), "diver", dive, 0);
    while !DEEP.load(Ordering::Acquire) {
        sched::yield_now();
    }
    let result = f();
    RELEASED.store(true, Ordering::Release);
    sched::join(thread);
    result?;
    same("depth", RESULT.load(Ordering::Relaxed), DEPTH - 1)
}

/// More activations than there are instances (4096), each of which outlives its probe: all come back.
pub(super) fn in_flight() -> Result<(), String> {
    let place = entry(processors_deep);
    for round in 0..90 {
        count_returns("flight", place, DEPTH as u32)?;
        while_deep(|| {
            let now = counts("flight")?;
            same("hits, missed, returned", (now.hits, now.missed, now.returned), (DEPTH, 0, 0))?;
            remove_all()
        })
        .map_err(|why| format!("round {round}: {why}"))?;
    }
    Ok(())
}

/// Of two probes one is removed, and a third one comes, while activations are under way.
pub(super) fn not_credited() -> Result<(), String> {
    let place = entry(processors_deep);
    let most = 2 * DEPTH as u32;
    count_returns("stays", place, most)?;
    count_returns("goes", place, most)?;
    while_deep(|| {
        same("goes", counts("goes")?.hits, DEPTH)?;
        remove(&["goes"])?;
        count_returns("comes", place, most)
    })?;
    let stays = counts("stays")?;
    same("stays", (stays.hits, stays.returned, stays.missed), (DEPTH, DEPTH, 0))?;
    counted("comes", 0)?;
    while_deep(|| Ok(()))?;
    let comes = counts("comes")?;
    same("comes", (comes.hits, comes.returned, comes.missed), (DEPTH, DEPTH, 0))?;
    same("stays", counts("stays")?.returned, 2 * DEPTH)?;
    remove_all()
}
