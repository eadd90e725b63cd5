//! The two kernels side by side.

use super::figures::Figures;
use crate::row::Row;

/// A line of the table. A cost is in instructions, alone and in company.
#[derive(Debug)]
pub(super) struct Line {
    probe: String,
    /// The probed instruction, and how it takes its effect.
    on: String,
    placed: String,
    ours: [Option<f64>; 2],
    linux: Option<Beside>,
    others: u64,
}

/// What stands beside ours.
#[derive(Debug)]
struct Beside {
    placed: &'static str,
    costs: [Option<f64>; 2],
    /// What ours shall not exceed: Linux's cost in the release that the goal was set by.
    goal: Option<f64>,
}

/// Linux 6.1's costs, of a stepped kprobe, an emulated one, and a return probe: what is to be undercut.
const STEPPED: f64 = 535.0;
const EMULATED: f64 = 284.0;
const RETURN: f64 = 769.0;
/// Its optimized probes, and return probes that are entered by a jump.
const OPTIMIZED: f64 = 102.0;
const OPTIMIZED_RETURN: f64 = 336.0;

/// How Linux executes the first instruction of its functions: it emulates what changes the instruction pointer.
fn linux_placement(on: &str) -> &'static str {
    if matches!(on, "jmp" | "call") { "emulated" } else { "stepped" }
}

fn goal(probe: &str, placed: &str) -> Option<f64> {
    match (probe, placed) {
        ("pre", "stepped") => Some(STEPPED),
        ("pre", "emulated") => Some(EMULATED),
        ("return", "stepped") => Some(RETURN),
        ("pre", "optimized") => Some(OPTIMIZED),
        ("return", "optimized") => Some(OPTIMIZED_RETURN),
        _ => None,
    }
}

/// What a probe costs in Linux: which one, on what, planted how, beside how many others.
type Linux<'a> = &'a dyn Fn(&str, &str, &str, u64) -> Option<f64>;

/// How Linux's figures call probes that stay breakpoints, and those that become jumps.
const BREAKPOINT: &str = "int3";
const JUMP: &str = "jump";

/// A line for each row of ours.
pub(super) fn lines(ours: &Figures, linux: Linux<'_>) -> Vec<Line> {
    let company = ours.company();
    let alone = ours.rows.iter().filter(|row| row.others == 0);
    alone
        .map(|row| Line {
            probe: row.probe.clone(),
            on: row.on.clone(),
            placed: row.placed.clone(),
            ours: [Some(row.cost()), ours.with_others(row, company).map(Row::cost)],
            linux: beside(row, linux, company),
            others: company,
        })
        .collect()
}

/// Linux's row for ours, and the goal, which needs no Linux.
fn beside(row: &Row, linux: Linux<'_>, company: u64) -> Option<Beside> {
    if row.placed == "jump" {
        return column(row, linux, company, JUMP, "optimized");
    }
    let placed = linux_placement(&row.on);
    // Where Linux emulates, only our emulation is its like.
    if placed == "emulated" && row.placed != placed {
        return None;
    }
    column(row, linux, company, BREAKPOINT, placed)
}

fn column(row: &Row, linux: Linux<'_>, company: u64, planted: &str, placed: &'static str) -> Option<Beside> {
    let cost = |others| linux(&row.probe, &row.on, planted, others);
    let (costs, goal) = ([cost(0), cost(company)], goal(&row.probe, placed));
    (costs[0].is_some() || goal.is_some()).then_some(Beside { placed, costs, goal })
}

/// The cells of a line.
fn cells(line: &Line) -> [String; 11] {
    let number = |n: Option<f64>| n.map_or_else(String::new, |n| format!("{n:.1}"));
    let linux = line.linux.as_ref();
    let theirs = |i: usize| linux.and_then(|l| l.costs[i]);
    let ratio = |i: usize| {
        let both = line.ours[i].zip(theirs(i));
        both.map_or_else(String::new, |(ours, theirs)| format!("{:.2}", ours / theirs))
    };
    [
        line.probe.clone(),
        line.on.clone(),
        line.placed.clone(),
        number(line.ours[0]),
        number(line.ours[1]),
        linux.filter(|l| l.costs[0].is_some()).map_or("", |l| l.placed).to_owned(),
        number(theirs(0)),
        number(theirs(1)),
        ratio(0),
        ratio(1),
        linux.and_then(|l| l.goal).map_or_else(String::new, |goal| format!("{goal:.0}")),
    ]
}

fn headings(lines: &[Line]) -> [String; 11] {
    let company = format!("+{}", lines.first().map_or(0, |line| line.others));
    ["probe", "on", "placed", "ours", &company, "Linux", "alone", &company, "ratio", &company, "goal"]
        .map(str::to_owned)
}

