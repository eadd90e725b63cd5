//! Within one process: a program that probes itself, thousands of times, by all that makes a jump come and go.
//!
//! It runs in a process of its own (`torture inside KIND CYCLES SEED`), since it may die. Its threads call the function
//! and check each result; a probe that stays, on the function's `ret`, counts. What comes and goes is chosen by chance:
//! a counting probe, one with a handler, one with a handler behind the instruction (which a jump cannot serve, so a jump
//! has to give way), one on an instruction inside the window (likewise), a return probe, one that is switched off and on,
//! and two at once that go in either order.

#![expect(unsafe_code, reason = "handlers are promised to keep the rules of trap context")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use host_process::local::{Error, Handler, Hit, Kprobe, Kretprobe, Next, Process, Registered, Watch};
use testkit::generate::Random;

use super::PART;
use crate::Stage;
use crate::finished::Running;
use crate::obituary::{now, obituary};
use crate::report::Report;

const THREADS: usize = 3;

core::arch::global_asm!(
    ".pushsection .text.torture_inside, \"ax\"",
    ".balign 64",
    ".type inside_long, @function",
    "inside_long: .cfi_startproc",
    ".byte 0x48, 0x8d, 0x87, 7, 0, 0, 0", // lea rax, [rdi + 7], with a displacement of four bytes
    "ret",
    ".cfi_endproc",
    ".size inside_long, . - inside_long",
    ".balign 64",
    ".type inside_several, @function",
    "inside_several: .cfi_startproc",
    "push rbx",
    "mov rbx, rdi",
    "lea rax, [rbx + 7]",
    "pop rbx",
    "ret",
    ".cfi_endproc",
    ".size inside_several, . - inside_several",
    ".balign 64",
    ".skip 62",
    ".type inside_across, @function",
    "inside_across: .cfi_startproc",
    "push rbx",
    "mov rbx, rdi",
    "lea rax, [rbx + 7]",
    "pop rbx",
    "ret",
    ".cfi_endproc",
    ".size inside_across, . - inside_across",
    ".popsection",
);

unsafe extern "C" {
    safe fn inside_long(x: u64) -> u64;
    safe fn inside_several(x: u64) -> u64;
    safe fn inside_across(x: u64) -> u64;
}

type Function = extern "C" fn(u64) -> u64;

/// A function, an instruction inside its window, and its `ret`.
fn kind(name: &str) -> Option<(Function, u64, u64)> {
    match name {
        "long" => Some((inside_long, 0, 7)),
        "several" => Some((inside_several, 1, 9)),
        "across" => Some((inside_across, 4, 9)),
        _ => None,
    }
}

/// The three of them, each in a process of its own.
///
/// # Errors
///
/// If one cannot be started.
pub(super) fn run(stage: &Stage, report: &mut Report, time: Duration) -> Result<()> {
    for name in ["long", "several", "across"].into_iter().filter(|name| stage.wants(name)) {
        for (control, lie) in [(false, "0"), (true, "1")] {
            if control && name != "several" {
                continue;
            }
            let folder = stage.place.empty(&format!("inside-{name}"))?;
            let mut command = Command::new(std::env::current_exe()?);
            let time = if control { Duration::from_millis(300) } else { time };
            command.args(["inside", name, &time.as_millis().to_string(), &stage.seed.to_string(), lie]);
            command.current_dir(&folder);
            let since = now();
            let running = Running::start(command, &folder, "inside")?;
            let finished = running.finish(time + Duration::from_secs(60));
            let outcome = match finished.status {
                Some(0) => Ok(finished.text().trim().to_owned()),
                _ => Err(format!(
                    "{} (torture inside {name} {} {} {lie}): {}{}",
                    finished.end(),
                    time.as_millis(),
                    stage.seed,
                    finished.errors(),
                    obituary(&folder, "torture", "", since)
                )),
            };
            if control {
                report.control(stage, PART, "one call too many, inside", outcome.map(|_| ()));
            } else {
                report.case(stage, PART, &format!("{name} inside, {THREADS} threads"), outcome);
            }
        }
    }
    Ok(())
}

