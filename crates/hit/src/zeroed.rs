//! Zeroed memory is a table with nothing in it.

#![expect(unsafe_code, reason = "the trait is a promise that the compiler cannot check")]

use crate::returns::{Instance, Pool};
use crate::{Counters, Marks, Probe, Site};
use sync::Zeroed;

// SAFETY: atomic integers, and arrays of them.
unsafe impl Zeroed for Site {}
// SAFETY: an array of atomic integers.
unsafe impl Zeroed for Marks {}
// SAFETY: atomic integers, an array of them, and `Handlers`, which are such.
unsafe impl Zeroed for Probe {}
// SAFETY: atomic integers.
unsafe impl Zeroed for Counters {}
// SAFETY: atomic integers, and arrays of them.
unsafe impl Zeroed for Instance {}
// SAFETY: atomic integers.
unsafe impl Zeroed for Pool {}
