//! `fire`: probes come and go while all processors run through them.
//!
//! A thread on each processor calls a function as fast as it can. A probe that stays counts all of their calls; another one
//! comes to the same instruction, to another one, or to the function's return, with handlers, and goes again: chains
//! change under fire, and text. At the end nothing may be missing: the probe that stays has hits + missed = calls, and
//! what the other one has counted in all its lives is how often its handlers ran. (In a process:
//! `crates/host-process/tests/local_fire.rs`.)

use super::with_control;
use crate::arch::cpu;
use crate::println;
use crate::probes::tests::{check, same, under_all_fire};
use crate::shell::Command;
use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::{Counts, Handler, Hit, Kprobe, Kretprobe, Next, Registered, Spec, Watch};

/// The command.
pub(super) const COMMAND: Command =
    Command { name: "fire", usage: "[COUNT]", help: "probes come and go under fire from all processors", run };

/// How often, if nothing is said.
const CYCLES: u64 = 1000;

core::arch::global_asm!(
    ".pushsection .text.fire_target, \"ax\"",
    ".globl fire_target",
    ".type fire_target, @function",
    "fire_target: push rbx",
    "lea rax, [rdi + 7]",
    "pop rbx",
    "ret",
    ".size fire_target, . - fire_target",
    ".popsection",
);

unsafe extern "C" {
    safe fn fire_target(x: u64) -> u64;
}

static RAN: AtomicU64 = AtomicU64::new(0);
static ENTERED: AtomicU64 = AtomicU64::new(0);
static RETURNED: AtomicU64 = AtomicU64::new(0);

extern "C" fn pre(_: &mut Hit<'_>) -> Next {
    RAN.fetch_add(1, Ordering::Relaxed);
    Next::Step
}

extern "C" fn entered(hit: &mut Hit<'_>, argument: &mut u64) -> Watch {
    ENTERED.fetch_add(1, Ordering::Relaxed);
    *argument = hit.regs().argument(1);
    Watch::Yes
}

extern "C" fn returned(hit: &mut Hit<'_>, argument: &mut u64) {
    // Wrong data would be another call's.
    if hit.regs().return_value() == *argument + 7 {
        RETURNED.fetch_add(1, Ordering::Relaxed);
    }
}

fn run(argument: &str) -> Result<(), String> {
    fire(cycles(argument, CYCLES)?)
}

/// How many cycles are asked for.
pub(super) fn cycles(argument: &str, default: u64) -> Result<u64, String> {
    match argument {
        "" => Ok(default),
        number => number.parse().map_err(|_| format!("`{number}` is no number of cycles")),
    }
}

/// Does it so often.
pub(super) fn fire(cycles: u64) -> Result<(), String> {
    for counter in [&RAN, &ENTERED, &RETURNED] {
        counter.store(0, Ordering::Relaxed);
    }
    let calls = AtomicU64::new(0);
    let entry = fire_target as *const () as u64;
    let stays = register(Kprobe::address(entry + 1))?;
    let shoot = |_| {
        (0..50).try_for_each(|x| same("a result", fire_target(x), x + 7))?;
        calls.fetch_add(50, Ordering::Relaxed);
        Ok(())
    };
    let lives = under_all_fire(shoot, || {
        (0..cycles).try_fold([Counts::default(); 2], |sums, cycle| one_life(entry, cycle, sums))
    });
    let stayed = unregister(stays)?;
    let [handled, watched] = lives?;
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    same("hits + missed of the probe that stays", stayed.hits + stayed.missed, counted(&calls))?;
    same("missed", stayed.missed + handled.missed + watched.missed, 0)?;
    same("runs of the pre-handler", counted(&RAN), handled.hits)?;
    same("runs of the entry handler", counted(&ENTERED), watched.hits)?;
    same("runs of the return handler, with its call's data", counted(&RETURNED), watched.returned)?;
    check(cycles == 0 || counted(&calls) > 0, || "nobody has shot".to_string())?;
    println!(
        "fire: {cycles} cycles on {} processors: {} calls, {} hits and {} returns of probes that came and went",
        cpu::count(),
        counted(&calls),
        handled.hits,
        watched.returned
    );
    Ok(())
}

/// A probe comes and goes; the sums with what it has counted.
fn one_life(entry: u64, cycle: u64, [handled, watched]: [Counts; 2]) -> Result<[Counts; 2], String> {
    // SAFETY: they use registers, their data and atomics.
    let (pre, entered, returned) =
        unsafe { (Handler::new(pre as _), Handler::new(entered as _), Handler::new(returned as _)) };
    let probe = match cycle % 3 {
        0 => register(Kprobe::address(entry).pre(pre)),
        1 => register(Kprobe::address(entry + 1).pre(pre)),
        _ => register(Kretprobe::<u64>::address(entry).entry(entered).handler(returned).maxactive(cpu::MAX as u32)),
    };
    let counts = unregister(probe?)?;
    Ok(if cycle % 3 == 2 { [handled, sum(watched, counts)] } else { [sum(handled, counts), watched] })
}

fn sum(a: Counts, b: Counts) -> Counts {
    Counts { hits: a.hits + b.hits, missed: a.missed + b.missed, returned: a.returned + b.returned, ..a }
}

pub(super) fn register<'a>(probe: impl Into<Spec<'a>>) -> Result<Registered, String> {
    with_control(|control| control.register(probe))?.map_err(|why| why.to_string())
}

/// Switches a probe on or off.
pub(super) fn enable(probe: &Registered, on: bool) -> Result<(), String> {
    with_control(|control| control.enable(probe, on))?.map_err(|why| why.to_string())
}

pub(super) fn unregister(probe: Registered) -> Result<Counts, String> {
    with_control(|control| control.unregister(probe))?.map_err(|(_, why)| why.to_string())
}
