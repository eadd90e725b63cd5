//! Types of which zeroed memory is a value: what is shared with other processes, or allocated as a whole.

#![expect(unsafe_code, reason = "the trait is a promise that the compiler cannot check")]

use crate::Bucket;
use crate::primitive::{AtomicU32, AtomicU64};

/// All bits zero are a value of this type, and nothing is to be done when a value goes.
///
/// # Safety
///
/// Every field, at any depth, is an integer, an atomic integer, or an array of such; the type has no `Drop`.
pub unsafe trait Zeroed: Sized {}

macro_rules! integers {
    ($($t:ty),*) => {$(
        // SAFETY: an integer.
        unsafe impl Zeroed for $t {}
    )*};
}

integers!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);
#[cfg(not(loom))]
integers!(AtomicU32, AtomicU64);

// SAFETY: it has no bits.
unsafe impl Zeroed for () {}
// SAFETY: as its elements.
unsafe impl<T: Zeroed, const N: usize> Zeroed for [T; N] {}
#[cfg(not(loom))]
// SAFETY: two atomic integers.
unsafe impl Zeroed for Bucket {}
