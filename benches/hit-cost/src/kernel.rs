//! Rows that the kernel's uprobes measure, through tracefs (`Documentation/trace/uprobetracer.rst`).
//!
//! An event is enabled in an instance of our own, whose ring buffer nobody reads. With the instance's `tracing_on` at 0
//! the kernel counts a hit and writes nothing, which is what `kprobe trace -c` is compared with; with 1 it writes the
//! event, overwriting old ones.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::case::{At, Case, Work};

use crate::hot::Hot;
use crate::samples::Samples;

const ROOTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// Names the group, the event and the instance. Always the same: what an interrupted run left behind is found and goes.
const NAME: &str = "hit_cost";

/// tracefs, with an instance of our own, gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Tracefs {
    root: PathBuf,
}

impl Tracefs {
    /// Opens it, or says why not.
    pub(crate) fn open() -> Result<Self, String> {
        let root = ROOTS.iter().map(Path::new).find(|root| root.join("uprobe_events").exists());
        let root = root.ok_or("no uprobe_events: uprobes need root, tracefs mounted, and a kernel that has them")?;
        let tracefs = Self { root: root.to_owned() };
        tracefs.clean();
        match std::fs::create_dir(tracefs.instance()) {
            Ok(()) => Ok(tracefs),
            Err(error) => Err(format!("{}: {error}", tracefs.instance().display())),
        }
    }

    /// One round of a row.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the probe, or has not counted as many hits as there were calls.
    pub(crate) fn measure(&mut self, case: &Case, hot: &Hot) -> Result<Samples> {
        let recording = matches!(case.work, Work::Record(_));
        self.set("tracing_on", if recording { "1" } else { "0" })?;
        let place = format!("{}:{:#x}", hot.path().display(), hot.file_offset(case.function)?);
        let letter = if case.at == At::Return { 'r' } else { 'p' };
        self.define(&format!("{letter}:{NAME}/{NAME} {place} {}", case.arguments()))?;
        let enable = format!("events/{NAME}/{NAME}/enable");
        self.set(&enable, "1")?;
        let samples = hot.run_alone(case);
        let hits = self.hits();
        self.set(&enable, "0")?;
        self.define(&format!("-:{NAME}/{NAME}"))?;
        let (mut samples, hits) = (samples?, hits?);
        if hits != samples.calls {
            bail!("{} calls, but the kernel counted {hits}", samples.calls);
        }
        samples.hits = Some(hits);
        Ok(samples)
    }

    /// How often a process of this name met an event while a command ran.
    ///
    /// # Errors
    ///
    /// If the kernel has no such event, or the command fails.
    pub(crate) fn count<T>(&mut self, event: &str, name: &str, run: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
        let (filter, enable) = (format!("events/{event}/filter"), format!("events/{event}/enable"));
        self.set("trace", "")?;
        self.set(&filter, &format!("comm == \"{name}\""))?;
        self.set("tracing_on", "1")?;
        self.set(&enable, "1")?;
        let result = run();
        self.set(&enable, "0")?;
        self.set(&filter, "0")?;
        let events = self.events();
        self.set("trace", "")?;
        Ok((events?, result?))
    }

    /// Events in the instance's buffers, those that were overwritten included.
    fn events(&self) -> Result<u64> {
        let folder = self.instance().join("per_cpu");
        let mut sum = 0;
        for cpu in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = cpu.context("per_cpu")?.path().join("stats");
            sum += events_in(&std::fs::read_to_string(&path).with_context(|| path.display().to_string())?);
        }
        Ok(sum)
    }

    fn instance(&self) -> PathBuf {
        self.root.join("instances").join(NAME)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.instance().join(file);
        std::fs::write(&path, value).with_context(|| path.display().to_string())
    }

    fn define(&self, line: &str) -> Result<()> {
        let path = self.root.join("uprobe_events");
        let mut file = OpenOptions::new().append(true).open(&path).with_context(|| path.display().to_string())?;
        file.write_all(line.trim().as_bytes()).with_context(|| format!("uprobe_events refuses {line}"))
    }

    /// Hits of our event since it was defined.
    fn hits(&self) -> Result<u64> {
        let text = std::fs::read_to_string(self.root.join("uprobe_profile")).context("uprobe_profile")?;
        hits_in(&text).context("uprobe_profile does not name the event")
    }

    /// Removes the event and the instance, if there are any.
    fn clean(&self) {
        let instance = self.instance();
        if matches!(std::fs::remove_dir(&instance), Err(error) if error.kind() != ErrorKind::NotFound) {
            eprintln!("hit-cost: {} cannot be removed", instance.display());
        }
        let _ = self.define(&format!("-:{NAME}/{NAME}"));
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        self.clean();
    }
}

/// `entries: N`, `overrun: N`, `dropped events: N` of one processor's buffer.
fn events_in(stats: &str) -> u64 {
    let fields = stats.lines().filter_map(|line| line.split_once(':'));
    let counted = fields.filter(|(key, _)| ["entries", "overrun", "dropped events"].contains(key));
    counted.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).sum()
}

/// `  FILE EVENT HITS`
fn hits_in(profile: &str) -> Option<u64> {
    let mut lines = profile.lines().map(|line| line.split_whitespace().rev().collect::<Vec<_>>());
    lines.find_map(|words| match words[..] {
        [hits, NAME, ..] => hits.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_tells_the_hits_of_the_event() {
        let profile = "  /bin/a b c    other           9\n  /tmp/hot hit_cost                      44000\n";
        assert_eq!(hits_in(profile), Some(44000));
    }

    #[test]
    fn events_that_were_overwritten_are_counted() {
        assert_eq!(events_in("entries: 3\noverrun: 40\ncommit overrun: 7\nbytes: 9\ndropped events: 1\n"), 44);
    }

    #[test]
    fn a_profile_without_the_event_tells_nothing() {
        assert_eq!(hits_in("  /tmp/hot other   1\n"), None);
    }
}
