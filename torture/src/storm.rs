//! Everything that makes a thread be elsewhere than it thinks, while probes on its functions come and go.
//!
//! Signals at a high rate, on stacks of their own and not, with handlers that call what is probed; jumps out of
//! handlers and over probed frames; faults; forks, `vfork`, `posix_spawn`; threads that come, go and are cancelled;
//! objects that are loaded and unloaded. The program (`programs/storm.c`) checks each result itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Stage;
use crate::programs;
use crate::report::{Report, Verdict};
use crate::target::Target;
use crate::toggler::{Toggler, Toggles};
use crate::tool::{self, traced};

const PART: &str = "storm";

/// A scenario, and probes of its own beside those on what all of them call.
struct Scenario {
    name: &'static str,
    own: &'static [&'static str],
    options: &'static [&'static str],
}

/// On what all of them call.
const COMMON: &[&str] = &[
    "p:work work a=%rdi",
    "p:inner work+1 a=%rdi",
    "r:back work v=$retval",
    "p:deep deep",
    "r:deepest deep v=$retval",
    "p:malloc libc.so.6:malloc size=$arg1",
    "r:mallocs libc.so.6:malloc p=$retval",
    "p:free libc.so.6:free",
];

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "calm", own: &["p:heap heap n=$arg1", "r:heaped heap v=$retval"], options: &[] },
    Scenario {
        name: "signals",
        own: &[
            "p:handler on_signal",
            "r:handled on_signal",
            "p:kill libc.so.6:pthread_kill",
            "p:usleep libc.so.6:usleep",
        ],
        options: &[],
    },
    Scenario {
        name: "jumps",
        own: &["p:handler on_jump", "p:fault fault_here+2 a=%rdi", "p:faulty fault_here", "p:raise libc.so.6:raise"],
        options: &[],
    },
    Scenario { name: "faults", own: &["p:handler on_jump", "p:fault fault_here+2 a=%rdi"], options: &[] },
    Scenario { name: "forks", own: &["p:wait libc.so.6:waitpid", "p:spawn libc.so.6:posix_spawnp"], options: &[] },
    Scenario {
        name: "forks",
        own: &["p:wait libc.so.6:waitpid", "r:waited libc.so.6:waitpid v=$retval"],
        options: &["-f"],
    },
    Scenario {
        name: "threads",
        own: &[
            "p:create libc.so.6:pthread_create",
            "r:cleaned clean",
            "p:clean clean",
            "p:exit libc.so.6:pthread_exit",
        ],
        options: &[],
    },
    Scenario {
        name: "objects",
        own: &["p:plugin storm-plugin.so:plugin_work a=$arg1", "r:plugged storm-plugin.so:plugin_work v=$retval"],
        options: &[],
    },
];

/// Builds the program and its plugin.
///
/// # Errors
///
/// If the compiler is there and fails.
pub(crate) fn build(stage: &Stage) -> Result<Result<PathBuf, String>> {
    if let Err(why) = programs::build(stage, "plugin.c", "storm-plugin.so", &["-fPIC", "-shared"])? {
        return Ok(Err(why));
    }
    programs::build(stage, "storm.c", "storm", &[])
}

/// Runs the part.
///
/// # Errors
///
/// If the program cannot be built though there is a compiler.
pub(crate) fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let program = match build(stage)? {
        Ok(path) => path,
        Err(why) => {
            report.row(PART, "everything", Verdict::Skipped, why);
            return Ok(());
        }
    };
    let share = stage.effort.time / (2 * SCENARIOS.len() as u32);
    for scenario in SCENARIOS.iter().filter(|scenario| stage.wants(scenario.name)) {
        let name = [scenario.name].iter().chain(scenario.options).copied().collect::<Vec<_>>().join(" ");
        if let Err(why) = alone(stage, &program, scenario) {
            report.case(stage, PART, &format!("{name}, without probes"), Err(why));
            continue;
        }
        let outcome = launched(stage, &program, scenario, share);
        report.case(stage, PART, &format!("{name}, launched by the tool"), outcome);
        attached(stage, report, &program, scenario, &name, share);
    }
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name == "objects") {
        let outcome = one(stage, &program, scenario, Duration::from_millis(200), true);
        report.control(stage, PART, "one wrong result", outcome.0);
    }
    Ok(())
}

/// What does not work without probes says nothing about probes.
fn alone(stage: &Stage, program: &Path, scenario: &Scenario) -> Result<(), String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let folder = folder(stage, program, scenario.name).map_err(text)?;
    let target = Target::start(program, &[scenario.name], &folder).map_err(text)?;
    std::thread::sleep(Duration::from_millis(200));
    settle(target, &Toggles::default()).map(|_| ())
}

