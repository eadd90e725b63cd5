//! `bench`: what a hit of a probe costs.
//!
//! Made for a machine under `-icount shift=0` (`cargo xtask qemu --icount`), where the time stamp counter counts guest
//! instructions: figures are exact, and the same in every run. They are taken as those of Linux's own kprobes are
//! (`benches/linux-guest/measure.c`), on the same functions, so that the two can be compared (`cargo xtask
//! bench-kernel`): calls come in short bursts with interrupts off; the cheapest burst counts, and beside it the
//! cheapest burst of the same calls without the probe. Figures are summed over copies of the function at different
//! addresses, because the address decides where in the table of probes a hit finds its own.
//!
//! Every row is measured twice: alone, when no other address is probed, and in company, when [`OTHERS`] others are.
//! (Addresses that were probed once keep their places in the table. Under `-icount` that would show, if it cost.)
//!
//! What is printed for a row, PLAIN and PROBED being what CALLS calls cost:
//!
//! ```text
//! row|PROBE|FUNCTION|PLACED|OTHERS|CALLS|PLAIN|PROBED
//! ```
//!
//! A probe that is not placed as its row says, or has not counted exactly the calls, is an error.

mod burst;
mod targets;

use super::{Demo, with_control};
use crate::println;
use crate::shell::Command;
use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::{Control, Error, Handler, Hit, Kernel, Kprobe, Next, Stepping};
use targets::{CALL, Function, JMP, LEA, NOP, PUSH, Target};

/// The command.
pub(super) const COMMAND: Command =
    Command { name: "bench", usage: "", help: "what a hit of each kind of probe costs", run };

/// Copies of each function.
const COPIES: usize = 8;
/// Addresses that are probed besides, for company.
const OTHERS: usize = 1000;
/// Bursts, and calls in each.
const BURSTS: u64 = 5;
const CALLS: u64 = 20;

/// Names of the probes that are measured: a row has one or two.
const NAMES: [&str; 2] = ["bench_a", "bench_b"];
/// Activations that may be under way at once; there is one.
const MAXACTIVE: u32 = 10;

/// What is put on an address.
struct Kind {
    name: &'static str,
    plant: fn(&mut Control<Demo>, u64) -> Result<(), Error>,
    /// Handlers that one call runs.
    handlers: u64,
    /// Measured on all functions; else only once for each way to execute an instruction.
    everywhere: bool,
}

const fn kind(name: &'static str, plant: fn(&mut Control<Demo>, u64) -> Result<(), Error>) -> Kind {
    Kind { name, plant, handlers: 0, everywhere: false }
}

static KINDS: [Kind; 10] = [
    Kind { everywhere: true, ..kind("no handlers", |control, at| control.count(NAMES[0], at)) },
    Kind { everywhere: true, handlers: 1, ..kind("pre", |control, at| attach(control, NAMES[0], at)) },
    Kind {
        handlers: 2,
        ..kind("2 probes, pre", |control, at| NAMES.iter().try_for_each(|name| attach(control, name, at)))
    },
    kind("recorded", |control, at| define(control, at, &["p:bench_a AT"])),
    kind("recorded, 2 args", |control, at| define(control, at, &["p:bench_a AT a=$arg1 b=$arg2"])),
    kind("recorded, string", |control, at| define(control, at, &["p:bench_a AT s=+0($arg2):string"])),
    kind("return", |control, at| control.count_returns(NAMES[0], at, MAXACTIVE)),
    kind("return, recorded", |control, at| define(control, at, &["r:bench_a AT r=$retval"])),
    kind("entry + return", |control, at| {
        control.count(NAMES[0], at)?;
        control.count_returns(NAMES[1], at, MAXACTIVE)
    }),
    kind("entry + return, recorded", |control, at| {
        define(control, at, &["p:bench_a AT a=$arg1", "r:bench_b AT r=$retval"])
    }),
];

/// How the probed instruction takes its effect, and which one it is.
struct Place {
    name: &'static str,
    /// What a probe's listing calls it.
    placement: &'static str,
    target: Target,
    stepping: Stepping,
    /// Measured for all kinds of probes.
    always: bool,
}

const fn place(name: &'static str, target: Target, stepping: Stepping, always: bool) -> Place {
    let placement = match stepping {
        Stepping::Best => "breakpoint, emulated",
        Stepping::Boosted => "breakpoint, boosted",
        Stepping::SecondBreakpoint => "breakpoint, second breakpoint",
        Stepping::SingleStep => "breakpoint, single step",
        Stepping::Jump => "jump",
    };
    Place { name, placement, target, stepping, always }
}

