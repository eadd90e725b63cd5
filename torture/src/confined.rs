//! Programs that have little: little stack, few system calls, no permission to change the protection of their memory,
//! nobody who may look at them.
//!
//! Each is traced while it runs (`attached`) and from its start (`launched`), with counting, recording and return probes
//! on the function that it calls. What must come of it is in the table: that it is traced, with as many hits as calls;
//! or that the tool refuses, and the program goes on as if nothing had been. Two kilobytes of stack are too little for
//! the kernel's signal frame; a program that has no more, and no alternate stack either, is ended by a breakpoint, which
//! is written down as a limit. By a jump it must survive.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::Stage;
use crate::finished::Running;
use crate::programs;
use crate::report::{Report, Verdict};
use crate::target::{PATIENCE, Target};
use crate::tool::{self, Row, Traced, traced};

const PART: &str = "confined";

/// What must come of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// It is traced, with so many hits of each probe.
    Hits(u64),
    /// It is traced, and freed of its probes on the way: at least so many hits.
    Freed(u64),
    /// The tool refuses to attach.
    Refused,
    /// Its stack is too small for a breakpoint: traced if by jumps, and else ended by the kernel.
    TooSmall,
    /// Its alternate stack is too small for any signal: it ends at the first guard that it comes to.
    NoSignals,
}

struct Scenario {
    name: &'static str,
    attached: Expected,
    launched: Expected,
    /// Started, and traced, without privileges.
    plain_user: bool,
}

const fn scenario(name: &'static str, attached: Expected, launched: Expected) -> Scenario {
    Scenario { name, attached, launched, plain_user: false }
}

use Expected::{Freed, Hits, NoSignals, Refused, TooSmall};

const SCENARIOS: &[Scenario] = &[
    scenario("strict-before", Refused, Freed(0)),
    scenario("strict-after", Freed(100), Freed(100)),
    scenario("mdwe", Hits(1000), Hits(1000)),
    scenario("undumpable", Hits(1000), Hits(1000)),
    Scenario { name: "undumpable", attached: Refused, launched: Hits(1000), plain_user: true },
    Scenario { name: "mdwe", attached: Hits(1000), launched: Hits(1000), plain_user: true },
    scenario("low-alone", TooSmall, TooSmall),
    scenario("low-alternate", Hits(100), Hits(100)),
    scenario("low-minimal", NoSignals, NoSignals),
    scenario("low-smallest-real", NoSignals, NoSignals),
    scenario("low-with-room", Hits(100), Hits(100)),
    scenario("on-alternate", Hits(1000), Hits(1000)),
];

/// Sets of probes, one at a time.
const PROBES: &[(&str, &[&str])] = &[
    ("entry", &["p:entry work"]),
    ("inner", &["p:inner work+1"]),
    ("all", &["p:entry work", "p:inner work+4", "r:back work"]),
];

/// Runs the part.
///
/// # Errors
///
/// If the program cannot be built though there is a compiler.
pub(crate) fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let program = match programs::build(stage, "confined.c", "confined", &[])? {
        Ok(path) => path,
        Err(why) => {
            report.row(PART, "everything", Verdict::Skipped, why);
            return Ok(());
        }
    };
    for scenario in SCENARIOS.iter().filter(|scenario| stage.wants(scenario.name)) {
        if scenario.plain_user && !can_drop() {
            report.row(PART, scenario.name, Verdict::Skipped, "without privileges: neither root nor setpriv".into());
            continue;
        }
        for (start, expected) in [("attached", scenario.attached), ("launched", scenario.launched)] {
            for (probes, lines) in PROBES.iter().filter(|(probes, _)| !stage.effort.short || *probes == "all") {
                let who = if scenario.plain_user { ", without privileges" } else { "" };
                let case = format!("{}{who}, {start}, {probes}", scenario.name);
                let seen = observe(stage, &program, scenario, start, lines);
                judge(stage, report, &case, expected, seen);
            }
        }
    }
    let liar = scenario("liar", Hits(10), Hits(10));
    for (start, hits) in [("attached", 10), ("launched", 10), ("launched", 11)] {
        let outcome = observe(stage, &program, &liar, start, &["p:entry work"]).map(|seen| verdict(Hits(hits), &seen));
        let wrong = outcome.unwrap_or_else(Err).map(|_| ());
        report.control(stage, PART, &format!("a wrong result, {start}, {hits} hits"), wrong);
    }
    Ok(())
}

/// What was seen of one trace.
#[derive(Debug)]
struct Seen {
    /// How the program ended, and what it thought of its results.
    status: Option<i32>,
    well: bool,
    /// The tool's exit status, if it ran beside.
    tool: Option<i32>,
    said: String,
    rows: Vec<Row>,
}

