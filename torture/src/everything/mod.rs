//! Every instruction of real programs and their libraries, probed: in batches, and as many at once as there is room for.
//!
//! A program runs once without probes, and its standard output, standard error, exit status and files are kept. Then
//! every instruction that can be probed gets a probe, batch by batch, and each run must do the same. What the tool
//! refuses is counted by its reason. If a run differs, the batch is halved for as long as one of its halves differs
//! too, so that what is reported is an instruction or a few.
//!
//! The room is that of the target's tables ([`host_process::abi`]), less what the tool's own hooks take.

mod compare;
mod culprit;
mod instructions;
mod workloads;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use compare::{Baseline, Run};
use host_process::abi;
use instructions::{Instruction, Inventory};
use testkit::generate::Random;
use workloads::Workload;

use crate::Stage;
use crate::report::{Report, Verdict};
use crate::tool;

const PART: &str = "everything";

/// Places in the target's tables for the tool's own probes, and for the copies of what jumps displace.
const RESERVE: usize = 2048;

/// The most probes at once, by the size of the target's tables.
const ROOM: usize = smallest([abi::SITES, abi::PROBES, abi::EVENTS]) - RESERVE;

/// Probes at once in the sample for CI.
const SAMPLE: usize = 2000;

const fn smallest([a, b, c]: [usize; 3]) -> usize {
    let ab = if a < b { a } else { b };
    if ab < c { ab } else { c }
}

/// Runs the part.
///
/// # Errors
///
/// If a program cannot be built though its compiler is there, or files cannot be written.
pub(crate) fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    controls(stage, report)?;
    let programs = workloads::all(stage)?;
    let end = Instant::now() + stage.effort.time;
    for (index, workload) in programs.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now()) / (programs.len() - index) as u32;
        match workload {
            Ok(workload) if stage.wants(&workload.name) => program(stage, report, workload, left)?,
            Ok(_) => {}
            Err(why) => report.row(PART, "a program", Verdict::Skipped, why.clone()),
        }
    }
    Ok(())
}

/// What the runs of one program gave.
#[derive(Debug, Default)]
struct Sum {
    runs: u32,
    identical: u32,
    probes: usize,
    largest: usize,
    hits: u64,
    missed: u64,
    placed: BTreeMap<String, u64>,
}

fn program(stage: &Stage, report: &mut Report, workload: &Workload, time: Duration) -> Result<()> {
    let baseline = Baseline::of(stage, workload)?;
    let begin = Instant::now();
    let mut random = stage.random(&workload.name);
    let inventory = Inventory::of(workload, stage.effort.short.then_some(SAMPLE * 2), &mut random)?;
    report.row(PART, &format!("{}: can be probed", workload.name), Verdict::Ok, inventory.figures());
    let (mut sum, mut findings) = (Sum::default(), 0);
    for batch in batches(stage, &inventory, &mut random) {
        if sum.runs > 0 && begin.elapsed() > time || findings >= 3 {
            break;
        }
        let outcome = compare::probed(stage, workload, &baseline, &batch)?;
        sum.add(&outcome, batch.len());
        if let Some(difference) = &outcome.difference {
            findings += 1;
            let text = culprit::find(stage, workload, &baseline, &batch, difference)?;
            report.finding(stage, &workload.name, text);
        }
    }
    let verdict = if sum.identical == sum.runs { Verdict::Ok } else { Verdict::Wrong };
    let all = inventory.accepted.len();
    report.row(PART, &format!("{}: probed", workload.name), verdict, sum.figures(all));
    Ok(())
}

/// The runs: all of the program and its libraries by batches, and as many at once as there is room for, mixed.
fn batches(stage: &Stage, inventory: &Inventory, random: &mut Random) -> Vec<Vec<Instruction>> {
    let mut shuffled = inventory.accepted.clone();
    for at in (1..shuffled.len()).rev() {
        shuffled.swap(at, random.below(at as u64 + 1) as usize);
    }
    if stage.effort.short {
        shuffled.truncate(SAMPLE);
        return vec![shuffled];
    }
    // The large ones first, whatever time is left: neighbours together, then strangers.
    let mut batches: Vec<Vec<Instruction>> = vec![shuffled.iter().take(ROOM).cloned().collect()];
    batches.extend(inventory.accepted.chunks(ROOM).map(<[_]>::to_vec));
    batches
}

impl Sum {
    fn add(&mut self, run: &Run, probes: usize) {
        self.runs += 1;
        self.identical += u32::from(run.difference.is_none());
        self.probes += probes;
        self.largest = self.largest.max(probes);
        self.hits += run.rows.iter().map(|row| row.hits).sum::<u64>();
        self.missed += run.rows.iter().map(|row| row.missed).sum::<u64>();
        for (kind, n) in tool::placements(&run.rows) {
            *self.placed.entry(kind).or_default() += n;
        }
    }

    fn figures(&self, all: usize) -> String {
        format!(
            "{}/{} runs identical; {} probes in all of {all} instructions, {} at once; placed: {}; {} hits, {} missed",
            self.identical,
            self.runs,
            self.probes,
            self.largest,
            tool::kinds(&self.placed),
            self.hits,
            self.missed
        )
    }
}

/// A program in whose copy one byte is another: the comparison must notice what it does differently, and how it dies.
fn controls(stage: &Stage, report: &mut Report) -> Result<()> {
    for (name, byte) in [("a changed instruction", 0x2B), ("a breakpoint that nobody owns", 0xCC)] {
        let Ok(workload) = workloads::checksum(stage, "checksum", None)? else { return Ok(()) };
        let Ok(wrong) = workloads::checksum(stage, "checksum-wrong", Some(byte))? else { return Ok(()) };
        let baseline = Baseline::of(stage, &workload)?;
        let mut random = stage.random(name);
        let inventory = Inventory::of(&wrong, None, &mut random)?;
        let own: Vec<_> = inventory.accepted.iter().filter(|i| i.object.ends_with("checksum-wrong")).cloned().collect();
        let outcome = compare::probed(stage, &wrong, &baseline, &own)?;
        report.control(stage, PART, name, outcome.difference.map_or(Ok(()), Err));
    }
    Ok(())
}
