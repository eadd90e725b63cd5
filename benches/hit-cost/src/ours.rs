//! Rows that `kprobe` measures.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::Outcome;
use crate::cases::{Case, Work};
use crate::hot::Hot;
use crate::others;
use crate::samples::Samples;

const EVENT: &str = "probe";

/// The tool.
#[derive(Debug)]
pub(crate) struct Tool {
    path: PathBuf,
    /// A file of other probes' definitions, or why there is none.
    others: Result<NamedTempFile, String>,
}

impl Tool {
    /// The tool at `path`.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let path = path.canonicalize().with_context(|| path.display().to_string())?;
        let others = others::choose(&path).map_err(|error| format!("{error:#}"));
        Ok(Self { path, others })
    }

    /// One round of a row.
    ///
    /// # Errors
    ///
    /// If the tool fails, or did not count and print as many hits as there were calls.
    pub(crate) fn measure(&self, case: &Case, hot: &Hot) -> Result<Outcome> {
        let others = match (&self.others, case.others) {
            (Err(why), true) => return Ok(Outcome::Skipped(why.clone())),
            (Ok(file), true) => Some(format!("@{}", file.path().display())),
            (_, false) => None,
        };
        let trace = hot.folder().join("trace");
        let line = format!("{}:{EVENT} hot:{} {}", case.letter(), case.function.symbol, case.arguments());
        let mut command = Command::new(&self.path);
        // The events go to a file and not to /dev/null: the summary, which says how many were lost, is behind them.
        command.args(["trace", "--format", "jsonl", "-o"]).arg(&trace).args(["-e", line.trim()]);
        if case.work == Work::Count {
            command.arg("-c");
        }
        if let Some(others) = others {
            command.arg("-e").arg(others);
        }
        command.arg("--").args(hot.command(case.function));
        let mut samples = hot.answer(&command.output().context("cannot start kprobe")?)?;
        let text = std::fs::read_to_string(&trace).context("the trace")?;
        check(&summary(&text)?, hot.expected_hits(), &mut samples)?;
        let wanted = if case.work == Work::Count { 0 } else { hot.expected_hits() - samples.lost };
        let events = events(&text);
        if events != wanted {
            bail!("{events} events were printed instead of {wanted}");
        }
        Ok(Outcome::Measured(samples))
    }
}

/// How many events of ours were printed. Other probes' functions run too: before and after what is timed.
fn events(trace: &str) -> u64 {
    let objects = trace.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects.map(|object| u64::from(object["event"] == EVENT)).sum()
}

/// The summary of our event, at the trace's end.
fn summary(trace: &str) -> Result<Value> {
    let objects = trace.lines().rev().map_while(|line| serde_json::from_str::<Value>(line).ok());
    let mut summaries = objects.map_while(|mut object| object.get_mut("summary").map(Value::take));
    summaries.find(|summary| summary["event"] == EVENT).context("kprobe printed no summary of the probe")
}

fn check(summary: &Value, expected: u64, samples: &mut Samples) -> Result<()> {
    let number = |key: &str| summary[key].as_u64().unwrap_or(0);
    if number("hits") != expected || number("missed") != 0 {
        bail!("{expected} calls, but {} hits and {} missed", number("hits"), number("missed"));
    }
    let places = summary["placed"].as_array().into_iter().flatten().filter_map(Value::as_str);
    // `OBJECT:SYMBOL+OFFSET (how)`: where is known.
    let how = |place: &str| place.split_once('(').map_or(place, |(_, how)| how.trim_end_matches(')')).to_owned();
    samples.placed = places.map(how).collect::<Vec<_>>().join("; ");
    samples.lost = number("lost");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"{"event":"probe","time":1}
{"event":"o1","time":2}
{"summary":{"event":"probe","hits":7,"lost":1,"missed":0,"placed":["hot:t_push+0x0 (breakpoint, boosted)"]}}
{"summary":{"event":"o1","hits":0,"lost":0,"missed":0,"placed":[]}}
"#;

    #[test]
    fn the_summary_of_the_probe_is_found_among_others() {
        let mut samples = Samples::default();
        check(&summary(TRACE).unwrap(), 7, &mut samples).unwrap();
        assert_eq!((samples.placed.as_str(), samples.lost), ("breakpoint, boosted", 1));
    }

    #[test]
    fn a_hit_that_is_missing_is_an_error() {
        assert!(check(&summary(TRACE).unwrap(), 8, &mut Samples::default()).is_err());
    }

    #[test]
    fn summaries_and_others_are_no_events_of_ours() {
        assert_eq!(events(TRACE), 1);
    }

    #[test]
    fn a_trace_without_summary_is_an_error() {
        assert!(summary("{\"event\":\"probe\"}\n").is_err());
    }
}
