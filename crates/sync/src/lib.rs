//! What trap context reads and writes without locks or allocation.
//!
//! A breakpoint can interrupt any instruction, also one inside an allocator or under a lock, so what its handler
//! touches must make progress whatever the interrupted code was doing. Five structures are enough:
//!
//! | Structure | Writers | Readers | Used for |
//! |---|---|---|---|
//! | [`Table`] | one (control) | any trap handler | breakpoint address → site |
//! | [`FreeList`] | any trap handler | any trap handler | instances of return probes |
//! | [`Ring`] | any trap handler | one (control) | records |
//! | [`ActiveSet`] | any trap handler | control | recursion guard, grace periods |
//! | [`Claims`] | any trap handler | any trap handler | data of return probes' activations |
//!
//! None of them owns memory. They are views over words that a host supplies, because in the process host the same
//! words are mapped in two processes, at two addresses, and one of the two sides may be killed at any instruction. So
//! every structure stays usable whatever a dead or hostile peer left in its words: indices are masked or checked,
//! loops are bounded.
//!
//! The algorithms name only [`primitive`]'s atomics, which are `loom`'s under `--cfg loom`.

#![cfg_attr(not(any(test, loom)), no_std)]
#![deny(unsafe_code)]

mod active;
mod claims;
mod free_list;
pub mod primitive;
mod ring;
mod table;
mod zeroed;

pub use active::{ActiveSet, WINDOW};
pub use claims::Claims;
pub use free_list::{FreeList, NIL};
pub use ring::{Ring, RingReader};
pub use table::{Bucket, Table};
pub use zeroed::Zeroed;