static RAN: AtomicU64 = AtomicU64::new(0);
static BEHIND: AtomicU64 = AtomicU64::new(0);
static ENTERED: AtomicU64 = AtomicU64::new(0);
static RETURNED: AtomicU64 = AtomicU64::new(0);

extern "C" fn pre(_: &mut Hit<'_>) -> Next {
    RAN.fetch_add(1, Ordering::Relaxed);
    Next::Step
}

extern "C" fn post(_: &mut Hit<'_>) {
    BEHIND.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn entered(hit: &mut Hit<'_>, argument: &mut u64) -> Watch {
    ENTERED.fetch_add(1, Ordering::Relaxed);
    *argument = hit.regs().argument(1);
    Watch::Yes
}

extern "C" fn returned(hit: &mut Hit<'_>, argument: &mut u64) {
    // Wrong data would be another call's.
    if hit.regs().return_value() == argument.wrapping_add(7) {
        RETURNED.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the probes that came and went have counted.
#[derive(Default)]
struct Sums {
    cycles: u64,
    handled: u64,
    followed: u64,
    entered: u64,
    returned: u64,
    counted: u64,
    missed: u64,
    placed: BTreeMap<String, u64>,
}

struct Torment {
    process: &'static Process,
    entry: u64,
    interior: u64,
    sums: Sums,
}

/// `torture inside KIND MILLISECONDS SEED LIE`.
///
/// # Errors
///
/// If something is wrong with what was counted, or control fails.
pub(crate) fn main(words: &[String]) -> Result<()> {
    let [name, time, seed, lie] = words else { bail!("inside KIND MILLISECONDS SEED LIE") };
    let (function, interior, ret) = kind(name).context("no such kind")?;
    let (time, seed, lie): (u64, u64, u64) = (time.parse()?, seed.parse()?, lie.parse()?);
    let process = Process::start()?;
    let entry = function as *const () as u64;
    let stays = process.register(Kprobe::address(entry + ret))?;
    let mut torment = Torment { process, entry, interior: entry + interior, sums: Sums::default() };
    let (calls, wrong, done) = (AtomicU64::new(lie), AtomicU64::new(0), AtomicBool::new(false));
    let mut random = Random::new(seed);
    let ended = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| shoot(function, &calls, &wrong, &done));
        }
        let end = std::time::Instant::now() + Duration::from_millis(time);
        let mut ended = Ok(());
        while ended.is_ok() && std::time::Instant::now() < end {
            ended = torment.cycle(&mut random);
        }
        done.store(true, Ordering::Relaxed);
        ended
    });
    ended.with_context(|| format!("cycle {}", torment.sums.cycles))?;
    let stayed = process.counts_of(&stays)?;
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let sums = &torment.sums;
    let same = [
        ("wrong results", load(&wrong), 0),
        ("hits + missed of the probe that stays, and calls", stayed.hits + stayed.missed, load(&calls)),
        ("runs of handlers, and hits", load(&RAN), sums.handled),
        ("runs of entry handlers, and activations", load(&ENTERED), sums.entered),
        ("runs of return handlers with their call's data, and returns", load(&RETURNED), sums.returned),
    ];
    // Who unregisters does not wait for a thread that is between its instruction's copy and the breakpoint behind it.
    let cut = sums.followed.saturating_sub(load(&BEHIND));
    if load(&BEHIND) > sums.followed || cut > sums.cycles * THREADS as u64 {
        bail!("{} runs of handlers behind the instruction, but {} hits", load(&BEHIND), sums.followed);
    }
    let wrong: Vec<_> =
        same.iter().filter(|(_, a, b)| a != b).map(|(what, a, b)| format!("{what}: {a}, {b}")).collect();
    if !wrong.is_empty() {
        bail!("{} after {} cycles", wrong.join("; "), sums.cycles);
    }
    let placed = sums.placed.iter().map(|(how, n)| format!("{n} {how}")).collect::<Vec<_>>().join(", ");
    println!(
        "{} calls = {} hits + {} missed of the probe that stays; {} cycles, {} counted, {} handled, {} returned, {} followed ({cut} of them cut \
         off by the removal), {} missed; placed: {placed}",
        load(&calls),
        stayed.hits,
        stayed.missed,
        sums.cycles,
        sums.counted,
        sums.handled,
        sums.returned,
        sums.followed,
        sums.missed,
    );
    Ok(())
}

