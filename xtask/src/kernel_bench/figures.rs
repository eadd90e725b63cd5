//! What the demo kernel printed, as figures.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Our figures.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) rows: Vec<Row>,
}

/// What calls of one function cost that one kind of probe is on.
#[derive(Debug)]
pub(super) struct Row {
    /// The kind of probe, in the words of Linux's figures where it is one of theirs.
    pub(super) probe: String,
    /// The probed instruction.
    pub(super) on: String,
    /// How it takes its effect.
    pub(super) placed: String,
    /// How many other addresses were probed.
    pub(super) others: u64,
    calls: u64,
    plain: u64,
    probed: u64,
}

impl Row {
    /// Instructions that the probe adds to a call. Counts are far below 2^53.
    pub(super) fn cost(&self) -> f64 {
        (self.probed - self.plain) as f64 / self.calls as f64
    }

    fn parse(fields: &[&str]) -> Option<Self> {
        let [probe, on, placed, others, calls, plain, probed] = fields else { return None };
        let row = Self {
            probe: (*probe).to_owned(),
            on: (*on).to_owned(),
            placed: (*placed).to_owned(),
            others: others.parse().ok()?,
            calls: calls.parse().ok()?,
            plain: plain.parse().ok()?,
            probed: probed.parse().ok()?,
        };
        (row.calls > 0 && row.probed > row.plain).then_some(row)
    }

    fn json(&self) -> Value {
        json!({
            "probe": self.probe, "on": self.on, "placed": self.placed, "others": self.others, "cost": self.cost(),
            "calls": self.calls, "plain": self.plain, "probed": self.probed,
        })
    }
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
