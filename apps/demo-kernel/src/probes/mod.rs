//! kprobes in this kernel: [`glue`] and [`hooks`] are what it takes, the rest uses it.

mod bench;
mod commands;
mod fire;
mod glue;
pub(crate) mod hooks;
pub(crate) mod modules;
mod plain;
mod stress;
mod tests;
mod toggle;

use crate::sched;
use alloc::string::{String, ToString};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use host_bare::{Control, Engine, Error, Global, Limits};

pub(crate) use commands::COMMANDS;
pub(crate) use glue::Demo;

/// What traps find.
static ENGINE: Global<Demo> = Global::new();
/// What plants probes.
static CONTROL: Shared = Shared { taken: AtomicBool::new(false), control: UnsafeCell::new(None) };

/// Control behind a lock that leaves interrupts on, since control waits for other processors.
struct Shared {
    taken: AtomicBool,
    control: UnsafeCell<Option<Control<Demo>>>,
}

// SAFETY: `with_control` lends the value to whoever has set `taken`, one at a time.
unsafe impl Sync for Shared {}

/// Starts kprobes.
///
/// # Errors
///
/// See [`Engine::start`].
pub(crate) fn init() -> Result<(), Error> {
    let control = Engine::start(&ENGINE, &Limits { sites: 1 << 16, probes: 1 << 14, ..Limits::default() })?;
    while CONTROL.taken.swap(true, Ordering::Acquire) {
        sched::yield_now();
    }
    // SAFETY: `taken` is ours.
    unsafe { *CONTROL.control.get() = Some(control) };
    CONTROL.taken.store(false, Ordering::Release);
    sched::set_exit_hook(host_bare::thread_ended::<Demo>);
    Ok(())
}

/// Lends control to `f`.
pub(crate) fn with_control<R>(f: impl FnOnce(&mut Control<Demo>) -> R) -> Result<R, String> {
    while CONTROL.taken.swap(true, Ordering::Acquire) {
        sched::yield_now();
    }
    // SAFETY: `taken` is ours until it is cleared below.
    let result = unsafe { (*CONTROL.control.get()).as_mut() }.map(f);
    CONTROL.taken.store(false, Ordering::Release);
    result.ok_or_else(|| "kprobes is not running".to_string())
}

/// Does what a definition line says.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn define(line: &str) -> Result<String, String> {
    with_control(|control| control.line(line))?.map_err(|error| error.to_string())
}

/// Where a return address leads, seen through return probes.
pub(crate) fn true_return_address(address: u64) -> u64 {
    host_bare::true_return_address::<Demo>(address)
}
