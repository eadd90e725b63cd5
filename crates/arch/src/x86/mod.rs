//! x86 in 64-bit mode.

#[cfg(feature = "control")]
mod control;
mod fetch;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "handlers are known by address")]
pub mod handlers;
mod trap;

pub use fetch::{Fetch, Reader};
pub use trap::ARGUMENTS;

use core::fmt::Debug;
use core::marker::PhantomData;
use isa::x86::{Op, Privilege, Regs};

/// Where the probed code runs.
pub trait Space: Copy + Debug + 'static {
    /// With whose rights.
    const PRIVILEGE: Privilege;
    /// Operations that touch memory are executed in the handler: not only where that is the only way.
    const MEMORY: bool;

    /// Executes an operation in trap context; false when the processor must execute its image instead.
    fn execute(op: &Op, regs: &mut Regs) -> bool;
}

/// How many bytes a detour leaves free below the stack pointer: what code may have there (System V ABI, "red zone"; a
/// kernel has none), and what an emulated instruction pushes. What detours call takes them back.
///
/// ```
/// use arch::x86::detour_gap;
/// use isa::x86::Privilege;
///
/// assert_eq!([Privilege::User, Privilege::Kernel].map(detour_gap), [128, 64]);
/// ```
#[must_use]
pub const fn detour_gap(privilege: Privilege) -> u8 {
    match privilege {
        Privilege::User => 128,
        Privilege::Kernel => 64,
    }
}

/// The instruction set, for both halves of the engine.
#[derive(Clone, Copy, Debug)]
pub struct X86<S>(PhantomData<S>);

/// An ordinary program: operations on registers are executed in the handler. Those that touch memory run out of line,
/// so that a fault in them is the processor's own.
#[derive(Clone, Copy, Debug)]
pub struct User;

impl Space for User {
    const PRIVILEGE: Privilege = Privilege::User;
    const MEMORY: bool = false;

    fn execute(op: &Op, regs: &mut Regs) -> bool {
        !op.touches_memory() && op.execute(regs, &mut NoMemory).is_ok()
    }
}

/// For operations that are known to touch none.
#[derive(Clone, Copy, Debug)]
struct NoMemory;

impl isa::Memory for NoMemory {
    fn read(&mut self, addr: u64, _: isa::Width) -> Result<u64, isa::Fault> {
        Err(isa::Fault { addr, write: false })
    }

    fn write(&mut self, addr: u64, _: isa::Width, _: u64) -> Result<(), isa::Fault> {
        Err(isa::Fault { addr, write: true })
    }

    fn segment_base(&self, _: isa::Segment) -> u64 {
        0
    }
}
