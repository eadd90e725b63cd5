//! Random numbers from a seed.

/// A small generator (`splitmix64`), the same as the process host's tests use.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Begins with `seed`.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `end`.
    pub(super) const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True in one case of `n`.
    pub(super) const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number as operands are: half of them at the edges where something changes.
    pub(super) fn operand(&mut self) -> u64 {
        match self.below(4) {
            0 => EDGES[self.below(EDGES.len() as u64) as usize],
            1 => self.below(256),
            _ => self.next(),
        }
    }
}

/// Spreads each bit of `z` over all of them.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number for some words: other words give another one.
pub(super) fn digest(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0x243F_6A88_85A3_08D3, |sum: u64, word| {
        (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_add(1)
    })
}

/// Values at which something changes.
const EDGES: [u64; 16] = [
    0,
    1,
    7,
    8,
    u64::MAX,
    u64::MAX - 1,
    1 << 63,
    i64::MAX as u64,
    0x7F,
    0x80,
    0x7FFF,
    0x8000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 32,
];
