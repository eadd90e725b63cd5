//! Rows that `kprobe` measures.
//!
//! Definitions are traced from the program's start, handlers come with a module that is inserted into the waiting
//! program. How a probe is placed is what the tool says.

mod handler;
mod trace;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Outcome;
use crate::case::{Beside, Case, Placement, Work};
use crate::command::{self, limited};
use crate::crowd::Crowds;
use crate::hot::Hot;
use crate::samples::Samples;

/// The option that some versions of the tool have.
const OPTION: &str = "--placement";

/// The tool.
#[derive(Debug)]
pub(crate) struct Tool {
    path: PathBuf,
    /// What it is told for rows that do not say.
    placement: Option<Placement>,
    /// The module with handlers, or why there is none.
    module: Result<PathBuf, String>,
    crowds: Crowds,
}

impl Tool {
    /// The tool at `path`, and its module, built in the folder of `hot`.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub(crate) fn new(path: &Path, module: &Path, placement: Option<Placement>, hot: &Hot) -> Result<Self> {
        let path = path.canonicalize().with_context(|| path.display().to_string())?;
        let module = handler::build(&path, module, hot.folder()).map_err(|error| format!("{error:#}"));
        Ok(Self { path, placement, module, crowds: Crowds::default() })
    }

    /// Its path, and version.
    pub(crate) fn version(&self) -> Option<String> {
        command::first_line(&self.path, &["--version"])
    }

    /// One round of a row.
    ///
    /// # Errors
    ///
    /// If the tool fails, or did not count and print as many hits as there were calls.
    pub(crate) fn measure(&mut self, case: &Case, hot: &Hot) -> Result<Outcome> {
        let verb = if case.work == Work::Handler { "insmod" } else { "trace" };
        let told = case.placement.or(self.placement);
        if let Some(placement) = told.filter(|_| !self.can_be_told(verb)) {
            return Ok(Outcome::Skipped(format!("`kprobe {verb}` has no {OPTION} {}", placement.word())));
        }
        let measured = match (case.work, case.beside) {
            (Work::Handler, _) => match &self.module {
                Ok(module) => handler::measure(self, module, case, hot),
                Err(why) => return Ok(Outcome::Skipped(why.clone())),
            },
            (_, Beside::Probes(number)) => {
                let crowd = self.crowds.of(number, hot)?;
                // A tool may have a limit.
                match trace::measure(self, case, hot, Some(&crowd)) {
                    Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
                    measured => measured,
                }
            }
            _ => trace::measure(self, case, hot, None),
        };
        let samples = measured?;
        check_placement(case, &samples)?;
        Ok(Outcome::Measured(samples))
    }

    /// A command of the tool's, told how to place.
    fn command(&self, verb: &str, case: &Case) -> Command {
        let mut command = limited(&self.path);
        command.arg(verb);
        if let Some(placement) = case.placement.or(self.placement) {
            command.args([OPTION, placement.word()]);
        }
        command
    }

    fn can_be_told(&self, verb: &str) -> bool {
        command::text(limited(&self.path).args([verb, "--help"])).is_ok_and(|help| help.contains(OPTION))
    }
}

fn check_placement(case: &Case, samples: &Samples) -> Result<()> {
    let is_said = !samples.placed.starts_with(handler::PLANNED);
    match case.placement {
        Some(placement) if is_said && !samples.placed.contains(placement.word()) => {
            bail!("told to place by {}, the tool says: {}", placement.word(), samples.placed)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{At, PUSH, Who};

    #[test]
    fn a_tool_that_places_otherwise_than_told_is_found() {
        let case = Case::new(Who::Ours, At::Entry, Work::Count, PUSH).placed(Placement::Breakpoint);
        let placed = |placed: &str| check_placement(&case, &Samples { placed: placed.into(), ..Samples::default() });
        assert!(placed("breakpoint, boosted").is_ok());
        assert!(placed("jump").is_err());
        assert!(placed(&format!("{}jump", handler::PLANNED)).is_ok());
    }
}
