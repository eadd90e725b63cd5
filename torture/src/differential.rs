//! Instructions out of line against the same in place, on this machine's processor.
//!
//! What stands for an instruction (its operation, its copy in a slot near and far) and for several (the copy in a
//! detour, from each boundary) must do what the processor does with them where they are: registers, flags, vectors,
//! memory, and faults. Edges come first, each once ([`testkit::edges`]), alone and as the beginning, the middle and the
//! end of a window; then chance, from the seed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use isa::x86::{Op, Privilege, analyse, window};
use testkit::corpus;
use testkit::differential::{Case, Checked, CheckedWindow, Oracle, check_operation};
use testkit::edges::edges;
use testkit::generate::{Generator, repeatable};
use testkit::processor::SLOT;

use crate::Stage;
use crate::report::{Report, Verdict};

const PART: &str = "differential";

/// How many cases, short and long; time is up before, or not.
const CASES: (u64, u64) = (4_000, 1_500_000);

/// The most differences that are shown of one kind.
const SHOWN: usize = 4;

/// What was compared.
#[derive(Debug, Default)]
struct Counts {
    cases: u64,
    compared: u64,
    faulted: u64,
    none: u64,
    differences: Vec<String>,
}

impl Counts {
    fn instruction(&mut self, oracle: &mut Oracle, case: &Case) {
        self.cases += 1;
        match oracle.check(case) {
            Ok(Checked::Equal { compared, faulted }) => self.equal(compared, faulted),
            Ok(Checked::Refused(_)) => self.none += 1,
            Err(difference) => self.differences.push(difference.to_string()),
        }
    }

    fn window(&mut self, oracle: &mut Oracle, case: &Case) {
        self.cases += 1;
        match oracle.check_window(case) {
            Ok(CheckedWindow::Equal { compared, faulted }) => self.equal(compared, faulted),
            Ok(CheckedWindow::None(_) | CheckedWindow::Unwatched) => self.none += 1,
            Err(difference) => self.differences.push(difference.to_string()),
        }
    }

    fn equal(&mut self, compared: u32, faulted: bool) {
        self.compared += u64::from(compared);
        self.faulted += u64::from(faulted);
    }

    fn report(self, stage: &Stage, report: &mut Report, case: &str) {
        let Self { cases, compared, faulted, none, differences } = self;
        let figures = format!(
            "{cases} cases, {compared} comparisons, {faulted} with faults, {none} refused or not to be watched, {} differ",
            differences.len()
        );
        let verdict = if differences.is_empty() { Verdict::Ok } else { Verdict::Wrong };
        report.row(PART, case, verdict, figures);
        differences.into_iter().take(SHOWN).for_each(|difference| report.finding(stage, case, difference));
    }
}

/// Runs the part.
///
/// # Errors
///
/// If there is no corpus.
pub(crate) fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let mut oracle = Oracle::new();
    controls(stage, report, &mut oracle);
    at_edges(stage, report, &mut oracle);
    let files = corpus::read(&corpus::folder("x86_64")).context("the corpus")?;
    let templates: Vec<Vec<u8>> = files.iter().flat_map(|file| file.entries().map(|e| e.bytes.clone())).collect();
    let seed = stage.random(PART).next();
    let time = stage.effort.time / 3;
    let wanted = if stage.effort.short { CASES.0 } else { CASES.1 };
    for windows in [false, true] {
        let mut generator = Generator::new(seed, templates.clone());
        let mut counts = Counts::default();
        let end = Instant::now() + time;
        while counts.cases < wanted && Instant::now() < end && counts.differences.len() < 100 {
            if windows {
                let case = generator.window(&oracle.processor);
                counts.window(&mut oracle, &case);
            } else {
                let case = generator.case(&oracle.processor);
                counts.instruction(&mut oracle, &case);
            }
        }
        counts.report(stage, report, if windows { "windows, by chance" } else { "instructions, by chance" });
    }
    Ok(())
}

/// What windows are filled with: nothing that would hide what the edge has done.
const BEFORE: &[u8] = &[0x48, 0x8D, 0x40, 0x01];
const BEHIND: &[u8] = &[0x4C, 0x8D, 0x6D, 0x07, 0x48, 0x8D, 0x52, 0x01, 0x90];

fn at_edges(stage: &Stage, report: &mut Report, oracle: &mut Oracle) {
    let mut classes: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut windows = Counts::default();
    let mut random = stage.random("edges");
    let begin = Instant::now();
    let limit = if stage.effort.short { stage.effort.time / 3 } else { Duration::from_secs(3600) };
    for (class, case) in edges(oracle) {
        // A sample of it, for CI.
        if stage.effort.short && !random.one_in(8) || begin.elapsed() > limit || !repeatable(&case.instruction()) {
            continue;
        }
        classes.entry(class).or_default().instruction(oracle, &case);
        if case.instruction().has_rep_prefix() || case.instruction().has_repne_prefix() {
            continue;
        }
        let first = [&case.code, BEHIND].concat();
        let second = [BEFORE, &case.code, BEHIND].concat();
        for code in [first, second] {
            windows.window(oracle, &Case { code, ..case.clone() });
        }
    }
    for (class, counts) in classes {
        counts.report(stage, report, &format!("edges: {class}"));
    }
    windows.report(stage, report, "edges: in windows");
}

/// Oracles that are fed with something wrong.
fn controls(stage: &Stage, report: &mut Report, oracle: &mut Oracle) {
    let text = |outcome: Result<(), testkit::differential::Difference>| outcome.map_err(|d| d.to_string());
    // ret 8, as if it were ret.
    let case = corpus::case(oracle, &[0xC2, 8, 0]);
    let expected = oracle.in_place(&case);
    let wrong = check_operation(&case, &expected, &Op::ret(3, 0)).map(|_| ());
    report.control(stage, PART, "an operation that releases too little", text(wrong));
    for (name, code, at) in [
        ("a copy with another opcode", &[0x48, 0x01, 0xC8][..], 1),
        ("a copy with another displacement", &[0x48, 0x8B, 0x05, 0, 0, 0, 0x10], 4),
        ("a copy with another vector register", &[0x0F, 0x57, 0xC1], 2),
    ] {
        let case = corpus::case(oracle, code);
        let expected = oracle.in_place(&case);
        let Some(image) = analyse(code, case.addr, Privilege::User).ok().and_then(|a| a.image(SLOT.addr).ok()) else {
            continue;
        };
        let mut copy = image.as_slice().to_vec();
        copy[at] ^= 0x28;
        let wrong = oracle
            .check_code(&case, &expected, (SLOT.addr, &copy), |offset| (image.original(offset), image.pushed(offset)));
        report.control(stage, PART, name, text(wrong));
    }
    // push rbp; mov rbp, rsp; sub rsp, 16
    let code = [0x55, 0x48, 0x89, 0xE5, 0x48, 0x83, 0xEC, 0x10];
    let case = corpus::case(oracle, &code);
    let expected = oracle.in_place(&case);
    if let Some(body) = window(&code, case.addr, case.addr, Privilege::User).ok().and_then(|w| w.body(SLOT.addr).ok()) {
        let mut copy = body.code.clone();
        copy[7] ^= 0x20;
        let wrong = oracle.check_code(&case, &expected, (SLOT.addr, &copy), |_| (case.addr, 0));
        report.control(stage, PART, "a detour with another operand", text(wrong));
    }
}
