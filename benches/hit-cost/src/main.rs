//! What one hit of a probe costs: our probes, the kernel's uprobes, other tools, and the floors below them, in one run.
//!
//! Absolute times say little: they differ by machine, by its load, and by what its hypervisor does to a trap. So all
//! rows are measured side by side, on one processor, in rounds that go through every row in turn; a slow moment of the
//! machine then spoils a part of every row and not all of one. Floors put the numbers into proportion:
//!
//! * **a jump** to what it displaced, and back: no probe that changes the code is cheaper. One that also saves all
//!   registers and calls a handler is the floor of probes with handlers. The column ÷FLOOR is the distance from them.
//! * **a system call** that does nothing: no probe that enters the kernel is cheaper;
//! * **a breakpoint** whose handler does nothing: a trap, a signal frame and `rt_sigreturn`, which is what a probe
//!   placed as a breakpoint in an ordinary process cannot go below. The column ÷TRAP is the distance from it.
//!
//! The measured program (`programs/hot.c`) times itself and knows nothing of probes; it finds out first how many calls
//! make a burst, since one may take a nanosecond or a hundred microseconds. Every row is checked: the probe must have
//! been hit exactly as often as the program called the function, else the row measured something else, and fails; and
//! where hits are recorded, each must have been printed, but for those that found no room, which are shown. Peers that
//! are not here, or fail, are skipped: they never fail the run.

#![forbid(unsafe_code)]

mod answer;
mod case;
mod cases;
mod checks;
mod command;
mod comparison;
mod crowd;
mod hot;
mod kernel;
mod machine;
mod ours;
mod peers;
mod report;
mod row;
mod runs;
mod samples;
mod waiting;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use case::{Case, Placement, Who};
use clap::Parser;
use hot::Hot;
use kernel::Tracefs;
use ours::Tool;
use peers::Lab;
use report::Report;
use row::Row;
use samples::Samples;

/// Measures what one hit of a probe costs.
#[derive(Debug, Parser)]
#[command(name = "hit-cost")]
struct Args {
    /// The tool that is measured, built with optimisation.
    #[arg(long, value_name = "PATH")]
    kprobe: PathBuf,
    /// The source of the module with handlers.
    #[arg(long, value_name = "FOLDER")]
    module: PathBuf,
    /// Measure other tools too; what was installed for that is in FOLDER.
    #[arg(long, value_name = "FOLDER")]
    peers: Option<PathBuf>,
    /// How often to go through all rows.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Bursts of calls for each row and round.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bursts: u32,
    /// Calls in a burst, at most, where events are recorded: they must find room.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    recorded: u32,
    /// Tell the tool how to place probes, in all rows that do not say.
    #[arg(long, value_enum)]
    placement: Option<Placement>,
    /// The processor that the measured program stays on; by default the last one it may use.
    #[arg(long)]
    cpu: Option<usize>,
    /// Only rows whose description contains one of these texts.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Leave out what is counted of system calls and signals.
    #[arg(long)]
    no_checks: bool,
    /// Write everything to FILE as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a chart into FILE, too.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Keep the results in a folder of FOLDER that is named by the day.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Print a Markdown table instead of plain text.
    #[arg(long)]
    markdown: bool,
}

/// What one round of a row gave, or why it gave nothing.
#[derive(Debug)]
enum Outcome {
    Measured(Samples),
    Skipped(String),
    Failed(String),
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let report = measure(&args)?;
    write(args.json.as_deref(), || format!("{:#}\n", report::json(&report)))?;
    write(args.svg.as_deref(), || report::svg(&report))?;
    if let Some(folder) = &args.keep {
        eprintln!("hit-cost: kept in {}", runs::keep(&report, folder)?.display());
    }
    print!("{}", if args.markdown { report::markdown(&report) } else { report::text(&report) });
    let failed = report.rows.iter().any(Row::is_failed) || report.checks.iter().any(checks::Check::is_failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text()).with_context(|| format!("cannot write {}", path.display()))
}

fn measure(args: &Args) -> Result<Report> {
    let cpu = args.cpu.or_else(machine::last_cpu);
    let hot = Hot::build(args.bursts, args.recorded, cpu)?;
    let mut tool = Tool::new(&args.kprobe, &args.module, args.placement, &hot)?;
    let mut tracefs = Tracefs::open();
    let lab = args.peers.as_ref().map(|installed| Lab { hot: &hot, installed });
    let versions = tool.version().into_iter().map(|version| ("ours".to_owned(), version));
    let revision = command::first_line("git", &["describe", "--always", "--dirty"]);
    let versions = versions.chain(revision.map(|revision| ("revision".to_owned(), revision)));
    let versions = versions.chain(lab.iter().flat_map(peers::versions)).collect();
    let machine = machine::describe(cpu, versions);
    let wanted = |case: &Case| args.only.is_empty() || args.only.iter().any(|text| case.to_string().contains(text));
    let cases = cases::all(args.peers.is_some());
    let mut rows: Vec<Row> = cases.into_iter().filter(wanted).map(Row::new).collect();
    for round in 1..=args.rounds {
        eprintln!("hit-cost: round {round} of {}, {} rows", args.rounds, rows.len());
        for row in rows.iter_mut().filter(|row| row.is_wanted()) {
            row.add(round_of(&row.case, &hot, &mut tool, &mut tracefs, lab.as_ref()));
        }
    }
    let checked = if args.no_checks { &[][..] } else { &rows };
    let checks = checks::run(checked, &hot, &mut tool, &mut tracefs);
    Ok(Report { machine, comparisons: comparison::all(&rows), rows, checks })
}

fn round_of(
    case: &Case,
    hot: &Hot,
    tool: &mut Tool,
    tracefs: &mut Result<Tracefs, String>,
    lab: Option<&Lab<'_>>,
) -> Outcome {
    let measured = match (case.who, tracefs, lab) {
        (Who::Nobody, ..) => floor(case, hot),
        (Who::Ours, ..) => tool.measure(case, hot),
        (Who::Kernel, Ok(tracefs), _) => tracefs.measure(case, hot).map(Outcome::Measured),
        (Who::Kernel, Err(why), _) => Ok(Outcome::Skipped(why.clone())),
        (Who::Peer(_), _, None) => Ok(Outcome::Skipped("not asked for".into())),
        (Who::Peer(peer), _, Some(lab)) => Ok(match peer.measure(case, lab) {
            Ok(samples) => Outcome::Measured(samples),
            Err(error) => Outcome::Skipped(format!("{error:#}")),
        }),
    };
    measured.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
}

/// Nobody probes; where a detour counts, it must have counted every call.
fn floor(case: &Case, hot: &Hot) -> Result<Outcome> {
    let samples = hot.run_alone(case)?;
    anyhow::ensure!(samples.hits.is_none_or(|hits| hits == samples.calls), "a detour has counted {:?}", samples.hits);
    Ok(Outcome::Measured(samples))
}
