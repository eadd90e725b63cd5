//! What else could be used: other tools and libraries, on the same function in the same run.
//!
//! None of them is needed. One that is not installed, refuses, or fails is skipped, and its row says why. Each is asked
//! how many hits it has counted; a row whose peer cannot be asked says so.

mod bpftrace;

use std::path::Path;

use anyhow::Result;

use crate::case::{At, Case, MOV, NOP5, PUSH, Who, Work};
use crate::command::first_line;
use crate::hot::Hot;
use crate::samples::Samples;

/// Another tool or library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The kernel's uprobes, programmed in `bpftrace`.
    Bpftrace,
}

/// What a peer has to measure with.
#[derive(Debug)]
pub(crate) struct Lab<'a> {
    /// The measured program.
    pub(crate) hot: &'a Hot,
    /// Where `cargo xtask bench --peers` has put what it could install.
    pub(crate) installed: &'a Path,
}

/// The rows of peers.
pub(crate) fn cases() -> Vec<Case> {
    let case = |peer, at, work, function| Case::new(Who::Peer(peer), at, work, function);
    vec![
        case(Peer::Bpftrace, At::Entry, Work::Count, PUSH),
        case(Peer::Bpftrace, At::Entry, Work::Count, NOP5),
        case(Peer::Bpftrace, At::Entry, Work::Count, MOV),
        case(Peer::Bpftrace, At::Return, Work::Count, PUSH),
    ]
}

/// The versions of those that are here.
pub(crate) fn versions(_: &Lab<'_>) -> Vec<(String, String)> {
    let asked = [("bpftrace", first_line("bpftrace", &["--version"]))];
    asked.into_iter().filter_map(|(name, version)| Some((name.to_owned(), version?))).collect()
}

impl Peer {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
        }
    }

    /// One round of a row.
    ///
    /// # Errors
    ///
    /// If it is not here, or fails: the row is skipped.
    pub(crate) fn measure(self, case: &Case, lab: &Lab<'_>) -> Result<Samples> {
        match self {
            Self::Bpftrace => bpftrace::measure(case, lab),
        }
    }
}
