//! A free list of indices that a signal handler may pop from.
//!
//! A Treiber stack with a generation tag against ABA: head = `tag << 32 | index`. Popping reads the link of an element
//! that another thread may pop at the same moment; the tag makes the exchange fail then, and links are atomics, so the
//! stale read is harmless. Elements that were never used are not in the list at all: they are handed out by a bump
//! counter, so a pool of a million instances costs nothing until it is used.

use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// The index that means "none".
pub const NIL: u32 = u32::MAX;

/// A view of a free list: its head word, its bump word, and how to find the link of an element.
///
/// ```
/// use sync::FreeList;
/// use sync::primitive::{AtomicU32, AtomicU64};
///
/// let links = [const { AtomicU32::new(0) }; 3];
/// let (head, used) = (AtomicU64::new(0), AtomicU32::new(0));
/// let list = FreeList::new(&head, &used, 3, |index| links.get(index as usize));
/// assert_eq!((list.pop(), list.pop()), (Some(0), Some(1)));
/// list.push(0);
/// assert_eq!(list.pop(), Some(0)); // before one that was never used
/// assert_eq!(list.high_water(), 2);
/// assert_eq!((list.pop(), list.pop()), (Some(2), None));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FreeList<'a, F> {
    head: &'a AtomicU64,
    used: &'a AtomicU32,
    capacity: u32,
    link: F,
}

impl<'a, F: Fn(u32) -> Option<&'a AtomicU32>> FreeList<'a, F> {
    /// A list over `capacity` elements. A zeroed `head` and `used` are an unused pool.
    pub fn new(head: &'a AtomicU64, used: &'a AtomicU32, capacity: u32, link: F) -> Self {
        Self { head, used, capacity, link }
    }

    /// How many elements were ever handed out: all others were never touched.
    pub fn high_water(&self) -> u32 {
        self.used.load(Ordering::Acquire).min(self.capacity)
    }

    /// Takes an element: a returned one first, else one that was never used. `None` when all are out.
    pub fn pop(&self) -> Option<u32> {
        self.pop_returned().or_else(|| self.bump())
    }

    /// Gives an element back. The caller must be the one who popped it.
    pub fn push(&self, index: u32) {
        let Some(link) = (self.link)(index) else {
            return;
        };
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.store(low(head), Ordering::Relaxed);
            let new = next_tag(head) | u64::from(index.wrapping_add(1));
            match self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn pop_returned(&self) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            // Stored as index + 1, so that zeroed memory is an empty list.
            let index = low(head).checked_sub(1)?;
            let next = (self.link)(index)?.load(Ordering::Relaxed);
            let new = next_tag(head) | u64::from(next);
            match self.head.compare_exchange_weak(head, new, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(now) => head = now,
            }
        }
    }

    fn bump(&self) -> Option<u32> {
        let mut used = self.used.load(Ordering::Relaxed);
        while used < self.capacity {
            match self.used.compare_exchange_weak(used, used + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(used),
                Err(now) => used = now,
            }
        }
        None
    }
}

const fn low(head: u64) -> u32 {
    (head & 0xffff_ffff) as u32
}

const fn next_tag(head: u64) -> u64 {
    (head >> 32).wrapping_add(1) << 32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn hands_out_each_element_once_and_again_after_its_return() {
        let links: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
        let (head, used) = (AtomicU64::new(0), AtomicU32::new(0));
        let list = FreeList::new(&head, &used, 4, |i| links.get(i as usize));
        let all: Vec<u32> = std::iter::from_fn(|| list.pop()).collect();
        assert_eq!(all, [0, 1, 2, 3]);
        list.push(2);
        list.push(0);
        assert_eq!((list.pop(), list.pop(), list.pop()), (Some(0), Some(2), None));
        assert_eq!(list.high_water(), 4);
    }

    #[test]
    fn a_corrupt_head_ends_in_none() {
        let (head, used) = (AtomicU64::new(77), AtomicU32::new(9));
        let list = FreeList::new(&head, &used, 4, |_| None);
        assert_eq!(list.pop(), None);
    }
}
