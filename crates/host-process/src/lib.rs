//! The host that is an ordinary Linux process.
//!
//! Two halves that never run in the same place:
//!
//! * [`trap`] is freestanding and runs inside the target, in its `SIGTRAP` handler: it implements the hit path's
//!   `Host` over memory that was prepared from outside. It uses no libc, no thread-local storage, no allocator, and
//!   takes no lock of the target's.
//! * [`control`] runs in the tool: it stops a thread for a moment, maps the agent and its memory, and from then on
//!   reads and writes the target through `/proc/PID/mem` and one shared mapping. It implements control's `Host`.
//!
//! [`local`] is control of the program's own process: the same two halves in one process, the agent mapped beside the
//! program that it probes.
//!
//! What both see is [`abi`]: plain data, all of it integers and atomics, valid whatever its bits are.

#![cfg_attr(not(feature = "control"), no_std)]

pub mod abi;
#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "local")]
pub use control::local;
pub mod trap;
