//! What fetch programs read.

use super::ARGUMENTS;
use core::fmt;
use hit::Cause;
use isa::x86::{Regs, gpr};
use sync::primitive::Ordering;

/// Memory and thread, as the host reads them in trap context.
pub trait Reader {
    /// Reads memory; false when not all of it can be read.
    fn read(&self, address: u64, out: &mut [u8]) -> bool;
    /// Reads a string up to and without its NUL, as much as fits; gives its length.
    fn read_string(&self, address: u64, out: &mut [u8]) -> Option<usize>;
    /// The thread's name, padded with zeros.
    fn comm(&self, out: &mut [u8; 16]);
}

/// The registers and memory of an event.
///
/// ```
/// use arch::x86::{Fetch, Reader};
/// use events::Source;
/// use hit::Cause;
/// use isa::x86::Regs;
///
/// /// Memory that begins at address 0.
/// struct Memory([u8; 12]);
/// impl Reader for Memory {
///     fn read(&self, address: u64, out: &mut [u8]) -> bool {
///         let from = self.0.get(address as usize..).and_then(|rest| rest.get(..out.len()));
///         from.inspect(|from| out.copy_from_slice(from)).is_some()
///     }
/// #     fn read_string(&self, _: u64, _: &mut [u8]) -> Option<usize> { None }
/// #     fn comm(&self, _: &mut [u8; 16]) {}
///     // ...
/// }
///
/// let mut regs = Regs::default();
/// regs.set(7, 42); // rdi
/// let fetch = Fetch { reader: Memory([1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0]), regs: &regs, cause: Cause::Hit };
/// assert_eq!(fetch.word(0), Some(0x201));
/// assert_eq!(fetch.word(2), Some(3 << 56));
/// assert_eq!(fetch.word(8), None); // not all of it can be read
/// assert_eq!(fetch.argument(1), 42);
/// ```
pub struct Fetch<'a, R> {
    /// How the host reads.
    pub reader: R,
    /// The registers at the probe.
    pub regs: &'a Regs,
    /// What has happened.
    pub cause: Cause<'a>,
}

impl<R> fmt::Debug for Fetch<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch").field("regs", &self.regs).field("cause", &self.cause).finish_non_exhaustive()
    }
}

impl<R: Reader> Fetch<'_, R> {
    /// The argument as it was at the entry, if this is a return.
    fn saved(&self, n: u8) -> Option<u64> {
        let Cause::Return(instance) = self.cause else { return None };
        instance.arguments.get(usize::from(n.checked_sub(1)?)).map(|a| a.load(Ordering::Relaxed))
    }

    /// The word at `address`.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.reader.read(address, &mut bytes).then(|| u64::from_le_bytes(bytes))
    }
}

impl<R: Reader> events::Source for Fetch<'_, R> {
    fn register(&self, index: u8) -> u64 {
        match index {
            16 => self.regs.rip,
            17 => self.regs.flags,
            i => self.regs.gpr.get(usize::from(i)).copied().unwrap_or(0),
        }
    }

    fn argument(&self, n: u8) -> u64 {
        if let Some(value) = self.saved(n) {
            return value;
        }
        match ARGUMENTS.get(usize::from(n.wrapping_sub(1))) {
            Some(&register) => self.regs.gpr.get(register).copied().unwrap_or(0),
            None => {
                let on_stack = u64::from(n).saturating_sub(ARGUMENTS.len() as u64);
                self.word(self.regs.rsp().wrapping_add(8 * on_stack)).unwrap_or(0)
            }
        }
    }

    fn return_value(&self) -> u64 {
        self.regs.gpr[gpr::RAX]
    }

    fn comm(&self, out: &mut [u8; 16]) {
        self.reader.comm(out);
    }

    fn read(&self, addr: u64, out: &mut [u8]) -> bool {
        self.reader.read(addr, out)
    }

    fn read_string(&self, addr: u64, out: &mut [u8]) -> Option<usize> {
        self.reader.read_string(addr, out)
    }
}
