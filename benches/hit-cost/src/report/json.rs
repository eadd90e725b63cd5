//! All there is, as JSON.

use serde_json::{Value, json};

use super::Report;
use crate::case::{Beside, Placement};
use crate::row::{Missing, Row, to_floor, to_ours, to_trap};

/// All there is.
pub(crate) fn json(report: &Report) -> Value {
    let rows: Vec<_> = report.rows.iter().map(|each| row(each, &report.rows)).collect();
    let ratios = report.comparisons.iter().map(|c| json!({ "what": c.what, "ratio": c.ratio }));
    let checks = report.checks.iter().map(crate::checks::Check::json);
    json!({
        "machine": report.machine.json(), "rows": rows, "ratios": ratios.collect::<Vec<_>>(),
        "checks": checks.collect::<Vec<_>>(),
    })
}

fn row(row: &Row, rows: &[Row]) -> Value {
    let (others, threads) = match row.case.beside {
        Beside::Nothing => (0, 1),
        Beside::Probes(number) => (number, 1),
        Beside::Thread => (0, 2),
    };
    let (skipped, failed) = match &row.missing {
        None => (None, None),
        Some(Missing::Skipped(why)) => (Some(why), None),
        Some(Missing::Failed(why)) => (None, Some(why)),
    };
    json!({
        "who": row.case.who.name(), "probe": row.case.to_string(), "function": row.case.function.symbol,
        "on": row.case.function.instruction, "told": row.case.placement.map(Placement::word),
        "placed": row.samples.placed, "depth": row.case.depth, "others": others, "threads": threads,
        "bursts": row.samples.costs.len(), "min_ns": row.min(), "median_ns": row.median(),
        "to_floor": to_floor(row, rows), "to_trap": to_trap(row, rows), "to_ours": to_ours(row, rows),
        "calls": row.samples.calls, "hits": row.samples.hits, "lost": row.samples.lost,
        "skipped": skipped, "failed": failed,
    })
}
