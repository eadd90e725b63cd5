//! Pairs of rows that should cost the same: what other probes, and another thread, make of a hit.

use crate::case::{Beside, Case, Who};
use crate::row::{Row, ratio};

/// A row in some circumstances, to the same row without.
#[derive(Debug, PartialEq)]
pub(crate) struct Comparison {
    /// What is compared.
    pub(crate) what: String,
    /// How many times the other the cheapest burst costs; none if one of them was not measured.
    pub(crate) ratio: Option<f64>,
}

/// All of them.
pub(crate) fn all(rows: &[Row]) -> Vec<Comparison> {
    rows.iter().filter(|row| row.case.beside != Beside::Nothing).map(|row| compare(row, rows)).collect()
}

fn compare(row: &Row, rows: &[Row]) -> Comparison {
    let alone = Case { beside: Beside::Nothing, ..row.case.clone() };
    let beside = match row.case.beside {
        Beside::Nothing => String::new(),
        Beside::Probes(number) => format!("a hit beside {number} other probes ÷ alone"),
        Beside::Thread => "2 threads on different functions ÷ 1".to_owned(),
    };
    let who = if row.case.who == Who::Nobody { "no probe" } else { row.case.who.name() };
    Comparison { what: format!("{who}: {beside}"), ratio: ratio(row, rows.iter().find(|row| row.case == alone)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{At, PUSH, Work};
    use crate::row::tests::{measured, rows};

    #[test]
    fn a_crowd_is_compared_with_the_same_row_alone() {
        let case = Case::new(Who::Ours, At::Entry, Work::Count, PUSH);
        let rows = [measured(case.clone(), 10.0), measured(case.beside(Beside::Probes(5)), 11.0)];
        let expected = Comparison { what: "kprobe: a hit beside 5 other probes ÷ alone".into(), ratio: Some(1.1) };
        assert_eq!(all(&rows), [expected]);
    }

    #[test]
    fn every_circumstance_has_its_row_alone() {
        assert!(all(&rows()).iter().all(|comparison| comparison.ratio.is_some()));
    }
}
