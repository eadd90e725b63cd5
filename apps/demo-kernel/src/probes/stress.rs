//! Probes of all kinds come and go at random functions while the kernel works: `stress [SECONDS]`.
//!
//! One thread for each processor registers small batches of counting probes, return probes, handlers and recording
//! events at functions drawn from the symbol table, lets the kernel run into them, looks at what they have counted, and
//! removes them. Meanwhile the workload runs in as many threads. The scheduler, the interrupts' handlers,
//! the allocator and kprobes' own control are among the functions.
//!
//! What must hold in the end: every answer of the workload was right; counts fit together; a function of ours, which
//! has its probes all the time and is called by everybody, was counted exactly; the text is as it was.
//!
//! A site that is to be stepped in another way than before is made anew, and what it was before is never given back. So
//! a function keeps its way of stepping, but for [`CHANGES`] times in the kernel's life.

use super::plain;
use super::tests::{same, text, text_is};
use super::{Demo, with_control};
use crate::arch::{cpu, time};
use crate::lock::IrqLock;
use crate::mm::alias;
use crate::{ksyms, println, sched, workload};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use host_bare::{Control, Counts, Error, Next, Regs, Stepping};

const DEFAULT_SECONDS: u64 = 5;
const MOST_SECONDS: u64 = 3600;
/// Probes of one batch.
const MOST_IN_BATCH: u64 = 24;
/// Recording probes of one batch: to read what they have recorded takes longer than anything else.
const MOST_RECORDING: u64 = 2;
/// How long a batch stays, at most, in microseconds.
const LONGEST_STAY: u64 = 2000;
/// One function in so many is stepped as it was not before, while there is room for new sites.
const CHANGE_ONE_IN: u64 = 16;
/// How often in the kernel's life: a part of its sites.
const CHANGES: u64 = 1 << 12;
const STEPPINGS: [Stepping; 5] = Stepping::ALL;
/// Kinds of batches.
const KINDS: [Kind; 5] = [Kind::Counts, Kind::Returns, Kind::Handlers, Kind::Events, Kind::ReturnEvents];
/// What the events record: from registers, the stack, and memory that may not be there.
const FETCH: &str = "$comm $stack0 $stack word=+0(%ax):u64 text=+0($arg1):string bits=%di:b5@3/64";
const FETCH_RETURN: &str = "$retval:s32 text=+0($retval):string $comm";

/// What a batch consists of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Counts,
    Returns,
    Handlers,
    Events,
    ReturnEvents,
}

/// What is to be planted.
struct Batch {
    kind: Kind,
    name: String,
    places: Vec<u64>,
    stepping: Stepping,
    maxactive: u32,
}

/// What was done, by all threads.
struct Totals {
    batches: AtomicU64,
    planted: AtomicU64,
    refused: AtomicU64,
    hits: AtomicU64,
    missed: AtomicU64,
    returned: AtomicU64,
    records: AtomicU64,
    handled: AtomicU64,
    /// Calls of [`stress_target`].
    calls: AtomicU64,
    rounds: AtomicU64,
    failure: IrqLock<Option<String>>,
}

impl Totals {
    const fn new() -> Self {
        const fn zero() -> AtomicU64 {
            AtomicU64::new(0)
        }
        Self {
            batches: zero(),
            planted: zero(),
            refused: zero(),
            hits: zero(),
            missed: zero(),
            returned: zero(),
            records: zero(),
            handled: zero(),
            calls: zero(),
            rounds: zero(),
            failure: IrqLock::new(None),
        }
    }

    fn reset(&self) {
        let numbers = [&self.batches, &self.planted, &self.refused, &self.hits, &self.missed, &self.returned];
        let others = [&self.records, &self.handled, &self.calls, &self.rounds];
        numbers.into_iter().chain(others).for_each(|number| number.store(0, Ordering::Relaxed));
        *self.failure.lock() = None;
    }

    fn fail(&self, why: String) {
        self.failure.lock().get_or_insert(why);
        STOP.store(true, Ordering::Relaxed);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let Self { batches, planted, refused, hits, missed, returned, records, handled, calls, rounds, .. } = self;
        writeln!(f, "{:>9} probes in {} batches, {} refused", of(planted), of(batches), of(refused))?;
        writeln!(f, "{:>9} hits, {} missed, {} returns", of(hits), of(missed), of(returned))?;
        writeln!(f, "{:>9} handled by functions, {} records", of(handled), of(records))?;
        writeln!(f, "{:>9} calls of the function that is always probed, all counted", of(calls))?;
        write!(f, "{:>9} rounds of the workload, all answers right", of(rounds))
    }
}

static TOTALS: Totals = Totals::new();
static STOP: AtomicBool = AtomicBool::new(false);
/// When the run ends, in nanoseconds.
static END: AtomicU64 = AtomicU64::new(0);
/// How often a function was given another stepping, ever.
static CHANGED: AtomicU64 = AtomicU64::new(0);
/// So that no two runs do the same.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Called by every thread of the run, and probed all the time.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stress_target(x: u64) -> u64 {
    black_box(x) + 1
}