/// Which columns hold numbers.
const NUMBERS: [bool; 11] = [false, false, false, true, true, false, true, true, true, true, true];

/// How many rows are cheaper than Linux's, alone and in company.
fn summary(lines: &[Line]) -> String {
    let compared = lines.iter().filter_map(|line| {
        let [Some(alone), Some(company)] = line.linux.as_ref()?.costs else { return None };
        Some((line, line.ours[0]? < alone && line.ours[1]? < company))
    });
    let (better, worse): (Vec<_>, Vec<_>) = compared.partition(|&(_, better)| better);
    let names = worse.iter().map(|(l, _)| format!("{} on {}, {}", l.probe, l.on, l.placed)).collect::<Vec<_>>();
    let sentence = format!("Fewer instructions than Linux in {} of {} rows", better.len(), better.len() + worse.len());
    if names.is_empty() { format!("{sentence}.") } else { format!("{sentence}; not in: {}.", names.join("; ")) }
}

/// What the columns mean.
fn notes(lines: &[Line], linux: Option<&str>) -> Vec<String> {
    let company = lines.first().map_or(0, |line| line.others);
    let mut notes = vec![
        format!("Instructions that a probe adds to a call: alone, and with {company} other addresses probed."),
        "Goal: what Linux 6.1 was measured to take, which is to be undercut.".to_owned(),
    ];
    if let Some(kernel) = linux {
        notes.insert(
            1,
            format!("Linux {kernel}: its probes by breakpoint, stepped or emulated, and optimized beside our jumps."),
        );
        notes.insert(2, "A return probe counts here; Linux's has a handler that counts.".to_owned());
        notes.push(summary(lines));
    }
    notes
}

/// An aligned table.
pub(super) fn text(lines: &[Line], linux: Option<&str>) -> String {
    let rows: Vec<_> = std::iter::once(headings(lines)).chain(lines.iter().map(cells)).collect();
    let widths: Vec<usize> =
        (0..NUMBERS.len()).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).zip(NUMBERS);
        let padded = cells.map(
            |((cell, &width), number)| {
                if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            },
        );
        text += padded.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text.push('\n');
    notes(lines, linux).iter().for_each(|note| text += &format!("{note}\n"));
    text
}

/// The same for a page.
pub(super) fn markdown(lines: &[Line], linux: Option<&str>) -> String {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = row(&headings(lines));
    text += &row(&NUMBERS.map(|number| if number { "---:" } else { "---" }.to_owned()));
    lines.iter().for_each(|line| text += &row(&cells(line)));
    text.push('\n');
    text + &notes(lines, linux).join(" ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "\
        row|pre|lea|boosted|0|10|100|2950\n\
        row|pre|jmp|boosted|0|10|100|2950\n\
        row|recorded|jmp|emulated|0|10|100|6000\n\
        row|pre|lea|boosted|1000|10|100|2960\n\
        row|pre|jmp|boosted|1000|10|100|2960\n\
        row|recorded|jmp|emulated|1000|10|100|6010\n";

    fn ours() -> Figures {
        Figures::parse(OURS).unwrap()
    }

    /// Linux's cost of the one row that it has.
    fn linux(alone: f64) -> impl Fn(&str, &str, &str, u64) -> Option<f64> {
        move |probe, on, planted, others| {
            ((probe, on, planted) == ("pre", "lea", "int3")).then_some(alone + others as f64 / 10.0)
        }
    }

    #[test]
    fn a_row_stands_beside_linuxs_on_the_same_instruction() {
        let text = text(&lines(&ours(), &linux(535.0)), Some("6.1"));
        let fields: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let wanted = ["pre", "lea", "boosted", "285.0", "286.0", "stepped", "535.0", "635.0", "0.53", "0.45", "535"];
        assert_eq!(fields, wanted);
    }

    #[test]
    fn what_linux_emulates_is_compared_with_emulation_only() {
        let markdown = markdown(&lines(&ours(), &|_, _, _, _| Some(284.0)), Some("6.1"));
        assert!(markdown.contains("| pre | jmp | boosted | 285.0 | 286.0 |  |  |  |  |  |  |\n"), "{markdown}");
    }

    #[test]
    fn without_linux_the_goal_remains() {
        let markdown = markdown(&lines(&ours(), &|_, _, _, _| None), None);
        assert!(markdown.contains("| pre | lea | boosted | 285.0 | 286.0 |  |  |  |  |  | 535 |\n"), "{markdown}");
    }

    #[test]
    fn the_summary_names_the_rows_that_are_not_better() {
        assert_eq!(summary(&lines(&ours(), &linux(535.0))), "Fewer instructions than Linux in 1 of 1 rows.");
        assert_eq!(
            summary(&lines(&ours(), &linux(285.0))),
            "Fewer instructions than Linux in 0 of 1 rows; not in: pre on lea, boosted."
        );
    }
}
