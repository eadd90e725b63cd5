//! Instruction sets as the engine wants them.
//!
//! `isa` says what instructions mean and knows nothing of probes; `hit` and `kprobes` know probes and name no
//! instruction set. Each asks for what it needs by a trait, and this crate implements both traits, and the fetch
//! programs' view of registers, once for all hosts. What differs between hosts is a [`Space`](x86::Space): with whose rights the
//! probed code runs, and whether an operation may touch its memory in the handler.
//!
//! Nothing here asks for the machine that compiles it but the calling of handlers, which is also all that is `unsafe`.

#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "control")]
extern crate alloc;

pub mod x86;
