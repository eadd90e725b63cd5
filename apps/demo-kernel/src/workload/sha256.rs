//! SHA-256 (FIPS 180-4) over a file of the disk, read by system calls.

use alloc::format;
use alloc::string::String;

use super::files::Turn;
use crate::fs::File;

const FILE: &str = "/data/words";
const BLOCK: usize = 64;

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (section 4.2.2).
const ROUND: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2,
];

/// Section 5.3.3.
const START: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// The digest's first eight bytes.
pub(super) fn run() -> Result<u64, String> {
    let _turn = Turn::take();
    let file = File::open(FILE, 0).map_err(|errno| format!("{FILE}: {errno}"))?;
    let (mut state, mut length) = (START, 0);
    loop {
        let mut block = [0; BLOCK];
        let count = file.read(&mut block).map_err(|errno| format!("{FILE}: {errno}"))?;
        length += count as u64;
        if count < BLOCK {
            finish(&mut state, block, count, length);
            return Ok(u64::from(state[0]) << 32 | u64::from(state[1]));
        }
        compress(&mut state, &block);
    }
}

/// The padding (section 5.1.1): a one, zeros, the length in bits.
#[inline(never)]
fn finish(state: &mut [u32; 8], mut block: [u8; BLOCK], count: usize, length: u64) {
    block[count] = 0x80;
    if count + 9 > BLOCK {
        compress(state, &block);
        block = [0; BLOCK];
    }
    block[BLOCK - 8..].copy_from_slice(&(length * 8).to_be_bytes());
    compress(state, &block);
}

/// Section 6.2.2.
#[inline(never)]
fn compress(state: &mut [u32; 8], block: &[u8; BLOCK]) {
    let words = schedule(block);
    let mut v = *state;
    for (word, constant) in words.into_iter().zip(ROUND) {
        round(&mut v, word.wrapping_add(constant));
    }
    for (word, add) in state.iter_mut().zip(v) {
        *word = word.wrapping_add(add);
    }
}

#[inline(never)]
fn schedule(block: &[u8; BLOCK]) -> [u32; 64] {
    let mut words = [0; 64];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for t in 16..64 {
        let (a, b) = (words[t - 15], words[t - 2]);
        let small0 = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
        let small1 = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
        words[t] = small1.wrapping_add(words[t - 7]).wrapping_add(small0).wrapping_add(words[t - 16]);
    }
    words
}

#[inline(never)]
fn round(v: &mut [u32; 8], add: u32) {
    let [a, b, c, d, e, f, g, h] = *v;
    let big1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
    let first = h.wrapping_add(big1).wrapping_add((e & f) ^ (!e & g)).wrapping_add(add);
    let big0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
    let second = big0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
    *v = [first.wrapping_add(second), a, b, c, d.wrapping_add(first), e, f, g];
}
