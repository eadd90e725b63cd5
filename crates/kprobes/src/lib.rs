//! kprobes: probes as users write them, and the control that registers, checks, places, arms and removes them.
//!
//! The hit path ([`hit`]) is what runs when a probe is hit; this crate is what makes it so. It speaks of addresses *in
//! the target* and reaches them through its [`Host`] only, which may sit in the same image or in another process. It
//! names no instruction set: [`Isa`] says what bytes mean.
//!
//! # Registering
//!
//! [`Registry::register`] takes a batch and does all of it or nothing:
//!
//! 1. Each request is checked, before anything is done for any of them: known text, an instruction boundary of its
//!    function, the code of its file, not ours, not refused. A request that is refused costs the others nothing: the
//!    caller may leave it out and ask again.
//! 2. Each instruction gets a slot and an entry in the table (as a prepared operation, or as a copy), each fetch
//!    program its place, each probe its own. A handler finds none of this yet.
//! 3. Probes are chained to their sites. At a site that bears a breakpoint already they are live from here on.
//! 4. Breakpoints are planted, all at once, and every processor is made to see them.
//!
//! Nothing of the target's own memory changes before step 4. A breakpoint is never seen before its site is complete:
//! failure class 1 of kprobes. A failure in step 2 gives the places back. One in step 3 or 4 removes what is visible
//! of the batch, as below. What remains in either case are sites without a probe, slots and fetch programs, and the
//! next registration at the same address or of the same program finds them.
//!
//! # Removing
//!
//! [`Registry::unregister`] goes through these steps for all of its probes:
//!
//! 1. The text is restored where no other probe needs the breakpoint.
//! 2. The probes are retired: handlers pass them over.
//! 3. They leave their chains. Where a retired probe points at stays as it is: a handler that stands on it goes on
//!    from there to probes that stay.
//! 4. Every handler that runs now ends ([`Host::grace`]). Nobody can stand on these probes any more, nor come to them.
//! 5. Their places are used again.
//!
//! A grace period that began before step 3 would prove nothing: a handler could have entered the chain since. A
//! removal that fails can be asked for again, and a handle that is removed already does nothing: an index is used
//! again, but a handle knows which registration of it is meant.
//!
//! Sites and slots are kept: a thread may be preempted in a slot for as long as it likes. A return probe's activations
//! may outlive it just so, and bear one of the 32 bits of its site, which is used again: by probes that were registered
//! later, and have a higher number than the activation knows.

//! # Using it
//!
//! [`Kprobe`], [`Jprobe`] and [`Kretprobe`] describe probes; a host's control registers them. Without the feature
//! `control` they are all that is left: that is what probe modules use. Jprobes, kretprobes, modules and places by
//! symbol are features too; what was left out is refused by its name ([`Error::LeftOut`]).

#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "control")]
extern crate alloc;

mod api;

#[cfg(feature = "control")]
mod batch;
#[cfg(feature = "control")]
mod code;
#[cfg(feature = "control")]
mod error;
#[cfg(feature = "control")]
mod host;
#[cfg(feature = "control")]
mod jump;
#[cfg(feature = "control")]
mod pads;
#[cfg(all(feature = "control", feature = "modules"))]
mod parameters;
#[cfg(feature = "control")]
mod placement;
#[cfg(feature = "control")]
mod registration;
#[cfg(feature = "control")]
mod registry;
#[cfg(feature = "control")]
mod removal;
#[cfg(feature = "control")]
mod request;
#[cfg(feature = "control")]
mod site;
#[cfg(feature = "control")]
mod switch;

#[cfg(feature = "modules")]
pub use api::raw;
pub use api::{
    Cure, EntryHandler, FaultHandler, Handler, HandlerData, Hit, Kprobe, Place, PostHandler, PreHandler, Registered,
    ReturnHandler, STACK_BYTES, Spec, SpecKind,
};
#[cfg(feature = "kretprobes")]
pub use api::{DATA_BYTES, Kretprobe};
#[cfg(feature = "jprobes")]
pub use api::{Jprobe, Mirror};
pub use hit::{Next, Watch};
pub use sync::Zeroed;

#[cfg(feature = "control")]
pub use error::Error;
#[cfg(feature = "control")]
pub use host::{Detour, Function, Host, Image, Isa, ProbeData, ReturnScheme, SiteData, Stepping};
#[cfg(feature = "control")]
pub use pads::Pads;
#[cfg(all(feature = "control", feature = "modules"))]
pub use parameters::{Declared, settings};
#[cfg(feature = "control")]
pub use placement::Placement;
#[cfg(feature = "control")]
pub use registry::Registry;
#[cfg(feature = "control")]
pub use request::{Handle, ProbeKind, Request};
