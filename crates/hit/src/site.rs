//! The plain data of the probe table: sites, the probes that sit there, their counters.
//!
//! Control prepares it, possibly from another process; the hit path reads it. All fields are atomics, so that a value
//! that changes while it is read is a stale value and never undefined behaviour. Zeroed memory is a table with nothing
//! in it. What the fields mean:
//!
//! * written before the site is published in the table, constant after: `address`, `slot`, `op`, `how`, its [`Marks`];
//! * written while handlers may run: `first` (a chain grows at its head, with release), `state`.

use sync::primitive::{AtomicU32, AtomicU64, Ordering};

/// Words of a prepared operation.
pub const OP_WORDS: usize = 2;
/// Bytes kept of the displaced instruction.
pub const ORIGINAL_BYTES: usize = 16;

/// The value of `state` in a [`Site`] or [`Probe`] that is in use.
const LIVE: u32 = 1;

/// Whether a state word says "in use".
///
/// ```
/// use hit::{Probe, live};
/// use sync::primitive::AtomicU32;
///
/// assert!(live(&AtomicU32::new(Probe::REGISTERED)));
/// assert!(!live(&AtomicU32::new(Probe::DISABLED)));
/// ```
#[must_use]
pub fn live(state: &AtomicU32) -> bool {
    state.load(Ordering::Acquire) == LIVE
}

/// An instruction that is probed: where it is, and how it takes effect elsewhere.
///
/// ```
/// use hit::{Site, live};
/// use sync::primitive::Ordering;
///
/// // SAFETY: zeroed memory is a site without a breakpoint (`sync::Zeroed`).
/// let site: Site = unsafe { std::mem::zeroed() };
/// assert!(!live(&site.state));
///
/// site.op[0].store(7, Ordering::Relaxed);
/// assert_eq!(site.op(), [7, 0]);
///
/// // In the slot: the instruction, 3 bytes long, and a jump of 5 bytes.
/// let how = Site::with_lengths(Site::EMULATE, 3, 8);
/// assert_eq!(Site::lengths(how), (3, 8));
/// assert!(how & Site::EMULATE != 0 && how & Site::SINGLE_STEP == 0);
/// ```
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Site {
    /// Address of the instruction.
    pub address: AtomicU64,
    /// Address of its copy, with what leads back to the next instruction behind it.
    pub slot: AtomicU64,
    /// A prepared operation, executed instead of the copy when [`EMULATE`](Self::EMULATE) is set.
    pub op: [AtomicU64; OP_WORDS],
    /// The bytes that stood here before the breakpoint, for whoever must restore them.
    pub original: [AtomicU64; ORIGINAL_BYTES / 8],
    /// How the instruction takes its effect: [`EMULATE`](Self::EMULATE), [`SINGLE_STEP`](Self::SINGLE_STEP),
    /// [`SECOND_BREAKPOINT`](Self::SECOND_BREAKPOINT), [`WHEN_WATCHED`](Self::WHEN_WATCHED), and the lengths of
    /// [`with_lengths`](Self::with_lengths).
    pub how: AtomicU32,
    /// The first probe's index + 1, or 0.
    pub first: AtomicU32,
    /// 1 while a breakpoint stands here (for control: what to restore), 0 after.
    pub state: AtomicU32,
    /// Length of the instruction in bytes.
    pub length: AtomicU32,
}

impl Site {
    /// `how`: the operation is executed; the slot is only its fallback.
    pub const EMULATE: u32 = 1;
    /// `how`: the copy is run by the processor's single step, if the host can.
    pub const SINGLE_STEP: u32 = 2;
    /// `how`: a second breakpoint stands behind the copy, instead of a jump; at [`BOOSTED_COPY`](crate::BOOSTED_COPY)
    /// there is another copy, which jumps back.
    pub const SECOND_BREAKPOINT: u32 = 4;
    /// `how`, beside [`EMULATE`](Self::EMULATE) or [`SECOND_BREAKPOINT`](Self::SECOND_BREAKPOINT): only for hits whose probes
    /// have post-handlers; others run boosted, which costs less.
    pub const WHEN_WATCHED: u32 = 8;
    /// `how`: it is the site of a detour, at the address of the probed one. The slot is its copy of the displaced
    /// instructions, which `original` and `length` tell; `op` has the bytes of the jump, as many as the first of the
    /// lengths says, and for each of them the offset in the copy, if an instruction begins there. Its `state` says
    /// whether the jump stands.
    pub const JUMP: u32 = 16;
    /// `state` of a site whose breakpoint is planted.
    pub const ARMED: u32 = LIVE;

    /// `how` with two lengths in bytes: at which offset in the slot the displaced instruction is complete (0: when the
    /// slot is left), and how long the code in the slot is. More than 255 is 255.
    #[must_use]
    pub const fn with_lengths(how: u32, complete: usize, code: usize) -> u32 {
        const fn byte(length: usize) -> u32 {
            if length > 0xFF { 0xFF } else { length as u32 }
        }
        how | byte(complete) << 8 | byte(code) << 16
    }

