//! A function of ours in the place of the measured one, by the crate `detour`: it counts and calls the original.

use std::ffi::{c_char, c_long, c_ulong};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use detour::RawDetour;

type Function = unsafe extern "C" fn(c_long, *const c_char) -> c_long;

static HITS: AtomicU64 = AtomicU64::new(0);
static ORIGINAL: OnceLock<Function> = OnceLock::new();

/// Puts the probe into `target`; returns what is to be called, or null.
///
/// # Safety
///
/// It is a function like the replacement, in which no thread is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_install(target: *const ()) -> *const () {
    // SAFETY: as the caller promises.
    let installed =
        unsafe { RawDetour::new(target, replacement as *const ()).and_then(|detour| detour.enable().map(|()| detour)) };
    let Ok(detour) = installed else { return std::ptr::null() };
    // SAFETY: the trampoline has the original's type; the detour stays for ever.
    let original = unsafe { std::mem::transmute::<*const (), Function>(detour.trampoline()) };
    let _ = ORIGINAL.set(original);
    std::mem::forget(detour);
    target
}

/// How often it was hit.
#[unsafe(no_mangle)]
pub extern "C" fn peer_hits() -> c_ulong {
    HITS.load(Ordering::Relaxed)
}

unsafe extern "C" fn replacement(number: c_long, text: *const c_char) -> c_long {
    HITS.store(HITS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    match ORIGINAL.get() {
        // SAFETY: as the caller promises for the original.
        Some(original) => unsafe { original(number, text) },
        None => 0,
    }
}
