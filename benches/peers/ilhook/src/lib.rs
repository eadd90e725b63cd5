//! A callback with all registers on the measured function's entry, by the crate `ilhook`: it counts.

use std::ffi::c_ulong;
use std::sync::atomic::{AtomicU64, Ordering};

use ilhook::x64::{CallbackOption, HookFlags, HookType, Hooker, Registers};

static HITS: AtomicU64 = AtomicU64::new(0);

/// Puts the probe into `target`; returns what is to be called, or null.
#[unsafe(no_mangle)]
pub extern "C" fn peer_install(target: *const ()) -> *const () {
    let hooker = Hooker::new(target as usize, HookType::JmpBack(hit), CallbackOption::None, 0, HookFlags::empty());
    // SAFETY: the program names a function, and has one thread, which is not in it.
    match unsafe { hooker.hook() } {
        Ok(hook) => std::mem::forget(hook),
        Err(_) => return std::ptr::null(),
    }
    target
}

/// How often it was hit.
#[unsafe(no_mangle)]
pub extern "C" fn peer_hits() -> c_ulong {
    HITS.load(Ordering::Relaxed)
}

unsafe extern "win64" fn hit(_: *mut Registers, _: usize) {
    HITS.store(HITS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
