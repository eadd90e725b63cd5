//! A place for what `init` makes and `exit` needs.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

/// A static that is filled while the module runs, with one value at a time.
///
/// ```
/// static SLOT: module::Slot<u64> = module::Slot::new();
/// assert_eq!(SLOT.put(7), None);
/// assert_eq!(SLOT.with(|number| number + 1), Some(8));
/// assert_eq!(SLOT.take(), Some(7));
/// assert_eq!(SLOT.take(), None);
/// ```
///
/// # Invariants
///
/// The value is initialized in state `FULL`. Who has changed the state to `BUSY` has it alone until it changes the state
/// again.
pub struct Slot<T> {
    state: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

const EMPTY: u32 = 0;
const BUSY: u32 = 1;
const FULL: u32 = 2;

// SAFETY: by the invariant one thread at a time has the value, which may come from another.
unsafe impl<T: Send> Sync for Slot<T> {}

impl<T> Slot<T> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: AtomicU32::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Fills it. Gives the value back when there is one already, or somebody else uses it at this moment.
    pub fn put(&self, value: T) -> Option<T> {
        if !self.enter(EMPTY) {
            return Some(value);
        }
        // SAFETY: ours alone, by the invariant.
        unsafe { (*self.value.get()).write(value) };
        self.state.store(FULL, Ordering::Release);
        None
    }

    /// Empties it. `None` when it is empty, or somebody else uses it at this moment.
    pub fn take(&self) -> Option<T> {
        self.enter(FULL).then(|| {
            // SAFETY: ours alone and initialized, by the invariant; the state says from here on that it is not.
            let value = unsafe { (*self.value.get()).assume_init_read() };
            self.state.store(EMPTY, Ordering::Release);
            value
        })
    }

    /// Uses what is in it. `None` when it is empty, or somebody else uses it at this moment, the caller perhaps.
    pub fn with<R>(&self, use_it: impl FnOnce(&T) -> R) -> Option<R> {
        self.enter(FULL).then(|| {
            // SAFETY: ours alone and initialized, by the invariant.
            let result = use_it(unsafe { (*self.value.get()).assume_init_ref() });
            self.state.store(FULL, Ordering::Release);
            result
        })
    }

    /// Has the value from here on, if the slot is in this state.
    fn enter(&self, state: u32) -> bool {
        self.state.compare_exchange(state, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("full", &(self.state.load(Ordering::Relaxed) == FULL)).finish()
    }
}
