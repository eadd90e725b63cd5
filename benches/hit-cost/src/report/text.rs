//! An aligned table.

use super::{COLUMNS, HEADER, NUMBERS, Report, cells, explanation, notes};

/// The table, with what it is about before it and notes behind it.
pub(crate) fn text(report: &Report) -> String {
    let rows = report.rows.iter().map(|row| cells(row, &report.rows));
    let table: Vec<_> = std::iter::once(HEADER.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| table.iter().filter_map(|line| line.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<_> = (0..COLUMNS).map(|column| width(column).unwrap_or(0)).collect();
    let aligned = |(column, cell): (usize, &String)| {
        let width = widths.get(column).copied().unwrap_or(0);
        if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    };
    let line = |cells: &[String; COLUMNS]| cells.iter().enumerate().map(aligned).collect::<Vec<_>>().join("  ");
    let lines: String = table.iter().map(|cells| line(cells).trim_end().to_owned() + "\n").collect();
    let notes: String = notes(report).into_iter().map(|note| note + "\n").collect();
    format!("{}\n\n{lines}\n{notes}", explanation(report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_numbers_end_together() {
        let table = text(&super::super::tests::report());
        let mut lines = table.lines().skip_while(|line| !line.starts_with("PROBE"));
        let head = lines.next().unwrap();
        let end = head[..head.find("MIN ns").unwrap()].chars().count() + "MIN ns".len();
        for line in lines.take_while(|line| !line.is_empty()) {
            let number: String = line.chars().take(end).collect();
            assert!(number.ends_with("00"), "{line}");
        }
    }
}
