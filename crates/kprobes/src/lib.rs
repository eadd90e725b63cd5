//! Control: what registers, checks, places, arms and removes probes.
//!
//! The hit path ([`hit`]) is what runs when a probe is hit; this crate is what makes it so. It speaks of addresses *in
//! the target* and reaches them through its [`Host`] only, which may sit in the same image or in another process. It
//! names no instruction set: [`Isa`] says what bytes mean.
//!
//! # Registering
//!
//! [`Registry::register`] takes a batch and does all of it or nothing:
//!
//! 1. Each address is checked: known text, an instruction boundary of its function, not ours, not refused.
//! 2. Each instruction gets a plan (executed as a prepared operation, or in a copy), a slot, an entry in the table.
//! 3. Probes are chained to their sites.
//! 4. Breakpoints are planted, all at once, and every processor is made to see them.
//!
//! Nothing of the target's own memory changes before step 4; a failure before it costs the target nothing. A breakpoint
//! is never seen before its site is complete: failure class 1 of kprobes.
//!
//! # Removing
//!
//! [`Registry::unregister`] restores the text first, then takes the probes off, then waits until every handler that
//! could still see them has ended ([`Host::grace`]), and only then uses their places again. Sites and slots are kept:
//! a thread may be preempted in a slot for as long as it likes.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
mod host;
mod placement;
mod registry;
mod request;
mod site;

pub use error::Error;
pub use host::{Function, Host, Isa, ProbeData, ReturnScheme, SiteData};
pub use placement::Placement;
pub use registry::Registry;
pub use request::{Handle, ProbeKind, Request};