fn observe(stage: &Stage, program: &Path, scenario: &Scenario, start: &str, lines: &[&str]) -> Result<Seen, String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let folder = stage.place.empty("confined").map_err(text)?;
    open_to_all(&folder, stage);
    let (definitions, summary) = (folder.join("definitions"), folder.join("summary"));
    std::fs::write(&definitions, lines.join("\n") + "\n").map_err(|error| error.to_string())?;
    let drop = |command: Command| if scenario.plain_user { dropped(&command) } else { command };
    if start == "launched" {
        let mut command = stage.tool.counting(&definitions, &summary);
        command.arg("--").arg(program).arg(scenario.name);
        let mut target = Target::of(drop(command), &folder).map_err(text)?;
        let well = target.tell("go", "well").is_ok();
        let Traced { finished, said, rows } = traced(target.finish(), &summary);
        return Ok(Seen { status: finished.status, well, tool: None, said: said + &finished.errors(), rows });
    }
    let mut command = Command::new(program);
    command.arg(scenario.name);
    let mut target = Target::of(drop(command), &folder).map_err(text)?;
    let mut command = stage.tool.counting(&definitions, &summary);
    command.args(["-p", &target.pid().to_string()]);
    let mut tool = Running::start(drop(command), &folder, "tool").map_err(text)?;
    wait_for_probes(&target, &mut tool);
    let well = target.tell("go", "well").is_ok();
    let finished = target.finish();
    let traced = traced(tool.finish(PATIENCE), &summary);
    let said = traced.said + &traced.finished.errors();
    Ok(Seen { status: finished.status, well, tool: traced.finished.status, said, rows: traced.rows })
}

/// Until the probes are there, or the tool has given up.
fn wait_for_probes(target: &Target, tool: &mut Running) {
    for _ in 0..500 {
        let code = target.changed_text();
        if tool.has_ended() || code.iter().any(|at| at.contains("confined")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // The last of several probes.
    std::thread::sleep(Duration::from_millis(30));
}

fn judge(stage: &Stage, report: &mut Report, case: &str, expected: Expected, seen: Result<Seen, String>) {
    let by_jump = |seen: &Seen| {
        let kinds = tool::placements(&seen.rows);
        !kinds.is_empty() && kinds.keys().all(|kind| kind.starts_with("jump") && !kind.contains("return"))
    };
    match seen {
        // The system calls that are guarded are breakpoints too.
        Err(why) if matches!(expected, TooSmall | NoSignals) && why.contains("signal 11") => {
            report.row(PART, case, Verdict::Limit, "ends with signal 11 before it is ready".into());
        }
        Err(why) => report.case(stage, PART, case, Err(why)),
        Ok(seen) if expected == NoSignals || expected == TooSmall && !by_jump(&seen) => {
            let end = if seen.well { "survives".into() } else { format!("ends with {:?}", seen.status) };
            let verdict = if seen.well { Verdict::Ok } else { Verdict::Limit };
            report.row(PART, case, verdict, format!("{end}; placed: {}", tool::kinds(&tool::placements(&seen.rows))));
        }
        Ok(seen) => {
            let expected = if expected == TooSmall { Hits(100) } else { expected };
            report.case(stage, PART, case, verdict(expected, &seen));
        }
    }
}

fn verdict(expected: Expected, seen: &Seen) -> Result<String, String> {
    let hits: Vec<u64> = seen.rows.iter().map(|row| row.hits + row.missed).collect();
    let traced = match expected {
        Hits(calls) => {
            !hits.is_empty() && hits.iter().all(|&hits| hits == calls) && seen.tool.is_none_or(|end| end == 0)
        }
        Freed(calls) => hits.iter().all(|&hits| hits >= calls),
        Refused => seen.tool == Some(1) && seen.rows.is_empty(),
        TooSmall | NoSignals => true,
    };
    if traced && seen.well && seen.status == Some(0) {
        let first = seen.said.lines().next().unwrap_or_default().chars().take(100).collect::<String>();
        return Ok(format!("{hits:?} hits; placed: {}; {first}", tool::kinds(&tool::placements(&seen.rows))));
    }
    Err(format!("expected {expected:?}, seen {seen:?}"))
}

/// Whether we can start something without privileges.
fn can_drop() -> bool {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    is_root && Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The same command without privileges.
fn dropped(command: &Command) -> Command {
    let mut dropped = Command::new("setpriv");
    dropped.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    dropped.arg(command.get_program()).args(command.get_args());
    dropped.stdin(std::process::Stdio::null());
    dropped
}

/// Whoever has no privileges can read and write here.
fn open_to_all(folder: &Path, stage: &Stage) {
    for path in [folder, stage.place.path()] {
        let _ = Command::new("chmod").arg("a+rwx").arg(path).status();
    }
}
