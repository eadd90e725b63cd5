//! What a hit makes the kernel do: system calls and signals of the measured program, counted by the kernel itself.
//!
//! The program runs twice, with fewer and with more calls. All else that it does, attaching included, it does in both
//! runs: so the difference is the hits'. A hit that is placed by a jump must make neither; one that does fails its check.

use std::fmt;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::Outcome;
use crate::case::{At, Case, Placement, Who, Work};
use crate::hot::{self, Hot};
use crate::kernel::Tracefs;
use crate::ours::Tool;
use crate::row::Row;
use crate::samples::Samples;

const SYSTEM_CALL: &str = "raw_syscalls/sys_enter";
const SIGNAL: &str = "signal/signal_deliver";
const BURSTS: u32 = 100;
/// Calls in a burst of the two runs.
const CALLS: [u32; 2] = [20, 80];
/// Less than this is none: a signal or two that somebody else has sent.
const NONE: f64 = 0.005;

/// One row of ours, checked.
#[derive(Debug)]
pub(crate) struct Check {
    case: Case,
    placed: String,
    /// System calls and signals per hit, or why they could not be counted.
    counted: Result<(f64, f64), String>,
}

/// Checks rows: those of ours that differ in their work or placement, and could be measured.
pub(crate) fn run(rows: &[Row], hot: &Hot, tool: &mut Tool, tracefs: &mut Result<Tracefs, String>) -> Vec<Check> {
    let mut checks = Vec::new();
    let measured = rows.iter().filter(|row| row.missing.is_none()).map(|row| &row.case);
    for case in measured.filter(|case| is_checked(case)) {
        let mut check = Check { case: case.clone(), placed: String::new(), counted: Err(String::new()) };
        check.counted = match tracefs {
            Ok(tracefs) => count(&mut check, hot, tool, tracefs).map_err(|error| format!("{error:#}")),
            Err(why) => Err(why.clone()),
        };
        checks.push(check);
    }
    checks
}

fn is_checked(case: &Case) -> bool {
    let plain = Case::new(Who::Ours, case.at, case.work, crate::case::PUSH);
    let told = case.placement.map_or_else(|| plain.clone(), |placement| plain.clone().placed(placement));
    *case == told && matches!(case.work, Work::Count | Work::Handler | Work::Record("a=%di b=%si" | ""))
}

fn count(check: &mut Check, hot: &Hot, tool: &mut Tool, tracefs: &mut Tracefs) -> Result<(f64, f64)> {
    let mut per_hit = |event| {
        let mut run = |calls| {
            let hot = hot.of(BURSTS, calls);
            tracefs.count(event, &hot::name(), || measured(tool.measure(&check.case, &hot)?))
        };
        let [few, many] = CALLS;
        let ((less, few), (more, many)) = (run(few)?, run(many)?);
        check.placed = many.placed;
        slope((less, few.calls), (more, many.calls))
    };
    Ok((per_hit(SYSTEM_CALL)?, per_hit(SIGNAL)?))
}

fn measured(outcome: Outcome) -> Result<Samples> {
    match outcome {
        Outcome::Measured(samples) => Ok(samples),
        Outcome::Skipped(why) | Outcome::Failed(why) => bail!("{why}"),
    }
}

/// How many more events for each more call.
fn slope((less, few): (u64, u64), (more, many): (u64, u64)) -> Result<f64> {
    if many <= few {
        bail!("{many} calls are not more than {few}");
    }
    // Exact: these are far below 2^53.
    Ok((more as f64 - less as f64) / (many - few) as f64)
}

impl Check {
    /// Whether a hit by a jump has entered the kernel. The return's half of a return probe may.
    pub(crate) fn is_failed(&self) -> bool {
        let by_jump = self.case.at == At::Entry && self.placed.starts_with(Placement::Jump.word());
        matches!(&self.counted, Ok((calls, signals)) if by_jump && (calls.abs() > NONE || signals.abs() > NONE))
    }

    pub(crate) fn json(&self) -> Value {
        let (counted, skipped) = match &self.counted {
            Ok(counted) => (Some(counted), None),
            Err(why) => (None, Some(why)),
        };
        json!({
            "probe": self.case.to_string(), "placed": self.placed, "failed": self.is_failed(), "skipped": skipped,
            "system_calls_per_hit": counted.map(|c| c.0), "signals_per_hit": counted.map(|c| c.1),
        })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.case)?;
        match &self.counted {
            Ok((calls, signals)) => {
                // No `-0.00`.
                let positive = |value: f64| if value.abs() < NONE { 0.0 } else { value };
                let (calls, signals) = (positive(*calls), positive(*signals));
                write!(f, " ({}): {calls:.2} system calls per hit, {signals:.2} signals per hit", self.placed)?;
                if self.is_failed() { write!(f, ": FAILED: a jump enters the kernel") } else { Ok(()) }
            }
            Err(why) => write!(f, ": system calls and signals per hit: SKIPPED: {why}"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::case::PUSH;
    use crate::cases;

    pub(crate) fn check() -> Check {
        let case = Case::new(Who::Ours, At::Entry, Work::Count, PUSH);
        Check { case, placed: "breakpoint, boosted".into(), counted: Ok((2.0, 1.0)) }
    }

    #[test]
    fn what_both_runs_do_is_not_the_hits() {
        assert_eq!(slope((110, 10), (170, 40)).unwrap(), 2.0);
        assert!(slope((110, 10), (170, 10)).is_err());
    }

    #[test]
    fn only_a_jump_must_not_enter_the_kernel() {
        let mut check = check();
        assert!(!check.is_failed());
        check.placed = "jump".into();
        assert!(check.is_failed());
        assert!(check.to_string().ends_with("FAILED: a jump enters the kernel"));
        check.counted = Ok((0.0, -0.0001));
        assert!(!check.is_failed());
        assert!(check.to_string().contains("0.00 signals per hit"), "{check}");
    }

    #[test]
    fn every_kind_of_work_is_checked() {
        let checked: Vec<_> = cases::all(false).into_iter().filter(is_checked).map(|case| case.work).collect();
        assert!([Work::Count, Work::Handler, Work::Record("a=%di b=%si")].iter().all(|work| checked.contains(work)));
    }
}
