//! Numbers to text and back.

use alloc::string::{String, ToString};
use core::fmt::Write;

const NUMBERS: u32 = 10_000;

/// The sum of the digits of all numbers below the limit.
pub(super) fn run() -> Result<u64, String> {
    let mut text = String::new();
    let mut sum = 0;
    for number in 0..NUMBERS {
        text.clear();
        put(&mut text, number)?;
        sum += digits(&text);
        if parse(&text)? != number {
            return Err("a number has changed on its way through text".to_string());
        }
    }
    Ok(sum)
}

#[inline(never)]
fn put(text: &mut String, number: u32) -> Result<(), String> {
    write!(text, "{number:06}").map_err(|error| error.to_string())
}

#[inline(never)]
fn digits(text: &str) -> u64 {
    text.chars().filter_map(|c| c.to_digit(10)).map(u64::from).sum()
}

#[inline(never)]
fn parse(text: &str) -> Result<u32, String> {
    text.parse().map_err(|error: core::num::ParseIntError| error.to_string())
}
