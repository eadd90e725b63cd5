//! Probe modules in another process: inserted, listed, removed, and what they print.
//!
//! A module is a relocatable file ([`loader`]) with code that runs in the target: `init`, `exit` and handlers. This is
//! Linux's `insmod`, with the tool in the kernel's place.
//!
//! # Who does what
//!
//! * [`ModuleFile`] reads the file and its parameters, and refuses what is wrong before any process is looked at.
//! * `insert` maps it in the target, each part with its final protection, and writes the bytes through
//!   `/proc/PID/mem`: nothing is ever writable and executable. What the file leaves undefined are functions of the
//!   agent's ([`crate::trap::services`]), whose addresses the agent's home lists.
//! * `run` lets a thread that is held by `ptrace` run `init` or `exit`, on a stack of its own. A module that asks for
//!   something only the tool can do (`kprobes_register` and its like) executes a breakpoint; `service` does it, with
//!   the same registry as for events, and the thread goes on.
//! * `remove` takes the probes off, waits until no thread is in a handler, and unmaps.
//!
//! # What stays without a tool
//!
//! All state is in the target ([`crate::abi::modules`]): the table, the counters, the messages. When the tool ends, an
//! inserted module works on, and so do the guards that protect its probes. The next tool finds the table, and takes
//! over the probes with a module's number as their owner, as it does in a forked child (`Member`).
//! A child of the process has its own copy of all that.
//!
//! # When something goes wrong
//!
//! An `init` or `exit` that faults, or does not end in time, is left where it is, and the thread given back. A module
//! whose handler has faulted is switched off by the agent; any tool that enters the process next takes it out. What
//! cannot be proved to be unused is not unmapped: the module is *going*, and the next tool tries again.

mod file;
mod insert;
mod list;
mod log;
mod remove;
mod run;
mod service;
mod table;
mod trace;

pub use file::ModuleFile;
pub use list::{Module, list};
pub use log::{Message, Messages};

pub(crate) use table::Planted;

use crate::abi::Home;
use crate::abi::modules::{Modules, state};
use crate::control::Result;
use crate::control::memory::Memory;
use core::mem::offset_of;
use kprobes::raw::EXPORTS;

/// Whether an earlier tool has left modules in a process.
pub(crate) fn are_in(pid: i32, home: u64) -> Result<bool> {
    Ok(!table::stored(&Memory::open(pid)?, home)?.is_empty())
}

/// In a child that nobody follows: modules that were to end with the trace work no more, but keep their memory. Whether
/// others are left.
pub(crate) fn dismiss_guests(memory: &Memory, home: u64) -> Result<bool> {
    let (guests, others): (Vec<_>, Vec<_>) = table::stored(memory, home)?.into_iter().partition(|m| m.guest);
    guests.iter().try_for_each(|m| table::set_state(memory, home, m.number, state::GOING))?;
    Ok(!others.is_empty())
}

/// Where in [`Home`] the tool notes which symbol of the agent's.
pub(crate) fn exports() -> impl Iterator<Item = (usize, &'static str)> {
    let own = [(offset_of!(Modules, run), "agent_run"), (offset_of!(Modules, hypercall), "agent_hypercall")];
    let offered = EXPORTS.iter().enumerate().map(|(i, name)| (offset_of!(Modules, exports) + 8 * i, *name));
    own.into_iter().chain(offered).map(|(offset, name)| (offset_of!(Home, modules) + offset, name))
}
