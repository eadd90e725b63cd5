//! The functions of `kprobes::raw`, under the names that modules know: what they do is
//! [`host_process::trap::services`].

use host_process::trap::services;
use kprobes::raw::{Counts, Failure, Probe};

/// # Safety
///
/// As `kprobes::raw` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_register(probes: *const Probe, count: usize, ids: *mut u32, failure: *mut Failure) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { services::register(probes, count, ids, failure) }
}

/// # Safety
///
/// As `kprobes::raw` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_unregister(ids: *const u32, count: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { services::unregister(ids, count) }
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_enable(id: u32, on: u32) -> i32 {
    services::enable(id, on)
}

/// # Safety
///
/// As `kprobes::raw` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_counts(id: u32, out: *mut Counts) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { services::counts(id, out) }
}

/// # Safety
///
/// As `kprobes::raw` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_symbol(name: *const u8, length: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { services::symbol(name, length) }
}

/// # Safety
///
/// As `kprobes::raw` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_print(text: *const u8, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { services::print(text, length) }
}

/// # Safety
///
/// As `kprobes::raw` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_read(address: u64, out: *mut u8, length: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { services::read(address, out, length) }
}

/// # Safety
///
/// As `kprobes::raw` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_read_string(address: u64, out: *mut u8, length: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { services::read_string(address, out, length) }
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_thread() -> u64 {
    services::thread()
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_process() -> u64 {
    services::process()
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_processor() -> u32 {
    services::processor()
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_now() -> u64 {
    services::now()
}

/// # Safety
///
/// As `kprobes::raw` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_comm(out: *mut [u8; 16]) {
    // SAFETY: the caller's promise.
    unsafe { services::comm(out) }
}

/// # Safety
///
/// As `kprobes::raw` says.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_jprobe_return() {
    // SAFETY: the caller's promise.
    unsafe { services::jprobe_return() }
}