    /// The two lengths in `how`.
    #[must_use]
    pub const fn lengths(how: u32) -> (u64, u64) {
        ((how >> 8 & 0xFF) as u64, (how >> 16 & 0xFF) as u64)
    }

    /// The operation's words.
    #[must_use]
    pub fn op(&self) -> [u64; OP_WORDS] {
        core::array::from_fn(|i| self.op.get(i).map_or(0, |w| w.load(Ordering::Relaxed)))
    }
}

/// How many changes of meaning there are in a slot, at most.
pub const MARKS: usize = 6;

/// What the offsets in a slot stand for: where a thread that stops there is in truth, and what must be added to its
/// stack pointer. One for each site, of hosts that look at threads in slots.
///
/// Each word is a mark, 0 is none; they ascend by offset.
///
/// ```
/// use hit::Marks;
/// use sync::primitive::AtomicU64;
///
/// // Up to offset 4 nothing has happened; from there on the copy has pushed a word that the instruction has not; from
/// // offset 9 on the instruction, 5 bytes long, is complete.
/// let marks = [Marks::mark(4, 8, 0), Marks::mark(9, 0, 5), None, None, None, None];
/// let marks = Marks(marks.map(|mark| AtomicU64::new(mark.unwrap_or(0))));
/// assert_eq!(marks.meaning(3), (0, 0));
/// assert_eq!(marks.meaning(6), (0, 8));
/// assert_eq!(marks.meaning(9), (5, 0));
/// assert_eq!(Marks::mark(4, 256, 0), None); // not in a byte
/// ```
#[repr(C)]
#[derive(Debug)]
pub struct Marks(pub [AtomicU64; MARKS]);

impl Marks {
    /// The mark that from `offset` on the slot stands for the site's address plus `delta`, with `pushed` bytes on the
    /// stack that the instruction there has not pushed. `None` when a mark cannot say so.
    #[must_use]
    pub fn mark(offset: usize, pushed: u64, delta: i64) -> Option<u64> {
        let (offset, pushed) = (u8::try_from(offset).ok()?, u8::try_from(pushed).ok()?);
        let delta = i32::try_from(delta).ok()?.cast_unsigned();
        Some(PRESENT | u64::from(offset) | u64::from(pushed) << 8 | u64::from(delta) << 32)
    }

    /// What `offset` stands for: the distance from the site's address, and the bytes to add to the stack pointer.
    #[must_use]
    pub fn meaning(&self, offset: u64) -> (i64, u64) {
        let marks = self.0.iter().map(|m| m.load(Ordering::Relaxed)).take_while(|&m| m & PRESENT != 0);
        let last = marks.take_while(|m| m & 0xFF <= offset).last().unwrap_or(0);
        (i64::from(((last >> 32) as u32).cast_signed()), last >> 8 & 0xFF)
    }
}

const PRESENT: u64 = 1 << 16;

/// What a probe does when its site is hit.
///
/// ```
/// use hit::Kind;
///
/// assert_eq!(Kind::from_code(Kind::Return.code()), Some(Kind::Return));
/// assert_eq!(Kind::from_code(0), None); // zeroed memory
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A kprobe: count and record.
    Entry,
    /// The entry of a return probe: arm an instance.
    Return,
    /// An instruction that leaves the probed function: count and record a return.
    ReturnSite,
    /// A probe of the host's own, for instance on an unwinder or on a system call that must be guarded.
    Internal,
    /// A kprobe with handlers, or a jprobe: count and call them.
    Handler,
}

impl Kind {
    /// The kind as it is stored.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Entry => 1,
            Self::Return => 2,
            Self::ReturnSite => 3,
            Self::Internal => 4,
            Self::Handler => 5,
        }
    }

    /// The kind that `code` stands for.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Entry),
            2 => Some(Self::Return),
            3 => Some(Self::ReturnSite),
            4 => Some(Self::Internal),
            5 => Some(Self::Handler),
            _ => None,
        }
    }
}

