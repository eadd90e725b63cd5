//! Probes on the scheduler itself, and activations that begin in one thread's life and end in another, or never.

use super::processors::{
    STEPPINGS, address, attach, count, count_returns, counted, counted_returns, entry, placed, remove_all,
};
use super::{Test, check, counts, same, stepping};
use crate::arch::trap::Frame;
use crate::arch::{cpu, time};
use crate::mm::exec;
use crate::probes::{Demo, with_control};
use crate::{ksyms, sched};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::{Counts, Kernel, Next, Regs, Stepping};
use isa::x86::gpr;

pub(super) const TESTS: &[Test] = &[
    Test { name: "threads_work_with_probes_on_the_whole_scheduler", run: whole_scheduler },
    Test { name: "threads_work_with_return_probes_on_the_whole_scheduler", run: whole_scheduler_returns },
    Test { name: "a_switch_returns_when_its_thread_runs_again", run: switch_returns },
    Test { name: "a_thread_that_ends_gives_its_activations_back", run: ends_inside },
    Test { name: "a_thread_that_ends_deep_inside_unwinds_all_its_activations", run: ends_deep_inside },
    Test { name: "threads_that_end_leave_room_for_return_probes_on_the_switch", run: ends_in_switch },
    Test { name: "a_recursion_of_fifty_returns_fifty_times", run: recursion },
    Test { name: "a_recursion_deeper_than_its_instances_misses_the_rest", run: recursion_beyond },
    Test { name: "a_thread_is_preempted_in_a_boosted_copy", run: preempted_in_copy },
];

const THREADS: usize = 8;

/// Something with a known answer: the sum of the numbers below `n`, in small steps.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scheduler_add(sum: u64, number: u64) -> u64 {
    core::hint::black_box(sum) + number
}

/// What one thread does: works, gives way, sleeps, is preempted.
fn work(number: usize) -> Result<(), String> {
    const ROUNDS: u64 = 12;
    const NUMBERS: u64 = 400;
    for round in 0..ROUNDS {
        let sum = (0..NUMBERS).fold(0, |sum, number| scheduler_add(sum, number));
        same("sum", sum, NUMBERS * (NUMBERS - 1) / 2)?;
        match (number as u64 + round) % 4 {
            0 => sched::sleep_ms(1),
            1 => time::spin_us(300),
            _ => sched::yield_now(),
        }
    }
    Ok(())
}

/// Eight threads anywhere, and as many that are bound to a processor.
fn threads_work() -> Result<(), String> {
    let alive = sched::thread_count();
    let anywhere = vec![None; THREADS];
    let bound = (0..THREADS).map(|number| Some(number % cpu::count()));
    let places: Vec<_> = anywhere.into_iter().chain(bound).collect();
    placed(&places, work)?;
    same("threads", sched::thread_count(), alive)
}

/// All functions of the scheduler, the timer's and the switch of stacks among them.
fn scheduler() -> Result<Vec<u64>, String> {
    let named = ["timer_tick", "schedule", "context_switch"];
    let ours = |s: &&ksyms::Symbol| s.name.contains("sched::") || named.contains(&s.name);
    let functions = ksyms::all().iter().filter(|s| s.is_function() && !Demo::is_noprobe(s.address)).filter(ours);
    let mut all: Vec<u64> = functions.map(|s| s.address).collect();
    all.sort_unstable();
    all.dedup();
    for name in named {
        check(all.contains(&address(name)?), || format!("{name} is missing"))?;
    }
    Ok(all)
}

fn hits_of(name: &str) -> Result<u64, String> {
    let end = format!("_{:x}", address(name)?);
    let found = with_control(|control| control.list().find(|l| l.name.ends_with(&end)))?;
    found.map(|listed| listed.counts.hits).ok_or_else(|| format!("no probe on {name}"))
}

fn whole_scheduler() -> Result<(), String> {
    let places = scheduler()?;
    for how in STEPPINGS {
        let refused = stepping(how, || with_control(|control| control.count_all("sched", &places)))?;
        check(refused.is_empty(), || format!("{how:?}: refused: {refused:?}"))?;
        count("add", entry2(scheduler_add))?;
        threads_work().map_err(|why| format!("{how:?}: {why}"))?;
        counted("add", 2 * THREADS as u64 * 12 * 400)?;
        for name in ["timer_tick", "schedule", "context_switch"] {
            check(hits_of(name)? > 0, || format!("{how:?}: {name} was not hit"))?;
        }
        remove_all()?;
    }
    Ok(())
}

fn entry2(function: extern "C" fn(u64, u64) -> u64) -> u64 {
    function as usize as u64
}

