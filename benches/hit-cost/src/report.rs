//! The table, in three forms.

use serde_json::{Value, json};

use crate::Outcome;
use crate::cases::{Case, OTHERS};
use crate::machine::Machine;
use crate::samples::Samples;

const HEADER: [&str; 8] = ["PROBE", "ON", "PLACED", "MIN ns", "MEDIAN ns", "÷TRAP", "÷UPROBE", ""];
/// From here on, columns are numbers.
const NUMBERS: std::ops::Range<usize> = 3..7;

/// A row and what all rounds gave.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static Case,
    samples: Samples,
    skipped: Option<String>,
}

impl Row {
    /// A row that nothing is known about yet.
    pub(crate) fn new(case: &'static Case) -> Self {
        Self { case, samples: Samples::default(), skipped: None }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Measured(samples) => self.samples.merge(samples),
            Outcome::Skipped(why) => self.skipped = Some(why),
        }
    }

    /// What is to be said beside the numbers.
    fn remark(&self) -> String {
        match (&self.skipped, self.samples.lost) {
            (Some(why), _) => format!("SKIPPED: {why}"),
            (None, 0) => String::new(),
            (None, lost) => format!("{lost} events found no room"),
        }
    }
}

/// How many times `of` the cheapest burst of `row` costs.
fn ratio(row: &Row, of: Option<&Row>) -> Option<f64> {
    Some(row.samples.min()? / of?.samples.min()?)
}

fn to_trap(row: &Row, rows: &[Row]) -> Option<f64> {
    ratio(row, rows.iter().find(|other| other.case.is_empty_trap()))
}

fn to_uprobe(row: &Row, rows: &[Row]) -> Option<f64> {
    ratio(row, rows.iter().find(|other| other.case.is_uprobe_for(row.case)))
}

fn cells(row: &Row, rows: &[Row]) -> [String; 8] {
    let number = |value: Option<f64>, digits: usize| value.map_or_else(String::new, |v| format!("{v:.digits$}"));
    let time = |value: Option<f64>| number(value, usize::from(value.is_some_and(|v| v < 100.0)));
    [
        row.case.to_string(),
        row.case.function.instruction.to_owned(),
        row.samples.placed.clone(),
        time(row.samples.min()),
        time(row.samples.median()),
        number(to_trap(row, rows), 2),
        number(to_uprobe(row, rows), 2),
        row.remark(),
    ]
}

fn explanation(machine: &Machine, rows: &[Row]) -> String {
    let bursts = rows.iter().map(|row| row.samples.costs.len()).max().unwrap_or(0);
    let Machine { processor, kernel, date, pinned } = machine;
    format!(
        "{processor}, Linux {kernel}, {date}.\nNanoseconds per call, the call itself included, over {bursts} bursts, \
         {pinned}.\n÷TRAP and ÷UPROBE: how many times an empty SIGTRAP round trip, and the same work by a uprobe, the \
         cheapest burst costs."
    )
}

/// An aligned table.
pub(crate) fn text(machine: &Machine, rows: &[Row]) -> String {
    let table: Vec<_> =
        std::iter::once(HEADER.map(str::to_owned)).chain(rows.iter().map(|row| cells(row, rows))).collect();
    let width = |column: usize| table.iter().filter_map(|line| line.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<_> = (0..HEADER.len()).map(|column| width(column).unwrap_or(0)).collect();
    let aligned = |(column, cell): (usize, &String)| {
        let width = widths.get(column).copied().unwrap_or(0);
        if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    };
    let line = |cells: &[String; 8]| cells.iter().enumerate().map(aligned).collect::<Vec<_>>().join("  ");
    let lines: String = table.iter().map(|cells| line(cells).trim_end().to_owned() + "\n").collect();
    format!("{}\n\n{lines}", explanation(machine, rows))
}

/// A Markdown table. Without remarks: a skipped row says so in place of its numbers.
pub(crate) fn markdown(machine: &Machine, rows: &[Row]) -> String {
    let mut out = String::from("| probe | on | placed | min ns | median ns | ÷ trap | ÷ uprobe |\n");
    out += "|---|---|---|--:|--:|--:|--:|\n";
    for row in rows {
        let [probe, on, placed, min, median, trap, uprobe, remark] = cells(row, rows);
        let placed = [placed, remark].iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("; ");
        out += &format!("| {probe} | `{on}` | {placed} | {min} | {median} | {trap} | {uprobe} |\n");
    }
    format!("{out}\n{}\n", explanation(machine, rows))
}

/// All there is.
pub(crate) fn json(machine: &Machine, rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "probe": row.case.to_string(), "function": row.case.function.symbol, "on": row.case.function.instruction,
            "placed": row.samples.placed, "others": if row.case.others { OTHERS } else { 0 },
            "bursts": row.samples.costs.len(), "min_ns": row.samples.min(), "median_ns": row.samples.median(),
            "to_trap": to_trap(row, rows), "to_uprobe": to_uprobe(row, rows), "lost": row.samples.lost,
            "skipped": row.skipped,
        })
    };
    let Machine { processor, kernel, date, pinned } = machine;
    let machine = json!({"processor": processor, "kernel": kernel, "date": date, "pinned": pinned});
    json!({"machine": machine, "rows": rows.iter().map(row).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::CASES;

    fn machine() -> Machine {
        let text = str::to_owned;
        Machine { processor: text("P"), kernel: text("6"), date: text("2026-01-01"), pinned: text("pinned to CPU 1") }
    }

    /// Every row costs 100 ns more than the one before it.
    fn rows() -> Vec<Row> {
        let costs = CASES.iter().zip(1_u32..).map(|(case, n)| (Row::new(case), f64::from(n) * 100.0));
        let measured = |(mut row, cost): (Row, f64)| {
            row.add(Outcome::Measured(Samples { costs: vec![cost], ..Samples::default() }));
            row
        };
        costs.map(measured).collect()
    }

    #[test]
    fn the_empty_trap_is_once_itself() {
        let rows = rows();
        let trap = rows.iter().find(|row| row.case.is_empty_trap()).unwrap();
        assert_eq!((to_trap(trap, &rows), to_uprobe(trap, &rows)), (Some(1.0), None));
    }

    #[test]
    fn ours_is_divided_by_the_uprobe_of_the_same_work() {
        let rows = rows();
        assert_eq!(to_uprobe(&rows[3], &rows), Some(400.0 / 1800.0));
    }

    #[test]
    fn a_skipped_row_says_why() {
        let mut row = Row::new(&CASES[3]);
        row.add(Outcome::Skipped("no tracefs".into()));
        let rows = [row];
        for table in [text(&machine(), &rows), markdown(&machine(), &rows)] {
            assert!(table.contains("SKIPPED: no tracefs"), "{table}");
        }
        assert_eq!(json(&machine(), &rows)["rows"][0]["skipped"], "no tracefs");
    }

    #[test]
    fn columns_of_numbers_end_together() {
        let table = text(&machine(), &rows());
        let mut lines = table.lines().skip_while(|line| !line.starts_with("PROBE"));
        let head = lines.next().unwrap();
        let end = head[..head.find("MIN ns").unwrap()].chars().count() + "MIN ns".len();
        for line in lines {
            let number: String = line.chars().take(end).collect();
            assert!(number.ends_with("00"), "{line}");
        }
    }
}
