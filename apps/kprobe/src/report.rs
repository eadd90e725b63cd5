//! The summary at the end: per event what was hit, missed and lost, and how it was placed.

use crate::args::Format;
use crate::output::Output;
use anyhow::Result;
use events::{Definition, Kind};
use host_process::control::Tally;
use serde_json::json;

const HEADER: [&str; 7] = ["EVENT", "HITS", "MISSED", "LOST", "RETURNS", "UNWOUND", "ACTIVE"];

/// Prints the summary.
pub(crate) fn summary(output: &mut Output, definitions: &[Definition], tallies: &[Tally]) -> Result<()> {
    let lines = match output.format() {
        Format::Text => table(output, definitions, tallies),
        Format::Jsonl => objects(output, definitions, tallies),
    };
    lines.iter().try_for_each(|line| output.line(line))?;
    output.flush()
}

fn is_return(definition: &Definition) -> bool {
    matches!(definition.kind, Kind::Return { .. })
}

fn placed(tally: &Tally) -> String {
    if tally.placed.is_empty() { "nowhere: its object was never mapped".into() } else { tally.placed.join("; ") }
}

fn table(output: &Output, definitions: &[Definition], tallies: &[Tally]) -> Vec<String> {
    let cells = |(id, (definition, tally)): (usize, (&Definition, &Tally))| {
        let returns = [tally.returns, tally.unwound, tally.active()].map(|n| n.to_string());
        let [returns, unwound, active] =
            if is_return(definition) { returns } else { ["-", "-", "-"].map(String::from) };
        let counts = [tally.hits, tally.missed, tally.lost].map(|n| n.to_string());
        let [hits, missed, lost] = counts;
        ([output.event(id).0.to_owned(), hits, missed, lost, returns, unwound, active], placed(tally))
    };
    let rows: Vec<([String; 7], String)> = definitions.iter().zip(tallies).enumerate().map(cells).collect();
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

fn objects(output: &Output, definitions: &[Definition], tallies: &[Tally]) -> Vec<String> {
    let object = |(id, (definition, tally)): (usize, (&Definition, &Tally))| {
        let (event, group) = output.event(id);
        let mut summary = json!({
            "event": event, "group": group, "hits": tally.hits, "missed": tally.missed, "lost": tally.lost,
            "placed": tally.placed,
        });
        if let (true, Some(map)) = (is_return(definition), summary.as_object_mut()) {
            map.insert("returns".into(), tally.returns.into());
            map.insert("unwound".into(), tally.unwound.into());
            map.insert("active".into(), tally.active().into());
        }
        json!({ "summary": summary }).to_string()
    };
    definitions.iter().zip(tallies).enumerate().map(object).collect()
}
