//! Lanes: what a thread keeps while it is in a detour.
//!
//! A trap's handler runs with signals masked, and names its thread by a system call ([`Home::active`](super::Home::active)).
//! A detour can afford neither. So a thread has a lane, which its fs base names: where the C library keeps the thread's own
//! variables, no two threads that run have the same one. (Threads without a C library may: then they share a lane, and
//! a grace period may end a few instructions early for one of them.)
//!
//! A signal's handler can interrupt a detour, hit probes itself, and leave by `longjmp`. So a lane has the *outermost*
//! frame of a detour on the thread's stack, and what is found there says whether that detour is still under way.

use sync::primitive::AtomicU64;

/// Threads that can have been in detours.
pub const LANES: usize = 1 << 12;
/// How many lanes a thread may have, of which it takes the first that is free.
pub const LANE_WINDOW: usize = 16;

/// What one thread keeps.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Lane {
    /// The thread's fs base + 1; 0: nobody's.
    pub owner: AtomicU64,
    /// Address of the registers that the outermost detour has saved, on the thread's stack; 0: it is in none.
    pub frame: AtomicU64,
    /// How often that was set: a grace period waits for a change.
    pub entries: AtomicU64,
    /// Not 0: a handler of a user's runs, for a trap or a detour, and probes that it hits are missed.
    pub calling: AtomicU64,
    /// What leaving a detour stores to, instead of a place in [`Home::active`](super::Home::active).
    pub left: AtomicU64,
}

/// Where the lanes of a thread begin.
///
/// ```
/// use host_process::abi::lanes::{LANES, LANE_WINDOW, first_lane};
///
/// // Thread control blocks are far apart, and their lanes are all over the place.
/// let first: std::collections::BTreeSet<_> = (0..64).map(|n| first_lane(0x7f00_0000_0740 + n * 0x80_1000)).collect();
/// assert!(first.len() > 32 && first.iter().all(|at| at + LANE_WINDOW <= LANES));
/// ```
#[must_use]
pub const fn first_lane(fs_base: u64) -> usize {
    const WINDOWS: u64 = (LANES / LANE_WINDOW) as u64;
    // Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4).
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = (fs_base >> 6).wrapping_mul(GOLDEN) >> (u64::BITS - WINDOWS.trailing_zeros());
    hash as usize * LANE_WINDOW
}
