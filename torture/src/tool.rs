//! The tool, as a user starts it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::finished::{Finished, Running};

/// The tool.
#[derive(Debug)]
pub(crate) struct Tool {
    path: PathBuf,
}

/// What the summary says of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) event: String,
    pub(crate) hits: u64,
    pub(crate) missed: u64,
    pub(crate) placed: Vec<String>,
}

/// A trace that has ended.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The command's end and output; what the tool itself said is not among it.
    pub(crate) finished: Finished,
    /// What the tool said.
    pub(crate) said: String,
    pub(crate) rows: Vec<Row>,
}

impl Tool {
    /// The tool at `path`.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        Ok(Self { path: path.canonicalize().with_context(|| path.display().to_string())? })
    }

    /// A command of the tool's.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Runs a command of the tool's to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn run(&self, words: &[&str], folder: &Path, limit: Duration) -> Result<Finished> {
        Ok(Running::start(self.command(words), folder, "tool")?.finish(limit))
    }

    /// The command `kprobe trace -c` with the definitions of a file, whose summary goes to `summary`.
    pub(crate) fn counting(&self, definitions: &Path, summary: &Path) -> Command {
        let mut command = self.command(&["trace", "-c", "--format", "jsonl", "-o"]);
        command.arg(summary).arg("-e").arg(format!("@{}", definitions.display()));
        command
    }

    /// Launches a command with probes and waits for its end. `prepare` is given the tool's own command.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn launch(
        &self,
        definitions: &str,
        words: &[OsString],
        folder: &Path,
        limit: Duration,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Traced> {
        let (file, summary) = (folder.join("definitions"), folder.join("summary"));
        std::fs::write(&file, definitions)?;
        let _ = std::fs::remove_file(&summary);
        let mut command = self.counting(&file, &summary);
        prepare(&mut command)?;
        command.arg("--").args(words);
        Ok(traced(Running::start(command, folder, "traced")?.finish(limit), &summary))
    }
}

/// Sorts what the tool said from what the command said, and reads the summary.
pub(crate) fn traced(mut finished: Finished, summary: &Path) -> Traced {
    let text = finished.errors();
    let is_tools = |line: &&str| line.starts_with("kprobe: ");
    // What the tool says of events runs over lines that begin with the event's name.
    let is_refusal = |line: &&str| line.split_once(": ").is_some_and(|(name, _)| is_our_event(name));
    let (said, rest): (Vec<&str>, Vec<&str>) =
        text.split_inclusive('\n').partition(|line| is_tools(line) || is_refusal(line));
    finished.stderr = rest.concat().into_bytes();
    let rows = std::fs::read_to_string(summary).unwrap_or_default();
    Traced { finished, said: said.concat(), rows: rows.lines().filter_map(row).collect() }
}

/// Whether a name is one that we give to events: `i` and a number.
pub(crate) fn is_our_event(name: &str) -> bool {
    name.strip_prefix('i').is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn row(line: &str) -> Option<Row> {
    let mut object: Value = serde_json::from_str(line).ok()?;
    let summary = object.get_mut("summary")?.take();
    let number = |key: &str| summary[key].as_u64().unwrap_or(0);
    let placed = summary["placed"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Some(Row {
        event: summary["event"].as_str()?.to_owned(),
        hits: number("hits"),
        missed: number("missed"),
        placed: placed.map(str::to_owned).collect(),
    })
}

/// How events were placed: each kind of placement, by the tool's own words, and how many there are.
pub(crate) fn placements(rows: &[Row]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for place in rows.iter().flat_map(|row| &row.placed) {
        // `OBJECT:SYMBOL+OFFSET (how)`; names of functions have parentheses too. A reason may follow a colon.
        let how = place.rsplit_once(" (").map_or(place.as_str(), |(_, how)| how.trim_end_matches(')'));
        let how = how.split_once(':').map_or(how, |(how, _)| how);
        *kinds.entry(how.to_owned()).or_default() += 1;
    }
    kinds
}

/// Kinds of placement, in a cell of the table.
pub(crate) fn kinds(placed: &BTreeMap<String, u64>) -> String {
    placed.iter().map(|(how, n)| format!("{n} {how}")).collect::<Vec<_>>().join(", ")
}
