//! Modules that come and go while the kernel works: `cycles [COUNT]`, and a short form of it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{NAME, State, call, leaves_nothing, logged, start, state, stop};
use crate::arch::cpu;
use crate::probes::modules::{MODULES, Module, insert, read, reap, removal};
use crate::probes::tests::{check, same};
use crate::shell::Command;
use crate::{println, sched, workload};

/// Cycles in the short form.
const SHORT: usize = 40;
const DEFAULT: usize = 1000;
/// Bytes by which they may grow, in all cycles together.
const QUEUES: usize = 2048;
/// What a call's arguments go up to.
const NUMBERS: u64 = 1000;

/// The command.
pub(crate) const COMMAND: Command = Command {
    name: "cycles",
    usage: "[COUNT]",
    help: "a module comes and goes so often while the kernel works, and leaves nothing",
    run,
};

static STOP: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);

fn run(argument: &str) -> Result<(), String> {
    let count = if argument.is_empty() { Some(DEFAULT) } else { argument.parse().ok() };
    let count = count.filter(|count| (1..=1_000_000).contains(count)).ok_or("COUNT is a number above 0")?;
    let hits = cycles(count)?;
    println!("{count} cycles, {} calls, {hits} of them seen; nothing is left", CALLS.load(Ordering::Relaxed));
    Ok(())
}

pub(super) fn short() -> Result<(), String> {
    let hits = cycles(SHORT)?;
    check(hits > 0, || "no module saw a call".into())
}

/// Calls the probed function, and looks at what comes back.
fn caller(_: usize) {
    let mut number = 0;
    while !STOP.load(Ordering::Relaxed) {
        number = (number + 1) % NUMBERS;
        let right = call(number, 7) == number + 7;
        WRONG.fetch_add(u64::from(!right), Ordering::Relaxed);
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
}

/// The kernel's other work.
fn worker(_: usize) {
    while !STOP.load(Ordering::Relaxed) {
        WRONG.fetch_add(u64::from(workload::run().is_err()), Ordering::Relaxed);
    }
}

/// Runs `f` while the kernel works, and calls the probed function.
fn under_load<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    beside(&[caller, worker], f)
}

/// Runs `f` while one thread of each kind works on each processor.
fn beside<R>(kinds: &[fn(usize)], f: impl FnOnce() -> R) -> Result<R, String> {
    STOP.store(false, Ordering::Relaxed);
    [&CALLS, &WRONG].into_iter().for_each(|count| count.store(0, Ordering::Relaxed));
    let mut threads = Vec::new();
    for id in 0..cpu::count() {
        threads.extend(kinds.iter().map(|kind| sched::spawn_on(Some(id), "load", *kind, 0)));
    }
    let result = f();
    STOP.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(sched::join);
    same("wrong results", WRONG.load(Ordering::Relaxed), 0)?;
    Ok(result)
}

/// So many cycles; how many calls the modules have seen, by their own count.
fn cycles(count: usize) -> Result<u64, String> {
    let file = read(NAME).map_err(|error| error.to_string())?;
    // What is made once.
    under_load(|| (0..3).try_for_each(|round| cycle(&file, round).map(drop)))??;
    let before = state();
    let hits = under_load(|| (0..count).map(|round| cycle(&file, round)).sum::<Result<u64, String>>())??;
    let after = state();
    // Lists of threads and stacks grow with how many there are at once, a few times at most.
    let grown = after.heap.saturating_sub(before.heap);
    check(grown < QUEUES, || format!("{grown} bytes of the heap are left"))?;
    same("what is left", State { heap: before.heap, ..after }, before)?;
    Ok(hits)
}

/// One cycle, each a little different: how many hits the module has counted.
fn cycle(file: &[u8], round: usize) -> Result<u64, String> {
    let add = format!("add={round}");
    let leave = if round.is_multiple_of(2) { "leave=n" } else { "leave=y" };
    let lines = logged(|| {
        insert(file, &["hit=count", &add, leave]).map_err(|error| error.to_string())?;
        let before = CALLS.load(Ordering::Relaxed);
        while round % 4 != 3 && CALLS.load(Ordering::Relaxed) < before + 4 {
            sched::yield_now();
        }
        removal::remove(NAME).map_err(|error| error.to_string())
    })?;
    let end = lines.last().and_then(|line| line.strip_prefix("exercise: ")).unwrap_or_default();
    let numbers: Vec<u64> = end.split(' ').filter_map(|word| word.parse().ok()).collect();
    match (lines.len(), numbers.as_slice()) {
        // The last number was read first, while calls went on; if the probes were left to the host, all were.
        (2, &[hits, returns, counted]) if leave == "leave=y" || (counted <= hits && returns <= hits) => Ok(hits),
        _ => Err(format!("the module has said {lines:?}")),
    }
}

/// The negative control of [`cycles`].
pub(super) fn control() -> Result<(), String> {
    let (before, during) = (state(), {
        logged(|| start(&["hit=count"]))?;
        state()
    });
    logged(stop)?;
    let notices = during.addresses > before.addresses
        && during.frames > before.frames
        && during.executable > before.executable
        && during.heap > before.heap;
    check(notices, || format!("{before:?} and {during:?} are the same"))
}

/// All processors run into the handler that faults.
pub(super) fn faults_everywhere() -> Result<(), String> {
    let once = || {
        let lines = logged(|| {
            start(&["hit=fault"])?;
            while !MODULES.lock().first().is_none_or(Module::is_silenced) {
                sched::yield_now();
            }
            sched::sleep_ms(20);
            reap();
            check(MODULES.lock().is_empty(), || "it is still there".into())
        })?;
        let faults = lines.iter().filter(|line| line.starts_with("kprobes: a handler has faulted")).count();
        check((1..=cpu::count()).contains(&faults), || format!("{faults} faults are told"))?;
        let ends = lines.iter().filter(|line| line.starts_with("exercise: removed")).count();
        same("ends that are told", ends, 1)
    };
    // Callers alone: what others allocate meanwhile would look like something left.
    beside(&[caller], || leaves_nothing(once))?
}