fn handler(_: &mut Regs) -> Next {
    TOTALS.handled.fetch_add(1, Ordering::Relaxed);
    Next::Step
}

/// The command.
pub(super) fn run(argument: &str) -> Result<(), String> {
    let seconds = match argument {
        "" => DEFAULT_SECONDS,
        text => text
            .parse()
            .ok()
            .filter(|seconds| (1..=MOST_SECONDS).contains(seconds))
            .ok_or_else(|| format!("SECONDS is a number from 1 to {MOST_SECONDS}"))?,
    };
    let planted = with_control(|control| control.list().count())?;
    if planted > 0 {
        return Err("there are probes: remove them first, so that the text can be compared".to_string());
    }
    with_control(Control::records)?;
    let before = text();
    let result = stress(seconds);
    // Whatever went wrong, no probe of ours stays.
    let removed = with_control(|control| {
        control.set_stepping(Stepping::default());
        control.remove_all().map(|()| drop(control.records()))
    })?;
    result?;
    removed.map_err(|error| error.to_string())?;
    text_is(&before)?;
    println!("{TOTALS}");
    println!("{seconds} s on {} processors, the text is as it was", cpu::count());
    Ok(())
}

fn stress(seconds: u64) -> Result<(), String> {
    TOTALS.reset();
    STOP.store(false, Ordering::Relaxed);
    END.store(time::now_ns() + seconds * 1_000_000_000, Ordering::Relaxed);
    let target = stress_target as *const () as u64;
    with_control(|control| {
        control.count("stress_entry", target)?;
        control.count_returns("stress_return", target, 64)
    })?
    .map_err(|error| error.to_string())?;
    let work = sched::spawn("stress-work", work, 0);
    let seed = RUNS.fetch_add(1, Ordering::Relaxed) << 32;
    let threads: Vec<_> =
        (0..cpu::count()).map(|cpu| sched::spawn_on(Some(cpu), "stress", come_and_go, seed as usize | cpu)).collect();
    threads.into_iter().for_each(sched::join);
    sched::join(work);
    TOTALS.failure.lock().take().map_or(Ok(()), Err)?;
    let calls = TOTALS.calls.load(Ordering::Relaxed);
    let of = |name: &str| with_control(|control| control.counts(name))?.ok_or_else(|| format!("{name} is gone"));
    let (entry, returned) = (of("stress_entry")?, of("stress_return")?);
    same("hits and misses of the function that is always probed", entry.hits + entry.missed, calls)?;
    same("the same of its return probe", returned.hits + returned.missed, calls)?;
    same("returns of it", returned.returned, returned.hits)
}

fn over() -> bool {
    STOP.load(Ordering::Relaxed) || time::now_ns() >= END.load(Ordering::Relaxed)
}

/// The thread that works, in several more.
fn work(_: usize) {
    while !over() {
        match workload::run_in_threads(cpu::count(), 1) {
            Ok(()) => TOTALS.rounds.fetch_add(1, Ordering::Relaxed),
            Err(why) => return TOTALS.fail(format!("the workload went wrong: {why}")),
        };
    }
}

/// A thread that plants and removes.
fn come_and_go(seed: usize) {
    let functions = functions();
    let mut random = Random(seed as u64);
    let mut number = 0_u64;
    while !over() {
        number += 1;
        let batch = Batch::random(format!("stress_{}_{number}", cpu::id()), &functions, &mut random);
        if let Err(why) = one_batch(&batch, &mut random) {
            return TOTALS.fail(format!("{:?} of {}: {why}", batch.kind, batch.name));
        }
    }
}

/// The addresses of all functions, each once.
fn functions() -> Vec<u64> {
    let mut all: Vec<u64> = ksyms::all().iter().filter(|s| s.is_function()).map(|s| s.address).collect();
    all.dedup();
    all
}

impl Batch {
    /// Draws one.
    fn random(name: String, functions: &[u64], random: &mut Random) -> Self {
        let kind = KINDS[random.below(KINDS.len() as u64) as usize];
        let records = matches!(kind, Kind::Events | Kind::ReturnEvents);
        let count = 1 + random.below(if records { MOST_RECORDING } else { MOST_IN_BATCH });
        let how = random.below(STEPPINGS.len() as u64);
        let change = random.below(CHANGE_ONE_IN) == 0 && CHANGED.fetch_add(count, Ordering::Relaxed) < CHANGES;
        let stepped_so = |place: &u64| change || Random(*place).below(STEPPINGS.len() as u64) == how;
        let place = || functions[random.below(functions.len() as u64) as usize];
        let mut places: Vec<u64> = core::iter::repeat_with(place).filter(stepped_so).take(count as usize).collect();
        places.sort_unstable();
        places.dedup();
        let maxactive = 1 + random.below(64) as u32;
        Self { kind, name, places, stepping: STEPPINGS[how as usize], maxactive }
    }