fn shoot(function: Function, calls: &AtomicU64, wrong: &AtomicU64, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        for x in 0..50 {
            if black_box(function)(x) != x + 7 {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
        calls.fetch_add(50, Ordering::Relaxed);
    }
}

impl Torment {
    fn cycle(&mut self, random: &mut Random) -> Result<(), Error> {
        self.sums.cycles += 1;
        let process = self.process;
        // SAFETY: they use registers, their data and atomics.
        let (before, behind) = unsafe { (Handler::new(pre as _), Handler::new(post as _)) };
        match random.below(7) {
            0 => {
                let probe = process.register(Kprobe::address(self.entry))?;
                self.linger(random)?;
                self.go(probe, false)
            }
            1 => {
                let probe = process.register(Kprobe::address(self.entry).pre(before))?;
                self.linger(random)?;
                self.go(probe, true)
            }
            2 => {
                let probe = process.register(Kprobe::address(self.entry).post(behind))?;
                let counts = self.process.unregister(probe).map_err(|(_, error)| error)?;
                self.sums.followed += counts.hits;
                self.sums.missed += counts.missed;
                Ok(())
            }
            3 => {
                let probe = process.register(Kprobe::address(self.interior).pre(before))?;
                self.go(probe, true)
            }
            4 => {
                // The second is in the way of the first's jump; whichever goes first.
                let first = process.register(Kprobe::address(self.entry).pre(before))?;
                self.linger(random)?;
                let second = process.register(Kprobe::address(self.interior))?;
                if random.one_in(2) {
                    self.go(second, false)?;
                    self.go(first, true)
                } else {
                    self.go(first, true)?;
                    self.go(second, false)
                }
            }
            5 => self.watch(),
            _ => {
                let probe = process.register(Kprobe::address(self.entry).pre(before))?;
                for _ in 0..random.below(4) {
                    process.enable(&probe, false)?;
                    process.enable(&probe, true)?;
                }
                self.go(probe, true)
            }
        }
    }

    fn watch(&mut self) -> Result<(), Error> {
        // SAFETY: they use registers, their data and atomics.
        let (entered, returned) = unsafe { (Handler::new(entered as _), Handler::new(returned as _)) };
        let probe = Kretprobe::<u64>::address(self.entry).entry(entered).handler(returned);
        let probe = self.process.register(probe)?;
        let counts = self.process.unregister(probe).map_err(|(_, error)| error)?;
        self.sums.entered += counts.hits;
        self.sums.returned += counts.returned;
        self.sums.missed += counts.missed;
        Ok(())
    }

    /// Sometimes a jump is waited for, if one is made later; and how the probes are placed is noted.
    fn linger(&mut self, random: &mut Random) -> Result<(), Error> {
        if random.one_in(8) {
            std::thread::sleep(Duration::from_micros(random.below(300)));
        }
        if random.one_in(16) {
            for listed in self.process.list()? {
                *self.sums.placed.entry(listed.placement.to_string()).or_default() += 1;
            }
        }
        Ok(())
    }

    fn go(&mut self, probe: Registered, handled: bool) -> Result<(), Error> {
        let counts = self.process.unregister(probe).map_err(|(_, error)| error)?;
        if handled {
            self.sums.handled += counts.hits;
        } else {
            self.sums.counted += counts.hits;
        }
        self.sums.missed += counts.missed;
        Ok(())
    }
}
