//! CRC-32 bit by bit, and Adler-32.

use alloc::string::String;
use core::hint::black_box;

/// How often each is computed; all results must be the same.
const TIMES: usize = 2000;

/// CRC-32 of "123456789" and Adler-32 of "Wikipedia".
pub(super) fn run() -> Result<u64, String> {
    let (mut crc, mut adler) = (0, 0);
    for _ in 0..TIMES {
        crc = crc32(black_box(b"123456789"));
        adler = adler32(black_box(b"Wikipedia"));
    }
    Ok(u64::from(crc) << 32 | u64::from(adler))
}

#[inline(never)]
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| crc_byte(crc ^ u32::from(*byte)))
}

#[inline(never)]
fn crc_byte(crc: u32) -> u32 {
    (0..8).fold(crc, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
}

#[inline(never)]
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1, 0), |sums, byte| adler_step(sums, *byte));
    b << 16 | a
}

#[inline(never)]
fn adler_step((a, b): (u32, u32), byte: u8) -> (u32, u32) {
    const PRIME: u32 = 65_521;
    let a = (a + u32::from(byte)) % PRIME;
    (a, (a + b) % PRIME)
}
