//! A value that is read anywhere, also in a trap, and replaced as a whole.
//!
//! Readers take no lock and never wait: they count themselves in, use the value, and count themselves out. A writer
//! puts another value in its place and waits until nobody can have the old one any more; that is what a *grace period*
//! is. Readers that come meanwhile are counted elsewhere, so a stream of them cannot keep it waiting (Linux: SRCU,
//! `kernel/rcu/srcutree.c`). A reader that does not come back, because a fault has ended it, would keep the next
//! writer for ever: what runs inside [`Snapshot::read`] must not touch memory that may be missing.
//!
//! # Why the old value is free after the wait
//!
//! All that follows is sequentially consistent. A reader counts itself before it loads the pointer, the writer stores the
//! pointer before it looks at the counts. If the writer sees 0, then each reader of that count either has left, or has
//! not counted itself yet and will load the new pointer. The writer has seen 0 in both counts when it frees.

use alloc::boxed::Box;
use core::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};

use crate::sched;

/// A value of which readers see one state or another, never half of one.
pub(crate) struct Snapshot<T> {
    /// Null for the value that was there from the beginning, else from `Box::into_raw`.
    now: AtomicPtr<T>,
    first: T,
    /// Readers, by where they have counted themselves.
    readers: [AtomicUsize; 2],
    /// Where those count themselves who come now: the lowest bit.
    side: AtomicUsize,
    /// A writer's turn is somebody's.
    writing: AtomicBool,
}

// SAFETY: readers share references to `T`, and a writer drops values that other threads have made.
unsafe impl<T: Send + Sync> Sync for Snapshot<T> {}

impl<T> Snapshot<T> {
    /// With the value that readers see first.
    pub(crate) const fn new(first: T) -> Self {
        Self {
            now: AtomicPtr::new(core::ptr::null_mut()),
            first,
            readers: [const { AtomicUsize::new(0) }; 2],
            side: AtomicUsize::new(0),
            writing: AtomicBool::new(false),
        }
    }

    /// Lends the value as it is now.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        let readers = &self.readers[self.side.load(SeqCst) & 1];
        readers.fetch_add(1, SeqCst);
        // SAFETY: null, or a value that no writer frees until we are counted out (see above).
        let result = f(unsafe { self.now.load(SeqCst).as_ref() }.unwrap_or(&self.first));
        readers.fetch_sub(1, SeqCst);
        result
    }

    /// Puts what `change` makes of the value in its place, unless it fails; returns when nobody can see the old one, and
    /// it is gone. One writer at a time; in a thread, with interrupts on.
    ///
    /// # Errors
    ///
    /// What `change` has.
    pub(crate) fn replace<E>(&self, change: impl FnOnce(&T) -> Result<T, E>) -> Result<(), E> {
        while self.writing.swap(true, Acquire) {
            sched::yield_now();
        }
        let result = self.read(change).map(|value| {
            let old = self.now.swap(Box::into_raw(Box::new(value)), SeqCst);
            self.wait();
            if !old.is_null() {
                // SAFETY: it came from `into_raw` here, and no reader has it any more.
                drop(unsafe { Box::from_raw(old) });
            }
        });
        self.writing.store(false, Release);
        result
    }

    /// Until each reader that is there now has left.
    fn wait(&self) {
        for _ in 0..2 {
            let left = self.side.fetch_add(1, SeqCst) & 1;
            while self.readers[left].load(SeqCst) != 0 {
                sched::yield_now();
            }
        }
    }
}
