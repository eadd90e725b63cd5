//! Probes that are registered and removed while other processors execute the very instructions.

use super::super::{check, same, stepping};
use super::{KINDS, STEPPINGS, attach, call_kinds, entry, processors_add, processors_fifty, remove_all, under_fire};
use crate::arch::{cpu, time};
use crate::probes::{Demo, with_control};
use crate::sched;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::{Control, Counts, Error, Next};

/// As many cycles as the time allows, which depends on how often the machine's processors really run at once.
const CYCLES: u64 = 300;
const TIME_NS: u64 = 100_000_000;
const LEAST: u64 = 10;

/// Long enough for some hits, short enough for many cycles. Where all share one processor the others run when a tick comes,
/// or when they are let: that is now and then.
fn a_while() {
    /// Each time they run until a tick. An odd number: every other call may be one without probes.
    const SELDOM: u64 = 7;
    static CALLS: AtomicU64 = AtomicU64::new(0);
    time::spin_us(20);
    if cpu::count() == 1 && CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(SELDOM) {
        sched::yield_now();
    }
}

/// Does `one` again and again; the sum of what it gives.
fn cycles(mut one: impl FnMut() -> Result<u64, String>) -> Result<u64, String> {
    let end = time::now_ns() + TIME_NS;
    let mut sum = 0;
    for cycle in 0..CYCLES {
        if cycle >= LEAST && time::now_ns() > end {
            break;
        }
        sum += one().map_err(|why| format!("cycle {cycle}: {why}"))?;
    }
    Ok(sum)
}

/// Calls all kinds, each time with other arguments.
fn shoot(number: usize) -> Result<(), String> {
    static NEXT: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];
    call_kinds(NEXT[number].fetch_add(1, Ordering::Relaxed))
}

type Plant = fn(&mut Control<Demo>, &[u64]) -> Vec<(u64, Error)>;

/// Registers by `plant`, shoots once here, looks at the counts before and after, removes. Gives the hits.
///
/// A probe counts as soon as it is registered, on whatever processor. QEMU 7.2 with a thread for each processor
/// may go on with a translation that it has made of the old bytes while they were written; a kernel that is to run
/// there must write each byte once more after all processors have answered.
fn come_and_go_once(plant: Plant, places: &[u64], shoot: &dyn Fn(usize) -> Result<(), String>) -> Result<u64, String> {
    let refused = with_control(|control| plant(control, places))?;
    check(refused.is_empty(), || format!("refused: {refused:?}"))?;
    let early = listed()?;
    shoot(0)?;
    a_while();
    let late = listed()?;
    same("planted", late.len(), places.len())?;
    for (early, late) in early.iter().zip(&late) {
        check(late.hits >= early.hits && late.returned >= early.returned, || format!("{late:?} after {early:?}"))?;
        // Taken one after the other while calls go on: of each processor a return may come in between.
        check(late.returned <= late.hits + cpu::count() as u64, || format!("{late:?}"))?;
        same("missed", late.missed, 0)?;
        check(late.hits > 0, || "a probe was registered, its instruction executed, and it was not hit".into())?;
    }
    remove_all()?;
    Ok(late.iter().map(|counts| counts.hits).sum())
}

fn listed() -> Result<Vec<Counts>, String> {
    with_control(|control| control.list().map(|listed| listed.counts).collect())
}

/// Cycles with each stepping, while others shoot.
fn all_steppings(
    plant: Plant,
    places: &[u64],
    shoot: impl Fn(usize) -> Result<(), String> + Sync,
) -> Result<(), String> {
    STEPPINGS.into_iter().try_for_each(|how| {
        let hits = under_fire(&shoot, || stepping(how, || cycles(|| come_and_go_once(plant, places, &shoot))))
            .map_err(|why| format!("{how:?}: {why}"))?;
        check(hits > 0, || format!("{how:?}: no hits"))
    })
}

fn kinds() -> Vec<u64> {
    KINDS.iter().map(|(_, function)| entry(*function)).collect()
}

pub(super) fn come_and_go() -> Result<(), String> {
    all_steppings(|control, places| control.count_all("fire", places), &kinds(), shoot)
}

pub(super) fn returns_come_and_go() -> Result<(), String> {
    let plant: Plant = |control, places| control.count_all_returns("fire", places, cpu::MAX as u32);
    all_steppings(plant, &kinds(), shoot)
}

/// Fifty probes in one function, planted and removed in one go each.
pub(super) fn batches() -> Result<(), String> {
    let start = entry(processors_fifty);
    let mut places = with_control(|control| control.boundaries(start))?.map_err(|error| error.to_string())?;
    places.truncate(50);
    same("places", places.len(), 50)?;
    let shoot = |_| same("the result", processors_fifty(3), 3 * 49);
    all_steppings(|control, places| control.count_all("fire", places), &places, shoot)
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

/// What a handler counts stands still as soon as its probe is removed.
pub(super) fn removed_is_silent() -> Result<(), String> {
    let handler = |_: &mut _| {
        HANDLED.fetch_add(1, Ordering::Relaxed);
        Next::Step
    };
    let one = || {
        HANDLED.store(0, Ordering::Relaxed);
        attach("silent", entry(processors_add), handler)?;
        a_while();
        remove_all()?;
        let before = HANDLED.load(Ordering::Relaxed);
        a_while();
        same("handled after the removal", HANDLED.load(Ordering::Relaxed) - before, 0)?;
        Ok(before)
    };
    let heard = under_fire(|_| same("the result", processors_add(7), 8), || cycles(one))?;
    check(heard > 0, || "the handler never ran".into())
}
