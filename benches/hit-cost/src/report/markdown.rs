//! A Markdown table.

use super::{Report, cells, explanation, notes};

/// The table. A skipped row says so where it would say how it is placed.
pub(crate) fn markdown(report: &Report) -> String {
    let mut out = String::from("| probe | on | placed | min ns | median ns | ÷ floor | ÷ trap | ÷ ours |\n");
    out += "|---|---|---|--:|--:|--:|--:|--:|\n";
    for row in &report.rows {
        let [probe, on, placed, min, median, floor, trap, ours, remark] = cells(row, &report.rows);
        let placed = [placed, remark].iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("; ");
        let placed = placed.replace('|', "\\|");
        out += &format!("| {probe} | `{on}` | {placed} | {min} | {median} | {floor} | {trap} | {ours} |\n");
    }
    let notes: String = notes(report).iter().map(|note| format!("- {note}\n")).collect();
    format!("{out}\n{notes}\n{}\n", explanation(report))
}
