//! What is asked for, and what was given.

use alloc::vec::Vec;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A kprobe at any instruction.
    Entry,
    /// A return probe at a function's first instruction, with its `maxactive`.
    Return {
        /// How many activations are watched at once.
        maxactive: u32,
    },
    /// A probe of the host's own, at any instruction.
    Internal {
        /// What the host is to do; see [`hit::Probe::data`].
        data: u64,
    },
}

/// One probe to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where.
    pub address: u64,
    /// What.
    pub kind: ProbeKind,
    /// Which counters and which event.
    pub id: u32,
    /// Whether its hits are recorded, or only counted.
    pub record: bool,
    /// The fetch program: what to record besides the hit itself.
    pub program: Vec<u8>,
}

/// A registered probe. A return probe that is placed at return sites is several probes in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Addresses of breakpoints, and the index of the probe there.
    pub(crate) members: Vec<(u64, u32)>,
    /// The address that was asked for.
    pub address: u64,
    /// How it is placed.
    pub placement: crate::Placement,
}

impl Handle {
    /// A handle for what an earlier registry has registered: its probes, as pairs of address and index.
    #[must_use]
    pub fn adopted(address: u64, members: Vec<(u64, u32)>, placement: crate::Placement) -> Self {
        Self { members, address, placement }
    }
}
