//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Tries to break probed programs.
#[derive(Debug, Parser)]
#[command(name = "torture")]
pub(crate) struct Args {
    /// The tool, built with optimisation.
    #[arg(long, value_name = "PATH")]
    pub(crate) kprobe: PathBuf,
    /// How long it may take, shared out among the parts; a part that must come to an end takes longer.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// What CI runs: a sample of everything, about a minute.
    #[arg(long)]
    short: bool,
    /// Repeats the chance of a run.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub(crate) case: Option<String>,
    /// Keep programs, definitions and outputs in DIR.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Every instruction of real programs.
    Everything,
    /// Probes that come and go on a hot function.
    Toggle,
    /// Signals, jumps, forks, threads, objects, under probes that come and go.
    Storm,
    /// The tool is killed.
    Killed,
    /// Programs that have little.
    Confined,
    /// Instructions out of line against the processor.
    Differential,
}

impl Part {
    /// As `--only` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Toggle => "toggle",
            Self::Storm => "storm",
            Self::Killed => "killed",
            Self::Confined => "confined",
            Self::Differential => "differential",
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// A sample, for CI.
    pub(crate) short: bool,
    /// What each part may take.
    pub(crate) time: Duration,
}

impl Args {
    /// The parts that were asked for.
    pub(crate) fn parts(&self) -> Vec<Part> {
        if self.only.is_empty() { Part::value_variants().to_vec() } else { self.only.clone() }
    }

    /// The seed that was asked for, or one of the clock.
    pub(crate) fn seed(&self) -> u64 {
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64 % 1_000_000_007);
        self.seed.unwrap_or_else(clock)
    }

    /// How much each part may do.
    pub(crate) fn effort(&self) -> Effort {
        let parts = self.parts().len().max(1) as u32;
        let whole = if self.short { Duration::from_secs(75) } else { Duration::from_secs(self.minutes * 60) };
        Effort { short: self.short, time: whole / parts }
    }
}
