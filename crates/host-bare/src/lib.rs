//! kprobes for a kernel of one's own.
//!
//! A kernel supplies what only it can know, by the trait [`Kernel`]: which processor and which thread runs, how memory
//! is read without dying of a fault, how its text is written, where executable memory comes from, its symbols. It
//! gives its traps to a [`Chain`], which asks kprobes first and then its notifiers. In return it has definitions
//! ([`Control::define`] takes the line that Linux's `kprobe_events` takes), records, handlers, return probes.
//! `docs/porting-a-host.md` leads through it.
//!
//! # The two halves
//!
//! [`Engine`] is what a trap needs: the probe table and one control block for each processor. It is made once and never
//! moves. [`Control`] registers and removes, and allocates; the kernel puts it behind a lock of its own. Handlers never
//! take that lock.
//!
//! # The rules of a trap
//!
//! * All traps come with interrupts off and stay so: a handler is not preempted and does not migrate (Linux:
//!   `preempt_disable` in `kprobe_int3_handler`). What can still interrupt is an interrupt that cannot be masked, and
//!   the handler's own faults. Both may hit probes: those find the processor's guard taken, do not run, and are counted
//!   as missed.
//! * A copy is stepped with interrupts off, and the two flags that this takes are restored as they were.
//! * The trap's stub must leave [`STACK_GAP`] bytes between its frame and the stack that was interrupted, because an
//!   emulated `push` or `call` writes there (Linux: `idtentry` for `#BP`). A kernel that cannot says so
//!   ([`Kernel::STACK_GAP`]); then these instructions run in slots.
//! * Registers come and go as [`isa::x86::Regs`], whatever frame the kernel has.
//! * What runs before a processor's guard is taken must not be probed: the trap's stubs, the chain, and this crate's and
//!   the hit path's code. The kernel says so by [`Kernel::is_noprobe`], and it is easiest to keep in a section of
//!   text of its own, as Linux does with `.kprobes.text`.
//!
//! # Faults
//!
//! A fault of a displaced instruction looks to the kernel as if it had happened in place: its fault handler calls
//! [`fault`] first and [`after_fault`] last (see [`hit::displaced`]). So exception tables, demand paging
//! and crash messages work with true addresses. A fault in a probe's handler ends that handler, not the kernel:
//! [`Engine::contain`]. Both are offered to the probe's fault handler before anybody else.
//!
//! # Text
//!
//! Text changes by single bytes while processors execute it: the first byte of an instruction becomes a breakpoint, and
//! later itself again. Such a write is atomic to any fetch, so no processor ever sees half of it; one that has fetched the
//! old byte runs the old instruction, one that has fetched a breakpoint traps, finds the site (the table's entries are
//! never removed), and if the breakpoint is gone by then runs the instruction again. After the writes
//! [`Kernel::sync_processors`] makes every processor forget what it has fetched.
//!
//! A jump to a detour is written behind such a breakpoint, in steps with that in between, and nobody ever executes a part
//! of one: `kprobes`, module `jump`. A window of several instructions needs a detour at one of few addresses; a kernel that
//! can map code there says so ([`Kernel::code_range`]), otherwise such probes stay breakpoints.
//!
//! Lock order: the kernel's lock around [`Control`], then whatever [`Kernel::write_text`] and
//! [`Kernel::sync_processors`] take. Neither is called from a trap.
//!
//! Sources: Linux `kernel/kprobes.c`, `arch/x86/kernel/kprobes/core.c`, `kernel/notifier.c`; Intel SDM volume 3,
//! sections 6 (interrupts), 9.1.3 (cross-modifying code).

#![no_std]

extern crate alloc;

mod control;
mod die;
mod engine;
mod error;
pub mod guarded;
mod host;
mod kernel;
mod listing;
mod place;
mod reading;
mod record;
mod register;
mod tables;
mod trap;

pub use control::Control;
pub use die::{Chain, Die, Notifier, Verdict};
pub use engine::{
    Engine, Faulted, Global, Limits, OWNERS, after_fault, fault, jprobe_return, thread_ended, true_return_address,
};
pub use error::Error;
pub use hit::Counts;
pub use hit::{Displaced, Next, Outcome, Watch};
pub use isa::x86::Regs;
pub use kernel::{Kernel, Symbol};
pub use kprobes::{Cure, Handler, Placement, Registered, Stepping, nokprobe};
#[cfg(feature = "jprobes")]
pub use kprobes::{Jprobe, Mirror};
pub use listing::Listed;
pub use reading::Record;

/// A hit, as handlers get it.
pub type Hit<'a> = kprobes::Hit<'a, Regs>;
/// A kprobe.
pub type Kprobe<'a> = kprobes::Kprobe<'a, Regs>;
/// A kretprobe, with data of type `D` for each activation.
#[cfg(feature = "kretprobes")]
pub type Kretprobe<'a, D = ()> = kprobes::Kretprobe<'a, Regs, D>;
/// A probe of any kind, ready to be registered.
pub type Spec<'a> = kprobes::Spec<'a, Regs>;

/// Bytes that the breakpoint's stub leaves between its frame and the interrupted stack.
pub const STACK_GAP: usize = 16;
