//! What control needs of an instruction set and of the place that it works on.

use crate::{Error, HandlerData};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use hit::{MARKS, OP_WORDS, ORIGINAL_BYTES, Probe, Site};
use sync::primitive::{AtomicU32, Ordering};

/// How a displaced instruction shall take its effect, where it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stepping {
    /// Emulated if it can be, else boosted: one trap.
    Best,
    /// In a copy that jumps back.
    Boosted,
    /// In a copy with a second breakpoint behind it; emulated, if nothing comes behind it.
    SecondBreakpoint,
    /// In a copy that is run by the processor's single step.
    SingleStep,
    /// Without a trap, where that is possible: a jump leads to a detour, which runs the probes and a copy. Elsewhere as
    /// [`Best`](Self::Best).
    #[default]
    Jump,
}

impl Stepping {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Best, Self::Boosted, Self::SecondBreakpoint, Self::SingleStep, Self::Jump];
}

/// The code in a slot, and what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The code.
    pub code: Vec<u8>,
    /// At which offset the displaced instruction is complete; 0 when the slot is left by itself.
    pub complete: usize,
    /// See [`hit::Marks`].
    pub marks: [u64; MARKS],
}

/// A detour: what a jump leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detour {
    /// The code, for two slots that follow each other. The copy of the displaced instructions begins the second.
    pub code: Vec<u8>,
    /// At which offset it is entered.
    pub start: usize,
    /// What the offsets of the second slot mean: see [`hit::Marks`].
    pub marks: [u64; MARKS],
    /// The boundaries inside the jump, and at which offset of the second slot a thread that stands there goes on.
    pub inside: Vec<(u64, usize)>,
}

/// An instruction set, as far as control needs it. The other half, for trap context, is [`hit::Isa`].
pub trait Isa {
    /// How an instruction is displaced.
    type Plan;
    /// Which instructions a jump displaces.
    type Window;

    /// The byte that traps.
    const BREAKPOINT: u8;
    /// The longest instruction, in bytes.
    const MAX_LENGTH: usize;
    /// Bytes of a jump to a detour.
    const JUMP_LENGTH: usize = 0;

    /// Looks at the instruction at `address`.
    ///
    /// # Errors
    ///
    /// The rule that forbids to displace it, as a sentence.
    fn plan(bytes: &[u8], address: u64) -> Result<Self::Plan, String>;
    /// The instruction's length.
    fn length(plan: &Self::Plan) -> u8;
    /// The operation to execute instead of the copy, if there is one.
    fn operation(plan: &Self::Plan) -> Option<[u64; OP_WORDS]>;
    /// How the instruction takes its effect when `stepping` is asked for: flags of [`hit::Site::how`].
    fn how(plan: &Self::Plan, stepping: Stepping) -> u32;
    /// Whether handlers can run after the instruction: there is a trap behind it, or none is needed.
    ///
    /// # Errors
    ///
    /// Why not, as a sentence.
    fn check_followed(plan: &Self::Plan) -> Result<(), String>;
    /// The copy to be written at `slot`, with everything that leads back; `how` is what [`how`](Isa::how) gave.
    ///
    /// # Errors
    ///
    /// Why it cannot be at this slot (out of reach), as a sentence.
    fn image(plan: &Self::Plan, address: u64, slot: u64, how: u32) -> Result<Image, String>;
    /// The instruction boundaries of a function, from its first byte: addresses in ascending order, up to where the
    /// code cannot be decoded.
    fn boundaries(code: &[u8], start: u64) -> Vec<u64>;

