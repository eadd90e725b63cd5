//! Memory for the data of activations.
//!
//! Handlers use it as long as their probe is registered, and until its grace period is over. A grace period ends after
//! two seconds also when a handler has not ended (its thread may have died in it), so memory that was used once is used
//! for other activations later, but never for anything else.

use std::collections::BTreeMap;
use sync::primitive::{AtomicU64, Ordering};

/// An area, and those that nobody uses.
pub(crate) type Area = Box<[AtomicU64]>;

/// Areas that nobody uses, by their size in words.
#[derive(Debug, Default)]
pub(crate) struct Areas(BTreeMap<usize, Vec<Area>>);

impl Areas {
    /// So many words, all zero.
    pub(crate) fn take(&mut self, words: usize) -> Area {
        let Some(area) = self.0.get_mut(&words).and_then(Vec::pop) else { return zeroed(words) };
        area.iter().for_each(|w| w.store(0, Ordering::Relaxed));
        area
    }

    pub(crate) fn give_back(&mut self, area: Area) {
        if !area.is_empty() {
            self.0.entry(area.len()).or_default().push(area);
        }
    }
}

/// Asked of the allocator as zero: what is never touched costs nothing.
fn zeroed(words: usize) -> Area {
    // SAFETY: zero is a value of an atomic integer.
    unsafe { Box::new_zeroed_slice(words).assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_that_is_used_again_is_zero() {
        let mut areas = Areas::default();
        let area = areas.take(3);
        area.iter().for_each(|w| w.store(7, Ordering::Relaxed));
        let at = area.as_ptr();
        areas.give_back(area);
        let other = areas.take(2);
        assert_ne!(other.as_ptr(), at);
        let again = areas.take(3);
        assert!(again.as_ptr() == at && again.iter().all(|w| w.load(Ordering::Relaxed) == 0));
    }
}
