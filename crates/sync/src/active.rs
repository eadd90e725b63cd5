//! Who is in a handler right now: the recursion guard, and what a grace period waits for.
//!
//! In a kernel this is one word per processor. In a process it is a set of thread ids: a thread enters when its
//! handler begins and leaves when it ends. A thread that is already in the set has hit a probe inside a handler
//! (Linux: `kprobe_running()`, status `KPROBE_REENTER`); its probes do not run and are counted as missed.
//!
//! A member lives in a window of [`WINDOW`] words that its id selects, anywhere in it, so leaving is one store and
//! needs no tombstone, and looking is a bounded scan. A full window makes the entry fail; the caller counts a miss.
//!
//! Only a thread itself stores or clears its own id, hence "am I in?" cannot race.
//!
//! A thread enters and then looks at what control takes away; control takes it away and then looks who is in. One of the
//! two must see the other, so both have a full fence in between: without it either look may come before the store that
//! stands in front of it.

use crate::primitive::{AtomicU64, Ordering, fence};

/// How many threads whose ids fall together can be in handlers at once.
pub const WINDOW: usize = 16;

/// A view of the set's words; their number should be a multiple of [`WINDOW`].
///
/// ```
/// use sync::primitive::AtomicU64;
/// use sync::{ActiveSet, WINDOW};
///
/// let words = [const { AtomicU64::new(0) }; WINDOW];
/// let active = ActiveSet::new(&words);
/// let place = active.enter(7).ok_or("its window is full")?;
/// assert!(active.enter(7).is_none()); // it has hit a probe inside a handler
/// assert!(active.members().eq([7])); // a grace period waits for it
/// ActiveSet::leave(place);
/// assert_eq!(active.members().count(), 0);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ActiveSet<'a> {
    words: &'a [AtomicU64],
}

impl<'a> ActiveSet<'a> {
    /// A set over `words`; zeroed words are an empty set.
    #[must_use]
    pub fn new(words: &'a [AtomicU64]) -> Self {
        Self { words }
    }

    /// Enters `id` (not 0). `None` when it is in already, or its window is full; else the place to leave from.
    #[must_use]
    pub fn enter(&self, id: u64) -> Option<&'a AtomicU64> {
        let window = self.window(id)?;
        if window.iter().any(|w| w.load(Ordering::Relaxed) == id) {
            return None;
        }
        let free = |w: &&AtomicU64| w.compare_exchange(0, id, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        let place = window.iter().find(free);
        fence(Ordering::SeqCst);
        place
    }

    /// Leaves: the place that [`enter`](Self::enter) gave.
    pub fn leave(place: &AtomicU64) {
        place.store(0, Ordering::Release);
    }

    /// The ids in the set, as a snapshot: a grace period has passed when each of them has left once.
    pub fn members(&self) -> impl Iterator<Item = u64> + use<'a> {
        fence(Ordering::SeqCst);
        self.words.iter().map(|w| w.load(Ordering::SeqCst)).filter(|&id| id != 0)
    }

    fn window(&self, id: u64) -> Option<&'a [AtomicU64]> {
        let windows = self.words.len() / WINDOW;
        let at = (id % (windows.max(1) as u64)) as usize * WINDOW;
        self.words.get(at..at + WINDOW)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn words(n: usize) -> Vec<AtomicU64> {
        (0..n).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_thread_enters_once_until_it_leaves() {
        let w = words(64);
        let set = ActiveSet::new(&w);
        let place = set.enter(7).unwrap();
        assert!(set.enter(7).is_none(), "recursion");
        assert!(set.enter(8).is_some(), "another thread");
        assert_eq!(set.members().collect::<Vec<_>>().len(), 2);
        ActiveSet::leave(place);
        assert!(set.enter(7).is_some());
    }

    #[test]
    fn a_full_window_refuses() {
        let w = words(WINDOW);
        let set = ActiveSet::new(&w);
        assert!((1..=WINDOW as u64).all(|id| set.enter(id).is_some()));
        assert!(set.enter(99).is_none());
        assert!(ActiveSet::new(&[]).enter(1).is_none());
    }
}
