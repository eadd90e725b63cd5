//! Threads that work for a test, and probes that only count: for the tests with several processors.

use super::super::{check, same};
use crate::arch::cpu;
use crate::lock::IrqLock;
use crate::probes::plain::{self, Plain};
use crate::probes::{Demo, with_control};
use crate::sched;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use host_bare::{Control, Counts, Stepping};

/// Every way of stepping.
pub(in crate::probes::tests) const STEPPINGS: [Stepping; 5] = Stepping::ALL;

type Verdict = Result<(), String>;

/// Threads that do the same thing.
struct Crew<'a> {
    work: &'a (dyn Fn(usize) -> Verdict + Sync),
    size: usize,
    /// How many have come; they begin together.
    gathered: AtomicUsize,
    failure: IrqLock<Option<String>>,
}

/// One of them.
struct Member<'a> {
    crew: &'a Crew<'a>,
    number: usize,
}

impl Member<'_> {
    fn run(member: usize) {
        // SAFETY: `crew` below passes the address of a value that it keeps until this thread has ended.
        let Member { crew, number } = unsafe { &*(member as *const Member<'_>) };
        crew.gathered.fetch_add(1, Ordering::AcqRel);
        while crew.gathered.load(Ordering::Acquire) < crew.size {
            sched::yield_now();
        }
        if let Err(why) = (crew.work)(*number) {
            crew.failure.lock().get_or_insert(why);
        }
    }
}

/// Threads at the processors given (`None`: anywhere), each of which does `work`, and `meanwhile` here.
fn crew<R>(
    places: &[Option<usize>],
    work: &(dyn Fn(usize) -> Verdict + Sync),
    meanwhile: impl FnOnce() -> R,
) -> Result<R, String> {
    let crew = Crew { work, size: places.len(), gathered: AtomicUsize::new(0), failure: IrqLock::new(None) };
    let members: Vec<_> = (0..places.len()).map(|number| Member { crew: &crew, number }).collect();
    let spawn = |(&place, member): (&Option<usize>, &Member<'_>)| {
        sched::spawn_on(place, "crew", Member::run, &raw const *member as usize)
    };
    let threads: Vec<_> = places.iter().zip(&members).map(spawn).collect();
    let result = meanwhile();
    threads.into_iter().for_each(sched::join);
    let failure = crew.failure.lock().take();
    failure.map_or(Ok(result), Err)
}

/// Does `work` in threads at these processors (`None`: anywhere), which are given their number. The first error counts.
pub(in crate::probes::tests) fn placed(places: &[Option<usize>], work: impl Fn(usize) -> Verdict + Sync) -> Verdict {
    crew(places, &work, || ())
}

/// Does `work` on all processors at once, which are given their number.
pub(in crate::probes::tests) fn everywhere(work: impl Fn(usize) -> Verdict + Sync) -> Verdict {
    let places: Vec<_> = (0..cpu::count()).map(Some).collect();
    placed(&places, work)
}

/// Does `work` again and again on the other processors (on the only one, in turns) while `main` runs on the first one.
/// `main` begins when each has done it once.
pub(in crate::probes::tests) fn under_fire<R>(
    work: impl Fn(usize) -> Verdict + Sync,
    main: impl FnOnce() -> Result<R, String>,
) -> Result<R, String> {
    let first = usize::from(cpu::count() > 1);
    under_fire_from(first, work, main)
}

/// The same with all processors, the first one in turns.
pub(in crate::probes) fn under_all_fire<R>(
    work: impl Fn(usize) -> Verdict + Sync,
    main: impl FnOnce() -> Result<R, String>,
) -> Result<R, String> {
    under_fire_from(0, work, main)
}

fn under_fire_from<R>(
    first: usize,
    work: impl Fn(usize) -> Verdict + Sync,
    main: impl FnOnce() -> Result<R, String>,
) -> Result<R, String> {
    let places: Vec<_> = (first..cpu::count()).map(Some).collect();
    let (stop, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    let shoot = |number| {
        let mut result = work(number);
        begun.fetch_add(1, Ordering::Relaxed);
        while result.is_ok() && !stop.load(Ordering::Relaxed) {
            result = work(number);
        }
        result
    };
    crew(&places, &shoot, || {
        sched::pin(0);
        while begun.load(Ordering::Relaxed) < places.len() {
            sched::yield_now();
        }
        let result = main();
        stop.store(true, Ordering::Relaxed);
        sched::unpin();
        result
    })?
}

fn control(f: impl FnOnce(&mut Control<Demo>) -> Result<(), host_bare::Error>) -> Verdict {
    with_control(f)?.map_err(|error| error.to_string())
}

/// A probe that counts.
pub(in crate::probes::tests) fn count(name: &str, address: u64) -> Verdict {
    control(|control| control.count(name, address))
}

/// A return probe that counts.
pub(in crate::probes::tests) fn count_returns(name: &str, address: u64, maxactive: u32) -> Verdict {
    control(|control| control.count_returns(name, address, maxactive))
}

/// A probe with a handler.
pub(in crate::probes::tests) fn attach(name: &str, address: u64, handler: Plain) -> Verdict {
    control(|control| plain::attach(control, name, address, handler))
}

/// Removes all probes and gives their numbers back.
pub(in crate::probes::tests) fn remove_all() -> Verdict {
    control(Control::remove_all)?;
    with_control(|control| control.records()).map(drop)
}

/// All has been counted that there was, nothing was missed.
pub(in crate::probes::tests) fn counted(name: &str, hits: u64) -> Verdict {
    let wanted = Counts { hits, ..Counts::default() };
    same(name, super::super::counts(name)?, wanted)
}

/// As [`counted`], of a return probe: each activation has returned.
pub(in crate::probes::tests) fn counted_returns(name: &str, hits: u64) -> Verdict {
    let wanted = Counts { hits, returned: hits, ..Counts::default() };
    same(name, super::super::counts(name)?, wanted)
}

/// Waits for what another processor does, at most two seconds.
pub(in crate::probes::tests) fn soon(what: &str, holds: impl Fn() -> bool) -> Verdict {
    let end = crate::arch::time::now_ns() + 2_000_000_000;
    while !holds() {
        check(crate::arch::time::now_ns() < end, || format!("for two seconds not: {what}"))?;
        core::hint::spin_loop();
    }
    Ok(())
}

/// The address of a symbol.
pub(in crate::probes::tests) fn address(symbol: &str) -> Result<u64, String> {
    crate::ksyms::lookup(symbol).map(|found| found.address).map_err(|error| format!("{symbol}: {error}"))
}
