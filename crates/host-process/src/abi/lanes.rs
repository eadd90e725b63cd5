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

/// Windows of lanes, in each of which a thread looks for its own.
pub const WINDOWS: usize = LANES / LANE_WINDOW;
/// What one thread keeps.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Lane {
    /// The thread's fs base + 1; 0: nobody's.
    pub owner: AtomicU64,
    /// Address of the registers that the outermost detour has saved, on the thread's stack; 0: it is in none.
    pub frame: AtomicU64,
    /// How often that was set: a grace period waits for a change.
    pub entries: AtomicU64,
    /// Not 0: a handler of a user's runs, and probes that it hits are missed: [`ALONE`] or [`LIGHT`].
    pub calling: AtomicU64,
    /// What leaving a detour stores to, instead of a place in [`Home::active`](super::Home::active).
    pub left: AtomicU64,
    /// Which row of [`Bank::hits`](super::Bank::hits) is the thread's own, + 1; 0: not asked for yet; [`NO_ROW`]: none.
    pub row: AtomicU64,
    /// Address of the thread's row, while `epoch` is that of the process; 0: it has none there.
    pub cells: AtomicU64,
    /// When `cells` was set.
    pub epoch: AtomicU64,
    /// The thread's id, if its control block has that; 0: nobody has looked yet; [`NO_ID`]: the block does not tell.
    pub tid: AtomicU64,
    /// Where it has it: an address.
    pub tid_at: AtomicU64,
    /// The thread's name, as it was at `named`; padded with zeros.
    pub name: [AtomicU64; 2],
    /// A time stamp; 0: there is no name yet.
    pub named: AtomicU64,
}

/// [`Lane::calling`] while a handler runs on a stack of its own, with signals masked.
pub const ALONE: u64 = 1;
/// [`Lane::calling`] while a light handler runs on the interrupted stack: it can be left for good, with its detour.
pub const LIGHT: u64 = 2;
/// Where C libraries keep a thread's id in its control block (`struct pthread`): glibc since 2.3 (`nptl/descr.h`), musl since
/// 1.2 (`src/internal/pthread_impl.h`).
pub const TID_OFFSETS: [u64; 2] = [0x2d0, 0x30];
/// [`Lane::row`] of a thread that has come too late for one.
pub const NO_ROW: u64 = u64::MAX;
/// [`Lane::tid`] of a thread whose control block does not have it.
pub const NO_ID: u64 = u64::MAX;

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
    let hash = (fs_base >> 6).wrapping_mul(LANE_GOLDEN) >> LANE_SHIFT;
    hash as usize * LANE_WINDOW
}

/// The factor of Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4).
pub const LANE_GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// How far the product is shifted.
pub const LANE_SHIFT: u32 = u64::BITS - WINDOWS.trailing_zeros();
