//! Every corpus line and many random cases: in place against emulated and out of line, on this
//! machine's processor.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use testkit::corpus;
use testkit::differential::{Checked, CheckedWindow, Oracle};
use testkit::generate::{Generator, cases, repeatable, seed};

/// The most differences that are shown.
const SHOWN: usize = 8;

fn templates() -> Vec<Vec<u8>> {
    let files = corpus::read(&corpus::folder("x86_64")).expect("the corpus is there");
    files.iter().flat_map(|file| file.entries().map(|entry| entry.bytes.clone())).collect()
}

#[test]
fn every_corpus_instruction_does_the_same_out_of_line() {
    let mut oracle = Oracle::new();
    let (mut equal, mut compared, mut differences) = (0, 0, Vec::new());
    for bytes in templates() {
        let case = corpus::case(&oracle, &bytes);
        if !repeatable(&case.instruction()) {
            continue;
        }
        match oracle.check(&case) {
            Ok(Checked::Equal { compared: n, .. }) => (equal, compared) = (equal + 1, compared + n),
            Ok(Checked::Refused(_)) => {}
            Err(difference) => differences.push(difference.to_string()),
        }
    }
    println!("{equal} instructions, {compared} comparisons");
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    assert!(equal > 200, "only {equal} corpus instructions were compared");
}

#[test]
fn random_instructions_do_the_same_out_of_line() {
    let mut oracle = Oracle::new();
    let mut generator = Generator::new(seed(), templates());
    let wanted = cases(20_000);
    let (mut equal, mut compared, mut faulted, mut refused, mut differences) = (0_u64, 0_u64, 0_u64, 0_u64, Vec::new());
    for _ in 0..wanted {
        let case = generator.case(&oracle.processor);
        match oracle.check(&case) {
            Ok(Checked::Equal { compared: n, faulted: fault }) => {
                equal += 1;
                compared += u64::from(n);
                faulted += u64::from(fault);
            }
            Ok(Checked::Refused(_)) => refused += 1,
            Err(difference) => differences.push(difference.to_string()),
        }
    }
    println!("{equal} equal ({faulted} of them faults), {compared} comparisons, {refused} refused");
    let shown: Vec<_> = differences.iter().take(SHOWN).cloned().collect();
    assert!(differences.is_empty(), "{} of {wanted} differ:\n{}", differences.len(), shown.join("\n"));
    assert!(equal > wanted / 2, "only {equal} of {wanted} cases were compared");
}

#[test]
fn random_windows_do_the_same_out_of_line() {
    let mut oracle = Oracle::new();
    let mut generator = Generator::new(seed(), templates());
    let wanted = cases(10_000);
    let (mut equal, mut compared, mut faulted, mut differences) = (0_u64, 0_u64, 0_u64, Vec::new());
    for _ in 0..wanted {
        let case = generator.window(&oracle.processor);
        match oracle.check_window(&case) {
            Ok(CheckedWindow::Equal { compared: n, faulted: fault }) => {
                equal += 1;
                compared += u64::from(n);
                faulted += u64::from(fault);
            }
            Ok(CheckedWindow::None(_) | CheckedWindow::Unwatched) => {}
            Err(difference) => differences.push(difference.to_string()),
        }
    }
    println!("{equal} windows equal ({faulted} of them faults), {compared} comparisons");
    let shown: Vec<_> = differences.iter().take(SHOWN).cloned().collect();
    assert!(differences.is_empty(), "{} of {wanted} differ:\n{}", differences.len(), shown.join("\n"));
    assert!(equal > wanted / 4, "only {equal} of {wanted} windows were compared");
}
