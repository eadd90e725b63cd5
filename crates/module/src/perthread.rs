//! Data that each thread has its own of.

use crate::abi::kprobes_thread;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};
use kprobes::Zeroed;

/// A value for each of up to `N` threads, zero at first: a table without locks, from thread to value.
///
/// A thread has its place from its first [`get`](Self::get) to its [`leave`](Self::leave). Nobody takes away the place of
/// a thread that ends without: the number of a new thread may be that of an old one, and its value then is what that
/// left.
///
/// ```
/// use core::sync::atomic::{AtomicU64, Ordering};
/// # #[unsafe(no_mangle)]
/// # extern "C" fn kprobes_thread() -> u64 { 4711 }
///
/// static DEPTH: module::PerThread<AtomicU64, 1024> = module::PerThread::new();
/// // Where a function is entered:
/// let Some(depth) = DEPTH.get() else { return };
/// depth.fetch_add(1, Ordering::Relaxed);
/// // Where it returns:
/// let before = DEPTH.peek().map(|depth| depth.fetch_sub(1, Ordering::Relaxed));
/// assert_eq!(before, Some(1));
/// assert!(DEPTH.iter().all(|(thread, _)| thread == module::thread()));
/// // Where the thread ends:
/// DEPTH.leave(|depth| depth.store(0, Ordering::Relaxed));
/// assert!(DEPTH.peek().is_none() && DEPTH.iter().next().is_none());
/// ```
///
/// # Invariants
///
/// Only the thread with a number writes it into a `thread`, or takes it out. So no number is there twice.
#[derive(Debug)]
pub struct PerThread<T, const N: usize>([Entry<T>; N]);

#[derive(Debug)]
#[repr(align(64))]
struct Entry<T> {
    /// The thread's number + 1; [`FREE`], or [`LEFT`].
    thread: AtomicU64,
    value: T,
}

/// Nobody had it yet: nobody's place is behind it.
const FREE: u64 = 0;
/// Somebody had it.
const LEFT: u64 = u64::MAX;

impl<T: Zeroed, const N: usize> PerThread<T, N> {
    /// Nobody has a place.
    #[must_use]
    pub const fn new() -> Self {
        // SAFETY: zero bytes are a value of `T`, that is what `Zeroed` promises, and of the number beside it.
        Self(unsafe { MaybeUninit::zeroed().assume_init() })
    }

    /// The running thread's value, with a place for it if it has none; `None` when all are taken.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        let key = key();
        self.find(key).or_else(|| self.claim(key)).map(|entry| &entry.value)
    }

    /// The running thread's value if it has a place.
    #[must_use]
    pub fn peek(&self) -> Option<&T> {
        self.find(key()).map(|entry| &entry.value)
    }

    /// Gives the running thread's place back; `clear` makes the value what the next thread shall find.
    pub fn leave(&self, clear: impl FnOnce(&T)) {
        if let Some(entry) = self.find(key()) {
            clear(&entry.value);
            entry.thread.store(LEFT, Ordering::Release);
        }
    }

    /// The values of all threads that have a place, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let thread = |entry: &Entry<T>| match entry.thread.load(Ordering::Acquire) {
            FREE | LEFT => None,
            key => Some(key - 1),
        };
        self.0.iter().filter_map(move |entry| Some((thread(entry)?, &entry.value)))
    }

    fn find(&self, key: u64) -> Option<&Entry<T>> {
        for entry in self.from(key) {
            match entry.thread.load(Ordering::Acquire) {
                found if found == key => return Some(entry),
                FREE => return None,
                _ => {}
            }
        }
        None
    }

    /// Takes the first place that is free. What was free in between and is not any more costs a step, not an answer: only
    /// this thread looks for its number.
    fn claim(&self, key: u64) -> Option<&Entry<T>> {
        self.from(key).find(|entry| {
            let seen = entry.thread.load(Ordering::Relaxed);
            (seen == FREE || seen == LEFT)
                && entry.thread.compare_exchange(seen, key, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// All entries, from where this key is looked for first.
    fn from(&self, key: u64) -> impl Iterator<Item = &Entry<T>> {
        // Fibonacci hashing: neighbours, as threads are, come to lie apart.
        let start = if N == 0 { 0 } else { (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % N };
        let (before, after) = self.0.split_at(start);
        after.iter().chain(before)
    }
}

impl<T: Zeroed, const N: usize> Default for PerThread<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The running thread as a key: never one of the two that mean no thread.
fn key() -> u64 {
    (kprobes_thread() % (u64::MAX - 1)) + 1
}
