//! The summary at the end: per event what was hit, missed and lost, and how it was placed.

use crate::args::Format;
use crate::output::Output;
use anyhow::Result;
use events::{Definition, Kind};
use host_process::control::{FunctionTally, Tally};
use serde_json::json;

const HEADER: [&str; 7] = ["EVENT", "HITS", "MISSED", "LOST", "RETURNS", "UNWOUND", "ACTIVE"];

/// A line of the summary: a definition, or a function that a pattern matches.
struct Row<'a> {
    name: &'a str,
    group: &'a str,
    is_return: bool,
    tally: &'a Tally,
}

/// Prints the summary. Under a pattern come its functions that were hit, the most frequent first.
pub(crate) fn summary(
    output: &mut Output,
    definitions: &[Definition],
    tallies: &[Tally],
    functions: &[FunctionTally],
) -> Result<()> {
    let rows = rows(output, definitions, tallies, functions);
    let lines = match output.format() {
        Format::Text => table(&rows),
        Format::Jsonl => rows.iter().map(object).collect(),
    };
    lines.iter().try_for_each(|line| output.line(line))?;
    output.flush()
}

fn rows<'a>(
    output: &'a Output,
    definitions: &[Definition],
    tallies: &'a [Tally],
    functions: &'a [FunctionTally],
) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (id, (definition, tally)) in definitions.iter().zip(tallies).enumerate() {
        let (name, group) = output.event(id);
        let is_return = matches!(definition.kind, Kind::Return { .. });
        rows.push(Row { name, group, is_return, tally });
        let mut own: Vec<&FunctionTally> = functions.iter().filter(|function| function.definition == id).collect();
        own.sort_by_key(|function| core::cmp::Reverse(function.tally.hits));
        rows.extend(own.into_iter().map(|function| Row {
            name: &function.name,
            group,
            is_return,
            tally: &function.tally,
        }));
    }
    rows
}

fn placed(tally: &Tally) -> String {
    if tally.placed.is_empty() { "nowhere: its object is not mapped".into() } else { tally.placed.join("; ") }
}

fn table(rows: &[Row<'_>]) -> Vec<String> {
    let cells = |row: &Row<'_>| {
        let tally = row.tally;
        let returns = [tally.returns, tally.unwound, tally.active()].map(|n| n.to_string());
        let [returns, unwound, active] = if row.is_return { returns } else { ["-", "-", "-"].map(String::from) };
        let counts = [tally.hits, tally.missed, tally.lost].map(|n| n.to_string());
        let [hits, missed, lost] = counts;
        ([row.name.to_owned(), hits, missed, lost, returns, unwound, active], placed(tally))
    };
    let rows: Vec<([String; 7], String)> = rows.iter().map(cells).collect();
    let width = |column: usize| {
        let cell = |r: &([String; 7], String)| r.0.get(column).map_or(0, String::len);
        rows.iter().map(cell).chain(HEADER.get(column).map(|h| h.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let line = |cells: &[String; 7], last: &str| {
        let aligned = cells.iter().zip(&widths).enumerate();
        let text = aligned.map(|(i, (c, w))| if i == 0 { format!("{c:<w$}") } else { format!("{c:>w$}") });
        format!("{}  {last}", text.collect::<Vec<_>>().join("  "))
    };
    let header = line(&HEADER.map(String::from), "PLACED");
    std::iter::once(header).chain(rows.iter().map(|(cells, last)| line(cells, last))).collect()
}

fn object(row: &Row<'_>) -> String {
    let Row { name, group, is_return, tally } = row;
    let mut summary = json!({
        "event": name, "group": group, "hits": tally.hits, "missed": tally.missed, "lost": tally.lost,
        "placed": tally.placed,
    });
    if let (true, Some(map)) = (is_return, summary.as_object_mut()) {
        map.insert("returns".into(), tally.returns.into());
        map.insert("unwound".into(), tally.unwound.into());
        map.insert("active".into(), tally.active().into());
    }
    json!({ "summary": summary }).to_string()
}
