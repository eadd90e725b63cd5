//! The machine's memory: regions of bytes, some of which can go away.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

const PAGE: u64 = 4096;

/// A part of the address space.
#[derive(Debug)]
struct Region {
    base: u64,
    bytes: Box<[AtomicU8]>,
    mapped: AtomicBool,
}

/// All memory of a machine.
///
/// Accesses of more than a byte are not atomic; whoever runs several threads serializes them
/// ([`interleave`](super::interleave)).
///
/// ```
/// use testkit::model::Memory;
///
/// let mut memory = Memory::default();
/// memory.map(0x1000, 0x1000);
/// memory.map(0x3000, 0x1000);
/// assert!(memory.set_word(0x1FF8, 0x0807_0605_0403_0201));
/// assert_eq!(memory.word(0x1FF8), Some(0x0807_0605_0403_0201));
/// assert_eq!(memory.copy(0x1FF8, 3), [1, 2, 3]);
///
/// // Nothing is behind the end of a region. What is written in part is not written at all; what is read may be.
/// assert!(memory.holds(0x1FFE, 2) && !memory.holds(0x1FFE, 3));
/// assert!(!memory.write(0x1FFE, &[9; 3]));
/// let mut bytes = [0xFF; 3];
/// assert!(!memory.read(0x1FFE, &mut bytes));
/// assert_eq!(bytes, [7, 8, 0]);
///
/// assert!(memory.is_whole(0x1000, 0x1FFF));
/// assert!(!memory.is_whole(0x1000, 0x3000), "a page in between is not mapped");
/// ```
#[derive(Debug, Default)]
pub struct Memory {
    regions: Vec<Region>,
}

impl Memory {
    /// Maps `size` zeroed bytes at `base`.
    pub fn map(&mut self, base: u64, size: usize) {
        let bytes = (0..size).map(|_| AtomicU8::new(0)).collect();
        self.regions.push(Region { base, bytes, mapped: AtomicBool::new(true) });
    }

    fn byte(&self, address: u64) -> Option<&AtomicU8> {
        let region = self
            .regions
            .iter()
            .find(|r| r.mapped.load(Ordering::Relaxed) && address.wrapping_sub(r.base) < r.bytes.len() as u64)?;
        region.bytes.get(usize::try_from(address - region.base).ok()?)
    }

    /// Whether `length` bytes at `address` are mapped.
    #[must_use]
    pub fn holds(&self, address: u64, length: usize) -> bool {
        (0..length as u64).all(|i| self.byte(address.wrapping_add(i)).is_some())
    }

    /// Whether every page from `low` to `high` is mapped; a region begins and ends with a page.
    #[must_use]
    pub fn is_whole(&self, low: u64, high: u64) -> bool {
        (low / PAGE..=high / PAGE).all(|page| self.byte((page * PAGE).max(low)).is_some())
    }

    /// Reads bytes; false when not all are mapped.
    #[must_use]
    pub fn read(&self, address: u64, out: &mut [u8]) -> bool {
        (0u64..).zip(out).all(|(i, to)| {
            let byte = self.byte(address.wrapping_add(i));
            *to = byte.map_or(0, |b| b.load(Ordering::Relaxed));
            byte.is_some()
        })
    }

    /// Writes bytes; false, and nothing written, when not all are mapped.
    #[must_use]
    pub fn write(&self, address: u64, bytes: &[u8]) -> bool {
        if !self.holds(address, bytes.len()) {
            return false;
        }
        for (i, &byte) in (0u64..).zip(bytes) {
            if let Some(to) = self.byte(address.wrapping_add(i)) {
                to.store(byte, Ordering::Relaxed);
            }
        }
        true
    }

    /// Reads a word.
    #[must_use]
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).then_some(u64::from_le_bytes(bytes))
    }

    /// Writes a word; false when it is not mapped.
    #[must_use]
    pub fn set_word(&self, address: u64, value: u64) -> bool {
        self.write(address, &value.to_le_bytes())
    }

    /// A copy of all that is mapped, for comparison.
    #[must_use]
    pub fn copy(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let whole = self.read(address, &mut bytes);
        debug_assert!(whole, "{address:#x} is not mapped");
        bytes
    }
}

/// The memory as operations see it.
impl isa::Memory for &Memory {
    fn read(&mut self, addr: u64, width: isa::Width) -> Result<u64, isa::Fault> {
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..width.bytes()).unwrap_or_default();
        let whole = Memory::read(self, addr, part);
        whole.then_some(u64::from_le_bytes(bytes)).ok_or(isa::Fault { addr, write: false })
    }

    fn write(&mut self, addr: u64, width: isa::Width, value: u64) -> Result<(), isa::Fault> {
        let bytes = value.to_le_bytes();
        let whole = Memory::write(self, addr, bytes.get(..width.bytes()).unwrap_or_default());
        if whole { Ok(()) } else { Err(isa::Fault { addr, write: true }) }
    }

    fn segment_base(&self, _: isa::Segment) -> u64 {
        0
    }
}
