//! `kprobe trace`: definitions, counted or recorded.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Tool;
use crate::answer;
use crate::case::{At, Beside, Case, Work};
use crate::cases::SECOND;
use crate::command;
use crate::crowd::Crowd;
use crate::hot::Hot;
use crate::samples::Samples;

const ENTRY: &str = "entry";
const RETURN: &str = "return";
const OF_SECOND: &str = "second";

pub(super) fn measure(tool: &Tool, case: &Case, hot: &Hot, crowd: Option<&Crowd>) -> Result<Samples> {
    let trace = hot.folder().join("trace");
    let mut command = command(tool, case, crowd);
    // The events go to a file and not to /dev/null: the summary, which says how many were lost, is behind them.
    command.arg("-o").arg(&trace).arg("--");
    command.arg(crowd.map_or_else(|| hot.path(), |crowd| crowd.program.clone())).args(hot.arguments(case));
    let mut samples = answer::of(&command::output(&mut command)?)?;
    let text = std::fs::read_to_string(&trace).context("the trace")?;
    check(&text, case, &mut samples)?;
    Ok(samples)
}

/// The command, but for the program.
pub(super) fn command(tool: &Tool, case: &Case, crowd: Option<&Crowd>) -> Command {
    let mut command = tool.command("trace", case);
    command.args(["--format", "jsonl"]);
    for line in definitions(case) {
        command.args(["-e", line.trim()]);
    }
    if case.work == Work::Count {
        command.arg("-c");
    }
    if let Some(crowd) = crowd {
        command.arg("-e").arg(format!("@{}", crowd.definitions.display()));
    }
    command
}

fn definitions(case: &Case) -> Vec<String> {
    let (symbol, arguments) = (case.function.symbol, case.arguments());
    let line = |letter: char, event: &str| format!("{letter}:{event} hot:{symbol} {arguments}");
    let mut lines: Vec<_> =
        events(case).into_iter().map(|event| line(if event == RETURN { 'r' } else { 'p' }, event)).collect();
    if case.beside == Beside::Thread {
        lines.push(format!("p:{OF_SECOND} hot:{}", SECOND.symbol));
    }
    lines
}

fn events(case: &Case) -> Vec<&'static str> {
    match case.at {
        At::Entry => vec![ENTRY],
        At::Return => vec![RETURN],
        At::Both => vec![ENTRY, RETURN],
    }
}

/// Compares the summary with the calls, and the printed events with both.
fn check(trace: &str, case: &Case, samples: &mut Samples) -> Result<()> {
    let objects: Vec<Value> = trace.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for event in events(case) {
        let summary = summary(&objects, event)?;
        check_hits(summary, samples.calls)?;
        samples.lost += summary["lost"].as_u64().unwrap_or(0);
        if samples.placed.is_empty() || event == RETURN {
            samples.placed = placed(summary);
        }
        let printed = objects.iter().filter(|object| object["event"] == event).count() as u64;
        let lost = summary["lost"].as_u64().unwrap_or(0);
        let wanted = if case.work == Work::Count { 0 } else { samples.calls.saturating_sub(lost) };
        if printed != wanted {
            bail!("{printed} events were printed instead of {wanted}");
        }
    }
    if case.beside == Beside::Thread {
        check_hits(summary(&objects, OF_SECOND)?, samples.beside)?;
    }
    samples.hits = Some(samples.calls);
    Ok(())
}

fn summary<'a>(objects: &'a [Value], event: &str) -> Result<&'a Value> {
    let mut summaries = objects.iter().rev().map(|object| &object["summary"]);
    let found = summaries.find(|summary| summary["event"] == event);
    found.with_context(|| format!("kprobe printed no summary of `{event}`"))
}

fn check_hits(summary: &Value, calls: u64) -> Result<()> {
    let number = |key: &str| summary[key].as_u64().unwrap_or(0);
    if number("hits") != calls || number("missed") != 0 {
        bail!("{calls} calls, but {} hits and {} missed", number("hits"), number("missed"));
    }
    Ok(())
}

/// `OBJECT:SYMBOL+OFFSET (how)`: where is known.
fn placed(summary: &Value) -> String {
    let places = summary["placed"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let how = |place: &str| place.split_once('(').map_or(place, |(_, how)| how.trim_end_matches(')')).to_owned();
    places.map(how).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{PUSH, Who};

    const TRACE: &str = r#"{"event":"entry","time":1}
{"event":"o1","time":2}
{"summary":{"event":"entry","hits":2,"lost":1,"missed":0,"placed":["hot:t_push+0x0 (breakpoint, boosted)"]}}
{"summary":{"event":"second","hits":5,"lost":0,"missed":0,"placed":[]}}
"#;
    const CASE: Case = Case::new(Who::Ours, At::Entry, Work::Record(""), PUSH);

    fn samples(calls: u64, beside: u64) -> Samples {
        Samples { calls, beside, ..Samples::default() }
    }

    #[test]
    fn the_summary_of_the_probe_is_found_among_others() {
        let mut samples = samples(2, 0);
        check(TRACE, &CASE, &mut samples).unwrap();
        assert_eq!((samples.placed.as_str(), samples.lost), ("breakpoint, boosted", 1));
    }

    #[test]
    fn a_hit_that_is_missing_is_an_error() {
        assert!(check(TRACE, &CASE, &mut samples(3, 0)).is_err());
    }

    #[test]
    fn hits_of_the_second_thread_are_checked_too() {
        let case = CASE.beside(Beside::Thread);
        assert!(check(TRACE, &case, &mut samples(2, 5)).is_ok());
        assert!(check(TRACE, &case, &mut samples(2, 6)).is_err());
    }

    #[test]
    fn an_event_that_was_not_printed_is_an_error() {
        let trace = TRACE.replacen(r#"{"event":"entry","time":1}"#, "", 1);
        assert!(check(&trace, &CASE, &mut samples(2, 0)).is_err());
    }

    #[test]
    fn a_trace_without_summary_is_an_error() {
        assert!(check("{\"event\":\"entry\"}\n", &CASE, &mut samples(1, 0)).is_err());
    }

    #[test]
    fn entry_and_return_are_two_definitions() {
        let case = Case::new(Who::Ours, At::Both, Work::Count, PUSH);
        assert_eq!(definitions(&case), ["p:entry hot:t_push ", "r:return hot:t_push "]);
    }
}
