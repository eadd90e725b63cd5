//! Zeroed plain data: the probe table's structures, some of which only a host can make, out of zeroed memory.

use hit::returns::{Instance, Pool};
use hit::{Marks, Probe, Site};
use sync::Bucket;
use sync::primitive::AtomicU64;

/// Data of which zeroed memory is a value.
///
/// # Safety
///
/// All fields are atomic integers.
pub unsafe trait Plain {}

/// Plain data that can be looked at as words.
///
/// # Safety
///
/// The type is `repr(C)` and has no padding, its alignment is at least 8 and its size a multiple of 8.
pub unsafe trait Whole: Plain {}

// SAFETY: atomic integers only.
unsafe impl Plain for Site {}
// SAFETY: atomic integers only.
unsafe impl Plain for Marks {}
// SAFETY: atomic integers only.
unsafe impl Plain for Probe {}
// SAFETY: atomic integers only.
unsafe impl Plain for Instance {}
// SAFETY: atomic integers only.
unsafe impl Plain for Pool {}
// SAFETY: atomic integers only.
unsafe impl Plain for Bucket {}

// SAFETY: `repr(C)`; six words and four halves are the 64 bytes that `hit` asserts.
unsafe impl Whole for Site {}
// SAFETY: `repr(C)`; four words, four halves, six words and four more are the 128 bytes that `hit` asserts.
unsafe impl Whole for Instance {}
// SAFETY: `repr(C)`; three words and four halves.
unsafe impl Whole for Pool {}
// SAFETY: `repr(C)`; two words.
unsafe impl Whole for Bucket {}

/// `count` zeroed elements.
#[must_use]
pub fn zeroed<T: Plain>(count: usize) -> Box<[T]> {
    // SAFETY: zero is a value of an atomic integer, and `T` has nothing else (`Plain`).
    unsafe { Box::new_zeroed_slice(count).assume_init() }
}

/// The words that `elements` consist of: to copy them, or to fill them with nonsense.
///
/// ```
/// use hit::Site;
/// use sync::primitive::Ordering::Relaxed;
/// use testkit::model::{words, zeroed};
///
/// let sites: Box<[Site]> = zeroed(2);
/// assert_eq!(words(&sites).len() * 8, size_of_val(&*sites));
/// // Nonsense in every word shows in every field.
/// words(&sites).iter().for_each(|word| word.store(u64::MAX, Relaxed));
/// assert_eq!(sites[1].address.load(Relaxed), u64::MAX);
/// ```
#[must_use]
pub fn words<T: Whole>(elements: &[T]) -> &[AtomicU64] {
    let count = size_of_val(elements) / size_of::<AtomicU64>();
    // SAFETY: `T` consists of atomic integers without padding, is aligned for a word and a whole number of words long
    // (`Plain`, `Whole`); any word is a value, and every byte may change behind a shared reference.
    unsafe { core::slice::from_raw_parts(elements.as_ptr().cast(), count) }
}
