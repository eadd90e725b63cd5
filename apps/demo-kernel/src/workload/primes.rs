//! The sieve of Eratosthenes.

use alloc::string::String;
use alloc::vec::Vec;

const LIMIT: usize = 200_000;

/// How many primes there are below the limit.
pub(super) fn run() -> Result<u64, String> {
    let sieve = sieve(LIMIT);
    Ok(sieve.iter().filter(|composite| !**composite).count() as u64)
}

#[inline(never)]
fn sieve(limit: usize) -> Vec<bool> {
    let mut composite = alloc::vec![false; limit];
    composite[..2].fill(true);
    let mut prime = 2;
    while prime * prime < limit {
        strike_out(&mut composite, prime);
        prime = next_prime(&composite, prime);
    }
    composite
}

#[inline(never)]
fn strike_out(composite: &mut [bool], prime: usize) {
    composite.iter_mut().skip(prime * prime).step_by(prime).for_each(|multiple| *multiple = true);
}

#[inline(never)]
fn next_prime(composite: &[bool], prime: usize) -> usize {
    let next = composite.iter().skip(prime + 1).position(|composite| !composite);
    next.map_or(composite.len(), |distance| prime + 1 + distance)
}
