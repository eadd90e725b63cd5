//! Building, running and reading: what every test is made of.

pub(crate) mod disassembly;
pub(crate) mod memory;
pub(crate) mod programs;
pub(crate) mod run;
pub(crate) mod target;
pub(crate) mod trace;

use std::collections::BTreeMap;
use std::io::Write;

pub(crate) use programs::{program, python};
pub(crate) use run::{Finished, run};
pub(crate) use target::{Target, Tracer};
pub(crate) use trace::{Summary, assert_exact, trace};

/// Says, past the test runner's capture, that a test cannot run here.
pub(crate) fn skipped(why: &str) {
    // A report that cannot be written changes nothing about the test.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Leaves the test when an optional thing (already reported as skipped) is not there.
macro_rules! need {
    ($thing:expr) => {
        match $thing {
            Some(thing) => thing,
            None => return,
        }
    };
}
pub(crate) use need;

/// The counts that a program prints of itself: lines `KEY NAME=COUNT`.
pub(crate) fn counts(key: &str, output: &str) -> BTreeMap<String, u64> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.split_once('='))
        .map(|(name, count)| (name.to_owned(), count.parse().expect("a count is a number")))
        .collect()
}

/// An event name (a C identifier) for a symbol.
pub(crate) fn event_name(symbol: &str) -> String {
    symbol.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}
