//! What the tests of the workspace have in common: oracles, generators and the corpus.
//!
//! - [`processor`]: the machine's own processor executes an instruction in place and out of line;
//!   [`differential`] compares the two with each other and with the emulated operation;
//! - [`edges`]: cases at the edges, each once;
//! - [`generate`]: random instructions and register files, edge cases first, from a seed that is
//!   printed;
//! - [`corpus`]: the text corpus, `bytes | assembly | verdict | result`;
//! - [`model`]: a small machine in ordinary memory, a host for both halves of kprobes, whose threads
//!   are stepped in an order that the test chooses;
//! - [`suite`]: the behaviours that every host of kprobes must have, and the program that shows them.
//!
//! The processor is an oracle for its own instruction set only, so those that use it exist where it is: on Linux, on
//! `x86_64`. The model calls handlers, which are code of this processor's: it exists on `x86_64`, wherever `std` is.
//!
//! The suite can run inside the system that it tests: with the feature `suite` alone this crate is `no_std` and knows no
//! more than the types of probes and registers. All the rest comes with `std`, which is the default.
//!
//! Nothing here is part of a product. `unsafe` is confined to `processor::worker`, `model::plain`, `model::handlers`,
//! `suite::handlers::notes`, `suite::handlers::mirrors` and `suite::handlers::spoiled`.

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(any(feature = "suite", feature = "std"))]
extern crate alloc;

#[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
pub mod corpus;
#[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
pub mod differential;
#[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
pub mod edges;
#[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
pub mod generate;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
pub mod model;
#[cfg(all(feature = "std", target_os = "linux", target_arch = "x86_64"))]
pub mod processor;
#[cfg(feature = "suite")]
pub mod suite;
