//! What instructions mean to a probe: boundaries, verdicts, relocated copies, and the operations
//! that stand in for them.
//!
//! A probe replaces an instruction by a breakpoint and must still have its effect, exactly. For
//! each instruction one of three verdicts holds:
//!
//! - **emulate**: its whole effect is a small change of the register file, known in advance: calls,
//!   jumps, returns, loops. It becomes an operation ([`x86::Op`]), plain data that the trap handler
//!   executes;
//! - **slot**: a copy elsewhere does the same, once what depends on its address is repaired: a
//!   plan, from which an image is made for the address of the slot;
//! - **refuse**: the hardware makes both impossible. The reason is a value that names the rule.
//!
//! # Two halves
//!
//! The operations know no decoder, need no allocator and cannot panic: they are what runs in trap
//! context, possibly in an agent that has nothing else. Everything that reads instruction bytes is
//! behind the feature `decode` and runs wherever control runs, which may be another process on the
//! same machine. Between the two passes data with a fixed layout.
//!
//! # Every instruction set on every machine
//!
//! Nothing here is conditional on the machine that compiles it and nothing is `unsafe`: an
//! instruction set is a module of functions on bytes and a register file, tested wherever the crate
//! is built. The module [`x86`] shows the files that each of its siblings has.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "decode")]
extern crate alloc;

pub mod x86;

/// How much memory an access covers.
///
/// ```
/// use isa::Width;
///
/// assert_eq!([Width::B1, Width::B2, Width::B4, Width::B8].map(Width::bytes), [1, 2, 4, 8]);
/// assert_eq!(Width::B4.bytes(), 4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// One byte.
    B1,
    /// Two bytes.
    B2,
    /// Four bytes.
    B4,
    /// Eight bytes.
    B8,
}

impl Width {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::B1 => 1,
            Self::B2 => 2,
            Self::B4 => 4,
            Self::B8 => 8,
        }
    }
}

/// Why an emulated operation was not completed: the access at `addr` would fault.
///
/// An operation that returns it has changed nothing. The host then lets the processor execute the
/// instruction, from its image, so that the fault happens with the processor's own semantics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The address that could not be accessed. A branch target to which the processor cannot go
    /// counts as one.
    pub addr: u64,
    /// Whether the access was a write.
    pub write: bool,
}

/// A segment whose base takes part in address computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Thread-local storage of a process.
    Fs,
    /// Per-CPU data of a kernel.
    Gs,
}

/// The memory of the probed program, as an emulated operation sees it.
///
/// Values are little endian where the instruction set is. An access is not required to be atomic or
/// aligned. One operation makes all its reads before its only write, so an implementation that
/// faults leaves memory as it was.
///
/// ```
/// use isa::{Fault, Memory, Segment, Width};
///
/// /// Memory from address 0 on.
/// struct Ram([u8; 4096]);
///
/// impl Memory for Ram {
///     fn read(&mut self, addr: u64, width: Width) -> Result<u64, Fault> {
///         let at = addr as usize..addr as usize + width.bytes();
///         let bytes = self.0.get(at).ok_or(Fault { addr, write: false })?;
///         Ok(bytes.iter().rfold(0, |value, byte| value << 8 | u64::from(*byte)))
///     }
///
///     fn write(&mut self, addr: u64, width: Width, value: u64) -> Result<(), Fault> {
///         let at = addr as usize..addr as usize + width.bytes();
///         let bytes = self.0.get_mut(at).ok_or(Fault { addr, write: true })?;
///         bytes.copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
///         Ok(())
///     }
///
///     fn segment_base(&self, _: Segment) -> u64 {
///         0
///     }
/// }
///
/// let mut ram = Ram([0; 4096]);
/// ram.write(0x100, Width::B8, 0x1234_5678)?;
/// assert_eq!(ram.read(0x101, Width::B2), Ok(0x3456));
/// assert_eq!(ram.write(4093, Width::B4, 0), Err(Fault { addr: 4093, write: true }));
/// # Ok::<(), Fault>(())
/// ```
pub trait Memory {
    /// Reads `width` bytes at `addr`, zero-extended.
    ///
    /// # Errors
    ///
    /// The access would fault.
    fn read(&mut self, addr: u64, width: Width) -> Result<u64, Fault>;

    /// Writes the low `width` bytes of `value` at `addr`.
    ///
    /// # Errors
    ///
    /// The access would fault; no byte was written.
    fn write(&mut self, addr: u64, width: Width, value: u64) -> Result<(), Fault>;

    /// The linear address at which `segment` begins.
    fn segment_base(&self, segment: Segment) -> u64;
}