    /// The instructions that a jump at `address` displaces, in a function whose `code` begins at `start`, and their
    /// length. At every boundary inside it the jump has a breakpoint, so that a thread which stands there traps.
    ///
    /// # Errors
    ///
    /// Why there can be no jump, as a sentence. Without detours for this instruction set, always.
    fn window(code: &[u8], start: u64, address: u64) -> Result<(Self::Window, usize), String> {
        let _ = (code, start, address);
        Err(NO_JUMPS.to_string())
    }
    /// The lowest address in `range` that the window's jump can lead to.
    fn target(window: &Self::Window, range: Range<u64>) -> Option<u64> {
        let _ = (window, range);
        None
    }
    /// The window's jump to `target`; `None` when it cannot lead there.
    fn jump(window: &Self::Window, target: u64) -> Option<Vec<u8>> {
        let _ = (window, target);
        None
    }
    /// A jump from `at` to `target`, as long as the others.
    ///
    /// # Errors
    ///
    /// It is out of reach.
    fn onward(at: u64, target: u64) -> Result<Vec<u8>, String> {
        let _ = (at, target);
        Err(NO_JUMPS.to_string())
    }
    /// The window's detour at `at`, for the site with this index; it calls [`entry`](Host::detour_entry).
    ///
    /// # Errors
    ///
    /// Why it cannot be there, as a sentence.
    fn detour(window: &Self::Window, site: u32, at: u64, entry: u64) -> Result<Detour, String> {
        let _ = (window, site, at, entry);
        Err(NO_JUMPS.to_string())
    }
}

const NO_JUMPS: &str = "probes are not placed by jumps on this instruction set";

/// A function of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Address of its first instruction.
    pub start: u64,
    /// Its code, as it is without any probe.
    pub code: Vec<u8>,
}

/// How the returns of a function are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnScheme {
    /// The return address is replaced by a stub for each activation.
    Stub,
    /// The instructions that leave the function are probed: their addresses, and why not stubs.
    Sites(Vec<u64>, String),
}

/// What is stored of a site ([`hit::Site`]).
///
/// ```
/// use kprobes::SiteData;
/// use std::sync::atomic::Ordering;
///
/// // SAFETY: zeroed memory is a site without a breakpoint (`kprobes::Zeroed`).
/// let site: hit::Site = unsafe { std::mem::zeroed() };
/// SiteData { address: 0x1000, slot: 0x8000, length: 3, ..SiteData::default() }.store(&site, None);
/// assert_eq!(site.address.load(Ordering::Relaxed), 0x1000);
/// assert!(!hit::live(&site.state)); // no breakpoint stands there yet
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteData {
    /// Address of the instruction.
    pub address: u64,
    /// Address of its copy.
    pub slot: u64,
    /// The operation.
    pub op: [u64; OP_WORDS],
    /// The bytes that stand there without the breakpoint.
    pub original: [u8; ORIGINAL_BYTES],
    /// See [`hit::Site::how`].
    pub how: u32,
    /// Length of the instruction.
    pub length: u32,
    /// See [`hit::Marks`].
    pub marks: [u64; MARKS],
}

impl SiteData {
    /// Writes it to its place, in an image that control shares with the hit path. Nobody looks at the place yet.
    pub fn store(&self, site: &Site, marks: Option<&hit::Marks>) {
        let set = |to: &sync::primitive::AtomicU64, value| to.store(value, Ordering::Relaxed);
        set(&site.address, self.address);
        set(&site.slot, self.slot);
        site.op.iter().zip(self.op).for_each(|(to, word)| set(to, word));
        for (to, bytes) in site.original.iter().zip(self.original.chunks_exact(8)) {
            set(to, bytes.iter().rev().fold(0, |word, &b| word << 8 | u64::from(b)));
        }
        if let Some(marks) = marks {
            marks.0.iter().zip(self.marks).for_each(|(to, word)| set(to, word));
        }
        set_half(&site.how, self.how);
        set_half(&site.length, self.length);
        set_half(&site.first, 0);
    }
}

fn set_half(to: &AtomicU32, value: u32) {
    to.store(value, Ordering::Release);
}