fn whole_scheduler_returns() -> Result<(), String> {
    let places = scheduler()?;
    for how in STEPPINGS {
        let plant = || with_control(|control| control.count_all_returns("sched", &places, 100));
        let refused = stepping(how, plant)?;
        check(refused.len() < places.len() / 2, || format!("{how:?}: refused: {refused:?}"))?;
        threads_work().map_err(|why| format!("{how:?}: {why}"))?;
        for name in ["timer_tick", "schedule"] {
            check(hits_of(name)? > 0, || format!("{how:?}: {name} was not hit"))?;
        }
        remove_all()?;
    }
    Ok(())
}

/// Of the functions that switch, each activation ends when its thread runs again, or is still under way: in a thread
/// that waits or idles.
fn switch_returns() -> Result<(), String> {
    const NAMES: [&str; 2] = ["schedule", "context_switch"];
    for how in STEPPINGS {
        stepping(how, || NAMES.iter().try_for_each(|name| count_returns(name, address(name)?, 200)))?;
        let alive = sched::thread_count() as u64;
        // The threads are there before and after: what they have out is what they have begun here.
        threads_yield()?;
        for name in NAMES {
            let Counts { hits, missed, returned, unwound, .. } = counts(name)?;
            same("missed", missed, 0)?;
            // Those that have ended did so in a switch.
            let most = alive + THREADS as u64;
            let active = hits - returned - unwound;
            check(hits > 100 && active <= most, || {
                format!("{how:?}: {name}: {hits} hits, {returned} returned, {unwound} unwound, {alive} threads")
            })?;
        }
        same("activations of schedule by threads that have ended", counts("schedule")?.unwound, 0)?;
        remove_all()?;
    }
    Ok(())
}

fn threads_yield() -> Result<(), String> {
    placed(&[None; THREADS], |number| {
        (0..60).try_for_each(|i| {
            sched::yield_now();
            let x = number as u64;
            same("sum", scheduler_add(x, i), x + i)
        })
    })
}

/// Calls itself `depth` times; the innermost one ends the thread, or returns.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scheduler_ends(depth: u64, ends: u64) -> u64 {
    if depth == 0 {
        if ends != 0 {
            sched::exit();
        }
        return 0;
    }
    core::hint::black_box(scheduler_ends(depth - 1, ends)) + 1
}

/// Threads, `at_once` of them, that call [`scheduler_ends`]: with even numbers they end there, with odd ones they
/// return. The argument is depth and number.
fn run_threads(count: usize, at_once: usize, depth: usize) {
    let entry = |argument: usize| {
        let (depth, number) = (argument >> 32, argument & 0xffff_ffff);
        let result = scheduler_ends(depth as u64, u64::from(number % 2 == 0));
        RETURNED.fetch_add(result - depth as u64 + 1, Ordering::Relaxed);
    };
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(at_once) {
        let spawn = |&number: &usize| sched::spawn("ender", entry, depth << 32 | number);
        let threads: Vec<_> = some.iter().map(spawn).collect();
        threads.into_iter().for_each(sched::join);
    }
}

static RETURNED: AtomicU64 = AtomicU64::new(0);

/// More threads than instances.
fn ends_inside() -> Result<(), String> {
    const COUNT: usize = 40;
    RETURNED.store(0, Ordering::Relaxed);
    count_returns("ends", entry2(scheduler_ends), 4)?;
    run_threads(COUNT, 4, 0);
    let half = COUNT as u64 / 2;
    same("threads that returned", RETURNED.load(Ordering::Relaxed), half)?;
    let wanted = Counts { hits: 2 * half, returned: half, unwound: half, ..Counts::default() };
    same("ends", counts("ends")?, wanted)?;
    remove_all()
}

/// More activations than the engine has instances for (4096), ended so.
fn ends_deep_inside() -> Result<(), String> {
    const COUNT: usize = 200;
    const DEPTH: usize = 49;
    RETURNED.store(0, Ordering::Relaxed);
    count_returns("ends", entry2(scheduler_ends), 8 * (DEPTH as u32 + 1))?;
    run_threads(COUNT, 8, DEPTH);
    let half = (COUNT * (DEPTH + 1)) as u64 / 2;
    same("threads that returned", RETURNED.load(Ordering::Relaxed), COUNT as u64 / 2)?;
    let wanted = Counts { hits: 2 * half, returned: half, unwound: half, ..Counts::default() };
    same("ends", counts("ends")?, wanted)?;
    remove_all()
}

