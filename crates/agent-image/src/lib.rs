//! The agent's image, for whoever maps it into a process: the tool into another, a program into its own.
//!
//! The agent is a program of its own (`apps/agent`), freestanding and always optimized, so it cannot be linked as a
//! library: it must not share a `memcpy` with the program that it is in, or a probe on that would be hit by the handler
//! itself. The build script builds it by a cargo of its own; here are the bytes of the ELF file that comes out.

#![no_std]
#![forbid(unsafe_code)]

/// The image: a shared object without undefined symbols, with relative relocations only.
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent.so"));
