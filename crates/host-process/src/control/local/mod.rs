//! Control of the program's own process: it plants probes in itself, and in every library that it has loaded.
//!
//! ```no_run
//! use host_process::local::Process;
//!
//! let process = Process::start()?;
//! process.define("p:allocations libc.so.6:malloc size=$arg1")?;
//! drop(std::hint::black_box(Box::new(1)));
//! println!("{} calls of malloc", process.counts("allocations")?.hits);
//! process.remove("allocations")?;
//! # Ok::<(), host_process::local::Error>(())
//! ```
//!
//! # Why the agent is mapped here too
//!
//! The hit path could be linked into the program, since it is in this very crate. It would then use the program's
//! `memcpy`, and whatever else the compiler calls by name, and a probe on one of these would hit itself in the handler.
//! So the program maps the same freestanding image into itself that the tool maps into others, with the same loader.
//! Nothing that runs when a probe is hit belongs to the program but the probe's own handlers. Hence everything in the
//! process may be probed: `malloc`, `write`, and the code of this module while it registers a probe.
//!
//! # What is different from a target
//!
//! | | a target | here |
//! |---|---|---|
//! | system calls in it | `ptrace`, or a thread that waits in its mailbox | made directly (`Own`) |
//! | the agent's start | a held thread runs it | our own thread, given back by the breakpoint at its end |
//! | a thread that blocks `SIGTRAP` already | is stopped and unblocked | refused by name, but for the calling one |
//! | libraries that are loaded later | the dynamic linker's notification waits for the tool | looked for when control is next asked for anything |
//! | a system call filter that is installed later | the probes are removed before | the program removes them itself |
//!
//! Text is written through `/proc/PID/mem` here too, so that no page is ever writable and executable. The descriptor
//! leads to the process that has opened it. So a forked child, which has a copy of it, may not use control: it would
//! patch its parent. It is refused by its process id. The child's own probes are stepped over and count nothing, as in
//! a
//! child that the tool does not follow.
//!
//! # Locks
//!
//! One mutex around all of control. No handler takes it: a handler that asks control for something is refused, since it
//! may have interrupted the thread that holds it. For the same reason a handler of another signal must not call
//! control.
//! Nothing else is waited for but the end of handlers that run ([`kprobes::Host::grace`]), and those wait for nobody;
//! and
//! the dynamic linker, which is asked what it has loaded: so a library's constructor must not call control either.
//!
//! # What remains
//!
//! Between the first guard that is planted and the last look at the threads' masks, a thread that is just being created
//! may have all signals blocked, in a place where no guard has seen it; the kernel ends a process that hits a
//! breakpoint
//! so. [`Process::start`] waits until there is no such thread before it begins, but a program does best to call it
//! before
//! it creates any.

mod area;
mod blacklist;
mod control;
mod error;
mod event;
mod listing;
mod loaded;
mod notify;
mod own;
mod place;
mod process;
mod record;
mod register;
mod threads;

pub use blacklist::Forbidden;
pub use error::Error;
pub use hit::Counts;
pub use listing::Listed;
pub use notify::{Notified, NotifierHandler, Verdict};
pub use process::{Process, jprobe_return};
pub use record::Record;

pub use isa::x86::Regs;
pub use kprobes::{Cure, Handler, Next, Registered, Watch, nokprobe};

/// Any probe, ready to be registered.
pub type Spec<'a> = kprobes::Spec<'a, Regs>;
/// What a handler is given.
pub type Hit<'a> = kprobes::Hit<'a, Regs>;
/// A probe on an instruction.
pub type Kprobe<'a> = kprobes::Kprobe<'a, Regs>;
/// A probe that mirrors a function.
pub type Jprobe<'a> = kprobes::Jprobe<'a>;
/// A probe on a function's returns, with data of type `D` for each activation.
pub type Kretprobe<'a, D = ()> = kprobes::Kretprobe<'a, Regs, D>;
