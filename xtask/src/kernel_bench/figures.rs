//! What the demo kernel printed, as figures.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::row::Row;

/// Our figures.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) rows: Vec<Row>,
}

impl Figures {
    /// Reads what the command `bench` printed.
    ///
    /// # Errors
    ///
    /// If a line of it is no row, if there is none, or if the kernel says that it did not count instructions.
    pub(super) fn parse(output: &str) -> Result<Self> {
        let mut rows = Vec::new();
        for line in output.lines().map(str::trim_end) {
            if line.starts_with("warning: ") {
                bail!("the demo kernel: {line}");
            }
            if let Some(row) = line.strip_prefix("row|") {
                let fields: Vec<_> = row.split('|').collect();
                rows.push(Row::parse(&fields).with_context(|| format!("the demo kernel printed no row: {line}"))?);
            }
        }
        if rows.is_empty() {
            bail!("the demo kernel printed no figures:\n{output}");
        }
        Ok(Self { rows })
    }

    /// The same row as `row` with other company.
    pub(super) fn with_others(&self, row: &Row, others: u64) -> Option<&Row> {
        let same = |r: &&Row| (&r.probe, &r.on, &r.placed) == (&row.probe, &row.on, &row.placed);
        self.rows.iter().filter(same).find(|r| r.others == others)
    }

    /// The most other addresses that were probed.
    pub(super) fn company(&self) -> u64 {
        self.rows.iter().map(|row| row.others).max().unwrap_or(0)
    }

    pub(super) fn json(&self) -> Value {
        json!({"rows": self.rows.iter().map(Row::json).collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_what_a_probe_adds_to_a_call() {
        let figures = Figures::parse("> bench\nrow|pre|lea|boosted|0|10|100|2950\n> halt\n").unwrap();
        assert_eq!(figures.rows.iter().map(Row::cost).collect::<Vec<_>>(), [285.0]);
    }

    #[test]
    fn a_row_that_cannot_be_is_refused() {
        for row in
            ["row|pre|lea|boosted|0|0|100|2950", "row|pre|lea|boosted|0|10|100|99", "row|pre", "row|a|b|c|d|e|f|g"]
        {
            assert!(Figures::parse(row).is_err(), "{row}");
        }
    }

    #[test]
    fn time_is_not_taken_for_instructions() {
        let output = "warning: figures are counts of the time stamp counter\nrow|pre|lea|boosted|0|10|100|2950\n";
        assert!(Figures::parse(output).unwrap_err().to_string().contains("time stamp"));
    }

    #[test]
    fn no_row_is_an_error_with_what_was_said() {
        assert!(Figures::parse("bench: there are probes\n").unwrap_err().to_string().contains("there are probes"));
    }
}
