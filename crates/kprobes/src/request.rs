//! What is asked for, and what was given.

use crate::HandlerData;
use crate::site::INHERITED;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A kprobe at any instruction.
    Entry,
    /// A kprobe with handlers, at any instruction, or a jprobe.
    Handler,
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
///
/// ```
/// use kprobes::{ProbeKind, Request};
///
/// let request = Request::counting(0x1000, ProbeKind::Entry, 3);
/// assert!(!request.record && !request.disabled);
/// // The same, with an event for each hit.
/// let request = Request { record: true, ..request };
/// assert_eq!((request.address, request.id), (0x1000, 3));
/// ```
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
    /// The handlers of a kprobe with handlers or of a return probe.
    pub handlers: HandlerData,
    /// It is registered, and switched off.
    pub disabled: bool,
}

impl Request {
    /// A probe that counts, as event `id`.
    #[must_use]
    pub fn counting(address: u64, kind: ProbeKind, id: u32) -> Self {
        let handlers = HandlerData::default();
        Self { address, kind, id, record: false, program: Vec::new(), handlers, disabled: false }
    }

    /// Whether it is to be placed by a breakpoint: for a post-handler a jump is no gain, a fault handler it does not
    /// know; the host's own probes need what a trap brings.
    pub(crate) fn minds_jumps(&self) -> bool {
        let own = matches!(self.kind, ProbeKind::Internal { .. });
        own || self.handlers.fault != 0 || self.is_followed()
    }

    /// Whether something runs after the probed instruction.
    pub(crate) fn is_followed(&self) -> bool {
        matches!(self.kind, ProbeKind::Handler) && self.handlers.after != 0
    }
}

/// A registered probe. A return probe that is placed at return sites is several probes in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    pub(crate) members: Members,
    /// The address that was asked for.
    pub address: u64,
    /// How it is placed.
    pub placement: crate::Placement,
}

/// The probes of a handle. Most have one, at the address that was asked for; of these there may be very many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Members {
    /// Its index, and which registration of that.
    One(u32, u64),
    /// Several, or elsewhere.
    Many(Box<[Member]>),
}

impl Handle {
    /// A handle for these probes.
    pub(crate) fn new(members: &[Member], address: u64, placement: crate::Placement) -> Self {
        let members = match members {
            [one] if one.address == address => Members::One(one.probe, one.serial),
            _ => Members::Many(members.into()),
        };
        Self { members, address, placement }
    }

    /// Its probes.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> + '_ {
        let (one, many) = match &self.members {
            Members::One(probe, serial) => {
                (Some(Member { address: self.address, probe: *probe, serial: *serial }), &[][..])
            }
            Members::Many(many) => (None, &**many),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

/// A probe in the table: the address of its breakpoint, its index, and which registration of that index it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) address: u64,
    pub(crate) probe: u32,
    pub(crate) serial: u64,
}

impl Handle {
    /// A handle for what an earlier registry has registered: its probes, as pairs of address and index.
    ///
    /// ```
    /// use kprobes::{Handle, Placement};
    ///
    /// let handle = Handle::adopted(0x1000, vec![(0x1000, 0)], Placement::Boosted);
    /// assert_eq!((handle.address, handle.placement), (0x1000, Placement::Boosted));
    /// ```
    #[must_use]
    pub fn adopted(address: u64, members: Vec<(u64, u32)>, placement: crate::Placement) -> Self {
        let member = |(address, probe)| Member { address, probe, serial: INHERITED };
        let members: Vec<Member> = members.into_iter().map(member).collect();
        Self::new(&members, address, placement)
    }
}
