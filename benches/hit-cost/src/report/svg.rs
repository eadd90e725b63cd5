//! A chart: a bar for each row, by groups, on a logarithmic scale. Its colours follow the reader's light or dark mode.

use std::fmt::Write;

use super::Report;
use crate::case::Who;
use crate::row::Row;

const WIDTH: f64 = 960.0;
/// Where bars begin and end.
const LEFT: f64 = 430.0;
const RIGHT: f64 = 880.0;
const TOP: f64 = 56.0;
const STEP: f64 = 20.0;
const BAR: f64 = 13.0;
/// The ends of the scale, in nanoseconds.
const SCALE: (f64, f64) = (0.5, 1e6);

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#24292f}.n{font-size:11px;fill:#57606a}.g{stroke:#d0d7de}\
.floor{fill:#8c959f}.ours{fill:#0969da}.uprobe{fill:#bc4c00}.peer{fill:#8250df}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.n{fill:#9198a1}.g{stroke:#3d444d}\
.floor{fill:#6e7681}.ours{fill:#4493f8}.uprobe{fill:#db6d28}.peer{fill:#ab7df8}}";

/// The chart.
pub(crate) fn svg(report: &Report) -> String {
    let rows: Vec<_> = report.rows.iter().filter(|row| is_drawn(row)).collect();
    let height = TOP + STEP * rows.len() as f64 + 36.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>What one hit costs, in nanoseconds</title>\n<style>{STYLE}</style>\n"
    );
    out += &text(8.0, 18.0, "", "What one call of a probed function costs, in ns (cheapest burst, logarithmic)");
    out += &text(8.0, 34.0, "n", &report.machine.line());
    out += &scale(height - 30.0);
    for (row, place) in rows.into_iter().zip(0_u32..) {
        out += &bar(row, TOP + STEP * f64::from(place));
    }
    out + "</svg>\n"
}

/// Rows that a tool cannot be told to place are left to the table.
fn is_drawn(row: &Row) -> bool {
    row.min().is_some() || row.case.placement.is_none()
}

fn scale(bottom: f64) -> String {
    let mut out = String::new();
    let mut value = 1.0;
    while value <= SCALE.1 {
        let x = at(value);
        let _ = writeln!(out, "<line class=\"g\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>");
        let label = if value < 1e3 {
            format!("{value} ns")
        } else if value < 1e6 {
            format!("{} µs", value / 1e3)
        } else {
            "1 ms".into()
        };
        out += &text(x - 10.0, bottom + 16.0, "n", &label);
        value *= 10.0;
    }
    out
}

fn bar(row: &Row, y: f64) -> String {
    let mut out = text(8.0, y + BAR - 2.0, "", &label(row));
    let Some(min) = row.min() else {
        return out + &text(LEFT + 4.0, y + BAR - 2.0, "n", &shortened(&row.remark(), 80));
    };
    let class = match row.case.who {
        Who::Nobody => "floor",
        Who::Ours => "ours",
        Who::Kernel => "uprobe",
        Who::Peer(_) => "peer",
    };
    let width = (at(min) - LEFT).max(1.0);
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"><title>{}</title></rect>",
        escaped(&row.samples.placed)
    );
    let digits = usize::from(min < 100.0);
    out + &text(at(min) + 5.0, y + BAR - 2.0, "n", &format!("{min:.digits$}"))
}

/// What a bar is of. The instruction only where it is not the usual one.
fn label(row: &Row) -> String {
    let usual = row.case.function.instruction == "push rbp" || row.case.who == Who::Nobody;
    let on = if usual { String::new() } else { format!(" ({})", row.case.function.instruction) };
    shortened(&format!("{}{on}", row.case), 66)
}

fn at(value: f64) -> f64 {
    let (low, high) = SCALE;
    let part = (value.clamp(low, high).log10() - low.log10()) / (high.log10() - low.log10());
    LEFT + part * (RIGHT - LEFT)
}

fn text(x: f64, y: f64, class: &str, words: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!("<text{class} x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n", escaped(words))
}

fn shortened(words: &str, most: usize) -> String {
    if words.chars().count() <= most {
        return words.to_owned();
    }
    words.chars().take(most - 1).chain(['…']).collect()
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn ten_times_the_cost_is_the_same_distance_everywhere() {
        assert!((at(10.0) - at(1.0) - (at(1e5) - at(1e4))).abs() < 1e-9);
        assert_eq!((at(0.01), at(1e9)), (LEFT, RIGHT));
    }

    #[test]
    fn every_measured_row_has_a_bar() {
        let report = report();
        assert_eq!(svg(&report).matches("<rect").count(), report.rows.len());
    }

    #[test]
    fn what_xml_would_take_for_a_tag_is_escaped() {
        assert!(svg(&report()).contains("P &lt;1&gt;"));
    }

    #[test]
    fn both_modes_have_colours() {
        assert!(svg(&report()).contains("prefers-color-scheme:dark"));
    }
}
