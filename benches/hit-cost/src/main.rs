//! What one hit of a probe costs: our probes, the kernel's uprobes, and the floors below them, in one run.
//!
//! Absolute times say little: they differ by machine, by its load, and by what its hypervisor does to a trap. So all
//! rows are measured side by side, on one processor, in rounds that go through every row in turn; a slow moment of the
//! machine then spoils a part of every row and not all of one. Two floors put the numbers into proportion:
//!
//! * **a system call** that does nothing: no probe that enters the kernel is cheaper;
//! * **a breakpoint** whose handler does nothing: a trap, a signal frame and `rt_sigreturn`, which is what a probe
//!   placed as a breakpoint in an ordinary process cannot go below. The column ÷TRAP is the distance from it.
//!
//! The measured program (`programs/hot.c`) times itself and knows nothing of probes. Every row is checked: the probe
//! must have been hit exactly as often as the program called the function, else the row measured something else, and
//! that is an error; and where hits are recorded, each must have been printed, but for those that found no room, which
//! are shown.

#![forbid(unsafe_code)]

mod cases;
mod hot;
mod kernel;
mod machine;
mod others;
mod ours;
mod report;
mod samples;

use std::path::PathBuf;

use anyhow::{Context, Result};
use cases::{CASES, Case, Who};
use clap::Parser;
use hot::Hot;
use kernel::Tracefs;
use ours::Tool;
use report::Row;
use samples::Samples;

/// Measures what one hit of a probe costs.
#[derive(Debug, Parser)]
#[command(name = "hit-cost")]
struct Args {
    /// The tool that is measured, built with optimisation.
    #[arg(long, value_name = "PATH")]
    kprobe: PathBuf,
    /// How often to go through all rows.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Bursts of calls for each row and round.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bursts: u32,
    /// Calls in a burst; the floors, which are cheaper, take more.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    calls: u32,
    /// The processor that the measured program stays on; by default the last one it may use.
    #[arg(long)]
    cpu: Option<usize>,
    /// Only rows whose description contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write the rows to FILE as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print a Markdown table instead of plain text.
    #[arg(long)]
    markdown: bool,
}

/// What one round of a row gave, or why it cannot be measured here.
enum Outcome {
    Measured(Samples),
    Skipped(String),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let cpu = args.cpu.or_else(machine::last_cpu);
    let hot = Hot::build(args.bursts, args.calls, cpu)?;
    let tool = Tool::new(&args.kprobe)?;
    let mut tracefs = Tracefs::open();
    let wanted = |case: &&Case| args.only.as_ref().is_none_or(|text| case.to_string().contains(text));
    let mut rows: Vec<Row> = CASES.iter().filter(wanted).map(Row::new).collect();
    for _ in 0..args.rounds {
        for row in &mut rows {
            let outcome = measure(row.case, &hot, &tool, &mut tracefs);
            row.add(outcome.with_context(|| row.case.to_string())?);
        }
    }
    let machine = machine::describe(cpu);
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report::json(&machine, &rows));
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    print!("{}", if args.markdown { report::markdown(&machine, &rows) } else { report::text(&machine, &rows) });
    Ok(())
}

fn measure(case: &Case, hot: &Hot, tool: &Tool, tracefs: &mut Result<Tracefs, String>) -> Result<Outcome> {
    match case.who {
        Who::Nobody => Ok(Outcome::Measured(hot.run_alone(case)?)),
        Who::Ours => tool.measure(case, hot),
        Who::Kernel => match tracefs {
            Ok(tracefs) => Ok(Outcome::Measured(tracefs.measure(case, hot)?)),
            Err(why) => Ok(Outcome::Skipped(why.clone())),
        },
    }
}
