//! What is said of a run, in four forms.

mod json;
mod markdown;
mod svg;
mod text;

pub(crate) use json::json;
pub(crate) use markdown::markdown;
pub(crate) use svg::svg;
pub(crate) use text::text;

use crate::checks::Check;
use crate::comparison::Comparison;
use crate::machine::Machine;
use crate::row::{Row, to_floor, to_ours, to_trap};

/// A run, when it is over.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) checks: Vec<Check>,
}

const COLUMNS: usize = 9;
const HEADER: [&str; COLUMNS] = ["PROBE", "ON", "PLACED", "MIN ns", "MEDIAN ns", "÷FLOOR", "÷TRAP", "÷OURS", ""];
/// These columns are numbers.
const NUMBERS: std::ops::Range<usize> = 3..8;

fn cells(row: &Row, rows: &[Row]) -> [String; COLUMNS] {
    let number = |value: Option<f64>, digits: usize| value.map_or_else(String::new, |v| format!("{v:.digits$}"));
    let time = |value: Option<f64>| number(value, usize::from(value.is_some_and(|v| v < 100.0)));
    // Two digits that say something.
    let times = |value: Option<f64>| {
        let digits = value.map_or(0, |v| if v < 0.1 { 4 } else { usize::from(v < 10.0) * 2 });
        number(value, digits)
    };
    [
        row.case.to_string(),
        row.case.function.instruction.to_owned(),
        row.samples.placed.clone(),
        time(row.min()),
        time(row.median()),
        times(to_floor(row, rows)),
        times(to_trap(row, rows)),
        times(to_ours(row, rows)),
        row.remark(),
    ]
}

/// Behind the table: pairs of rows, and checks, a line each.
fn notes(report: &Report) -> Vec<String> {
    let ratio = |value: Option<f64>| value.map_or_else(|| "not measured".to_owned(), |v| format!("{v:.2}"));
    let comparisons = report.comparisons.iter().map(|c| format!("{}: {}", c.what, ratio(c.ratio)));
    comparisons.chain(report.checks.iter().map(ToString::to_string)).collect()
}

fn explanation(report: &Report) -> String {
    let Report { machine, rows, .. } = report;
    let bursts = rows.iter().map(|row| row.samples.costs.len()).max().unwrap_or(0);
    let versions: Vec<_> = machine.versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
    format!(
        "{}.\n{}.\nNanoseconds per call, the call itself included, over {bursts} bursts of about 0.4 ms, {}. Every \
         probe has counted exactly the calls that were made, unless its row says otherwise.\n÷FLOOR: how many times \
         the cheapest burst costs what a jump does that only runs what it displaced, or, for what has registers, one \
         that saves them all and calls a handler; ÷TRAP: an empty SIGTRAP round trip; ÷OURS: our own probe for the \
         same work.",
        machine.line(),
        versions.join("; "),
        machine.pinned,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;
    use crate::row::tests::rows;
    use crate::{checks, comparison};

    fn machine() -> Machine {
        let text = str::to_owned;
        Machine {
            processor: text("P <1>"),
            processors: 2,
            is_virtual: true,
            kernel: text("6"),
            date: text("2026-01-01"),
            pinned: text("pinned to CPU 1"),
            load: text("0.10 0.20 0.30"),
            versions: vec![("rustc".into(), "1".into())],
        }
    }

    pub(super) fn report() -> Report {
        let rows = rows();
        let check = checks::tests::check();
        Report { machine: machine(), comparisons: comparison::all(&rows), rows, checks: vec![check] }
    }

    #[test]
    fn a_skipped_row_says_why_in_every_form() {
        let mut report = report();
        report.rows[20].add(Outcome::Skipped("no tracefs".into()));
        for table in [text(&report), markdown(&report), svg(&report)] {
            assert!(table.contains("SKIPPED: no tracefs"), "{table}");
        }
        assert_eq!(json(&report)["rows"][20]["skipped"], "no tracefs");
    }

    #[test]
    fn checks_and_comparisons_are_in_every_table() {
        let report = report();
        for table in [text(&report), markdown(&report)] {
            assert!(table.contains("signals per hit"), "{table}");
            assert!(table.contains("÷ alone"), "{table}");
        }
    }
}
