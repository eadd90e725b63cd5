//! What a trace is asked, and what it tells.

use super::objects::Objects;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// What is traced, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Follow forks and execs.
    pub follow: bool,
    /// Count only, record nothing.
    pub count: bool,
    /// Place probes by breakpoints, also where there could be jumps.
    pub breakpoints: bool,
}

/// How far the placing of patterns is, for whoever waits for it in another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Functions that are placed, or refused.
    pub placed: AtomicUsize,
    /// Functions that were found until now.
    pub wanted: AtomicUsize,
}

/// An event from a traced process.
#[derive(Clone, Debug)]
pub struct Record {
    /// The event: see [`Trace::event`](super::Trace::event).
    pub event: usize,
    /// Time stamp counter.
    pub time: u64,
    /// Thread.
    pub tid: i32,
    /// Process.
    pub pid: i32,
    /// Processor.
    pub cpu: u32,
    /// Whether it is a return.
    pub is_return: bool,
    /// Address of the probe; for a return, of the function.
    pub address: u64,
    /// For a return, the address it goes to.
    pub caller: u64,
    /// What was fetched.
    pub payload: Vec<u8>,
    /// The thread's name.
    pub comm: String,
    /// What was mapped in the process, for symbols.
    pub objects: Arc<Objects>,
}

/// Something to tell the user while a trace runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An event cannot be placed in a process.
    Failed {
        /// Index of its definition.
        event: usize,
        /// The process.
        pid: i32,
        /// The reason.
        why: String,
        /// It was found out before the program's first instruction: nothing is placed, and a command that was started
        /// for this trace has been ended.
        fatal: bool,
    },
    /// A module cannot be inserted into a process.
    Refused {
        /// The process.
        pid: i32,
        /// The reason.
        why: String,
        /// As above: a command that was started for this trace has been ended.
        fatal: bool,
    },
    /// A pattern was placed in an object, and not all functions could be.
    Spread {
        /// Index of its definition.
        event: usize,
        /// How many, and why.
        what: String,
    },
    /// Anything else.
    Note(String),
}