    /// Plants it with one turn of control; gives the names of what was not refused. A refusal is an answer: there are
    /// functions of the trap path, and instructions that cannot be displaced.
    fn plant(&self, control: &mut Control<Demo>) -> Vec<String> {
        let Self { kind, name, places, stepping, maxactive } = self;
        control.set_stepping(*stepping);
        let named = |place: &u64| format!("{name}_{place:x}");
        let refused: Vec<u64> = match kind {
            Kind::Counts => addresses(control.count_all(name, places)),
            Kind::Returns => addresses(control.count_all_returns(name, places, *maxactive)),
            Kind::Handlers => refused(places, |place| plain::attach(control, &named(&place), place, handler)),
            Kind::Events => {
                refused(places, |place| control.line(&format!("p:{} {place:#x} {FETCH}", named(&place))).map(drop))
            }
            Kind::ReturnEvents => refused(places, |place| {
                control.line(&format!("r{maxactive}:{} {place:#x} {FETCH_RETURN}", named(&place))).map(drop)
            }),
        };
        let planted = places.iter().filter(|place| !refused.contains(place));
        planted.map(named).collect()
    }
}

/// Where a probe was refused.
fn addresses(refused: Vec<(u64, Error)>) -> Vec<u64> {
    refused.into_iter().map(|(place, _)| place).collect()
}

/// Those of `places` where `plant` is refused.
fn refused(places: &[u64], mut plant: impl FnMut(u64) -> Result<(), Error>) -> Vec<u64> {
    places.iter().copied().filter(|&place| plant(place).is_err()).collect()
}

/// Plants a batch, stays, looks, removes.
fn one_batch(batch: &Batch, random: &mut Random) -> Result<(), String> {
    let names = with_control(|control| batch.plant(control))?;
    TOTALS.batches.fetch_add(1, Ordering::Relaxed);
    TOTALS.planted.fetch_add(names.len() as u64, Ordering::Relaxed);
    TOTALS.refused.fetch_add((batch.places.len() - names.len()) as u64, Ordering::Relaxed);
    let early = counts(&names)?;
    stay(random)?;
    let late = counts(&names)?;
    for ((name, early), late) in names.iter().zip(&early).zip(&late) {
        plausible(early, late).map_err(|why| format!("{name}: {why}: {early:?}, then {late:?}"))?;
        TOTALS.hits.fetch_add(late.hits, Ordering::Relaxed);
        TOTALS.missed.fetch_add(late.missed, Ordering::Relaxed);
        TOTALS.returned.fetch_add(late.returned, Ordering::Relaxed);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    with_control(|control| control.remove_events(&names))?.map_err(|error| error.to_string())?;
    take_records()
}

fn counts(names: &[String]) -> Result<Vec<Counts>, String> {
    let of = |control: &mut Control<Demo>| names.iter().map(|name| control.counts(name)).collect::<Option<_>>();
    with_control(of)?.ok_or_else(|| "an event of the batch is gone".to_string())
}

/// Lets the kernel run into the probes, and calls the function that always has some.
fn stay(random: &mut Random) -> Result<(), String> {
    let end = time::now_ns() + random.below(LONGEST_STAY) * 1000;
    while time::now_ns() < end {
        let x = random.below(1 << 40);
        TOTALS.calls.fetch_add(1, Ordering::Relaxed);
        same("the answer of the function that is always probed", stress_target(x), x + 1)?;
        sched::yield_now();
    }
    Ok(())
}

/// Counts only grow, and each return has a hit before it. They are read one after the other while the others go on: of
/// each thread an activation may come in between.
fn plausible(early: &Counts, late: &Counts) -> Result<(), &'static str> {
    let pairs = [(early.hits, late.hits), (early.missed, late.missed), (early.returned, late.returned)];
    if pairs.iter().any(|(early, late)| late < early) {
        return Err("a count went back");
    }
    if late.returned + late.unwound > late.hits + sched::thread_count() as u64 {
        return Err("more returns than hits");
    }
    if late.faults > 0 { Err("a handler has faulted") } else { Ok(()) }
}

/// Takes what was recorded, by whomever, and looks at it; which gives the numbers of removed events back.
fn take_records() -> Result<(), String> {
    let records = with_control(Control::records)?;
    TOTALS.records.fetch_add(records.len() as u64, Ordering::Relaxed);
    for record in &records {
        let address = record.header.address;
        if !alias::text().contains(&address) || record.header.cpu as usize >= cpu::count() {
            return Err(format!("a record of {} says {address:#x} on processor {}", record.event, record.header.cpu));
        }
    }
    Ok(())
}

/// A small generator (`splitmix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}
