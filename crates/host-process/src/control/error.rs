//! What can go wrong outside the target, said so that the user knows what to do.

use std::io;

/// A failure of control in a process.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No such process.
    #[error("no process {pid}: it does not exist (any more)")]
    NoProcess {
        /// Its id.
        pid: i32,
    },
    /// The target ended or was replaced meanwhile.
    #[error("process {pid} has ended meanwhile")]
    Gone {
        /// Its id.
        pid: i32,
    },
    /// The kernel refuses to let us at the process.
    #[error("not allowed to trace process {pid}: {why}")]
    NotPermitted {
        /// Its id.
        pid: i32,
        /// The rule.
        why: String,
    },
    /// Another tracer has it.
    #[error("process {pid} is under another tracer (process {tracer}, {name}): let that go first")]
    Traced {
        /// Its id.
        pid: i32,
        /// The tracer's id.
        tracer: i32,
        /// The tracer's name.
        name: String,
    },
    /// Another `kprobe` has it.
    #[error("process {pid} is being traced by another kprobe right now: stop that one first")]
    Busy {
        /// Its id.
        pid: i32,
    },
    /// A system call filter that would end the target.
    #[error(
        "process {pid} runs under a seccomp filter (Seccomp: {mode} in /proc/{pid}/status), which could end it for a \
         system call that a probe needs; it is left alone. Trace it from its start, before it installs the filter, or \
         run it without one"
    )]
    Seccomp {
        /// Its id.
        pid: i32,
        /// 1 strict, 2 filter.
        mode: u32,
    },
    /// A target whose return addresses the processor checks.
    #[error(
        "process {pid} runs with a shadow stack (x86_Thread_features in /proc/{pid}/status): the processor would end it at \
         the first call or return that a probe displaces"
    )]
    ShadowStack {
        /// Its id.
        pid: i32,
    },
    /// A program that is not for this machine, or no program.
    #[error(transparent)]
    Object(#[from] symbols::ObjectError),
    /// The command cannot be executed.
    #[error("cannot execute `{command}`: {why}")]
    Launch {
        /// The command.
        command: String,
        /// The reason.
        why: String,
    },
    /// A system call made in the target failed.
    #[error("{what} failed in process {pid}: {error}{hint}")]
    Remote {
        /// Its id.
        pid: i32,
        /// Which call.
        what: &'static str,
        /// The error.
        error: io::Error,
        /// What to do, with a leading separator, or nothing.
        hint: &'static str,
    },
    /// An operation of the operating system's failed.
    #[error("{what}: {error}")]
    Os {
        /// What was tried.
        what: String,
        /// The error.
        error: io::Error,
    },
    /// The agent of another version is in the target.
    #[error("process {pid} holds the agent of another version of kprobe: use that version to work with it")]
    OtherVersion {
        /// Its id.
        pid: i32,
    },
    /// A probe module that cannot be inserted, or removed.
    #[error("module {name}: {why}")]
    Module {
        /// Its name, or its file's.
        name: String,
        /// The reason.
        why: String,
    },
    /// Control refused or failed.
    #[error(transparent)]
    Probe(#[from] kprobes::Error),
    /// The target did not behave as a Linux process does.
    #[error("process {pid}: {what}")]
    Unexpected {
        /// Its id.
        pid: i32,
        /// What happened.
        what: String,
    },
}

impl HostError {
    /// Wraps an I/O error.
    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Os { what: what.into(), error }
    }
}

/// What control in a process returns.
pub type Result<T> = core::result::Result<T, HostError>;
