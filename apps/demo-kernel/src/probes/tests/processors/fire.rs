//! Probes that are registered and removed while other processors execute the very instructions.

use super::super::{check, counts, same, stepping};
use super::{
    KINDS, STEPPINGS, attach, call_kinds, count, count_returns, entry, processors_add, processors_fifty, remove_all,
    under_fire,
};
use crate::arch::{cpu, time};
use crate::probes::with_control;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::{Counts, Next};

const CYCLES: u64 = 300;

/// Long enough for some hits, short enough for many cycles.
fn a_while() {
    time::spin_us(20);
}

/// Registers by `plant`, looks at the counts twice, removes. Gives the hits of all.
fn cycle(plant: impl Fn(&str, u64) -> Result<(), String>) -> Result<Counts, String> {
    KINDS.iter().try_for_each(|(kind, function)| plant(kind, entry(*function)))?;
    let mut sum = Counts::default();
    for (kind, _) in KINDS {
        let early = counts(kind)?;
        a_while();
        let late = counts(kind)?;
        check(late.hits >= early.hits && late.returned >= early.returned, || {
            format!("{kind}: {late:?}, was {early:?}")
        })?;
        // Taken one after the other while calls go on: a return of each processor may come in between.
        check(late.returned <= late.hits + cpu::count() as u64, || format!("{kind}: {late:?}"))?;
        sum = Counts { hits: sum.hits + late.hits, missed: sum.missed + late.missed, ..sum };
    }
    remove_all()?;
    Ok(sum)
}

/// `CYCLES` cycles, with each stepping.
fn cycles(plant: impl Fn(&str, u64) -> Result<(), String>) -> Result<(), String> {
    let mut next = [const { AtomicU64::new(0) }; cpu::MAX];
    for how in STEPPINGS {
        let shoot = |number: usize| call_kinds(next[number].fetch_add(1, Ordering::Relaxed));
        let sum = under_fire(shoot, || {
            stepping(how, || {
                (0..CYCLES).try_fold((0, 0), |(hits, missed), _| {
                    cycle(&plant).map(|sum| (hits + sum.hits, missed + sum.missed))
                })
            })
        })
        .map_err(|why| format!("{how:?}: {why}"))?;
        check(sum.0 > 0 && sum.1 == 0, || format!("{how:?}: hits and missed are {sum:?}"))?;
        next.iter_mut().for_each(|calls| *calls.get_mut() = 0);
    }
    Ok(())
}

pub(super) fn come_and_go() -> Result<(), String> {
    cycles(count)
}

pub(super) fn returns_come_and_go() -> Result<(), String> {
    cycles(|name, address| count_returns(name, address, cpu::MAX as u32))
}

/// Fifty probes in one function, planted and removed in one go each.
pub(super) fn batches() -> Result<(), String> {
    const BATCHES: u64 = 60;
    let start = entry(processors_fifty);
    // xor eax, eax has two bytes, each add three.
    let places: Vec<u64> = core::iter::once(start).chain((0..49).map(|i| start + 2 + 3 * i)).collect();
    same(
        "places",
        with_control(|control| control.boundaries(start))?.map_err(|e| e.to_string())?[..50].to_vec(),
        places.clone(),
    )?;
    for how in STEPPINGS {
        let shoot = |_| same("the result", processors_fifty(3), 3 * 49);
        let hits = under_fire(shoot, || {
            stepping(how, || (0..BATCHES).try_fold(0, |hits, _| batch(&places).map(|more| hits + more)))
        })
        .map_err(|why| format!("{how:?}: {why}"))?;
        check(hits > 0, || format!("{how:?}: no hits"))?;
    }
    Ok(())
}

fn batch(places: &[u64]) -> Result<u64, String> {
    let refused = with_control(|control| control.count_all("fifty", places))?;
    check(refused.is_empty(), || format!("refused: {refused:?}"))?;
    a_while();
    let (planted, hits) = with_control(|control| control.list().fold((0, 0), |(n, h), l| (n + 1, h + l.counts.hits)))?;
    same("planted", planted, places.len())?;
    remove_all()?;
    Ok(hits)
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

/// What a handler counts stands still as soon as its probe is removed.
pub(super) fn removed_is_silent() -> Result<(), String> {
    let handler = |_: &mut _| {
        HANDLED.fetch_add(1, Ordering::Relaxed);
        Next::Step
    };
    let mut heard = 0;
    under_fire(
        |_| same("the result", processors_add(7), 8),
        || {
            for _ in 0..CYCLES {
                HANDLED.store(0, Ordering::Relaxed);
                attach("silent", entry(processors_add), handler)?;
                a_while();
                remove_all()?;
                let before = HANDLED.load(Ordering::Relaxed);
                a_while();
                same("handled after the removal", HANDLED.load(Ordering::Relaxed) - before, 0)?;
                heard += before;
            }
            Ok(())
        },
    )?;
    check(heard > 0, || "the handler never ran".into())
}
