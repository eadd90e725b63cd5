//! What else could be used: other tools and libraries, on the same function in the same run.
//!
//! None of them is needed. One that is not installed, refuses, or fails is skipped, and its row says why. Each is asked
//! how many hits it has counted; a row whose peer cannot be asked says so.

mod bpftrace;
mod frida;
mod gdb;
mod library;
mod ltrace;
mod lttng;
mod uftrace;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::case::{At, Case, INSTRUMENTED, MOV, NOP5, PUSH, Who, Work};
use crate::command::{self, first_line, limited};
use crate::hot::Hot;
use crate::samples::Samples;

/// Another tool or library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The kernel's uprobes, programmed in `bpftrace`.
    Bpftrace,
    /// Frida with a handler in C.
    FridaC,
    /// Frida with a handler in JavaScript.
    FridaJs,
    /// `uftrace -P`.
    Uftrace,
    /// LTTng-UST, on calls that the compiler has put in.
    Lttng,
    /// A breakpoint of `gdb`, which it ignores.
    Gdb,
    /// `ltrace -x`.
    Ltrace,
    /// The crate `detour`: another function in this one's place.
    Detour,
    /// The crate `retour`: the same.
    Retour,
    /// The crate `ilhook`: a callback with registers.
    Ilhook,
    /// The crate `kprobe`: what it does at a hit, without the trap, which it leaves to a kernel.
    KprobeCrate,
}

/// What a peer has to measure with.
#[derive(Debug)]
pub(crate) struct Lab<'a> {
    /// The measured program.
    pub(crate) hot: &'a Hot,
    /// Where `cargo xtask bench --peers` has put what it could install.
    pub(crate) installed: &'a Path,
}

impl Lab<'_> {
    /// The Python that has Frida.
    fn python(&self) -> PathBuf {
        self.installed.join("venv/bin/python")
    }
}

/// The rows of peers.
pub(crate) fn cases() -> Vec<Case> {
    let case = |peer, at, work, function| Case::new(Who::Peer(peer), at, work, function);
    let handler = |peer, at| case(peer, at, Work::Handler, PUSH);
    vec![
        handler(Peer::Detour, At::Entry),
        handler(Peer::Retour, At::Entry),
        handler(Peer::Ilhook, At::Entry),
        handler(Peer::KprobeCrate, At::Entry),
        case(Peer::Uftrace, At::Both, Work::Record(""), PUSH),
        case(Peer::Lttng, At::Both, Work::Record(""), INSTRUMENTED),
        handler(Peer::FridaC, At::Entry),
        handler(Peer::FridaC, At::Both),
        handler(Peer::FridaJs, At::Entry),
        handler(Peer::FridaJs, At::Both),
        case(Peer::Bpftrace, At::Entry, Work::Count, PUSH),
        case(Peer::Bpftrace, At::Entry, Work::Count, NOP5),
        case(Peer::Bpftrace, At::Entry, Work::Count, MOV),
        case(Peer::Bpftrace, At::Return, Work::Count, PUSH),
        case(Peer::Ltrace, At::Both, Work::Record(""), PUSH),
        case(Peer::Gdb, At::Entry, Work::Count, PUSH),
    ]
}

/// The versions of those that are here. Libraries have theirs in the lock files of `benches/peers`.
pub(crate) fn versions(lab: &Lab<'_>) -> Vec<(String, String)> {
    let asked = ["bpftrace", "uftrace", "lttng", "ltrace", "gdb"].map(|name| (name, first_line(name, &["--version"])));
    let frida = command::text(limited(lab.python()).args(["-c", "import frida; print(frida.__version__)"])).ok();
    let programs = asked.into_iter().chain([("frida", frida.map(|text| text.trim().to_owned()))]);
    let programs = programs.map(|(name, version)| (name.to_owned(), version));
    let libraries =
        ["detour", "retour", "ilhook", "kprobe"].map(|name| (format!("crate {name}"), library::version(name)));
    programs.chain(libraries).filter_map(|(name, version)| Some((name, version?))).collect()
}

impl Peer {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::FridaC => "frida, CModule",
            Self::FridaJs => "frida, JavaScript",
            Self::Uftrace => "uftrace -P",
            Self::Lttng => "lttng-ust",
            Self::Gdb => "gdb",
            Self::Ltrace => "ltrace -x",
            Self::Detour => "crate detour, function replaced",
            Self::Retour => "crate retour, function replaced",
            Self::Ilhook => "crate ilhook",
            Self::KprobeCrate => "crate kprobe, dispatch without the trap",
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
            Self::FridaC => frida::measure("c", case, lab),
            Self::FridaJs => frida::measure("js", case, lab),
            Self::Uftrace => uftrace::measure(case, lab),
            Self::Lttng => lttng::measure(case, lab),
            Self::Gdb => gdb::measure(case, lab),
            Self::Ltrace => ltrace::measure(case, lab),
            Self::Detour => library::measure("detour", case, lab),
            Self::Retour => library::measure("retour", case, lab),
            Self::Ilhook => library::measure("ilhook", case, lab),
            Self::KprobeCrate => library::measure("kprobe", case, lab),
        }
    }
}
