//! A row, what all rounds gave, and what it is divided by.

use crate::Outcome;
use crate::case::{Case, Who, Work};
use crate::cases::{EMPTY_JUMP, EMPTY_TRAP, SAVED};
use crate::samples::Samples;

/// A row and what all rounds gave.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) samples: Samples,
    /// Why there are no numbers, and whether that is a fault.
    pub(crate) missing: Option<Missing>,
}

/// Why a row has no numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It cannot be measured here.
    Skipped(String),
    /// It should have been.
    Failed(String),
}

impl Row {
    /// A row that nothing is known about yet.
    pub(crate) fn new(case: Case) -> Self {
        Self { case, samples: Samples::default(), missing: None }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Measured(samples) => self.samples.merge(samples),
            Outcome::Skipped(why) => self.missing = Some(Missing::Skipped(why)),
            Outcome::Failed(why) => self.missing = Some(Missing::Failed(why)),
        }
    }

    /// Whether another round may give anything: what cannot be had once is not tried again.
    pub(crate) fn is_wanted(&self) -> bool {
        self.missing.is_none()
    }

    /// Whether it failed.
    pub(crate) fn is_failed(&self) -> bool {
        matches!(self.missing, Some(Missing::Failed(_)))
    }

    /// The cheapest burst, if the row is to be trusted.
    pub(crate) fn min(&self) -> Option<f64> {
        self.samples.min().filter(|_| self.missing.is_none())
    }

    /// The burst in the middle, if the row is to be trusted.
    pub(crate) fn median(&self) -> Option<f64> {
        self.samples.median().filter(|_| self.missing.is_none())
    }

    /// What is to be said beside the numbers.
    pub(crate) fn remark(&self) -> String {
        let Samples { calls, hits, lost, .. } = &self.samples;
        match (&self.missing, self.case.who, hits) {
            (Some(Missing::Skipped(why)), ..) => format!("SKIPPED: {why}"),
            (Some(Missing::Failed(why)), ..) => format!("FAILED: {why}"),
            (None, _, Some(hits)) if hits != calls => format!("counted {hits} of {calls} calls"),
            (None, Who::Peer(_), None) => "its hits cannot be asked".into(),
            (None, ..) if *lost > 0 => format!("{lost} of {calls} events found no room"),
            (None, ..) => String::new(),
        }
    }
}

/// How many times `of` the cheapest burst of `row` costs.
pub(crate) fn ratio(row: &Row, of: Option<&Row>) -> Option<f64> {
    Some(row.min()? / of?.min()?)
}

/// To the cheapest way to do such work by a jump: what counts, to a jump that does nothing else; what has registers, to
/// one that saves them.
pub(crate) fn to_floor(row: &Row, rows: &[Row]) -> Option<f64> {
    let floor = match row.case.work {
        Work::Floor(_) => return None,
        Work::Count => EMPTY_JUMP,
        Work::Handler | Work::Record(_) => SAVED,
    };
    ratio(row, floor_named(floor, rows))
}

/// To an empty trap, below which a probe by breakpoint cannot be.
pub(crate) fn to_trap(row: &Row, rows: &[Row]) -> Option<f64> {
    ratio(row, floor_named(EMPTY_TRAP, rows))
}

/// What others take, to what ours takes for the same work as it chooses to place.
pub(crate) fn to_ours(row: &Row, rows: &[Row]) -> Option<f64> {
    if matches!(row.case.who, Who::Nobody | Who::Ours) {
        return None;
    }
    let ours = |other: &&Row| other.case.who == Who::Ours && other.case.placement.is_none();
    ratio(row, rows.iter().filter(ours).find(|other| other.case.is_comparable(&row.case)))
}

fn floor_named<'a>(name: &str, rows: &'a [Row]) -> Option<&'a Row> {
    rows.iter().find(|row| matches!(row.case.work, Work::Floor(what) if what == name))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::case::{At, PUSH};
    use crate::cases;
    use crate::peers::Peer;

    /// All rows; each costs 100 ns more than the one before it.
    pub(crate) fn rows() -> Vec<Row> {
        let costs = cases::all(true).into_iter().zip(1_u32..);
        costs.map(|(case, n)| measured(case, f64::from(n) * 100.0)).collect()
    }

    pub(crate) fn measured(case: Case, cost: f64) -> Row {
        let mut row = Row::new(case);
        row.add(Outcome::Measured(Samples { costs: vec![cost], calls: 3, hits: Some(3), ..Samples::default() }));
        row
    }

    #[test]
    fn the_empty_trap_is_once_itself() {
        let rows = rows();
        let trap = floor_named(EMPTY_TRAP, &rows).unwrap();
        assert_eq!((to_trap(trap, &rows), to_ours(trap, &rows), to_floor(trap, &rows)), (Some(1.0), None, None));
    }

    #[test]
    fn a_uprobe_is_divided_by_our_row_of_the_same_work() {
        let of = |who, cost| measured(Case::new(who, At::Entry, Work::Count, PUSH), cost);
        let rows = [of(Who::Ours, 50.0), of(Who::Kernel, 600.0)];
        assert_eq!(to_ours(&rows[1], &rows), Some(12.0));
        assert_eq!(to_ours(&rows[0], &rows), None);
    }

    #[test]
    fn a_count_that_differs_from_the_calls_is_told() {
        let mut row = measured(Case::new(Who::Peer(Peer::Bpftrace), At::Entry, Work::Count, PUSH), 1.0);
        assert_eq!(row.remark(), "");
        row.samples.hits = Some(2);
        assert_eq!(row.remark(), "counted 2 of 3 calls");
        row.samples.hits = None;
        assert_eq!(row.remark(), "its hits cannot be asked");
    }

    #[test]
    fn a_row_that_failed_in_one_round_has_no_numbers() {
        let mut row = measured(Case::new(Who::Ours, At::Entry, Work::Count, PUSH), 1.0);
        row.add(Outcome::Failed("2 calls, 1 hit".into()));
        assert_eq!((row.min(), row.remark()), (None, "FAILED: 2 calls, 1 hit".to_owned()));
    }
}
