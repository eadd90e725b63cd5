//! x86 in 64-bit mode.

#[cfg(feature = "control")]
mod control;
mod fetch;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "handlers are known by address")]
pub mod handlers;
mod trap;

#[cfg(feature = "control")]
pub use control::detour_gap;
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
