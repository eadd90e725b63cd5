//! x87, SSE, AVX and AVX-512 state, in the processor's standard save format (SDM volume 1, section
//! 13.4).

use crate::generate::Random;

/// Offsets in the legacy area.
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const MXCSR: usize = 24;
const ST: core::ops::Range<usize> = 32..160;
const XMM: core::ops::Range<usize> = 160..416;
/// Where ptrace reports the components that the system supports.
const SUPPORTED: usize = 464;
/// The header's bit map of components that are not in their initial state.
const PRESENT: usize = 512;
/// The end of the header.
const EXTENDED: usize = 576;

/// The components that are filled: x87, SSE, AVX and AVX-512.
const FILLED: u64 = 0b1110_0111;

/// The saved state.
#[derive(Clone)]
pub struct Vectors {
    pub(super) bytes: Vec<u8>,
    /// Offset and size of the extended components that are filled and compared.
    pub(super) components: Vec<(usize, usize)>,
}

impl Vectors {
    /// This with random contents in every register.
    #[must_use]
    pub(super) fn filled(&self, seed: u64) -> Self {
        let mut filled = self.clone();
        let mut random = Random::new(seed);
        let bytes = &mut filled.bytes;
        bytes[FSW..FTW].fill(0);
        bytes[FTW] = 0xFF;
        for register in bytes[ST].chunks_mut(16) {
            // A normal number of moderate size: the integer bit set, an exponent near the bias.
            register[..8].copy_from_slice(&(random.next() | 1 << 63).to_le_bytes());
            register[8..10].copy_from_slice(&(0x3FF0 + (random.next() & 31) as u16).to_le_bytes());
        }
        bytes[MXCSR..MXCSR + 4].copy_from_slice(&0x1F80_u32.to_le_bytes());
        let extended = filled.components.iter().map(|(at, len)| *at..at + len);
        for range in core::iter::once(XMM).chain(extended) {
            for lane in bytes[range].chunks_mut(8) {
                // Doubles of moderate size, so that arithmetic has results.
                let value = (random.next() >> 12) | (0x3FE0_0000_0000_0000 + ((random.next() & 15) << 52));
                lane.copy_from_slice(&value.to_le_bytes()[..lane.len()]);
            }
        }
        let supported = u64::from_le_bytes(bytes[SUPPORTED..SUPPORTED + 8].try_into().expect("eight bytes"));
        bytes[PRESENT..PRESENT + 8].copy_from_slice(&(supported & FILLED).to_le_bytes());
        filled
    }

    /// What is compared: not the header, whose bits the system may clear when it switches tasks,
    /// nor the address of the last x87 instruction.
    fn comparable(&self) -> impl Iterator<Item = &[u8]> {
        let legacy = [&self.bytes[..FOP], &self.bytes[MXCSR..XMM.end]];
        legacy.into_iter().chain(self.components.iter().map(|(at, len)| &self.bytes[*at..at + len]))
    }

    /// Offset and size of the extended components to fill, of those in `layout` by number.
    pub(super) fn components(
        supported: u64,
        total: usize,
        layout: impl Fn(u32) -> (usize, usize),
    ) -> Vec<(usize, usize)> {
        (2..8)
            .filter(|component| supported & FILLED & (1 << component) != 0)
            .map(layout)
            .filter(|(at, len)| *at >= EXTENDED && at + len <= total)
            .collect()
    }

    /// The components that the system supports, in a state that ptrace has read.
    pub(super) fn supported(bytes: &[u8]) -> u64 {
        bytes.get(SUPPORTED..SUPPORTED + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
    }
}

impl PartialEq for Vectors {
    fn eq(&self, other: &Self) -> bool {
        self.comparable().eq(other.comparable())
    }
}

impl core::fmt::Debug for Vectors {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Vectors({} bytes)", self.bytes.len())
    }
}
