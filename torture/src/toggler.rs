//! Probes that come and go from outside, as a user's tool brings and takes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use testkit::generate::Random;

use crate::Stage;
use crate::finished::Running;
use crate::target::{PATIENCE, Target};
use crate::tool::{self, traced};

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Toggles {
    pub(crate) rounds: u64,
    pub(crate) hits: u64,
    pub(crate) missed: u64,
    /// Rounds in which the tool said that the program had ended, or was not there any more.
    pub(crate) refused: u64,
    pub(crate) placed: BTreeMap<String, u64>,
    /// The last round's command.
    pub(crate) last: String,
}

impl Toggles {
    /// Both.
    pub(crate) fn add(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.hits += other.hits;
        self.missed += other.missed;
        self.refused += other.refused;
        for (kind, n) in other.placed {
            *self.placed.entry(kind).or_default() += n;
        }
    }

    /// For the table.
    pub(crate) fn figures(&self) -> String {
        format!(
            "{} rounds, {} hits, {} missed; placed: {}",
            self.rounds,
            self.hits,
            self.missed,
            tool::kinds(&self.placed)
        )
    }
}

/// A program, the probes that may come to it, and how long each time.
#[derive(Debug)]
pub(crate) struct Toggler<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) folder: &'a Path,
    /// Each round takes some of them.
    pub(crate) definitions: &'a [&'a str],
    /// At most so many milliseconds.
    pub(crate) longest: u64,
    /// Further options of the tool's.
    pub(crate) options: &'a [&'a str],
}

impl Toggler<'_> {
    /// One round: some probes come to process `pid`, stay a little, and go.
    ///
    /// # Errors
    ///
    /// What the tool failed at. A target that has ended meanwhile is no failure of the tool's.
    pub(crate) fn round(&self, pid: u32, random: &mut Random, toggles: &mut Toggles) -> Result<(), String> {
        let (command, summary, shown) = self.command(pid, random).map_err(|error| error.to_string())?;
        let running = Running::start(command, self.folder, "tool").map_err(|error| format!("{error:#}"))?;
        let traced = traced(running.finish(PATIENCE), &summary);
        toggles.rounds += 1;
        toggles.last.clone_from(&shown);
        toggles.hits += traced.rows.iter().map(|row| row.hits).sum::<u64>();
        toggles.missed += traced.rows.iter().map(|row| row.missed).sum::<u64>();
        for (kind, n) in tool::placements(&traced.rows) {
            *toggles.placed.entry(kind).or_default() += n;
        }
        match traced.finished.status {
            Some(0) => Ok(()),
            _ if ["no process", "has ended"].iter().any(|text| traced.said.contains(text)) => {
                toggles.refused += 1;
                Ok(())
            }
            _ => Err(format!(
                "the tool: {}; it said: {}{}\n  command: {shown}",
                traced.finished.end(),
                traced.said,
                traced.finished.errors()
            )),
        }
    }

    /// The tool's command of one round, where its summary goes, and the command to be shown.
    pub(crate) fn command(&self, pid: u32, random: &mut Random) -> Result<(Command, std::path::PathBuf, String)> {
        let first = random.below(self.definitions.len() as u64) as usize;
        let chosen = |at: &usize, random: &mut Random| *at == first || random.one_in(3);
        let taken: Vec<_> = (0..self.definitions.len()).filter(|at| chosen(at, random)).collect();
        let lines = taken.iter().filter_map(|at| self.definitions.get(*at)).map(|line| format!("{line}\n"));
        let (definitions, summary) = (self.folder.join("definitions"), self.folder.join("summary"));
        let lines = lines.collect::<String>();
        std::fs::write(&definitions, &lines)?;
        let _ = std::fs::remove_file(&summary);
        let mut command = self.stage.tool.counting(&definitions, &summary);
        let time = format!("{:.4}", (1 + random.below(self.longest)) as f64 / 1000.0);
        command.args(["--duration", &time]).args(self.options).args(["-p", &pid.to_string()]);
        let shown = format!("kprobe trace -c --duration {time} -p PID, with {}", lines.trim().replace('\n', "; "));
        Ok((command, summary, shown))
    }

    /// Rounds until `end`, or until the target has ended.
    ///
    /// # Errors
    ///
    /// What the tool failed at, or how the target died.
    pub(crate) fn until(
        &self,
        target: &mut Target,
        random: &mut Random,
        end: Instant,
        toggles: &mut Toggles,
    ) -> Result<(), String> {
        while Instant::now() < end {
            if target.running.has_ended() {
                return Err(format!("in round {} ({}): {}", toggles.rounds, toggles.last, target.condition()));
            }
            target.running.remember_maps();
            let outcome = self.round(target.pid(), random, toggles);
            if let Err(why) = outcome {
                // The kernel may need a moment to tell of a death.
                std::thread::sleep(Duration::from_millis(50));
                return Err(format!("in round {}: {why}\n  {}", toggles.rounds, target.condition()));
            }
        }
        Ok(())
    }
}