/// What is stored of a probe ([`hit::Probe`]).
///
/// ```
/// use hit::{Kind, Probe};
/// use kprobes::{HandlerData, ProbeData};
///
/// let data = ProbeData {
///     kind: Kind::Entry, id: 3, record: true, code: (0, 0), bit: 0, maxactive: 0, serial: 1, data: 0x1000, next: 0,
///     handlers: HandlerData::NONE, disabled: true,
/// };
/// assert_eq!((data.flags(), data.state()), (Probe::RECORD, Probe::DISABLED));
///
/// // SAFETY: zeroed memory is a probe that is not registered (`kprobes::Zeroed`).
/// let probe: Probe = unsafe { std::mem::zeroed() };
/// data.store(&probe);
/// assert_eq!(probe.kind(), Some(Kind::Entry));
/// assert!(probe.records() && probe.is_registered() && !hit::live(&probe.state));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeData {
    /// Its kind.
    pub kind: hit::Kind,
    /// Which counters and which event.
    pub id: u32,
    /// Whether its hits are recorded, or only counted.
    pub record: bool,
    /// Where its fetch program is, and how long.
    pub code: (u32, u32),
    /// Its bit among the site's return probes.
    pub bit: u32,
    /// How many instances it may have out.
    pub maxactive: u32,
    /// The number of its registration.
    pub serial: u64,
    /// See [`hit::Probe::data`].
    pub data: u64,
    /// Index + 1 of the next probe in the chain.
    pub next: u32,
    /// Its handlers.
    pub handlers: HandlerData,
    /// Handlers pass it over.
    pub disabled: bool,
}

impl ProbeData {
    /// Writes it to its place, as registered: see [`SiteData::store`].
    pub fn store(&self, probe: &Probe) {
        set_half(&probe.kind, self.kind.code());
        set_half(&probe.id, self.id);
        set_half(&probe.next, self.next);
        set_half(&probe.code, self.code.0);
        set_half(&probe.code_length, self.code.1);
        set_half(&probe.bit, self.bit);
        set_half(&probe.maxactive, self.maxactive);
        set_half(&probe.flags, self.flags());
        set_half(&probe.active, 0);
        let HandlerData { before, after, fault, user, area, entry_bytes, owner, mirror: _, light: _ } = self.handlers;
        let to = &probe.handlers;
        let words = [(&to.before, before), (&to.after, after), (&to.fault, fault), (&to.user, user), (&to.area, area)];
        words
            .into_iter()
            .chain([(&probe.data, self.data), (&probe.serial, self.serial)])
            .for_each(|(to, word)| to.store(word, Ordering::Relaxed));
        set_half(&to.entry_bytes, entry_bytes);
        set_half(&to.owner, owner);
        set_half(&probe.state, self.state());
    }

    /// [`hit::Probe::flags`].
    #[must_use]
    pub fn flags(&self) -> u32 {
        let record = if self.record { Probe::RECORD } else { 0 };
        let mirror = if self.handlers.mirror { Probe::MIRROR } else { 0 };
        record | mirror | if self.handlers.light { Probe::LIGHT } else { 0 }
    }

    /// [`hit::Probe::state`].
    #[must_use]
    pub fn state(&self) -> u32 {
        if self.disabled { Probe::DISABLED } else { Probe::REGISTERED }
    }
}

/// The place where probes are planted.
///
/// Addresses are the target's. The `store_*` methods fill places of the table that no handler looks at yet. What they and
/// the `set_*` methods write is certain to be there after [`flush`](Host::flush) only.
pub trait Host {
    /// The target's instruction set.
    type Isa: Isa;

    /// Reads memory of the target.
    ///
    /// # Errors
    ///
    /// When it is not mapped, or the target has gone.
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Error>;
    /// The function that holds `address`, if it is code of a file's.
    ///
    /// # Errors
    ///
    /// [`Error::NotText`], [`Error::Ours`], [`Error::UnknownFunction`].
    fn function(&mut self, address: u64) -> Result<Function, Error>;
    /// How the returns of the function that begins at `start` can be seen.
    ///
    /// # Errors
    ///
    /// [`Error::NoReturns`] when they cannot.
    fn return_scheme(&mut self, start: u64) -> Result<ReturnScheme, Error>;

    /// How instructions that are probed from now on shall take their effect.
    fn stepping(&self) -> Stepping {
        Stepping::Best
    }
    /// Whether [`publish`](Host::publish) is wanted for slots too, so that a fault in one can be told from others.
    fn publishes_slots(&self) -> bool {
        false
    }

