//! What the agent and the tool share about probe modules.
//!
//! All of it lies in [`Home`](super::Home): it survives the tool, and `fork` copies it. The tool writes the table while
//! it holds a thread or nobody uses an entry; the agent changes an entry's state only to switch a module off.

use super::{ACTIVE, EVENTS};
use hit::Counters;
use kprobes::raw::EXPORTS;
use sync::primitive::{AtomicU32, AtomicU64};

/// Modules in a process at once.
pub const MODULES: usize = 64;
/// Probes of modules in a process at once. Their counters have the ids from [`FIRST_ID`] on.
pub const PROBES: usize = 4096;
/// The id of the first probe's counters: those before are events'.
pub const FIRST_ID: u32 = EVENTS as u32;
/// Bytes of a module's name (Linux: `MODULE_NAME_LEN`).
pub const NAME_BYTES: usize = 56;
/// Words of the log.
pub const LOG_WORDS: usize = 1 << 15;
/// Bytes of one message in the log; what is longer is cut.
pub const MESSAGE_BYTES: usize = 1024;

/// States of an [`Entry`].
pub mod state {
    /// Nobody's.
    pub const FREE: u32 = 0;
    /// Its `init` has not ended.
    pub const LOADING: u32 = 1;
    /// It works.
    pub const LIVE: u32 = 2;
    /// Its probes are off; a thread may still be in one of its handlers, so its memory stays.
    pub const GOING: u32 = 3;
}

/// Values of [`Entry::off`].
pub mod off {
    /// Its handlers may run.
    pub const NOT: u32 = 0;
    /// A handler has faulted.
    pub const FAULTED: u32 = 1;
    /// The process has restricted its own system calls.
    pub const SILENT: u32 = 2;
}

/// Tags of records in the [`Log`].
pub mod log {
    /// The bits of the module's number + 1.
    pub const OWNER: u64 = 0xffff;
    /// A handler has faulted: the bytes are three words, the signal, the instruction's distance from the module's
    /// beginning, and the address that the fault was about.
    pub const FAULT: u64 = 1 << 16;
}

/// What the tool is asked by a module: the first argument of the agent's `agent_hypercall`.
pub mod call {
    /// `kprobes_register`.
    pub const REGISTER: u64 = 1;
    /// `kprobes_unregister`.
    pub const UNREGISTER: u64 = 2;
    /// `kprobes_enable`.
    pub const ENABLE: u64 = 3;
    /// `kprobes_symbol`.
    pub const SYMBOL: u64 = 4;
}

/// A module. Its number is its index.
#[repr(C)]
#[derive(Debug)]
pub struct Entry {
    /// One of the [`state`]s; written by the tool.
    pub state: AtomicU32,
    /// Why none of its handlers may be called any more, one of [`off`]'s; written by the agent.
    pub off: AtomicU32,
    /// Bytes of the name.
    pub name_length: AtomicU64,
    /// Its name.
    pub name: [AtomicU64; NAME_BYTES / 8],
    /// Its address.
    pub base: AtomicU64,
    /// Bytes of it.
    pub size: AtomicU64,
    /// The address of its `exit`.
    pub exit: AtomicU64,
    /// The first of its [`Area`]s, or 0.
    pub areas: AtomicU64,
    /// Bytes of its code, at its beginning.
    pub text: AtomicU64,
    /// Not 0: it ends with the trace that has inserted it, and prints to the trace's [`Bank`](super::Bank), which
    /// survives the process.
    pub guest: AtomicU64,
}

/// How the data areas of a module's return probes begin, which are mapped as they are needed.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Area {
    /// The next area's address, or 0.
    pub next: AtomicU64,
    /// Bytes that are mapped.
    pub size: AtomicU64,
}

/// What a thread that calls handlers notes of the last one, for each place in [`Home::active`](super::Home::active).
#[repr(C)]
#[derive(Debug)]
pub struct Note {
    /// The owner of its probe: a module's number + 1, or 0.
    pub owner: AtomicU64,
    /// The signal of its fault.
    pub signal: AtomicU64,
    /// The instruction that has raised it.
    pub instruction: AtomicU64,
    /// The address that it was about.
    pub address: AtomicU64,
}

/// Messages, in a [`sync::Ring`]. A record's tag is the module's number + 1 (see [`log`]); its words are the time (nanoseconds of
/// `CLOCK_MONOTONIC`), the thread, the number of bytes, and the bytes.
#[repr(C)]
#[derive(Debug)]
pub struct Log {
    /// Where producers reserve.
    pub head: AtomicU64,
    /// Where a tool reads.
    pub tail: AtomicU64,
    /// Messages that found no room.
    pub lost: AtomicU64,
    /// The words.
    pub data: [AtomicU64; LOG_WORDS],
}

/// All about modules.
#[repr(C)]
#[derive(Debug)]
pub struct Modules {
    /// How many entries are in use: while there are any, handlers run in a process that no tool counts.
    pub present: AtomicU32,
    /// The module whose `init` or `exit` the held thread runs: its number + 1.
    pub running: AtomicU32,
    /// Address of the agent's `agent_run`.
    pub run: AtomicU64,
    /// Address of the agent's `agent_hypercall`.
    pub hypercall: AtomicU64,
    /// Signals whose handlers' masks the tool has taken `SIGTRAP` out of, as a set: to be undone with the last module.
    pub cleaned: AtomicU64,
    /// Addresses of [`EXPORTS`].
    pub exports: [AtomicU64; EXPORTS.len()],
    /// The modules.
    pub table: [Entry; MODULES],
    /// What their probes count.
    pub counters: [Counters; PROBES],
    /// Which handler a thread has called last.
    pub notes: [Note; ACTIVE],
    /// What they have printed.
    pub log: Log,
}
