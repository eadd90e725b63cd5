//! The corpus says what the crate and the processor say. `BLESS=1` writes it anew.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use testkit::corpus::{self, Line};
use testkit::differential::Oracle;

/// An instruction that this machine's processor does not have, or the one that blessed the corpus
/// had not.
fn other_processor(recorded: &str, found: &str) -> bool {
    (recorded == "fault SIGILL") != (found == "fault SIGILL")
}

#[test]
fn corpus_columns_are_what_this_machine_says() {
    let mut oracle = Oracle::new();
    let bless = std::env::var_os("BLESS").is_some();
    let (mut cases, mut differences) = (0, Vec::new());
    for mut file in corpus::read(&corpus::folder("x86_64")).unwrap() {
        for line in &mut file.lines {
            let Line::Entry(entry) = line else { continue };
            cases += 1;
            let columns = corpus::columns(&mut oracle, &entry.bytes);
            let skipped = other_processor(&entry.columns[2], &columns[2]);
            if !bless && (columns[..2] != entry.columns[..2] || (columns[2] != entry.columns[2] && !skipped)) {
                differences.push(format!("{:02x?}: {:?}, corpus {:?}", entry.bytes, columns, entry.columns));
            }
            entry.columns = columns;
        }
        if bless {
            corpus::write(&file).unwrap();
        }
    }
    println!("{cases} cases");
    assert!(cases >= 250, "{cases} cases");
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
