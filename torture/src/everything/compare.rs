//! One run of a program, with probes or without, and what is different.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::instructions::Instruction;
use super::workloads::Workload;
use crate::Stage;
use crate::finished::{Finished, Running};
use crate::obituary::{now, obituary};
use crate::tool::{Row, is_our_event};

/// How long a run with probes may take, beside what it takes without.
const LIMIT: Duration = Duration::from_secs(240);

/// All that a program does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    finished: Finished,
    files: BTreeMap<String, Vec<u8>>,
}

/// What a program does without probes.
#[derive(Debug)]
pub(super) struct Baseline {
    done: Done,
    time: Duration,
}

impl Baseline {
    /// Runs it twice.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or does not do the same twice: then it is no workload for this.
    pub(super) fn of(stage: &Stage, workload: &Workload) -> Result<Self> {
        let begin = Instant::now();
        let first = alone(stage, workload)?;
        let time = begin.elapsed();
        let second = alone(stage, workload)?;
        match difference(&first, &second) {
            Some(what) => bail!("{} does not do the same twice without probes: {what}", workload.name),
            None => Ok(Self { done: first, time }),
        }
    }
}

fn alone(stage: &Stage, workload: &Workload) -> Result<Done> {
    let folder = folder(stage, workload)?;
    let mut command = Command::new(&workload.program);
    command.args(&workload.arguments);
    surround(&mut command, workload, &folder.join("work"))?;
    let finished = Running::start(command, &folder, "alone")?.finish(LIMIT);
    Ok(Done { finished, files: files(&folder.join("work"))? })
}

/// A run with probes.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) rows: Vec<Row>,
    /// What was different from the run without.
    pub(super) difference: Option<String>,
}

/// Runs a program with probes on `batch`.
///
/// # Errors
///
/// If the tool cannot be started.
pub(super) fn probed(stage: &Stage, workload: &Workload, baseline: &Baseline, batch: &[Instruction]) -> Result<Run> {
    let mut refused: Vec<usize> = Vec::new();
    loop {
        let folder = folder(stage, workload)?;
        let kept = batch.iter().enumerate().filter(|(id, _)| refused.binary_search(id).is_err());
        let definitions: String = kept.map(|(id, i)| i.definition(id) + "\n").collect();
        let words = workload.words();
        let work = folder.join("work");
        let since = now();
        let limit = LIMIT + baseline.time * 4;
        let traced =
            stage.tool.launch(&definitions, &words, &folder, limit, |command| surround(command, workload, &work))?;
        // What the files showed as possible can be impossible in memory; those that the tool names are left out.
        let more: Vec<usize> = traced.said.lines().filter_map(refusal).collect();
        if traced.rows.is_empty() && more.iter().any(|id| refused.binary_search(id).is_err()) {
            refused.extend(more);
            refused.sort_unstable();
            refused.dedup();
            continue;
        }
        let found = Done { finished: traced.finished, files: files(&work)? };
        let mut different = difference(&baseline.done, &found);
        if traced.rows.is_empty() && different.is_none() {
            different = Some("the tool printed no summary".into());
        }
        if !refused.is_empty() && different.is_none() {
            different = Some(format!("{} probes that `check` accepted were refused: {}", refused.len(), traced.said));
        }
        let program = workload.program.file_name().unwrap_or_default().to_string_lossy();
        let difference =
            different.map(|what| format!("{what}{}", circumstances(&traced.said, &program, (&work, since), &found)));
        return Ok(Run { rows: traced.rows, difference });
    }
}

fn circumstances(said: &str, program: &str, (work, since): (&Path, f64), found: &Done) -> String {
    let mut text = String::new();
    if !said.is_empty() {
        text += &format!("\n  the tool said: {}", said.lines().take(8).collect::<Vec<_>>().join("\n    "));
    }
    // The tool tells the command's end by its own; who it was is in the kernel's log, by name.
    if found.finished.status.is_none_or(|status| status > 128) {
        text += &obituary(work, program, "", since);
    }
    text
}

/// `kprobe: iN: why`, or a further line `iN: why`.
fn refusal(line: &str) -> Option<usize> {
    let line = line.strip_prefix("kprobe: ").unwrap_or(line);
    let (name, _) = line.split_once(": ")?;
    is_our_event(name).then(|| name.get(1..)?.parse().ok())?
}

fn folder(stage: &Stage, workload: &Workload) -> Result<std::path::PathBuf> {
    let folder = stage.place.empty(&format!("everything-{}", workload.name))?;
    let work = folder.join("work");
    std::fs::create_dir_all(&work)?;
    for (name, bytes) in &workload.files {
        std::fs::write(work.join(name), bytes)?;
    }
    Ok(folder)
}

/// Where a program runs, and in what: the same for each run.
fn surround(command: &mut Command, workload: &Workload, work: &Path) -> Result<()> {
    command.current_dir(work).env_clear().envs(workload.environment.iter().copied());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let input = work.with_file_name("input");
    std::fs::write(&input, &workload.input)?;
    command.stdin(Stdio::from(std::fs::File::open(&input).context("its input")?));
    Ok(())
}

fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("core") {
            continue;
        }
        all.insert(entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?);
    }
    Ok(all)
}

/// The first thing that differs.
fn difference(expected: &Done, found: &Done) -> Option<String> {
    let (a, b) = (&expected.finished, &found.finished);
    if a.status != b.status {
        let errors = b.errors();
        let last: Vec<_> = errors.lines().rev().take(4).collect();
        return Some(format!("{} instead of {}; it says: {}", b.end(), a.end(), last.join(" | ")));
    }
    let outputs = [("standard output", &a.stdout, &b.stdout), ("standard error", &a.stderr, &b.stderr)];
    let different = |(what, a, b): (&str, &Vec<u8>, &Vec<u8>)| (a != b).then(|| unlike(what, a, b));
    outputs.into_iter().find_map(different).or_else(|| {
        let names = expected.files.keys().chain(found.files.keys());
        let differs = |name: &&String| expected.files.get(*name) != found.files.get(*name);
        let none = Vec::new();
        let bytes = |done: &Done, name: &String| done.files.get(name).unwrap_or(&none).clone();
        names.into_iter().find(differs).map(|name| {
            let (a, b) = (bytes(expected, name), bytes(found, name));
            unlike(&format!("the file {name}"), &a, &b)
        })
    })
}

fn unlike(what: &str, a: &[u8], b: &[u8]) -> String {
    let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
    let around = |bytes: &[u8]| {
        let from = at.saturating_sub(20);
        String::from_utf8_lossy(bytes.get(from..bytes.len().min(at + 40)).unwrap_or_default()).into_owned()
    };
    format!(
        "{what} differs at byte {at} ({} bytes became {}): {:?} instead of {:?}",
        a.len(),
        b.len(),
        around(b),
        around(a)
    )
}