/// With all probes from its first instruction to its end.
fn launched(stage: &Stage, program: &Path, scenario: &Scenario, time: Duration) -> Result<String, String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let folder = folder(stage, program, scenario.name).map_err(text)?;
    let (definitions, summary) = (folder.join("definitions"), folder.join("summary"));
    let lines: String = COMMON.iter().chain(scenario.own).map(|line| format!("{line}\n")).collect();
    std::fs::write(&definitions, lines).map_err(|error| error.to_string())?;
    let mut command = stage.tool.counting(&definitions, &summary);
    command.args(scenario.options).arg("--").arg(program).arg(scenario.name);
    let mut target = Target::of(command, &folder).map_err(text)?;
    let end = Instant::now() + time;
    while Instant::now() < end && !target.running.has_ended() {
        std::thread::sleep(Duration::from_millis(20));
    }
    target.tell("stop", "stopped")?;
    let [calls, rounds] = ["calls", "rounds"].map(|key| target.number(key).unwrap_or(0));
    let traced = traced(target.finish(), &summary);
    let finished = &traced.finished;
    let row = |event: &str| traced.rows.iter().find(|row| row.event == event).map_or(0, |row| row.hits + row.missed);
    // `work` is also called where it is not counted: in handlers, by children.
    if finished.status != Some(0) || row("work") < calls || rounds == 0 {
        return Err(format!(
            "{}; {calls} calls counted and {} seen, {rounds} rounds; {}{}",
            finished.end(),
            row("work"),
            traced.said,
            finished.errors()
        ));
    }
    let hits: u64 = traced.rows.iter().map(|row| row.hits).sum();
    let missed: u64 = traced.rows.iter().map(|row| row.missed).sum();
    let kinds = tool::kinds(&tool::placements(&traced.rows));
    Ok(format!("{calls} calls in {rounds} rounds; {hits} hits, {missed} missed; placed: {kinds}"))
}

/// Probes come and go; one program after another, should they die.
fn attached(stage: &Stage, report: &mut Report, program: &Path, scenario: &Scenario, name: &str, time: Duration) {
    const SHOWN: usize = 3;
    let end = Instant::now() + time;
    let (mut all, mut programs, mut failures) = (Toggles::default(), 0, Vec::new());
    while programs == 0 || Instant::now() < end && programs < 200 {
        programs += 1;
        let (outcome, toggles) = one(stage, program, scenario, end.saturating_duration_since(Instant::now()), false);
        all.add(toggles);
        failures.extend(outcome.err());
    }
    let figures = format!("{programs} programs, {} of them hurt; {}", failures.len(), all.figures());
    let verdict = if failures.is_empty() { Verdict::Ok } else { Verdict::Wrong };
    let case = format!("{name}, probes come and go");
    report.row(PART, &case, verdict, figures);
    failures.into_iter().take(SHOWN).for_each(|why| report.finding(stage, &case, why));
}

/// A folder with the plugin in it.
///
/// # Errors
///
/// If it cannot be made.
pub(crate) fn folder(stage: &Stage, program: &Path, name: &str) -> Result<PathBuf> {
    let folder = stage.place.empty(&format!("storm-{name}"))?;
    std::fs::copy(program.with_file_name("storm-plugin-so"), folder.join("storm-plugin.so"))?;
    Ok(folder)
}

fn one(
    stage: &Stage,
    program: &Path,
    scenario: &Scenario,
    time: Duration,
    broken: bool,
) -> (Result<(), String>, Toggles) {
    let mut toggles = Toggles::default();
    let outcome = torment(stage, program, scenario, time, broken, &mut toggles);
    (outcome, toggles)
}

fn torment(
    stage: &Stage,
    program: &Path,
    scenario: &Scenario,
    time: Duration,
    broken: bool,
    toggles: &mut Toggles,
) -> Result<(), String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let folder = folder(stage, program, scenario.name).map_err(text)?;
    let prepare = |command: &mut Command| {
        if broken {
            command.env("TORTURE_BREAK", "1");
        }
    };
    let mut target = Target::start_with(program, &[scenario.name], &folder, prepare).map_err(text)?;
    let definitions: Vec<_> = COMMON.iter().chain(scenario.own).copied().collect();
    let options = scenario.options;
    let toggler = Toggler { stage, folder: &folder, definitions: &definitions, longest: 60, options };
    let mut random = stage.random(&format!("{}{}", scenario.name, target.pid()));
    toggler.until(&mut target, &mut random, Instant::now() + time, toggles)?;
    settle(target, toggles).map(|_| ())
}

/// The program stops, and says what it thinks of it.
///
/// # Errors
///
/// If it found something wrong, or its code is not as it was.
pub(crate) fn settle(mut target: Target, toggles: &Toggles) -> Result<String, String> {
    target.tell("stop", "stopped")?;
    let changed = target.changed_text();
    let [calls, rounds] = ["calls", "rounds"].map(|key| target.number(key).unwrap_or(0));
    let finished = target.finish();
    if finished.status != Some(0) || !changed.is_empty() || rounds == 0 {
        return Err(format!(
            "at its end: {}; after {rounds} rounds of its own it says: {}; code that differs from its file: {changed:?}; {}",
            finished.end(),
            finished.errors(),
            toggles.figures()
        ));
    }
    Ok(format!("{calls} calls in {rounds} rounds of its own; {}", toggles.figures()))
}
