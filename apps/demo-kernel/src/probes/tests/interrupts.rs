//! Interrupts and probes: handlers that are probed, interrupts around a step, flags, interrupts that cannot be masked.
//!
//! Interrupted code tells what happened to it by [`watch`], a probe's handler on the interrupts' common function, which
//! sees the interrupted instruction pointer.

mod flags;
mod nmi;

use super::processors::{
    STEPPINGS, address, attach, count, count_returns, counted, entry, everywhere, placed, remove_all, soon,
};
use super::{Test, check, counts, same, stepping};
use crate::arch::trap::Frame;
use crate::arch::{cpu, interrupts, time};
use crate::mm::exec;
use crate::probes::with_control;
use crate::sched;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::{Counts, Next, Regs, Stepping};
use isa::x86::{flags as bits, gpr};

pub(super) const TESTS: &[Test] = &[
    Test { name: "every_timer_interrupt_hits_a_probe_in_its_handler", run: ticks_are_counted },
    Test { name: "every_timer_interrupt_returns_through_a_return_probe", run: tick_returns_are_counted },
    Test { name: "an_interrupt_comes_in_a_boosted_copy", run: comes_in_boosted_copy },
    Test { name: "no_interrupt_comes_in_a_stepped_copy", run: not_in_stepped_copy },
    Test { name: "no_interrupt_comes_in_a_stepped_copy_of_a_hot_function", run: not_in_hot_copy },
    Test { name: "flags_are_the_same_to_the_bit", run: flags::same_to_the_bit },
    Test { name: "a_handler_is_neither_interrupted_nor_preempted", run: handler_is_undisturbed },
    Test { name: "an_nmi_in_a_handler_runs_no_probe", run: nmi::in_a_handler },
    Test { name: "an_nmi_during_a_step_hits_another_probe", run: nmi::other_during_a_step },
    Test { name: "an_nmi_during_a_step_hits_the_same_probe", run: nmi::same_during_a_step },
    Test { name: "nmis_come_anywhere_in_a_hit", run: nmi::anywhere },
    Test { name: "nmis_return_through_return_probes", run: nmi::returns },
    Test { name: "an_nmi_hits_the_probe_that_it_has_interrupted", run: nmi::same_probe },
];

core::arch::global_asm!(include_str!("interrupts/code.s"));

unsafe extern "C" {
    safe fn interrupts_hot(x: u64) -> u64;
    safe fn interrupts_called_by_nmi(x: u64) -> u64;
    fn interrupts_fill(to: *mut u8, value: u64, count: usize);
}

/// The place of the instruction that is number `number` in a function.
fn instruction(function: u64, number: usize) -> Result<u64, String> {
    let all = with_control(|control| control.boundaries(function))?.map_err(|error| error.to_string())?;
    all.get(number).copied().ok_or_else(|| format!("no instruction {number} in {function:#x}"))
}

/// The instruction of [`interrupts_fill`] that takes long.
fn filling() -> Result<u64, String> {
    instruction(interrupts_fill as *const () as u64, 2)
}

/// Fills `N` bytes by [`interrupts_fill`].
fn fill<const N: usize>(value: u8) -> Result<(), String> {
    let mut bytes = [!value; N];
    // SAFETY: writes as many bytes as there are.
    unsafe { interrupts_fill(bytes.as_mut_ptr(), u64::from(value), N) };
    check(bytes == [value; N], || "not filled".into())
}

/// The probe named so steps this way.
fn steps_by(name: &str, how: &str) -> Result<(), String> {
    let found = with_control(|control| control.list().find(|l| l.name.ends_with(name)).map(|l| l.placement))?;
    check(found.as_ref().is_some_and(|p| p.contains(how)), || format!("{name} is {found:?}, should be by {how}"))
}

/// Does `work` on all processors until `done`.
fn work_until(done: impl Fn() -> bool + Sync, work: impl Fn(u64) -> Result<(), String> + Sync) -> Result<(), String> {
    everywhere(|_| (0..).take_while(|_| !done()).try_for_each(&work))
}

/// Whether so many milliseconds are over since the call.
fn after(milliseconds: u64) -> impl Fn() -> bool + Sync {
    let end = time::now_ns() + milliseconds * 1_000_000;
    move || time::now_ns() >= end
}

fn ticks(id: usize) -> u64 {
    cpu::block(id).ticks.load(Ordering::Relaxed)
}

fn all_ticks() -> u64 {
    (0..cpu::count()).map(ticks).sum()
}

/// Timer interrupts hit a probe that `plant` has planted, as often as they are counted there, up to those under way.
fn ticks_hit(plant: fn(&str, u64) -> Result<(), String>) -> Result<Counts, String> {
    let under_way = cpu::count() as u64;
    let before = all_ticks();
    plant("tick", address("timer_tick")?)?;
    let planted = all_ticks();
    let each: Vec<u64> = (0..cpu::count()).map(ticks).collect();
    let ticked = || (0..cpu::count()).all(|id| ticks(id) >= each[id] + 5);
    let limit = after(2000);
    work_until(|| ticked() || limit(), |i| same("the result", interrupts_hot(i), i + 1))?;
    check(ticked(), || "the timer stands still".into())?;
    let early = all_ticks();
    let counts = counts("tick")?;
    let late = all_ticks();
    same("missed", counts.missed, 0)?;
    let (least, most) = (early - planted - under_way, late - before + under_way);
    check((least..=most).contains(&counts.hits), || format!("{} hits, not {least} to {most}", counts.hits))?;
    remove_all()?;
    Ok(counts)
}

