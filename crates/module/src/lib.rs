//! What a probe module is written against.
//!
//! A probe module is code that is loaded into whatever is probed, a process or a kernel, and brings probes with it: the
//! same source for both. It has no standard library, no allocator and no C library, only this crate and its host, which
//! is reached by the functions of [`kprobes::raw`].
//!
//! # A module
//!
//! ```no_run
//! // As a module: `#![no_std]` above everything.
//! use module::{Error, Handler, Hit, Kretprobe, Slot, Registered, register};
//!
//! module::module! {
//! #   #![no_panic_handler]
//!     name: "failures",
//!     description: "Counts calls that fail",
//!     parameters: [
//!         /// The function.
//!         SYMBOL: str = "libc.so.6:openat",
//!     ],
//!     init: init,
//!     exit: exit,
//! }
//!
//! static FAILURES: module::Counter = module::Counter::new();
//! static PROBE: Slot<Registered> = Slot::new();
//!
//! fn init() -> Result<(), Error> {
//!     // SAFETY: it reads a register and counts.
//!     let returned = unsafe { Handler::new(returned as _) };
//!     PROBE.put(register(Kretprobe::symbol(SYMBOL.get()).handler(returned))?);
//!     Ok(())
//! }
//!
//! extern "C" fn returned(hit: &mut Hit<'_>, _: &mut ()) {
//!     if (hit.regs().return_value() as i32) < 0 {
//!         FAILURES.add(1);
//!     }
//! }
//!
//! fn exit() {
//!     module::println!("{} calls have failed", FAILURES.sum());
//!     if let Some(probe) = PROBE.take() {
//!         let _ = probe.unregister();
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! It is built by `kprobe build`, which makes a relocatable file of it, and loaded by the host: parameters are set, then
//! `init` runs, once; probes work until `exit` has run. What `exit` leaves registered the host takes off.
//!
//! # What runs where
//!
//! `init` and `exit` run as ordinary code, one at a time. Handlers run in trap context, on all processors at once; what
//! they must not do is written at [`Handler::new`]. Everything here may be used in handlers but where its own
//! documentation says "in `init` and `exit`".
//!
//! A handler that faults, or panics, is ended, and its module with it. The target goes on.
//!
//! # Data that handlers share
//!
//! [`Counter`] and [`PerCpu`] are for what many processors write; [`PerThread`] for what belongs to a thread; the data of
//! an activation ([`Kretprobe`]'s `D`) for what begins at a call and ends at its return. All are without locks.

#![no_std]

mod abi;
mod declare;
mod errno;
mod error;
mod parameter;
mod percpu;
mod perthread;
mod print;
mod register;
mod slot;
mod target;
mod text;

#[doc(hidden)]
pub use declare::{lowercase, panicked, start, text};
pub use errno::Errno;
pub use error::{Error, Reason};
pub use isa::x86::Regs;
pub use kprobes::raw::{self, Counts};
pub use kprobes::{Cure, Handler, Next, Place, Watch, Zeroed, nokprobe};
pub use parameter::{Parameter, TEXT_BYTES};
pub use percpu::{Counter, PROCESSORS, PerCpu};
pub use perthread::PerThread;
pub use print::LINE_BYTES;
#[doc(hidden)]
pub use print::print;
pub use register::{Batch, Registered, Registrations, register, register_all};
pub use slot::Slot;
pub use target::{comm, cpu, jprobe_return, now, process, read, read_bytes, read_string, symbol, thread};
pub use text::Text;

/// Whether the module is built for a kernel; else it is for processes. For defaults of parameters, and for what only one of
/// them has.
pub const KERNEL: bool = cfg!(target_os = "none");

/// What a handler is given, with this processor's registers.
pub type Hit<'a> = kprobes::Hit<'a, Regs>;
/// A probe on any instruction: [`kprobes::Kprobe`].
pub type Kprobe<'a> = kprobes::Kprobe<'a, Regs>;
/// A probe that mirrors a function: [`kprobes::Jprobe`].
pub type Jprobe<'a> = kprobes::Jprobe<'a>;
/// A probe on a function's return, with data for each activation: [`kprobes::Kretprobe`].
pub type Kretprobe<'a, D = ()> = kprobes::Kretprobe<'a, Regs, D>;
/// Any of the probes.
pub type Spec<'a> = kprobes::Spec<'a, Regs>;
/// What runs before a probed instruction.
pub type PreHandler = kprobes::PreHandler<Regs>;
/// What runs after it.
pub type PostHandler = kprobes::PostHandler<Regs>;
/// What is asked when it has faulted.
pub type FaultHandler = kprobes::FaultHandler<Regs>;
/// What runs at the entry of a function whose return is probed.
pub type EntryHandler<D = ()> = kprobes::EntryHandler<Regs, D>;
/// What runs when it returns.
pub type ReturnHandler<D = ()> = kprobes::ReturnHandler<Regs, D>;
