//! A machine to try kprobes on, small enough to stop anywhere.
//!
//! [`Machine`] is a program's text, stacks and data in ordinary memory, with the probe table beside it. Threads
//! ([`Cpu`]) are stepped by the test, one instruction at a time, and a trap is a step of its own between the fetch of a
//! breakpoint and its handler: so every order of "fetched", "removed", "handled" can be had. The same machine is the
//! host of both halves: [`Trap`] is what [`hit`] runs in, [`Control`] what [`kprobes`] works on.
//!
//! # What is real
//!
//! Text, slots and return addresses are those of `x86_64`: plans, operations and images come from [`isa`], and an
//! image is executed from its bytes. Instructions that transfer control, `push` and `pop` are executed by [`isa`]'s
//! operations; of the others there is the handful that [`Program`] can assemble. What the runtime of a language does
//! (unwinding, `longjmp`, `sigreturn`) are *services*: a `hlt` at an address that the machine knows.
//!
//! The unwinder walks the stack by the functions' frame sizes, as real ones do by their tables. A return address that
//! is in no function ends the program ([`End::Terminated`]), as a stub does to a real unwinder.
//!
//! # Choosing the order
//!
//! Within one thread of the test: [`Machine::step`] as one likes, and [`Control::meanwhile`], which runs before each
//! call of control's host. For orders *inside* a handler: [`interleave`](interleave::run), which runs control and
//! threads as actors that pause at each call of their host, and goes on with the actor that a plan names.
//!
//! # Programs that are decided while they run
//!
//! [`script`] has functions that ask what to do, and a reference that says what must be counted for it. A test is a
//! list of deeds, or random ones; the flow of control and the counts are compared after each.
//!
//! # For other hosts
//!
//! The tests in `tests/model_*.rs` state the behaviour of the engine, not of this machine. A host that wants to be held
//! to them needs a program with the functions of [`script::functions`] and its own [`hit::Host`] and [`kprobes::Host`].

mod build;
mod control;
mod cpu;
mod fetch;
mod handlers;
pub mod interleave;
mod machine;
mod memory;
mod ordinary;
mod plain;
mod runtime;
pub mod script;
mod table;
mod trap;

pub use build::{FunctionInfo, Program};
pub use control::{Call, Control, X86};
pub use cpu::{Cpu, End};
pub use handlers::{Program64, call_from_handler, fault_in_handler, jprobe_return};
pub use machine::{Event, Machine, STACK_BYTES};
pub use memory::Memory;
pub use plain::{Plain, Whole, words, zeroed};
pub use runtime::{CONTEXT_CFA, CONTEXT_PC, JUMP_BUFFER_PC, JUMP_BUFFER_SP, Runtime, Service};
pub(crate) use runtime::{SIGNAL_FRAME, SIGNAL_FRAME_SP};
pub use table::{Tables, halves};
pub use trap::{Action, Trap};

/// Where a program's text begins.
pub const TEXT: u64 = 0x40_0000;
/// Bytes for text.
pub const TEXT_BYTES: usize = 0x4000;
/// Where copies of instructions are.
pub const SLOTS: u64 = 0x41_0000;
/// Bytes for copies.
pub const SLOTS_BYTES: usize = 0x4000;
/// Bytes of one copy's place.
pub const SLOT_BYTES: u64 = 64;
/// Where the stubs of return probes are.
pub const STUBS: u64 = 0x42_0000;
/// Bytes from one stub to the next.
pub const STUB_STRIDE: u64 = 16;
/// A return address that ends a thread.
pub const EXIT: u64 = 0x50_0000;
/// Data of the runtime: unwinder contexts, jump buffers.
pub const DATA: u64 = 0x60_0000;
/// Bytes of data.
pub const DATA_BYTES: usize = 0x4000;
