//! The probe table: breakpoint address → index of a site, with a mark of what the address is to it.
//!
//! Open addressing, one writer, any number of readers in trap context. Entries are never removed: a site whose last
//! probe is gone stays in the table (its state says so), because a processor may have fetched the breakpoint before
//! it was taken out and will look it up after. That is failure class 1 and 3 of kprobes (publish and unlist order),
//! solved by having no unlist.
//!
//! # Protocol
//!
//! The writer stores the value, then the key with release; readers load the key with acquire. A reader that walks past
//! a bucket which is just being written sees an unknown key or none: either is right, since the breakpoint for that
//! address is planted only after the bucket is complete. When the writer sits in another process and its stores are
//! not atomic, a torn key can only send a reader to a site that bears another address, and the hit path checks that.

use crate::primitive::{AtomicU64, Ordering};

/// One place of a [`Table`].
#[repr(C)]
#[derive(Debug)]
pub struct Bucket {
    /// Address of the breakpoint; 0 marks an empty bucket.
    pub key: AtomicU64,
    /// Index of the site, and marks of whoever fills the table.
    pub value: AtomicU64,
}

impl Bucket {
    /// An empty bucket.
    #[must_use]
    pub fn new() -> Self {
        Self { key: AtomicU64::new(0), value: AtomicU64::new(0) }
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self::new()
    }
}

/// A view of the table's buckets, whose number must be a power of two.
///
/// ```
/// use sync::{Bucket, Table};
///
/// let buckets: [Bucket; 8] = std::array::from_fn(|_| Bucket::new());
/// let table = Table::new(&buckets);
/// assert!(table.insert(0x1000, 3));
/// assert!(table.insert(0x1000, 4)); // replaced
/// assert_eq!(table.find(0x1000), Some(4));
/// assert_eq!(table.find(0x1001), None);
///
/// // What trap context keeps, and where it looks first.
/// let mask = Table::mask(buckets.len());
/// assert_eq!(Table::with_mask(&buckets, mask).find(0x1000), Some(4));
/// // Where a writer looks first that fills the buckets from outside.
/// assert!(buckets.iter().any(|b| std::ptr::eq(b, &buckets[Table::start(0x1000) & mask])));
/// assert!(!table.insert(0, 3));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    buckets: &'a [Bucket],
    /// One less than the number of buckets, or 0.
    mask: usize,
}

impl<'a> Table<'a> {
    /// A table over `buckets`. A length that is no power of two is cut down to the largest one that fits.
    #[must_use]
    pub fn new(buckets: &'a [Bucket]) -> Self {
        Self { buckets, mask: Self::mask(buckets.len()) }
    }

    /// What [`with_mask`](Self::with_mask) needs for so many buckets.
    #[must_use]
    pub const fn mask(buckets: usize) -> usize {
        match buckets.checked_ilog2() {
            Some(power) => (1 << power) - 1,
            None => 0,
        }
    }

    /// The same table as [`new`](Self::new) gives, without computing its size: `mask` is [`mask`](Self::mask) of the
    /// number of buckets.
    #[must_use]
    #[inline]
    pub const fn with_mask(buckets: &'a [Bucket], mask: usize) -> Self {
        Self { buckets, mask }
    }

    /// The value stored under `key`. Safe in trap context; at most one pass over the buckets.
    #[must_use]
    #[inline]
    pub fn find(&self, key: u64) -> Option<u64> {
        let start = Self::start(key);
        for i in 0..=self.mask {
            let bucket = self.buckets.get(start.wrapping_add(i) & self.mask)?;
            match bucket.key.load(Ordering::Acquire) {
                0 => return None,
                k if k == key => return Some(bucket.value.load(Ordering::Relaxed)),
                _ => {}
            }
        }
        None
    }

    /// Where `key` is, or where it would go: the index of the bucket. `None` when the table is full or the key is 0.
    fn place(&self, key: u64) -> Option<usize> {
        if key == 0 {
            return None;
        }
        self.sequence(key).find(|&i| {
            self.buckets.get(i).is_some_and(|b| matches!(b.key.load(Ordering::Relaxed), k if k == 0 || k == key))
        })
    }

    /// Stores `value` under `key`; false when the table is full or the key is 0. For the one writer.
    #[must_use]
    pub fn insert(&self, key: u64, value: u64) -> bool {
        let Some(bucket) = self.place(key).and_then(|i| self.buckets.get(i)) else {
            return false;
        };
        bucket.value.store(value, Ordering::Relaxed);
        bucket.key.store(key, Ordering::Release);
        true
    }

    /// Where the sequence of buckets for `key` begins, before it is masked to the table's length.
    #[must_use]
    pub fn start(key: u64) -> usize {
        hash(key)
    }

    /// The bucket indices to try for `key`, each at most once.
    fn sequence(&self, key: u64) -> impl Iterator<Item = usize> + use<> {
        let (start, mask) = (Self::start(key), self.mask);
        let len = if self.buckets.is_empty() { 0 } else { mask + 1 };
        (0..len).map(move |i| start.wrapping_add(i) & mask)
    }
}

/// Fibonacci hashing: neighbouring addresses must not share a bucket run.
fn hash(key: u64) -> usize {
    let mixed = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn buckets(n: usize) -> Vec<Bucket> {
        (0..n).map(|_| Bucket::new()).collect()
    }

    #[test]
    fn finds_what_was_inserted_and_nothing_else() {
        let b = buckets(256);
        let t = Table::new(&b);
        for k in 1..=200u64 {
            assert!(t.insert(k * 16, k));
        }
        for k in 1..=200u64 {
            assert_eq!(t.find(k * 16), Some(k));
            assert_eq!(t.find(k * 16 + 1), None);
        }
    }

    #[test]
    fn a_full_table_refuses_and_still_answers() {
        let b = buckets(4);
        let t = Table::new(&b);
        assert!((1..=4).all(|k| t.insert(k, k)));
        assert!(!t.insert(5, 5));
        assert_eq!(t.find(5), None);
        assert!(t.insert(3, 9), "a present key can be stored again");
        assert_eq!(t.find(3), Some(9));
    }

    #[test]
    fn the_zero_key_and_an_empty_table_are_harmless() {
        let b = buckets(4);
        assert!(!Table::new(&b).insert(0, 1));
        assert_eq!(Table::new(&[]).find(7), None);
        assert!(!Table::new(&[]).insert(7, 7));
    }
}
