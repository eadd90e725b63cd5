//! Inside the target: the `SIGTRAP` handler.
//!
//! # What a handler may do
//!
//! The handler runs with all signals but `SIGTRAP` masked, on the thread's alternate signal stack if it has one, and it
//! may have interrupted anything: an allocator, a lock, a signal handler, a program whose thread-local storage does not
//! exist yet. So nothing here allocates, locks, or calls into the target; memory of the target's is read through the
//! kernel (`process_vm_readv` on oneself), which fails instead of faulting.
//!
//! # Order of things in a hit
//!
//! 1. `fork::notice`: is this a forked child that does not know yet?
//! 2. [`hit::breakpoint`] with a [`TrapHost`]: probes run, internal ones among them (`guard`, `unwind`, `mailbox`).
//! 3. The registers go back into the signal frame; the kernel restores them at `rt_sigreturn`.
//!
//! A trap that is not ours goes to whoever the program believes has `SIGTRAP`: `foreign`.

mod abandoned;
mod blocked;
mod debuggee;
mod foreign;
mod fork;
mod guard;
mod host;
mod mailbox;
mod memory;
mod record;
mod start;
mod unwind;

pub use host::{TrapHost, X86};
pub use start::start;

use crate::abi::{Home, Identity, Shared};
use sync::primitive::Ordering;

/// `SIGTRAP`, and its bit in a signal set.
pub(crate) const SIGTRAP: u64 = 5;
pub(crate) const SIGTRAP_BIT: u64 = 1 << (SIGTRAP - 1);

/// The memory that the tool prepared.
///
/// # Invariants
///
/// `home`, `identity` and `shared` point to mappings of those types that stay mapped as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) home: &'static Home,
}

impl Memory {
    pub(crate) fn identity(self) -> &'static Identity {
        let at = self.home.identity.load(Ordering::Relaxed) as *const Identity;
        // SAFETY: by the type's invariant this is a mapped `Identity`, all of it atomics.
        unsafe { &*at }
    }

    pub(crate) fn shared(self) -> *const Shared {
        self.home.shared.load(Ordering::Acquire) as *const Shared
    }

    pub(crate) fn shared_header(self) -> &'static Shared {
        // SAFETY: by the type's invariant this is a mapped `Shared`, all of it atomics.
        unsafe { &*self.shared() }
    }

    pub(crate) fn bank(self) -> Option<&'static crate::abi::Bank> {
        let index = self.identity().bank.load(Ordering::Relaxed).checked_sub(1)?;
        // SAFETY: by the type's invariant the shared mapping stays, with as many banks as its header says: the tool
        // wrote that number from the size it mapped.
        unsafe { Shared::bank(self.shared(), usize::try_from(index).ok()?) }
    }
}