    /// A slot from which `address` is within the reach of a relocated operand.
    ///
    /// # Errors
    ///
    /// When there is no room near it.
    fn slot(&mut self, address: u64) -> Result<u64, Error>;
    /// Whether probes can be placed by jumps here.
    fn has_detours(&self) -> bool {
        false
    }
    /// What the detour at `slot` calls, with the index of its site: it saves the registers and calls [`hit::detoured`].
    ///
    /// # Errors
    ///
    /// When there are no detours, or the target cannot be written.
    fn detour_entry(&mut self, slot: u64) -> Result<u64, Error> {
        Err(Error::NoDetours { address: slot })
    }
    /// Whether a jump may displace the instructions in `range`: nobody else changes that text while it runs, and no part of
    /// it must not be probed.
    fn may_displace(&mut self, range: Range<u64>) -> bool {
        let _ = range;
        true
    }
    /// Two slots that follow each other, within the reach of `address`, for a detour whose own site has this index.
    ///
    /// # Errors
    ///
    /// When there is no room near it, or what room there is should be left for probes, or there are no detours.
    fn detour_slot(&mut self, address: u64, site: u32) -> Result<u64, Error> {
        let _ = site;
        Err(Error::NoDetours { address })
    }
    /// Executable memory for one jump, at an address that `fits` gives: it is asked for the lowest one in a range.
    ///
    /// # Errors
    ///
    /// When none that fits can be had, or there are no detours.
    fn pad(&mut self, address: u64, fits: &dyn Fn(Range<u64>) -> Option<u64>) -> Result<u64, Error> {
        let _ = fits;
        Err(Error::NoDetours { address })
    }

    /// Writes code into a slot that nobody executes yet.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    fn write_slot(&mut self, slot: u64, code: &[u8]) -> Result<(), Error>;
    /// Stores a fetch program and gives its place.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], or when the target cannot be written.
    fn store_program(&mut self, code: &[u8]) -> Result<u32, Error>;
    /// Stores a site under its index.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], or when the target cannot be written.
    fn store_site(&mut self, index: u32, site: &SiteData) -> Result<(), Error>;
    /// Publishes a stored site in the table: from now on it can be found by its address. `entry` is its index, or that
    /// with [`hit::SLOT`] or [`hit::STEP_END`] for an address of its slot. An entry that is there is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], or when the target cannot be written.
    fn publish(&mut self, address: u64, entry: u64) -> Result<(), Error>;
    /// Stores a probe under its index, registered or not.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], or when the target cannot be written.
    fn store_probe(&mut self, index: u32, probe: &ProbeData) -> Result<(), Error>;
    /// Switches a registered probe on or off: [`hit::Probe::REGISTERED`] or [`hit::Probe::DISABLED`].
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    fn set_state(&mut self, index: u32, state: u32) -> Result<(), Error>;
    /// Takes a probe off: handlers pass it over from now on.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    fn retire_probe(&mut self, index: u32) -> Result<(), Error> {
        self.set_state(index, 0)
    }
    /// Sets the first probe of a site's chain: its index + 1, or 0.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    fn set_first(&mut self, site: u32, first: u32) -> Result<(), Error>;
    /// Sets what follows a probe in its chain: an index + 1, or 0.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    fn set_next(&mut self, probe: u32, next: u32) -> Result<(), Error>;
    /// Notes whether a breakpoint stands at a site, for whoever comes after us.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    fn set_armed(&mut self, site: u32, armed: bool) -> Result<(), Error>;
    /// Notes whether a jump stands in the text, at its detour's own site.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    fn set_jump(&mut self, site: u32, stands: bool) -> Result<(), Error> {
        let _ = (site, stands);
        Ok(())
    }

    /// What was stored, published and set until now is in the target when this returns.
    ///
    /// A host to which a write is dear may keep them back until then and write many together. Between two calls the order of
    /// these writes does not matter, but for writes to the same place. It may read ahead, too: what it has read is forgotten
    /// here.
    ///
    /// # Errors
    ///
    /// When the target cannot be written; some of it may have been.
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Writes single bytes into the target's text and makes every processor see them. Called when all that was stored before
    /// is [flushed](Host::flush).
    ///
    /// # Errors
    ///
    /// When the target cannot be written; some bytes may have been.
    fn patch(&mut self, bytes: &[(u64, u8)]) -> Result<(), Error>;
    /// Waits until every handler that runs now has ended. False if one cannot end before the caller goes on: then the places
    /// of probes that were taken off are not used again before a later grace period has passed.
    #[must_use = "a handler may still stand on a probe"]
    fn grace(&mut self) -> bool;
}
