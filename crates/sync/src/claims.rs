//! Places that are claimed by a key, and found again by it.
//!
//! A return probe may keep data for each activation. The data lies in an area with as many places as the probe may have
//! activations (`maxactive`); an activation claims one when it begins, under the number of its instance, and gives it
//! back when it ends. A key starts to look at a place of its own, so that little is searched; nothing moves, so a claim
//! is one exchange and giving back is one store.
//!
//! Only the holder of a key claims, finds or releases under it.

use crate::primitive::{AtomicU64, Ordering};

/// A view of the words of an area: one for each place, 0 while it is free.
///
/// ```
/// use sync::Claims;
/// use sync::primitive::AtomicU64;
///
/// let words = [const { AtomicU64::new(0) }; 2];
/// let claims = Claims::new(&words);
/// assert_eq!(claims.claim(5), Some(1)); // 5 % 2
/// assert_eq!(claims.claim(7), Some(0)); // it belongs there too, and takes the next
/// assert_eq!(claims.claim(9), None);
/// assert_eq!(claims.find(7), Some(0));
/// assert!(claims.release(5));
/// assert_eq!(claims.find(5), None);
/// assert_eq!(claims.claim(9), Some(1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Claims<'a> {
    /// Over words that are zero at first.
    #[must_use]
    pub fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    /// Claims a place for `key` (not 0); `None` when all are taken.
    #[must_use]
    pub fn claim(&self, key: u64) -> Option<usize> {
        self.places(key).find(|&place| {
            let word = self.words.get(place);
            word.is_some_and(|w| w.compare_exchange(0, key, Ordering::Acquire, Ordering::Relaxed).is_ok())
        })
    }

    /// The place that `key` has claimed.
    #[must_use]
    pub fn find(&self, key: u64) -> Option<usize> {
        self.places(key).find(|&place| self.words.get(place).is_some_and(|w| w.load(Ordering::Relaxed) == key))
    }

    /// Gives back what `key` has claimed; false when that is nothing.
    pub fn release(&self, key: u64) -> bool {
        let word = self.find(key).and_then(|place| self.words.get(place));
        word.inspect(|w| w.store(0, Ordering::Release)).is_some()
    }

    /// All places, beginning with the one where `key` belongs.
    fn places(&self, key: u64) -> impl Iterator<Item = usize> + use<> {
        let count = self.words.len();
        let first = (key % count.max(1) as u64) as usize;
        (first..count).chain(0..first)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn words(n: usize) -> Vec<AtomicU64> {
        (0..n).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn each_key_has_a_place_of_its_own() {
        let words = words(3);
        let claims = Claims::new(&words);
        let places: Vec<_> = [7, 10, 13].map(|key| claims.claim(key).unwrap()).into();
        assert_eq!(places, [1, 2, 0], "all begin at the same place");
        assert_eq!(claims.claim(16), None);
        assert_eq!([7, 10, 13].map(|key| claims.find(key).unwrap()), [1, 2, 0]);
    }

    #[test]
    fn a_place_is_found_though_others_were_given_back_before_it() {
        let words = words(4);
        let claims = Claims::new(&words);
        assert_eq!((claims.claim(4), claims.claim(8)), (Some(0), Some(1)));
        assert!(claims.release(4) && !claims.release(4));
        assert_eq!(claims.find(8), Some(1));
        assert_eq!(claims.claim(12), Some(0));
    }

    #[test]
    fn an_area_without_places_has_none() {
        let claims = Claims::new(&[]);
        assert_eq!((claims.claim(1), claims.find(1), claims.release(1)), (None, None, false));
    }
}