const PLACES: [Place; 13] = [
    place("jump", LEA, Stepping::Jump, true),
    place("jump", PUSH, Stepping::Jump, false),
    place("jump", NOP, Stepping::Jump, false),
    place("jump", CALL, Stepping::Jump, false),
    place("emulated", JMP, Stepping::Best, true),
    place("emulated", CALL, Stepping::Best, false),
    place("emulated", NOP, Stepping::Best, false),
    place("emulated", PUSH, Stepping::Best, false),
    place("boosted", LEA, Stepping::Boosted, true),
    place("boosted", JMP, Stepping::Boosted, false),
    place("second breakpoint", LEA, Stepping::SecondBreakpoint, true),
    place("trap flag", LEA, Stepping::SingleStep, true),
    place("trap flag", JMP, Stepping::SingleStep, false),
];

/// How often handlers ran.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// As little as the handler of Linux's figures does.
extern "C" fn pre(_: &mut Hit<'_>) -> Next {
    RUNS.fetch_add(1, Ordering::Relaxed);
    Next::Step
}

fn attach(control: &mut Control<Demo>, name: &str, at: u64) -> Result<(), Error> {
    // SAFETY: it adds to an atomic.
    let pre = unsafe { Handler::new(pre as _) };
    control.attach(name, Kprobe::address(at).pre(pre))
}

/// Does what the lines say, with the name of the function at `at` for `AT`.
fn define(control: &mut Control<Demo>, at: u64, lines: &[&str]) -> Result<(), Error> {
    let function = Demo::symbol_at(at).map(|symbol| symbol.name).unwrap_or_default();
    lines.iter().try_for_each(|line| control.line(&line.replace("AT", &function)).map(drop))
}

fn run(_: &str) -> Result<(), String> {
    if !burst::counts_instructions() {
        println!("warning: figures are counts of the time stamp counter, not instructions: run with --icount");
    }
    with_control(|control| {
        if control.list().next().is_some() {
            return Err("there are probes: remove them first, they would be company".to_string());
        }
        let result = measure(control);
        control.set_stepping(Stepping::default());
        let removed = control.remove_all().map_err(|error| error.to_string());
        control.records();
        result.and(removed)
    })?
}

fn measure(control: &mut Control<Demo>) -> Result<(), String> {
    rows(control, 0)?;
    let others = targets::fillers();
    control.set_stepping(Stepping::Best);
    if let Some((address, error)) = control.count_all("bench_filler", &others).first() {
        return Err(format!("{address:#x} cannot be probed: {error}"));
    }
    rows(control, others.len())
}

fn rows(control: &mut Control<Demo>, others: usize) -> Result<(), String> {
    for kind in &KINDS {
        for place in PLACES.iter().filter(|place| kind.everywhere || place.always) {
            let Cost { plain, probed } = row(control, kind, place, others == 0)
                .map_err(|error| format!("{} on {}, {}: {error}", kind.name, place.target.name, place.name))?;
            let calls = COPIES as u64 * CALLS;
            println!("row|{}|{}|{}|{others}|{calls}|{plain}|{probed}", kind.name, place.target.name, place.name);
        }
    }
    Ok(())
}

/// What all calls of a row cost, without and with its probes.
#[derive(Default)]
struct Cost {
    plain: u64,
    probed: u64,
}

fn row(control: &mut Control<Demo>, kind: &Kind, place: &Place, alone: bool) -> Result<Cost, String> {
    let mut cost = Cost::default();
    control.set_stepping(place.stepping);
    for function in place.target.copies() {
        cost.plain += burst::cheapest(function);
        (kind.plant)(control, function.address()).map_err(|error| error.to_string())?;
        // In company there is too much to list.
        if alone {
            check_placement(control, place)?;
        }
        cost.probed += probed(control, kind, function)?;
        remove(control)?;
    }
    Ok(cost)
}

/// What calls of a probed function cost.
fn probed(control: &Control<Demo>, kind: &Kind, function: Function) -> Result<u64, String> {
    let before = RUNS.load(Ordering::Relaxed);
    let cost = burst::cheapest(function);
    same("runs of handlers", RUNS.load(Ordering::Relaxed) - before, BURSTS * CALLS * kind.handlers)?;
    for counts in NAMES.iter().filter_map(|name| control.counts(name)) {
        same("hits", counts.hits, BURSTS * CALLS)?;
        same("misses", counts.missed + counts.lost, 0)?;
        if kind.name.starts_with("return") {
            same("returns", counts.returned, BURSTS * CALLS)?;
        }
    }
    Ok(cost)
}

fn check_placement(control: &Control<Demo>, place: &Place) -> Result<(), String> {
    match control.list().find(|listed| !listed.placement.ends_with("stub")) {
        Some(listed) if listed.placement != place.placement => Err(format!("placed as {}", listed.placement)),
        // Of a return probe alone the listing says something else.
        _ => Ok(()),
    }
}

/// Removes a row's probes, and its records, which must not fill the ring.
fn remove(control: &mut Control<Demo>) -> Result<(), String> {
    for name in NAMES {
        if control.counts(name).is_some() {
            control.remove(None, name).map_err(|error| error.to_string())?;
        }
    }
    control.records();
    Ok(())
}

fn same(what: &str, got: u64, wanted: u64) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got}, should be {wanted}")) }
}
