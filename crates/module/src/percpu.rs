//! Data that each processor has its own of.

use crate::abi::kprobes_processor;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};
use kprobes::Zeroed;

/// How many processors have their own; more share.
pub const PROCESSORS: usize = 64;

/// A value for each processor, each in cache lines of its own, zero at first.
///
/// In a process a thread may be moved between finding its value and using it, and in both hosts processors beyond
/// [`PROCESSORS`] share; so values are atomics, and only what would be slow if all wrote one is gained.
///
/// ```no_run
/// use core::sync::atomic::{AtomicU64, Ordering};
///
/// static LATEST: module::PerCpu<AtomicU64> = module::PerCpu::new();
/// LATEST.get().store(module::now(), Ordering::Relaxed);
/// let latest = LATEST.iter().map(|l| l.load(Ordering::Relaxed)).max();
/// ```
#[derive(Debug)]
pub struct PerCpu<T>([Padded<T>; PROCESSORS]);

/// Two lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Zeroed> PerCpu<T> {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        // SAFETY: zero bytes are a value of `T`, that is what `Zeroed` promises; and so of an array of structures that
        // consist of one each.
        Self(unsafe { MaybeUninit::zeroed().assume_init() })
    }

    /// The running processor's.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0[kprobes_processor() as usize % PROCESSORS].0
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

impl<T: Zeroed> Default for PerCpu<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A number that many processors add to.
///
/// ```no_run
/// static HITS: module::Counter = module::Counter::new();
/// HITS.add(1);
/// module::println!("{} hits", HITS.sum());
/// ```
#[derive(Debug, Default)]
pub struct Counter(PerCpu<AtomicU64>);

impl Counter {
    /// 0.
    #[must_use]
    pub const fn new() -> Self {
        Self(PerCpu::new())
    }

    /// Adds to it.
    pub fn add(&self, number: u64) {
        self.0.get().fetch_add(number, Ordering::Relaxed);
    }

    /// What has been added on all processors. While handlers run it is a number that was right in between.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, part| sum.wrapping_add(part.load(Ordering::Relaxed)))
    }
}