/// The last switch of a thread never returns: its activation must not stay out for ever.
fn ends_in_switch() -> Result<(), String> {
    const COUNT: usize = 60;
    const MOST: u32 = 20;
    count_returns("switch", address("context_switch")?, MOST)?;
    run_threads(COUNT, 2, 0);
    let now = counts("switch")?;
    same("missed", now.missed, 0)?;
    let active = now.hits - now.returned - now.unwound;
    let alive = sched::thread_count() as u64;
    check(active <= alive, || format!("{active} activations are out, and there are {alive} threads: {now:?}"))?;
    remove_all()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scheduler_recurse(depth: u64) -> u64 {
    if depth <= 1 { depth } else { core::hint::black_box(scheduler_recurse(depth - 1)) + 1 }
}

const DEEP: u64 = 50;

/// Threads on all processors, two each, go deep.
fn recurse(times: u64) -> Result<u64, String> {
    let places: Vec<_> = (0..2 * cpu::count()).map(|number| Some(number % cpu::count())).collect();
    placed(&places, |_| (0..times).try_for_each(|_| same("depth", scheduler_recurse(DEEP), DEEP)))?;
    Ok(times * places.len() as u64)
}

fn recursion() -> Result<(), String> {
    for how in STEPPINGS {
        stepping(how, || {
            count("entered", entry(scheduler_recurse))?;
            count_returns("deep", entry(scheduler_recurse), 2 * cpu::MAX as u32 * DEEP as u32)
        })?;
        let calls = recurse(5)?;
        counted("entered", calls * DEEP)?;
        counted_returns("deep", calls * DEEP)?;
        remove_all()?;
    }
    Ok(())
}

fn recursion_beyond() -> Result<(), String> {
    const MOST: u32 = 20;
    count_returns("deep", entry(scheduler_recurse), MOST)?;
    same("depth", scheduler_recurse(DEEP), DEEP)?;
    let most = u64::from(MOST);
    same("deep", counts("deep")?, Counts { hits: most, missed: DEEP - most, returned: most, ..Counts::default() })?;
    let calls = recurse(5)?;
    let deep = counts("deep")?;
    same("entries", deep.hits + deep.missed, (calls + 1) * DEEP)?;
    same("returned", deep.returned, deep.hits)?;
    remove_all()
}

/// Preemptions in a slot, and threads that went on at another processor than they were interrupted on.
static IN_SLOT: AtomicU64 = AtomicU64::new(0);
static MOVED: AtomicU64 = AtomicU64::new(0);

/// At the end of an interrupt that switches threads: was the thread in a slot?
fn watch(regs: &mut Regs) -> Next {
    // SAFETY: the probe sits at the beginning of `trap_interrupt`, whose argument this is.
    let frame = unsafe { &*(regs.gpr[gpr::RDI] as *const Frame) };
    IN_SLOT.fetch_add(u64::from(exec::contains(frame.rip)), Ordering::Relaxed);
    Next::Step
}

core::arch::global_asm!(
    ".section .text.scheduler_fill, \"ax\", @progbits",
    ".globl scheduler_fill",
    ".type scheduler_fill, @function",
    "scheduler_fill:",
    "mov rax, rsi",
    "mov rcx, rdx",
    "rep stosb",
    "ret",
    ".size scheduler_fill, . - scheduler_fill",
    ".text",
);

unsafe extern "C" {
    fn scheduler_fill(to: *mut u8, value: u64, count: usize);
}

/// More threads than processors, which spend nearly all their time in one copied instruction.
fn preempted_in_copy() -> Result<(), String> {
    IN_SLOT.store(0, Ordering::Relaxed);
    MOVED.store(0, Ordering::Relaxed);
    let instructions = with_control(|control| control.boundaries(scheduler_fill as *const () as u64))?;
    let place = instructions.map_err(|error| format!("{error}"))?[2];
    stepping(Stepping::Boosted, || count("fill", place))?;
    attach("watch", address("trap_interrupt")?, watch)?;
    let filled = AtomicU64::new(0);
    let enough = || {
        let moved = MOVED.load(Ordering::Relaxed) > 2 || cpu::count() == 1;
        moved && IN_SLOT.load(Ordering::Relaxed) > 20
    };
    let end = time::now_ns() + 3_000_000_000;
    placed(&vec![None; 2 * cpu::count() + 1], |number| {
        let mut bytes = [0_u8; 8192];
        let mut value = number as u8;
        while !enough() && time::now_ns() < end {
            value = value.wrapping_add(37);
            let before = cpu::id();
            // SAFETY: writes as many bytes as there are.
            unsafe { scheduler_fill(bytes.as_mut_ptr(), u64::from(value), bytes.len()) };
            MOVED.fetch_add(u64::from(cpu::id() != before), Ordering::Relaxed);
            filled.fetch_add(1, Ordering::Relaxed);
            check(bytes.iter().all(|&byte| byte == value), || "not filled".into())?;
        }
        Ok(())
    })?;
    check(enough(), || format!("{IN_SLOT:?} interrupts in slots, {MOVED:?} moves"))?;
    counted("fill", filled.load(Ordering::Relaxed))?;
    remove_all()
}