/// One probe at one site.
///
/// ```
/// use hit::{Kind, Probe};
/// use sync::primitive::Ordering;
///
/// // SAFETY: zeroed memory is a probe that is not registered (`sync::Zeroed`).
/// let probe: Probe = unsafe { std::mem::zeroed() };
/// assert!(!probe.is_registered() && probe.kind().is_none());
///
/// probe.kind.store(Kind::Handler.code(), Ordering::Relaxed);
/// probe.flags.store(Probe::RECORD | Probe::LIGHT, Ordering::Relaxed);
/// probe.handlers.after.store(0x5000, Ordering::Relaxed);
/// probe.state.store(Probe::DISABLED, Ordering::Release);
/// assert_eq!(probe.kind(), Some(Kind::Handler));
/// assert!(probe.records() && probe.is_light() && probe.is_followed());
/// assert!(probe.is_registered()); // though it is switched off
/// ```
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Probe {
    /// 1 while registered and enabled, 2 while disabled. A probe whose state is not 1 is passed over; with 0 it is out of
    /// the chain before its place is used again, a grace period later.
    pub state: AtomicU32,
    /// [`Kind`], as [`Kind::code`].
    pub kind: AtomicU32,
    /// Which counters and which event.
    pub id: AtomicU32,
    /// The next probe's index + 1, or 0.
    pub next: AtomicU32,
    /// Where its fetch program begins, in the host's program area, in bytes.
    pub code: AtomicU32,
    /// Length of the fetch program in bytes.
    pub code_length: AtomicU32,
    /// Return probes: its bit in an instance's mask.
    pub bit: AtomicU32,
    /// Return probes: how many instances may be out at once (Linux: `maxactive`).
    pub maxactive: AtomicU32,
    /// [`RECORD`](Self::RECORD), [`MIRROR`](Self::MIRROR), [`LIGHT`](Self::LIGHT).
    pub flags: AtomicU32,
    /// Return probes: how many instances are out now. Written by handlers.
    pub active: AtomicU32,
    /// Internal probes: what to do; others: the start of the probed function, or the probe's address.
    pub data: AtomicU64,
    /// Return probes: the number of its registration; later ones have higher numbers. See [`Instance::newest`].
    ///
    /// [`Instance::newest`]: crate::returns::Instance::newest
    pub serial: AtomicU64,
    _gap: AtomicU64,
    /// Its handlers.
    pub handlers: Handlers,
}

/// Where a probe's handlers are, in the target: functions that the host calls. 0 is none.
#[repr(C)]
#[derive(Debug)]
pub struct Handlers {
    /// The pre-handler; of a return probe the entry handler; of a jprobe the function with the probed one's prototype.
    pub before: AtomicU64,
    /// The post-handler; of a return probe the one that runs at the return.
    pub after: AtomicU64,
    /// The fault handler.
    pub fault: AtomicU64,
    /// A word that is handed to each of them.
    pub user: AtomicU64,
    /// Return probes with data for each activation: `maxactive` words for [`sync::Claims`], and as many entries behind.
    pub area: AtomicU64,
    /// Bytes of one entry; 0: no data.
    pub entry_bytes: AtomicU32,
    /// Whose handlers they are: a module's number + 1, or 0.
    pub owner: AtomicU32,
}

impl Probe {
    /// `state` of a registered probe.
    pub const REGISTERED: u32 = LIVE;
    /// `state` of a probe that is registered and switched off: handlers pass it over.
    pub const DISABLED: u32 = 2;
    /// `flags`: hits are recorded, not only counted.
    pub const RECORD: u32 = 1;
    /// `flags`: a jprobe.
    pub const MIRROR: u32 = 2;
    /// `flags`: its handlers need little: a host may call them where they are hit.
    pub const LIGHT: u32 = 4;

    /// Whether it is registered, enabled or not: returns of calls that it has watched from the entry on are its own.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.state.load(Ordering::Acquire) != 0
    }

    /// Whether its hits are recorded.
    #[must_use]
    #[inline]
    pub fn records(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & Self::RECORD != 0
    }

    /// Whether its handlers may be called where they are hit.
    #[must_use]
    pub fn is_light(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & Self::LIGHT != 0
    }

    /// Whether it has a post-handler.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.handlers.after.load(Ordering::Relaxed) != 0
    }

    /// The probe's kind; `None` for a word that means nothing.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_code(self.kind.load(Ordering::Relaxed))
    }
}

/// What is counted for a probe.
///
/// ```
/// use hit::Counters;
/// use sync::primitive::Ordering;
///
/// let counters = Counters::new();
/// Counters::add(&counters.hits);
/// Counters::add(&counters.hits);
/// assert_eq!(counters.hits.load(Ordering::Relaxed), 2);
/// assert_eq!(counters.missed.load(Ordering::Relaxed), 0);
/// ```
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Counters {
    /// Times the probe's instruction was reached and the probe ran.
    pub hits: AtomicU64,
    /// Times it was reached and the probe could not run (Linux: `nmissed`).
    pub missed: AtomicU64,
    /// Events that found no room.
    pub lost: AtomicU64,
    /// Return probes: activations that returned.
    pub returns: AtomicU64,
    /// Return probes: activations that ended without returning (exception, `longjmp`, thread exit).
    pub unwound: AtomicU64,
    /// Times that the probe's handler has faulted; counted by hosts that can contain it.
    pub faults: AtomicU64,
    /// Return probes: calls that the entry handler did not want watched.
    pub declined: AtomicU64,
}

impl Counters {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            hits: zero(),
            missed: zero(),
            lost: zero(),
            returns: zero(),
            unwound: zero(),
            faults: zero(),
            declined: zero(),
        }
    }

    /// Adds one to a counter.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(size_of::<Site>() == 64 && size_of::<Probe>() == 128 && size_of::<Counters>() == 64);
