//! Zeroed plain data: the probe table's structures, some of which only a host can make, out of zeroed memory.

use hit::returns::{Instance, Pool};
use hit::{Probe, Site};
use sync::Bucket;
use sync::primitive::AtomicU64;

/// Data for which every bit pattern is a value and that consists of atomics only.
///
/// # Safety
///
/// The type has no padding, every bit pattern is valid, its alignment is at least 8, its size is a multiple of 8, and
/// all its fields are atomics (so that it may change behind a shared reference).
pub unsafe trait Plain {}

// SAFETY: `repr(C)`, atomics only, sizes asserted by `hit` (64, 64, 128); `Bucket` is two words; `Pool` is two words
// and four halves.
unsafe impl Plain for Site {}
// SAFETY: as above.
unsafe impl Plain for Probe {}
// SAFETY: as above.
unsafe impl Plain for Instance {}
// SAFETY: as above.
unsafe impl Plain for Pool {}
// SAFETY: as above.
unsafe impl Plain for Bucket {}

/// `count` zeroed elements.
#[must_use]
pub fn zeroed<T: Plain>(count: usize) -> Box<[T]> {
    // SAFETY: zero is a value of `T` (`Plain`).
    unsafe { Box::new_zeroed_slice(count).assume_init() }
}

/// The words that `elements` consist of: to copy them, or to fill them with nonsense.
#[must_use]
pub fn words<T: Plain>(elements: &[T]) -> &[AtomicU64] {
    let count = size_of_val(elements) / size_of::<AtomicU64>();
    // SAFETY: `T` consists of atomics without padding, aligned for a word and a whole number of words long (`Plain`);
    // any word is valid for it, and all its fields may change behind a shared reference.
    unsafe { core::slice::from_raw_parts(elements.as_ptr().cast(), count) }
}