fn ticks_are_counted() -> Result<(), String> {
    STEPPINGS.into_iter().try_for_each(|how| {
        stepping(how, || {
            count("hot", entry(interrupts_hot))?;
            ticks_hit(count).map(drop)
        })
        .map_err(|why| format!("{how:?}: {why}"))
    })
}

fn tick_returns_are_counted() -> Result<(), String> {
    let Counts { hits, returned, .. } = ticks_hit(|name, place| count_returns(name, place, 2 * cpu::MAX as u32))?;
    check((hits - cpu::count() as u64..=hits).contains(&returned), || format!("{hits} hits, {returned} returned"))
}

/// Interrupts that [`watch`] has seen, and those of them that came in executable memory outside the image: in a slot.
static WATCHED: AtomicU64 = AtomicU64::new(0);
static IN_SLOT: AtomicU64 = AtomicU64::new(0);

fn watch(regs: &mut Regs) -> Next {
    // SAFETY: the probe sits at the beginning of `trap_interrupt`, whose argument this is.
    let frame = unsafe { &*(regs.gpr[gpr::RDI] as *const Frame) };
    WATCHED.fetch_add(1, Ordering::Relaxed);
    if exec::contains(frame.rip) {
        IN_SLOT.fetch_add(1, Ordering::Relaxed);
    }
    Next::Step
}

fn start_watching() -> Result<(), String> {
    WATCHED.store(0, Ordering::Relaxed);
    IN_SLOT.store(0, Ordering::Relaxed);
    attach("watch", address("trap_interrupt")?, watch)
}

/// The control of the two that follow: [`watch`] does see an interrupt in a copy.
fn comes_in_boosted_copy() -> Result<(), String> {
    stepping(Stepping::Boosted, || count("fill", filling()?))?;
    steps_by("fill", "boosted")?;
    start_watching()?;
    let limit = after(2000);
    work_until(|| limit() || IN_SLOT.load(Ordering::Relaxed) > 2, |i| fill::<8192>(i as u8))?;
    check(IN_SLOT.load(Ordering::Relaxed) > 2, || "no interrupt in two seconds".into())?;
    remove_all()
}

const STEPPED: [(Stepping, &str); 2] =
    [(Stepping::SecondBreakpoint, "second breakpoint"), (Stepping::SingleStep, "single step")];

fn not_in_stepped_copy() -> Result<(), String> {
    STEPPED.into_iter().try_for_each(|(how, placement)| {
        stepping(how, || count("fill", filling()?))?;
        steps_by("fill", placement)?;
        undisturbed(|i| fill::<300>(i as u8)).map_err(|why| format!("{placement}: {why}"))
    })
}

fn not_in_hot_copy() -> Result<(), String> {
    // A load of its own: lea is emulated where that is asked for.
    STEPPED.into_iter().try_for_each(|(how, placement)| {
        let place = entry(interrupts_hot);
        stepping(how, || count("hot", place))?;
        undisturbed(|i| same("the result", interrupts_hot(i), i + 1)).map_err(|why| format!("{placement}: {why}"))
    })
}

/// While all work, interrupts come, but never in a slot; and they are on or off after the work as they were before.
fn undisturbed(work: impl Fn(u64) -> Result<(), String> + Sync) -> Result<(), String> {
    start_watching()?;
    work_until(after(60), |i| {
        work(i)?;
        same("interrupts are on", interrupts::enabled(), true)?;
        interrupts::without(|| {
            work(i)?;
            same("interrupts are on", interrupts::enabled(), false)
        })
    })?;
    check(WATCHED.load(Ordering::Relaxed) > 0, || "no interrupts".into())?;
    same("interrupts in slots", IN_SLOT.load(Ordering::Relaxed), 0)?;
    remove_all()
}

/// What handlers of [`interrupts_long`] have seen wrong.
static DISTURBED: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);
/// Work of the thread that would like to run meanwhile.
static RIVALS: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn interrupts_long(x: u64) -> u64 {
    core::hint::black_box(x) + 1
}

/// Takes longer than two ticks.
fn long(regs: &mut Regs) -> Next {
    let look = || {
        let me = cpu::id();
        (me, sched::current(), ticks(me), RIVALS[me].load(Ordering::Relaxed), interrupts::enabled())
    };
    let before = look();
    let end = time::now_ns() + 10_000_000;
    while time::now_ns() < end {
        core::hint::spin_loop();
    }
    let right = before == look() && !before.4 && regs.flags & bits::IF != 0;
    DISTURBED.fetch_add(u64::from(!right), Ordering::Relaxed);
    Next::Step
}

fn handler_is_undisturbed() -> Result<(), String> {
    let processors = cpu::count();
    DISTURBED.store(0, Ordering::Relaxed);
    DONE.store(0, Ordering::Relaxed);
    attach("long", entry(interrupts_long), long)?;
    let places: Vec<_> = (0..2 * processors).map(|number| Some(number % processors)).collect();
    placed(&places, |number| {
        if number < processors {
            let result = (0..3).try_for_each(|i| same("the result", interrupts_long(i), i + 1));
            DONE.fetch_add(1, Ordering::Relaxed);
            return result;
        }
        while DONE.load(Ordering::Relaxed) < processors as u64 {
            RIVALS[number % processors].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    counted("long", 3 * processors as u64)?;
    same("disturbed handlers", DISTURBED.load(Ordering::Relaxed), 0)?;
    check(RIVALS[0].load(Ordering::Relaxed) > 0, || "the rival never ran".into())?;
    remove_all()
}
