//! Inside the target: the `SIGTRAP` handler, and what stands before the program's handlers of faults.
//!
//! # What a handler may do
//!
//! The handler runs with all signals but `SIGTRAP` and those of faults masked, on the thread's alternate signal stack if
//! it has one, and it may have interrupted anything: an allocator, a lock, a signal handler, a program whose thread-local
//! storage does not exist yet. So nothing here allocates, locks, or calls into the target; memory of the target's is read
//! through the kernel (`process_vm_readv` on oneself), which fails instead of faulting.
//!
//! # Order of things in a hit
//!
//! 1. `fork::notice`: is this a forked child that does not know yet?
//! 2. [`hit::breakpoint`] with a [`TrapHost`]: probes run, internal ones among them (`guard`, `unwind`, `mailbox`).
//! 3. The registers go back into the signal frame; the kernel restores them at `rt_sigreturn`.
//!
//! What belongs to the program or to a module, a probe's handler, runs on a stack of its own: `stacks`.
//!
//! A trap that is not ours goes to `notifiers`, and then to whoever the program believes has `SIGTRAP`: `foreign`. A fault (`SIGSEGV`, `SIGBUS`,
//! `SIGFPE`, `SIGILL`) passes through `fault` first. What the program believes of all these signals: `actions`.

mod abandoned;
mod actions;
mod blocked;
mod debuggee;
mod detour;
mod fault;
mod foreign;
mod fork;
mod guard;
mod host;
pub(crate) mod lanes;
mod mailbox;
mod memory;
mod modules;
mod notifiers;
mod record;
pub mod services;
mod signals;
mod stacks;
mod start;
mod unwind;

pub use host::{TrapHost, X86};
pub use start::start;

use crate::abi::signal::{self, bit};
use crate::abi::{Home, Identity, NO_BANK, Shared};
use sync::primitive::Ordering;

/// `SIGTRAP`, and its bit in a signal set.
pub(crate) const SIGTRAP: u64 = signal::TRAP;
pub(crate) const SIGTRAP_BIT: u64 = bit(SIGTRAP);
/// The signals of faults.
pub(crate) const FAULT_BITS: u64 = bit(signal::SEGV) | bit(signal::BUS) | bit(signal::FPE) | bit(signal::ILL);

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

    /// Whether probes do anything in this process: it counts for a trace, or has modules.
    pub(crate) fn is_active(self) -> bool {
        self.bank().is_some() || modules::are_here(self.home)
    }

    pub(crate) fn bank(self) -> Option<&'static crate::abi::Bank> {
        let bank = self.identity().bank.load(Ordering::Relaxed);
        // While the agent starts, its handlers are there and the shared memory is not: a fault of another thread's comes
        // by.
        if bank == NO_BANK {
            return None;
        }
        let index = bank.checked_sub(1)?;
        // SAFETY: by the type's invariant the shared mapping stays, with as many banks as its header says: the tool
        // wrote that number from the size it mapped.
        unsafe { Shared::bank(self.shared(), usize::try_from(index).ok()?) }
    }
}
