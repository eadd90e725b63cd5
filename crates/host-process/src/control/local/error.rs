//! Why control of the own process refuses.

use super::super::HostError;

/// A refusal, or a failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This process is a forked child of the one that has control.
    #[error(
        "process {pid} was forked from process {owner}, which has started the probes: a child cannot change them (it would \
         change its parent's)"
    )]
    Forked {
        /// This process.
        pid: i32,
        /// The process that has control.
        owner: i32,
    },
    /// The calling thread is in a probe's handler.
    #[error("a probe's handler cannot register or remove probes: it may have interrupted the thread that is doing so")]
    InHandler,
    /// A tool has placed probes here.
    #[error("this process is being traced by a `kprobe` right now: two cannot plant probes in one program")]
    Traced,
    /// Threads that block `SIGTRAP`, where nobody can change it but themselves.
    #[error(
        "these threads block SIGTRAP, and the first breakpoint would end the process: {threads}. Start the probes before \
         these threads, or let them unblock it"
    )]
    Blocked {
        /// Their names and ids.
        threads: String,
    },
    /// A line that is no definition.
    #[error("{0}")]
    Syntax(String),
    /// The definition's place cannot be found.
    #[error("{0}")]
    Place(String),
    /// A probe of this name is there already.
    #[error("there is a probe `{name}` already: remove it first, or give another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// No probe of this name.
    #[error("there is no probe `{name}`")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The function is in `.kprobes.text`.
    #[error("{address:#x} is in `{name}`, which forbids probes on itself (section .kprobes.text)")]
    Forbidden {
        /// The address.
        address: u64,
        /// The function.
        name: String,
    },
    /// What was planted there has gone with its library, or was removed by its name.
    #[error("this probe is registered no longer")]
    Gone,
    /// More notifiers than there are places for.
    #[error("no room for more notifiers ({limit})")]
    NotifiersFull {
        /// How many there can be.
        limit: usize,
    },
    /// More probes than there are counters.
    #[error("no room for more probes ({limit})")]
    Full {
        /// How many there can be.
        limit: usize,
    },
    /// Control refused a probe.
    #[error(transparent)]
    Probe(#[from] kprobes::Error),
    /// The process cannot be probed, or the kernel has refused something.
    #[error(transparent)]
    Host(HostError),
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Probe(error) => Self::Probe(error),
            other => Self::Host(other),
        }
    }
}

/// What control of the own process returns.
pub(crate) type Result<T> = core::result::Result<T, Error>;
