//! What came out: rows of the table at the end, and findings.

use crate::Stage;

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it must be.
    Ok,
    /// Not as it must be; the findings say what.
    Wrong,
    /// Not as one would like, and written down as a limit: no finding.
    Limit,
    /// Not run, for this reason.
    Skipped,
}

#[derive(Clone, Debug)]
struct Row {
    part: &'static str,
    case: String,
    verdict: Verdict,
    figures: String,
}

/// All that came out.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    findings: Vec<String>,
}

impl Report {
    /// Whether nothing was wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.rows.iter().all(|row| row.verdict != Verdict::Wrong)
    }

    /// A line of the table, printed at once too.
    pub(crate) fn row(&mut self, part: &'static str, case: &str, verdict: Verdict, figures: String) {
        let row = Row { part, case: case.to_owned(), verdict, figures };
        println!("{}", row.line());
        self.rows.push(row);
    }

    /// Something that is wrong, with all that is needed to see it again.
    pub(crate) fn finding(&mut self, stage: &Stage, case: &str, text: String) {
        let text = format!("FINDING in {case} (SEED={}): {text}", stage.seed);
        println!("{text}");
        self.findings.push(text);
    }

    /// A row and, if it is wrong, a finding.
    pub(crate) fn case(&mut self, stage: &Stage, part: &'static str, case: &str, outcome: Result<String, String>) {
        match outcome {
            Ok(figures) => self.row(part, case, Verdict::Ok, figures),
            Err(why) => {
                self.row(part, case, Verdict::Wrong, String::new());
                self.finding(stage, case, why);
            }
        }
    }

    /// A control: `wrong` is what was found wrong in a case that is wrong on purpose.
    pub(crate) fn control(&mut self, stage: &Stage, part: &'static str, case: &str, wrong: Result<(), String>) {
        let case = format!("control: {case}");
        match wrong {
            Err(why) => {
                let first = why.lines().next().unwrap_or_default().chars().take(100).collect::<String>();
                self.row(part, &case, Verdict::Ok, format!("noticed: {first}"));
            }
            Ok(()) => {
                self.row(part, &case, Verdict::Wrong, String::new());
                self.finding(stage, &case, "what is wrong on purpose went unnoticed".into());
            }
        }
    }

    /// The table, and the findings again.
    pub(crate) fn print(&self, seed: u64) {
        println!("\n== Summary (SEED={seed})");
        self.rows.iter().for_each(|row| println!("{}", row.line()));
        let count = |verdict: Verdict| self.rows.iter().filter(|row| row.verdict == verdict).count();
        println!(
            "{} ok, {} wrong, {} limits, {} skipped, {} findings",
            count(Verdict::Ok),
            count(Verdict::Wrong),
            count(Verdict::Limit),
            count(Verdict::Skipped),
            self.findings.len()
        );
        self.findings.iter().for_each(|finding| println!("\n{finding}"));
    }
}

impl Row {
    fn line(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Wrong => "WRONG",
            Verdict::Limit => "limit",
            Verdict::Skipped => "SKIPPED",
        };
        format!("{:<12} {:<44} {verdict:<7} {}", self.part, self.case, self.figures)
    }
}
