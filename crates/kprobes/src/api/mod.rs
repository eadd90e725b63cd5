//! Probes as their users write them: [`Kprobe`], [`Jprobe`], [`Kretprobe`].
//!
//! A probe is described by value and given to a host's control, which takes it and gives a [`Registered`] in return.
//! That is what can be enabled, asked and unregistered; it cannot be copied, so a probe is not registered twice nor
//! unregistered twice, and nobody can change or drop what handlers still use. Handlers are functions, and what they
//! work on lives as long as the program, so a `Registered` that is forgotten leaves a probe that works on.
//!
//! # Trap context
//!
//! Handlers run in the trap of the probed instruction. The type says so: a [`Handler`] can only be made by a promise
//! that the function keeps the rules there, which are written at [`Handler::new`].
//!
//! Nothing here allocates, so probe modules use the same types.

mod handler;
mod hit;
#[cfg(feature = "jprobes")]
mod jprobe;
mod kprobe;
#[cfg(feature = "kretprobes")]
mod kretprobe;
mod mark;
mod place;
#[cfg(feature = "modules")]
pub mod raw;
mod spec;

pub use handler::{Cure, EntryHandler, FaultHandler, Handler, PostHandler, PreHandler, ReturnHandler};
pub use hit::Hit;
#[cfg(feature = "jprobes")]
pub use jprobe::{Jprobe, Mirror};
pub use kprobe::Kprobe;
#[cfg(feature = "kretprobes")]
pub use kretprobe::{DATA_BYTES, Kretprobe};
pub use place::Place;
pub use spec::{HandlerData, Registered, STACK_BYTES, Spec, SpecKind};
