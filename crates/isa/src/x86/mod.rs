//! x86 in 64-bit mode.
//!
//! Sources: Intel SDM volume 2 (instructions), volume 3 chapters 6 and 18 (exceptions, debug); AMD
//! APM volume 3 where the two differ.
//!
//! # Verdicts
//!
//! What transfers control is emulated ([`Op`]): a copy of it would leave the slot for an address
//! relative to the slot, or push the slot's address. `nop`, `endbr`, `push` and `pop` of a register
//! and `pushf` are emulated because it costs less. All else is copied (`Plan`). A copy behaves as
//! the original unless the instruction can see its own address, and in 64-bit mode few can:
//!
//! | Sees its address through | Repaired by |
//! |---|---|
//! | RIP-relative operand | displacement patched in place; all other bytes as they were |
//! | `syscall` (rcx = next) | `mov rcx, next` after it |
//! | `xbegin` (abort handler) | displacement patched |
//! | `call far`, `enclu` | nothing: refused |
//! | x87 instruction pointer (`fnstenv`) | nothing: reports the slot. No compiler emits a reader |
//!
//! # Slots are boosted
//!
//! An image ends with a jump to the next original instruction, so an instruction needs one trap, no
//! trap flag and no second breakpoint. `Image::original` says for every offset which original
//! address it stands for: hosts use it to report faults, and to answer whoever looks at a thread
//! inside a slot.
//!
//! # What a copy cannot hide
//!
//! A shadow stack (CET) sees neither an emulated call nor one from an image: hosts must not place
//! probes on calls and returns of a program that runs with one. `sti` holds back interrupts for one
//! more instruction; emulated, it does not.

mod execute;
mod op;
mod regs;

#[cfg(feature = "decode")]
mod decode;
#[cfg(feature = "decode")]
mod exits;
#[cfg(feature = "decode")]
mod function;
#[cfg(feature = "decode")]
mod image;
#[cfg(feature = "decode")]
mod refusal;
#[cfg(feature = "decode")]
mod rules;
#[cfg(feature = "decode")]
mod slot;
#[cfg(feature = "decode")]
mod transfer;
#[cfg(feature = "decode")]
mod window;

pub use op::{Op, Operand};
pub use regs::{Condition, Regs, flags, gpr};

#[cfg(feature = "text")]
pub use decode::disassemble;
#[cfg(feature = "decode")]
pub use decode::{Analysis, Flow, Verdict, analyse};
#[cfg(feature = "decode")]
pub use exits::{Exit, Exits, exits};
#[cfg(feature = "decode")]
pub use function::{Boundary, Sweep, boundaries};
#[cfg(feature = "decode")]
pub use image::Image;
#[cfg(feature = "decode")]
pub use refusal::{Refusal, Site};
#[cfg(feature = "decode")]
pub use slot::{Plan, Repair};
#[cfg(feature = "decode")]
pub use window::{Body, NoWindow, Window, enter_detour, jump, window};

/// `int3`, the one-byte breakpoint (SDM volume 2, INT n/INTO/INT3/INT1).
pub const BREAKPOINT: u8 = 0xCC;

/// `jmp rel32` (SDM volume 2, JMP).
pub const JUMP: u8 = 0xE9;

/// Its bytes.
pub const JUMP_LEN: usize = 5;

/// The longest instruction (SDM volume 2, section 2.3.11: a longer one raises `#GP`).
pub const MAX_LEN: usize = 15;

/// With whose rights the probed code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Privilege {
    /// Ring 3: an ordinary program.
    User,
    /// Ring 0: a kernel.
    Kernel,
}
