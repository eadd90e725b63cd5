//! What control needs of an instruction set and of the place that it works on.

use crate::Error;
use alloc::string::String;
use alloc::vec::Vec;
use hit::{OP_WORDS, ORIGINAL_BYTES};

/// An instruction set, as far as control needs it. The other half, for trap context, is [`hit::Isa`].
pub trait Isa {
    /// How an instruction is displaced.
    type Plan;

    /// The byte that traps.
    const BREAKPOINT: u8;
    /// The longest instruction, in bytes.
    const MAX_LENGTH: usize;

    /// Looks at the instruction at `address`.
    ///
    /// # Errors
    ///
    /// The rule that forbids to displace it, as a sentence.
    fn plan(bytes: &[u8], address: u64) -> Result<Self::Plan, String>;
    /// The instruction's length.
    fn length(plan: &Self::Plan) -> u8;
    /// The operation to execute instead of the copy, if the hit path can execute it.
    fn operation(plan: &Self::Plan) -> Option<[u64; OP_WORDS]>;
    /// The copy to be written at `slot`, with everything that leads back.
    ///
    /// # Errors
    ///
    /// Why it cannot be at this slot (out of reach), as a sentence.
    fn image(plan: &Self::Plan, address: u64, slot: u64) -> Result<Vec<u8>, String>;
    /// The instruction boundaries of a function, from its first byte: addresses in ascending order, up to where the
    /// code cannot be decoded.
    fn boundaries(code: &[u8], start: u64) -> Vec<u64>;
}

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
    /// [`hit::Site::EMULATE`] or 0.
    pub how: u32,
    /// Length of the instruction.
    pub length: u32,
}

/// What is stored of a probe ([`hit::Probe`]).
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
    /// See [`hit::Probe::data`].
    pub data: u64,
    /// Index + 1 of the next probe in the chain.
    pub next: u32,
}

/// The place where probes are planted.
///
/// Addresses are the target's. The `store_*` methods fill places of the table that no handler looks at yet.
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

    /// A slot from which `address` is within the reach of a relocated operand.
    ///
    /// # Errors
    ///
    /// When there is no room near it.
    fn slot(&mut self, address: u64) -> Result<u64, Error>;
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
    /// Publishes a stored site in the table: from now on it can be found by its address.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], or when the target cannot be written.
    fn publish(&mut self, address: u64, index: u32) -> Result<(), Error>;
    /// Stores a probe under its index, registered or not.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], or when the target cannot be written.
    fn store_probe(&mut self, index: u32, probe: &ProbeData) -> Result<(), Error>;
    /// Takes a probe off: handlers pass it over from now on.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    fn retire_probe(&mut self, index: u32) -> Result<(), Error>;
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

    /// Writes single bytes into the target's text and makes every processor see them.
    ///
    /// # Errors
    ///
    /// When the target cannot be written; some bytes may have been.
    fn patch(&mut self, bytes: &[(u64, u8)]) -> Result<(), Error>;
    /// Waits until every handler that runs now has ended.
    fn grace(&mut self);
}
