//! Which of a batch's probes it was.

use anyhow::Result;

use super::compare::{self, Baseline};
use super::instructions::Instruction;
use super::workloads::Workload;
use crate::Stage;

/// Runs that are spent on it.
const RUNS: u32 = 60;

/// How many are shown.
const SHOWN: usize = 8;

/// Halves the batch for as long as one half alone makes a difference; what was found, in words.
///
/// # Errors
///
/// If the tool cannot be started.
pub(super) fn find(
    stage: &Stage,
    workload: &Workload,
    baseline: &Baseline,
    batch: &[Instruction],
    difference: &str,
) -> Result<String> {
    let (mut left, mut last, mut runs) = (batch, difference.to_owned(), 0);
    'halving: while left.len() > 1 && runs < RUNS {
        let (first, second) = left.split_at(left.len() / 2);
        for half in [first, second] {
            runs += 1;
            if let Some(what) = compare::probed(stage, workload, baseline, half)?.difference {
                (left, last) = (half, what);
                continue 'halving;
            }
        }
        break;
    }
    let shown: Vec<_> = left.iter().take(SHOWN).map(|i| format!("    {}   | {}", i.definition(0), i.text)).collect();
    let file = stage.place.path().join(format!("culprits-{}", workload.name));
    let lines: String = left.iter().enumerate().map(|(id, i)| i.definition(id) + "\n").collect();
    std::fs::write(&file, lines)?;
    let words = workload.words();
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    Ok(format!(
        "{}: {last}\n  {} probes of {} are enough (after {runs} runs), in {}:\n{}\n  command: {}\n  with all of them: \
         {difference}",
        workload.name,
        left.len(),
        batch.len(),
        file.display(),
        shown.join("\n"),
        words.join(" "),
    ))
}
