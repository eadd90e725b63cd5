//! The tool is killed with `SIGKILL` at any moment: the program goes on, and the next tool can trace it.
//!
//! * **again and again** in one program: each moment of attaching, tracing and leaving is met sooner or later; every now
//!   and then a tool is left alone, and must see hits;
//! * **at the first attach**: a fresh program for each.
//!
//! Before the agent's handler is there, for a fraction of a millisecond of each attach, nobody can give a held thread back
//! (README, *Limits*): such a death is told by its core dump, counted, and no finding.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use testkit::generate::Random;

use crate::Stage;
use crate::finished::{Running, signal};
use crate::programs;
use crate::report::{Report, Verdict};
use crate::storm;
use crate::target::Target;
use crate::toggler::{Toggler, Toggles};

const PART: &str = "killed";

const DEFINITIONS: &[&str] =
    &["p:work work a=%rdi", "p:inner work+1", "r:back work v=$retval", "r:deepest deep", "p:malloc libc.so.6:malloc"];

/// Runs the part.
///
/// # Errors
///
/// If the program cannot be built though there is a compiler.
pub(crate) fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let program = match storm::build(stage)? {
        Ok(path) => path,
        Err(why) => {
            report.row(PART, "everything", Verdict::Skipped, why);
            return Ok(());
        }
    };
    let share = stage.effort.time / 6;
    for (scenario, options) in
        [("calm", &[][..]), ("signals", &[]), ("threads", &[]), ("objects", &[]), ("forks", &["-f"])]
    {
        let name = [scenario].iter().chain(options).copied().collect::<Vec<_>>().join(" ");
        let case = format!("{name}, again and again");
        if stage.wants(&case) {
            report.case(stage, PART, &case, again(stage, &program, scenario, options, share));
        }
    }
    if stage.wants("first attach") {
        first(stage, report, share)?;
    }
    report.control(stage, PART, "a program that dies with the tool", control(stage, &program));
    Ok(())
}

/// Starts a tool, and ends it after `after`; whether it had ended by itself.
fn kill_one(toggler: &Toggler<'_>, pid: u32, random: &mut Random, after: Duration) -> Result<bool, String> {
    let (command, _, _) = toggler.command(pid, random).map_err(|error| error.to_string())?;
    let mut running = Running::start(command, toggler.folder, "killed").map_err(|error| format!("{error:#}"))?;
    std::thread::sleep(after);
    let by_itself = running.has_ended();
    if !by_itself {
        signal(&running.pid().to_string(), "KILL");
    }
    running.finish(Duration::from_secs(5));
    Ok(by_itself)
}

fn again(stage: &Stage, program: &Path, scenario: &str, options: &[&str], time: Duration) -> Result<String, String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let folder = storm::folder(stage, program, scenario).map_err(text)?;
    let mut target = Target::start(program, &[scenario], &folder).map_err(text)?;
    let toggler = Toggler { stage, folder: &folder, definitions: DEFINITIONS, longest: 60, options };
    let mut random = stage.random(scenario);
    let (mut toggles, mut kills, mut too_late, mut too_early) = (Toggles::default(), 0_u64, 0_u64, 0_u64);
    let end = Instant::now() + time;
    while Instant::now() < end {
        let after = Duration::from_micros(random.below(150_000));
        let at = format!("after kill {kills}, at {} us", after.as_micros());
        target.running.remember_maps();
        too_late += u64::from(kill_one(&toggler, target.pid(), &mut random, after)?);
        kills += 1;
        match goes_on(&mut target) {
            Ok(()) => {}
            Err(why) if before_the_handler(&why) => {
                too_early += 1;
                target = Target::start(program, &[scenario], &folder).map_err(text)?;
                continue;
            }
            Err(why) => return Err(format!("{at}: {why}")),
        }
        if random.one_in(4) {
            let before = toggles.hits;
            toggler.round(target.pid(), &mut random, &mut toggles).map_err(|why| format!("{at}: {why}"))?;
            let long = Toggler { longest: 400, ..toggler };
            if toggles.hits == before {
                long.round(target.pid(), &mut random, &mut toggles).map_err(|why| format!("{at}: {why}"))?;
            }
        }
    }
    // A last one, which is left alone, takes everything out.
    toggler.round(target.pid(), &mut random, &mut toggles)?;
    if toggles.hits == 0 {
        return Err(format!("no tool that was left alone has seen a hit; {}", target.condition()));
    }
    let rest = match storm::settle(target, &toggles) {
        Err(why) if options.contains(&"-f") && only_executed_children(&why) => {
            format!("programs that its children have executed died before the handler was there (a limit): {why}")
        }
        settled => settled?,
    };
    Ok(format!(
        "{kills} tools killed ({too_late} had ended), {too_early} programs died before the agent's handler was there (a \
         limit); {rest}"
    ))
}

/// Whether a death was that of a thread that the tool held before the agent's handler was there: it stood at the `syscall`
/// instruction of the vdso or of the agent, with the mask that it has while it runs for the tool.
fn before_the_handler(why: &str) -> bool {
    why.contains("signal 5, at") && why.contains("blocked 0xfffffffffffbfeef") && why.contains("r-xp 00000000 00:00 0")
}

