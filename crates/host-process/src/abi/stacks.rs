//! The stacks that handlers of probes run on: what the agent and the tool share about them.
//!
//! The tool maps one area without any right of access, so that it costs address space and nothing else. The agent makes
//! a stack of it usable when it is first needed. From low to high addresses, one is
//!
//! ```text
//! | guard | the handler's stack | guard | the stack for faults of the handler |
//! ```
//!
//! Both grow downwards, each into a guard page of its own.

use sync::primitive::{AtomicU32, AtomicU64};

/// So many handlers can run at once.
pub const STACKS: usize = 128;
/// Bytes of a handler's stack.
pub const HANDLER_BYTES: u64 = 64 << 10;
/// Bytes of the stack where faults of a handler are dealt with. A signal frame alone takes 3 KiB with AVX-512, and 11
/// KiB with AMX's tiles; one may interrupt another.
pub const FAULT_BYTES: u64 = 32 << 10;
/// Bytes of a guard.
pub const GUARD_BYTES: u64 = 4 << 10;
/// From one stack to the next.
pub const STRIDE: u64 = GUARD_BYTES + HANDLER_BYTES + GUARD_BYTES + FAULT_BYTES;
/// Bytes of the area.
pub const AREA_BYTES: u64 = STACKS as u64 * STRIDE;

/// Who uses which stack.
#[repr(C)]
#[derive(Debug)]
pub struct Stacks {
    /// Address of the area; 0: there is none, and no handler can run. Written by the tool.
    pub area: AtomicU64,
    /// The thread that runs a handler on each of them, or 0.
    pub owners: [AtomicU64; STACKS],
    /// Not 0: it was made usable.
    pub ready: [AtomicU32; STACKS],
}
