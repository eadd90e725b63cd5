//! Why a probe was not registered.

use alloc::string::String;

/// A refusal, or a failure of the host's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address is not code that the host knows.
    #[error("{address:#x} is not in the target's code: no executable part of it is there")]
    NotText {
        /// The address.
        address: u64,
    },
    /// No function is known to hold the address, so no instruction boundary can be proved.
    #[error(
        "no function is known around {address:#x} (no symbol, no unwind information), so it cannot be proved that an \
         instruction begins there"
    )]
    UnknownFunction {
        /// The address.
        address: u64,
    },
    /// The address is inside an instruction.
    #[error(
        "{address:#x} is no instruction boundary: it is inside the instruction at {before:#x}; the next one begins at \
         {after:#x}"
    )]
    NotBoundary {
        /// The address.
        address: u64,
        /// Where the instruction begins.
        before: u64,
        /// Where the next one begins.
        after: u64,
    },
    /// The address is in the engine's own code or data.
    #[error("{address:#x} is part of kprobes itself: a probe there would hit itself")]
    Ours {
        /// The address.
        address: u64,
    },
    /// A breakpoint of somebody else's stands there.
    #[error("a breakpoint that is not ours stands at {address:#x} (a debugger's?): remove it first")]
    ForeignBreakpoint {
        /// The address.
        address: u64,
    },
    /// The code is not what it was.
    #[error(
        "the code at {address:#x} is not what it was when it was loaded: the target has changed it, or its file was \
         replaced meanwhile"
    )]
    Changed {
        /// The address.
        address: u64,
    },
    /// Probes are not placed by jumps here.
    #[error("no detour can be had near {address:#x}: this host has none")]
    NoDetours {
        /// The address.
        address: u64,
    },
    /// The instruction cannot be displaced.
    #[error("the instruction at {address:#x} cannot be probed: {why}")]
    Refused {
        /// The address.
        address: u64,
        /// The rule.
        why: String,
    },
    /// A return probe that cannot see the returns.
    #[error("the returns of the function at {address:#x} cannot be probed: {why}")]
    NoReturns {
        /// The address.
        address: u64,
        /// The reason.
        why: String,
    },
    /// A return probe or a jprobe that is not at a function's first instruction.
    #[error(
        "{address:#x} is not the first instruction of a function ({function:#x} is): a return probe, or a jprobe, begins \
         there"
    )]
    NotEntry {
        /// The address.
        address: u64,
        /// The function's start.
        function: u64,
    },
    /// More return probes at one address than an instance can keep apart.
    #[error("more than 32 return probes at {address:#x}")]
    TooManyReturns {
        /// The address.
        address: u64,
    },
    /// This build of kprobes cannot do it.
    #[error("this kprobes was built without {what} (feature `{feature}`)")]
    LeftOut {
        /// What it cannot do.
        what: &'static str,
        /// The Cargo feature with which it could.
        feature: &'static str,
    },
    /// A table is full.
    #[error("no room for more {what} ({limit})")]
    Full {
        /// Which.
        what: &'static str,
        /// How many there can be.
        limit: usize,
    },
    /// The host could not do it.
    #[error("{0}")]
    Host(String),
}

impl Error {
    /// The kind of reason, in a few words: for who counts refusals.
    ///
    /// ```
    /// use kprobes::Error;
    ///
    /// let refused = [Error::Ours { address: 0x1000 }, Error::NotText { address: 0x2000 }];
    /// assert_eq!(refused.map(|error| error.reason()), ["part of kprobes", "no code"]);
    /// ```
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotText { .. } => "no code",
            Self::UnknownFunction { .. } => "bounds unknown",
            Self::NotBoundary { .. } => "inside an instruction",
            Self::Ours { .. } => "part of kprobes",
            Self::ForeignBreakpoint { .. } => "somebody else's breakpoint",
            Self::Changed { .. } => "code changed since it was loaded",
            Self::NoDetours { .. } => "no room for a detour",
            Self::Refused { .. } => "instruction cannot be displaced",
            Self::NoReturns { .. } => "returns cannot be seen",
            Self::NotEntry { .. } => "no function begins there",
            Self::TooManyReturns { .. } => "too many return probes",
            Self::LeftOut { .. } => "not in this build",
            Self::Full { .. } => "no room for more",
            Self::Host(_) => "failure",
        }
    }
}