/// Whether nothing is wrong but that programs died which a child was just executing: a tool that follows them holds their
/// first thread too, before the agent's handler is there.
fn only_executed_children(why: &str) -> bool {
    let died = |fault: &str| {
        let rest =
            fault.strip_prefix("a vforked child ended with ").or(fault.strip_prefix("a spawned child ended with "));
        // By SIGTRAP or SIGSEGV, with a core dump or without.
        rest.is_some_and(|rest| ["0x85", "0x8b", "0x5", "0xb"].iter().any(|end| rest.trim_end() == *end))
    };
    let Some((said, rest)) = why.split_once("; code that differs") else { return false };
    let mut faults = said.split("fault: ").skip(1);
    rest.starts_with(" from its file: []")
        && said.contains("exit status 1;")
        && faults.clone().count() > 0
        && faults.all(died)
}

/// The program does something still.
fn goes_on(target: &mut Target) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(10);
    target.tell("progress", "progressed")?;
    let first = target.number("rounds");
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
        // The answer's line has been there before: what counts is that the number changes.
        target.tell("progress", "progressed")?;
        if target.number("rounds") != first {
            return Ok(());
        }
    }
    Err(format!("it does nothing any more: {}", target.condition()))
}

/// Fresh programs, whose first tool is killed while it attaches.
fn first(stage: &Stage, report: &mut Report, time: Duration) -> Result<()> {
    let hot = match programs::build(stage, "hot.c", "hot", &[])? {
        Ok(path) => path,
        Err(why) => {
            report.row(PART, "first attach", Verdict::Skipped, why);
            return Ok(());
        }
    };
    let folder = stage.place.empty("killed-first")?;
    let definitions = ["p:entry hot_several", "r:back hot_several"];
    let toggler = Toggler { stage, folder: &folder, definitions: &definitions, longest: 60, options: &[] };
    let mut random = stage.random("first");
    let (mut died, mut count, mut deaths, mut wrong) = (0, 0, Vec::new(), Vec::new());
    let end = Instant::now() + time;
    while Instant::now() < end && wrong.len() < 3 {
        count += 1;
        let mut target = Target::start(&hot, &["several", "3"], &folder)?;
        let outcome = target.tell("go", "going").and_then(|()| {
            let after = Duration::from_micros(random.below(80_000));
            kill_one(&toggler, target.pid(), &mut random, after).map(|_| after)
        });
        let after = match outcome {
            Ok(after) => after,
            Err(why) => {
                wrong.push(why);
                continue;
            }
        };
        std::thread::sleep(Duration::from_millis(20));
        target.running.remember_maps();
        if target.running.has_ended() {
            died += 1;
            deaths.push(format!("at {} us: {}{}", after.as_micros(), target.running.end(), target.running.obituary()));
            continue;
        }
        let traced = toggler.round(target.pid(), &mut random, &mut Toggles::default());
        let ended = traced.and_then(|()| target.tell("stop", "stopped"));
        if let Err(why) = ended {
            wrong.push(format!("killed at {} us: {why}; {}", after.as_micros(), target.condition()));
        } else if target.number("faults") != Some(0) {
            wrong.push(format!("killed at {} us: wrong results", after.as_micros()));
        }
    }
    let figures = format!("{count} programs, {died} died {}", deaths.join("; "));
    let verdict = if !wrong.is_empty() {
        Verdict::Wrong
    } else if died > 0 {
        Verdict::Limit
    } else {
        Verdict::Ok
    };
    report.row(PART, "first attach", verdict, figures);
    wrong.into_iter().for_each(|why| report.finding(stage, "killed at the first attach", why));
    Ok(())
}

/// A program that is ended instead of the tool.
fn control(stage: &Stage, program: &Path) -> Result<(), String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let folder = storm::folder(stage, program, "control").map_err(text)?;
    let mut target = Target::start(program, &["threads"], &folder).map_err(text)?;
    signal(&target.pid().to_string(), "STOP");
    let stuck = target.running.wait_for_line("never", Duration::from_millis(50));
    signal(&target.pid().to_string(), "KILL");
    if stuck {
        return Ok(());
    }
    goes_on(&mut target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_followed_program_that_died_is_told_from_a_wrong_result() {
        let why = |faults: &str, text: &str| {
            format!(
                "at its end: exit status 1; after 6 rounds of its own it says: {faults}; code that differs from its file: {text}; 4 rounds"
            )
        };
        let (segv, trap) = ("fault: a vforked child ended with 0x8b\n", "fault: a spawned child ended with 0x5\n");
        assert!(only_executed_children(&why(&format!("{segv}{trap}"), "[]")));
        for (faults, text) in [
            ("", "[]"),
            (segv, "[(1, 2)]"),
            ("fault: a vforked child ended with 0x100\n", "[]"),
            ("fault: a vforked child ended with 0x8b\nfault: work\n", "[]"),
        ] {
            assert!(!only_executed_children(&why(faults, text)), "{faults} {text}");
        }
    }
}
