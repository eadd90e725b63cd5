//! `kprobe trace` on a command, and what it reports.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::NamedTempFile;

use super::run::{LIMIT, Running};
use super::{Finished, counts, event_name, run};

/// One probe's line in the summary.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    pub(crate) event: String,
    pub(crate) hits: u64,
    pub(crate) missed: u64,
    pub(crate) lost: u64,
    pub(crate) returns: Option<u64>,
    pub(crate) unwound: Option<u64>,
    pub(crate) active: Option<u64>,
    pub(crate) placed: Vec<String>,
}

impl Summary {
    fn parse(value: &Value) -> Self {
        let number = |key: &str| value[key].as_u64();
        let required = |key: &str| number(key).unwrap_or_else(|| panic!("no number {key} in {value}"));
        Self {
            event: value["event"].as_str().expect("a summary names its event").to_owned(),
            hits: required("hits"),
            missed: required("missed"),
            lost: required("lost"),
            returns: number("returns"),
            unwound: number("unwound"),
            active: number("active"),
            placed: strings(&value["placed"]),
        }
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

/// A finished trace: how the tool ended, its events and its summary.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) run: Finished,
    pub(crate) events: Vec<Value>,
    pub(crate) summaries: Vec<Summary>,
}

impl Trace {
    /// Reads what the tool wrote in its `jsonl` format.
    ///
    /// # Panics
    ///
    /// If a line is not JSON.
    pub(crate) fn read(run: Finished, text: &str) -> Self {
        let mut trace = Self { run, events: Vec::new(), summaries: Vec::new() };
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            match value.get("summary") {
                Some(summary) => trace.summaries.push(Summary::parse(summary)),
                None => trace.events.push(value),
            }
        }
        trace
    }

    /// The summary of one event.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(crate) fn summary(&self, event: &str) -> &Summary {
        let found = self.summaries.iter().find(|summary| summary.event == event);
        found.unwrap_or_else(|| panic!("no summary of {event}: {:?}\n{}", self.summaries, self.run.stderr))
    }
}

/// The tool, ready for arguments.
pub(crate) fn kprobe() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kprobe"))
}

/// Runs `kprobe trace OPTIONS -e PROBE… -- COMMAND…` with the summary alone or with events (`-c` in `options` or not).
pub(crate) fn trace<P: AsRef<str>>(options: &[&str], probes: &[P], command: &Command) -> Trace {
    trace_within(LIMIT, options, probes, command)
}

/// [`trace`] with a time limit of its own.
pub(crate) fn trace_within<P: AsRef<str>>(limit: Duration, options: &[&str], probes: &[P], command: &Command) -> Trace {
    trace_by(kprobe(), limit, options, probes, command)
}

/// [`trace_within`] with another way to start the tool.
pub(crate) fn trace_by<P: AsRef<str>>(
    mut tool: Command,
    limit: Duration,
    options: &[&str],
    probes: &[P],
    command: &Command,
) -> Trace {
    let out = NamedTempFile::new().expect("temporary files can be made");
    let lines = definitions(probes);
    tool.args(["trace", "--format", "jsonl", "-o"]).arg(out.path()).args(options);
    tool.arg("-e").arg(at_file(lines.path())).arg("--").arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => tool.env(key, value),
            None => tool.env_remove(key),
        };
    }
    tool.stdin(Stdio::null());
    let run = Running::start(tool).finish(limit);
    let text = std::fs::read_to_string(out.path()).expect("the trace is text");
    Trace::read(run, &text)
}

/// A file of probe definitions, one a line.
pub(crate) fn definitions<P: AsRef<str>>(probes: &[P]) -> NamedTempFile {
    let file = NamedTempFile::new().expect("temporary files can be made");
    let text: String = probes.iter().map(|probe| format!("{}\n", probe.as_ref())).collect();
    std::fs::write(file.path(), text).expect("a temporary file can be written");
    file
}

/// `@FILE`, the way to name such a file.
pub(crate) fn at_file(path: &Path) -> String {
    format!("@{}", path.display())
}

/// A command with arguments.
pub(crate) fn command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (key, value) in command.get_envs() {
        copy.env(key, value.unwrap_or_default());
    }
    copy
}

/// Runs a command bare and with an entry probe on each of `symbols`: the output and the status must be the same, and
/// every probe's hits the count that the program prints.
///
/// # Panics
///
/// If any of that is not so.
pub(crate) fn assert_exact(program: &Path, arguments: &[&str], symbols: &[&str]) -> Trace {
    let bare = run(command(program, arguments));
    let probes: Vec<_> = symbols.iter().map(|symbol| format!("p:{} {symbol}", event_name(symbol))).collect();
    let trace = trace(&["-c"], &probes, &command(program, arguments));
    assert_same_run(&bare, &trace.run);
    let calls = counts("calls", &bare.stdout);
    for symbol in symbols {
        let summary = trace.summary(&event_name(symbol));
        assert_eq!(summary.hits, calls[*symbol], "hits of {symbol}: {summary:?}");
        assert_eq!((summary.missed, summary.lost), (0, 0), "{summary:?}");
    }
    trace
}

/// The probed run behaved as the bare run did.
///
/// # Panics
///
/// If it did not.
pub(crate) fn assert_same_run(bare: &Finished, probed: &Finished) {
    assert_eq!(bare.stdout, probed.stdout, "the program's output changed; stderr:\n{}", probed.stderr);
    assert_eq!(bare.status, probed.status, "the exit status changed; stderr:\n{}", probed.stderr);
}

/// Runs a command bare; a convenience for tests that compare by themselves.
pub(crate) fn bare(command: &Command) -> Finished {
    run(again(command))
}
