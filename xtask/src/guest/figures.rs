//! What the module logged, as figures.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::command::last_lines;
use crate::row::Row;

/// Both of the module's sets of rows.
const SETS: [&str; 2] = ["int3", "jump"];

/// Linux's figures.
#[derive(Debug)]
pub(crate) struct Figures {
    /// The kernel's release and version.
    pub(crate) kernel: String,
    pub(crate) rows: Vec<Row>,
}

impl Figures {
    /// Reads them from what the guest printed.
    ///
    /// # Errors
    ///
    /// If the module says that it failed, or has not said everything.
    pub(super) fn parse(serial: &str) -> Result<Self> {
        let mut kernel = None;
        let (mut done, mut rows) = (Vec::new(), Vec::new());
        for line in serial.lines() {
            match line.split('|').collect::<Vec<_>>()[..] {
                ["guest", text] => kernel = Some(text.to_owned()),
                ["row", ref fields @ ..] => {
                    rows.push(Row::parse(fields).with_context(|| format!("the guest printed no row: {line}"))?);
                }
                ["error", what] => bail!("in the guest: {what}"),
                ["done", set] => done.push(set),
                _ => {}
            }
        }
        match kernel {
            Some(kernel) if done == SETS => Ok(Self { kernel, rows }),
            _ => bail!("the guest did not measure everything; it last said:\n{}", last_lines(serial)),
        }
    }

    /// What a probe adds to a call, in instructions, beside `others` other probed addresses.
    pub(crate) fn cost(&self, probe: &str, on: &str, placed: &str, others: u64) -> Option<f64> {
        let of = |row: &&Row| (row.probe.as_str(), row.on.as_str(), row.placed.as_str()) == (probe, on, placed);
        self.rows.iter().filter(of).find(|row| row.others == others).map(Row::cost)
    }

    /// All there is.
    pub(crate) fn json(&self) -> Value {
        json!({"kernel": self.kernel, "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>()})
    }

    /// An aligned table: what a probe alone costs, and what it costs in company.
    pub(crate) fn table(&self) -> String {
        let company = self.rows.iter().map(|row| row.others).max().unwrap_or(0);
        let mut table = format!(
            "Linux {}.\nInstructions that a probe adds to a call: alone, and with {company} other addresses probed.\n\
             CALL: of a call that is not probed, with its share of the loop around it.\n\n",
            self.kernel
        );
        let with_company = format!("+{company}");
        table += &line(["PROBE", "ON", "PLACED", "CALL", "ALONE", &with_company]);
        for row in self.rows.iter().filter(|row| row.others == 0) {
            let in_company = self.cost(&row.probe, &row.on, &row.placed, company);
            let in_company = in_company.map_or_else(String::new, number);
            table += &line([&row.probe, &row.on, &row.placed, &number(row.call()), &number(row.cost()), &in_company]);
        }
        table
    }
}

fn number(instructions: f64) -> String {
    format!("{instructions:.1}")
}

fn line([probe, on, placed, call, alone, company]: [&str; 6]) -> String {
    format!("{probe:<14}  {on:<6}  {placed:<6}  {call:>6}  {alone:>6}  {company:>6}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIAL: &str = "\
        guest|6.1.0-1-amd64 #1 Debian\n\
        [    1.0] something else\n\
        row|pre|lea|int3|0|10|100|5450\n\
        row|pre|lea|int3|1000|10|100|6455\n\
        done|int3\n\
        row|pre|lea|jump|0|10|100|1120\n\
        done|jump\n\
        end|\n";

    #[test]
    fn the_cost_is_what_a_probe_adds_to_a_call() {
        let figures = Figures::parse(SERIAL).unwrap();
        assert_eq!(figures.kernel, "6.1.0-1-amd64 #1 Debian");
        assert_eq!(figures.cost("pre", "lea", "int3", 0), Some(535.0));
        assert_eq!(figures.cost("pre", "lea", "int3", 1000), Some(635.5));
        assert_eq!(figures.cost("pre", "lea", "jump", 0), Some(102.0));
        assert_eq!(figures.cost("pre", "jmp", "int3", 0), None);
    }

    #[test]
    fn a_failure_in_the_guest_is_the_error() {
        let serial = SERIAL.replace("done|int3", "error|pre on lea, int3: cannot be registered (-22)");
        let error = Figures::parse(&serial).unwrap_err().to_string();
        assert_eq!(error, "in the guest: pre on lea, int3: cannot be registered (-22)");
    }

    #[test]
    fn a_guest_that_stops_early_is_an_error_with_its_last_words() {
        let serial = SERIAL.replace("done|jump\nend|\n", "Kernel panic\n");
        let error = Figures::parse(&serial).unwrap_err().to_string();
        assert!(error.ends_with("Kernel panic"), "{error}");
    }

    #[test]
    fn a_row_that_cannot_be_is_refused() {
        for row in ["row|pre|lea|int3|0|0|100|5450", "row|pre|lea|int3|0|10|100|99", "row|pre|lea", "row|a|b|c|d|e|f|g"]
        {
            assert!(Figures::parse(&SERIAL.replace("row|pre|lea|jump|0|10|100|1120", row)).is_err(), "{row}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_probe() {
        let table = Figures::parse(SERIAL).unwrap().table();
        let lines: Vec<_> = table.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "PROBE           ON      PLACED    CALL   ALONE   +1000",
                "pre             lea     int3      10.0   535.0   635.5",
                "pre             lea     jump      10.0   102.0        ",
            ]
        );
    }

    #[test]
    fn json_holds_the_counts_too() {
        let row = Figures::parse(SERIAL).unwrap().json()["rows"][0].clone();
        assert_eq!((&row["cost"], &row["plain"], &row["probed"]), (&json!(535.0), &json!(100), &json!(5450)));
    }
}
