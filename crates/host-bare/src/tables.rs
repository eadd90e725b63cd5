//! The engine's memory: what handlers read, and what they write.

use crate::engine::Limits;
use alloc::boxed::Box;
use alloc::vec::Vec;
use arch::x86::handlers::Running;
use core::cell::UnsafeCell;
use hit::returns::{Instance, Pool};
use hit::{Counters, Marks, Probe, Site, Stepping};
use sync::primitive::{AtomicU64, Ordering};
use sync::{Bucket, Ring, Table, Zeroed};

/// Bytes of arguments that a record has room for.
pub(crate) const PAYLOAD_BYTES: usize = 4096;

/// `count` zeroed elements.
pub(crate) fn zeroed<T: Zeroed>(count: usize) -> Box<[T]> {
    // SAFETY: all bits zero are a value of `T`, by the trait.
    unsafe { Box::<[T]>::new_zeroed_slice(count).assume_init() }
}

/// One zeroed value.
fn zeroed_one<T: Zeroed>() -> Box<T> {
    // SAFETY: as above.
    unsafe { Box::<T>::new_zeroed().assume_init() }
}

/// A processor's control block. Its words are written by this processor only; others read `active` and `entered`.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Processor {
    /// Not 0 while it is in a handler.
    pub(crate) active: AtomicU64,
    /// How often it has entered one.
    pub(crate) entered: AtomicU64,
    /// The step it is in the middle of.
    pub(crate) stepping: Stepping,
    /// The handler that it calls, and where to go on if that faults.
    pub(crate) running: Running,
    /// Its records.
    pub(crate) records: Records,
    /// Room for the arguments of the record that it writes.
    payload: Payload,
}

/// A processor's ring.
#[derive(Debug)]
pub(crate) struct Records {
    head: AtomicU64,
    tail: AtomicU64,
    data: Box<[AtomicU64]>,
}

impl Records {
    pub(crate) fn ring(&self) -> Ring<'_> {
        Ring::new(&self.head, &self.tail, &self.data)
    }
}

#[derive(Debug)]
struct Payload {
    bytes: UnsafeCell<[u8; PAYLOAD_BYTES]>,
    lent: AtomicU64,
}

// SAFETY: `Processor::with_payload` lends the bytes to one user at a time.
unsafe impl Sync for Payload {}

impl Processor {
    fn new(words: usize) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            active: zero(),
            entered: zero(),
            stepping: Stepping::new(),
            running: Running::new(),
            records: Records { head: zero(), tail: zero(), data: zeroed(words) },
            payload: Payload { bytes: UnsafeCell::new([0; PAYLOAD_BYTES]), lent: zero() },
        }
    }

    /// The guard of this processor, taken; `None` when it is in a handler already.
    pub(crate) fn enter(&self) -> Option<&AtomicU64> {
        if self.active.load(Ordering::Relaxed) != 0 {
            return None;
        }
        // First the count, so that nobody takes this handler for a later one; then the guard, sequentially consistent:
        // whoever waits for handlers must see both before the handler reads a chain.
        self.entered.store(self.entered.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        self.active.swap(1, Ordering::SeqCst);
        Some(&self.active)
    }

    /// Lends `f` the room for arguments; `None` while it is lent: to a handler that this one has interrupted.
    pub(crate) fn with_payload<R>(&self, f: impl FnOnce(&mut [u8; PAYLOAD_BYTES]) -> R) -> Option<R> {
        if self.payload.lent.swap(1, Ordering::Relaxed) != 0 {
            return None;
        }
        // SAFETY: `lent` was 0, and is not 0 until `f` is done: nobody else has the bytes.
        let result = f(unsafe { &mut *self.payload.bytes.get() });
        self.payload.lent.store(0, Ordering::Relaxed);
        Some(result)
    }
}

/// Bytes of fetch programs. Control appends; what is written never changes.
#[derive(Debug)]
pub(crate) struct Programs(Box<[UnsafeCell<u8>]>);

// SAFETY: `append` writes only bytes that no one was told of yet, `get` reads only bytes that were appended before.
unsafe impl Sync for Programs {}

impl Programs {
    pub(crate) fn capacity(&self) -> usize {
        self.0.len()
    }

    /// Writes `code` at `at`.
    ///
    /// # Safety
    ///
    /// No one was told of these bytes yet, and only one caller appends.
    pub(crate) unsafe fn append(&self, at: usize, code: &[u8]) -> bool {
        let Some(place) = at.checked_add(code.len()).and_then(|end| self.0.get(at..end)) else { return false };
        for (to, &byte) in place.iter().zip(code) {
            // SAFETY: nobody reads these bytes yet: the caller's promise.
            unsafe { *to.get() = byte };
        }
        true
    }

    /// `length` bytes at `at`.
    ///
    /// # Safety
    ///
    /// They were appended, and then published with release.
    pub(crate) unsafe fn get(&self, at: usize, length: usize) -> &[u8] {
        let Some(place) = at.checked_add(length).and_then(|end| self.0.get(at..end)) else { return &[] };
        // SAFETY: `UnsafeCell<u8>` has the layout of `u8`, the bytes are in bounds, and nobody writes them any more.
        unsafe { core::slice::from_raw_parts(place.as_ptr().cast::<u8>(), place.len()) }
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) buckets: Box<[Bucket]>,
    /// Of the table that the buckets are.
    pub(crate) mask: usize,
    pub(crate) sites: Box<[Site]>,
    pub(crate) marks: Box<[Marks]>,
    pub(crate) probes: Box<[Probe]>,
    pub(crate) counters: Box<[Counters]>,
    pub(crate) pool: Box<Pool>,
    pub(crate) instances: Box<[Instance]>,
    pub(crate) programs: Programs,
    pub(crate) processors: Vec<Processor>,
    /// By owner: not 0 when no handler of its probes may run any more.
    pub(crate) silenced: Box<[AtomicU64]>,
}

impl Tables {
    pub(crate) fn new(limits: &Limits, processors: usize) -> Self {
        // A site has three entries at most (its address, its slot, a second breakpoint). One with a jump takes the place of
        // two and has eleven: also three in its detour, its pad, and four boundaries. The table stays half empty.
        let buckets = (limits.sites * 11).next_power_of_two();
        let programs = (0..limits.program_bytes).map(|_| UnsafeCell::new(0)).collect();
        Self {
            buckets: zeroed(buckets),
            mask: Table::mask(buckets),
            sites: zeroed(limits.sites),
            marks: zeroed(limits.sites),
            probes: zeroed(limits.probes),
            counters: zeroed(limits.probes),
            pool: zeroed_one(),
            instances: zeroed(limits.instances),
            programs: Programs(programs),
            silenced: zeroed(crate::OWNERS),
            processors: (0..processors).map(|_| Processor::new(limits.record_words)).collect(),
        }
    }
}
