//! What the tests of the workspace have in common: oracles, generators and the corpus.
//!
//! - [`processor`]: the machine's own processor executes an instruction in place and out of line;
//!   [`differential`] compares the two with each other and with the emulated operation;
//! - [`generate`]: random instructions and register files, edge cases first, from a seed that is
//!   printed;
//! - [`corpus`]: the text corpus, `bytes | assembly | verdict | result`;
//! - [`model`]: a small machine in ordinary memory, a host for both halves of kprobes, whose threads
//!   are stepped in an order that the test chooses.
//!
//! The processor is an oracle for its own instruction set only, so those that use it exist where it is: on Linux, on
//! `x86_64`. The model is everywhere.
//!
//! Nothing here is part of a product. `unsafe` is confined to `processor::worker` and `model::plain`.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod corpus;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod differential;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod generate;
pub mod model;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod processor;
