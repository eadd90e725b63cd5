//! A ring of variable-size records: many producers in trap context, one consumer, nobody waits.
//!
//! Positions count 64-bit words and never wrap (2^64 words do not happen); an index is a position masked. A producer
//! reserves `[head, head + n)` by compare-exchange, stores its words, and commits by storing the record's first word
//! last, with release: a header, never 0. The consumer reads from `tail`: a zero header means "reserved, not yet
//! written", and it stops there. What it has read it zeroes before it moves `tail`, so a reused word is zero again.
//!
//! What does not fit is refused at once; the caller counts it as lost. A producer that dies between reservation and
//! commit stops the consumer at that place: therefore a ring belongs to one process, and is thrown away with it.

use crate::primitive::{AtomicU64, Ordering};

/// Bits of the header word that hold the record's length in words, the header included.
const LENGTH_BITS: u32 = 16;
const LENGTH_MASK: u64 = (1 << LENGTH_BITS) - 1;

/// A view of a ring. `data.len()` must be a power of two.
///
/// ```
/// use sync::primitive::AtomicU64;
/// use sync::{Ring, RingReader};
///
/// let (head, tail) = (AtomicU64::new(0), AtomicU64::new(0));
/// let data = [const { AtomicU64::new(0) }; 8];
/// let ring = Ring::new(&head, &tail, &data);
/// assert!(ring.push(42, [1, 2, 3].into_iter()));
/// assert_eq!(ring.fill(), (4, 8)); // a header and three words
/// assert!(!ring.push(43, [0; 4].into_iter())); // five words do not fit now
///
/// let reader = RingReader::new(ring);
/// let mut record = Vec::new();
/// assert_eq!(reader.pop(|word| record.push(word)), Some(42));
/// assert_eq!(record, [1, 2, 3]);
/// assert_eq!(reader.pop(|_| ()), None);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    head: &'a AtomicU64,
    tail: &'a AtomicU64,
    data: &'a [AtomicU64],
}

impl<'a> Ring<'a> {
    /// A ring over `data`; zeroed words are an empty ring. A length that is no power of two is cut down to one.
    #[must_use]
    pub fn new(head: &'a AtomicU64, tail: &'a AtomicU64, data: &'a [AtomicU64]) -> Self {
        let len = match data.len() {
            0 => 0,
            n => 1 << n.ilog2(),
        };
        Self { head, tail, data: data.get(..len).unwrap_or(&[]) }
    }

    /// Appends one record: a tag of 48 bits, and words. False when it does not fit now: count it as lost.
    #[must_use]
    pub fn push(&self, tag: u64, words: impl ExactSizeIterator<Item = u64>) -> bool {
        let len = words.len() as u64 + 1;
        if len > LENGTH_MASK {
            return false;
        }
        let Some(at) = self.reserve(len) else {
            return false;
        };
        for (i, word) in (1..len).zip(words) {
            self.store(at.wrapping_add(i), word, Ordering::Relaxed);
        }
        self.store(at, tag << LENGTH_BITS | len, Ordering::Release);
        true
    }

    /// The share of the ring that is in use, as a pair (used, capacity) of words.
    #[must_use]
    pub fn fill(&self) -> (u64, u64) {
        let (head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        (head.wrapping_sub(tail), self.data.len() as u64)
    }

    fn reserve(&self, len: u64) -> Option<u64> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let tail = self.tail.load(Ordering::Acquire);
            if head.wrapping_sub(tail).saturating_add(len) > self.data.len() as u64 {
                return None;
            }
            match self.head.compare_exchange_weak(head, head.wrapping_add(len), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(head),
                Err(now) => head = now,
            }
        }
    }

    fn word(&self, at: u64) -> Option<&'a AtomicU64> {
        let mask = (self.data.len() as u64).wrapping_sub(1);
        self.data.get((at & mask) as usize)
    }

    fn store(&self, at: u64, value: u64, order: Ordering) {
        if let Some(word) = self.word(at) {
            word.store(value, order);
        }
    }

    fn load(&self, at: u64, order: Ordering) -> u64 {
        self.word(at).map_or(0, |w| w.load(order))
    }
}

/// The one consumer of a [`Ring`].
#[derive(Clone, Copy, Debug)]
pub struct RingReader<'a>(Ring<'a>);

impl<'a> RingReader<'a> {
    /// The caller promises to be the only consumer; a second one only garbles records, never memory.
    #[must_use]
    pub fn new(ring: Ring<'a>) -> Self {
        Self(ring)
    }

    /// Takes the oldest record: gives its words to `push_word`, and returns its tag. `None` when there is none that
    /// is complete.
    pub fn pop(&self, mut push_word: impl FnMut(u64)) -> Option<u64> {
        let ring = &self.0;
        let tail = ring.tail.load(Ordering::Relaxed);
        let header = ring.load(tail, Ordering::Acquire);
        let len = header & LENGTH_MASK;
        if len == 0 || len > ring.data.len() as u64 {
            return None;
        }
        for i in 0..len {
            let at = tail.wrapping_add(i);
            if i > 0 {
                push_word(ring.load(at, Ordering::Relaxed));
            }
            ring.store(at, 0, Ordering::Relaxed);
        }
        ring.tail.store(tail.wrapping_add(len), Ordering::Release);
        Some(header >> LENGTH_BITS)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn words(n: usize) -> Vec<AtomicU64> {
        (0..n).map(|_| AtomicU64::new(0)).collect()
    }

    fn pop(r: &RingReader<'_>) -> Option<(u64, Vec<u64>)> {
        let mut v = Vec::new();
        r.pop(|w| v.push(w)).map(|tag| (tag, v))
    }

    #[test]
    fn records_come_out_whole_and_in_order_across_the_wrap() {
        let (h, t, d) = (AtomicU64::new(0), AtomicU64::new(0), words(16));
        let ring = Ring::new(&h, &t, &d);
        let reader = RingReader::new(ring);
        for i in 0..100u64 {
            assert!(ring.push(i, [i, i + 1, i + 2].into_iter()));
            assert!(ring.push(i, [].into_iter()));
            assert_eq!(pop(&reader), Some((i, vec![i, i + 1, i + 2])));
            assert_eq!(pop(&reader), Some((i, vec![])));
            assert_eq!(pop(&reader), None);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_overwritten() {
        let (h, t, d) = (AtomicU64::new(0), AtomicU64::new(0), words(8));
        let ring = Ring::new(&h, &t, &d);
        assert!(ring.push(1, [1, 2, 3].into_iter()));
        assert!(ring.push(2, [4, 5, 6].into_iter()));
        assert!(!ring.push(3, [].into_iter()));
        assert!(!ring.push(3, [0; 100].into_iter()), "larger than the ring");
        let reader = RingReader::new(ring);
        assert_eq!(pop(&reader), Some((1, vec![1, 2, 3])));
        assert!(ring.push(3, [7].into_iter()));
        assert_eq!(pop(&reader), Some((2, vec![4, 5, 6])));
        assert_eq!(pop(&reader), Some((3, vec![7])));
    }

    #[test]
    fn garbage_in_shared_words_cannot_make_the_reader_run_away() {
        let (h, t, d) = (AtomicU64::new(5), AtomicU64::new(3), words(8));
        d.iter().for_each(|w| w.store(u64::MAX, Ordering::Relaxed));
        assert_eq!(pop(&RingReader::new(Ring::new(&h, &t, &d))), None);
        assert_eq!(pop(&RingReader::new(Ring::new(&h, &t, &[]))), None);
    }
}
