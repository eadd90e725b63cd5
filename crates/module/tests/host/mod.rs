//! A host for tests: what a module calls, answered from statics of the calling thread.

use module::raw::{Counts, Failure, Probe};
use std::cell::{Cell, RefCell};
use std::slice;

thread_local! {
    /// Probes that were registered, with their symbols.
    pub(crate) static PROBES: RefCell<Vec<(Probe, String)>> = const { RefCell::new(Vec::new()) };
    /// Numbers that were unregistered, call by call.
    pub(crate) static REMOVED: RefCell<Vec<Vec<u32>>> = const { RefCell::new(Vec::new()) };
    /// What was switched on or off.
    pub(crate) static SWITCHED: RefCell<Vec<(u32, u32)>> = const { RefCell::new(Vec::new()) };
    /// What was printed, piece by piece.
    pub(crate) static PRINTED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The next registration is refused with this.
    pub(crate) static REFUSAL: RefCell<Option<(u32, String)>> = const { RefCell::new(None) };
    pub(crate) static THREAD: Cell<u64> = const { Cell::new(1) };
    pub(crate) static PROCESSOR: Cell<u32> = const { Cell::new(0) };
    pub(crate) static ERRNO: Cell<i32> = const { Cell::new(0) };
}

/// The greatest address that cannot be read.
pub(crate) const UNREADABLE: u64 = 4096;

pub(crate) fn printed() -> String {
    PRINTED.take().concat()
}

unsafe fn text(bytes: *const u8, length: usize) -> String {
    // SAFETY: the caller hands on what a module has handed over: the address and length of a text.
    String::from_utf8(unsafe { slice::from_raw_parts(bytes, length) }.to_vec()).expect("a module prints text")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_register(probes: *const Probe, count: usize, ids: *mut u32, failure: *mut Failure) -> i32 {
    // SAFETY: the module's promise: `count` probes, room for as many numbers, and for a failure.
    let (probes, ids, failure) =
        unsafe { (slice::from_raw_parts(probes, count), slice::from_raw_parts_mut(ids, count), &mut *failure) };
    if let Some((index, reason)) = REFUSAL.take() {
        failure.set(index, &reason);
        return -1;
    }
    PROBES.with_borrow_mut(|all| {
        for (probe, id) in probes.iter().zip(ids) {
            *id = 100 + all.len() as u32;
            // SAFETY: the module's promise.
            all.push((*probe, unsafe { text(probe.symbol.bytes, probe.symbol.length) }));
        }
    });
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_unregister(ids: *const u32, count: usize) -> i32 {
    // SAFETY: the module's promise: `count` numbers.
    REMOVED.with_borrow_mut(|removed| removed.push(unsafe { slice::from_raw_parts(ids, count) }.to_vec()));
    0
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_enable(id: u32, on: u32) -> i32 {
    SWITCHED.with_borrow_mut(|switched| switched.push((id, on)));
    0
}

/// Only the first probe is known.
#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_counts(id: u32, counts: *mut Counts) -> i32 {
    if id != 100 {
        return -1;
    }
    // SAFETY: the module's promise: room for them.
    unsafe { *counts = Counts { hits: 7, missed: 3, ..Counts::default() } };
    0
}

extern "C" fn errno_location() -> *const i32 {
    ERRNO.with(|errno| errno.as_ptr().cast_const())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_symbol(name: *const u8, length: usize) -> u64 {
    // SAFETY: the module's promise.
    match unsafe { text(name, length) }.as_str() {
        "libc.so.6:__errno_location" => errno_location as *const () as u64,
        _ => 0,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_print(bytes: *const u8, length: usize) {
    // SAFETY: the module's promise.
    PRINTED.with_borrow_mut(|printed| printed.push(unsafe { text(bytes, length) }));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_read(address: u64, out: *mut u8, length: usize) -> i32 {
    if address <= UNREADABLE {
        return -1;
    }
    // SAFETY: tests read what is there, and the module has room for it.
    unsafe { core::ptr::copy_nonoverlapping(address as *const u8, out, length) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_read_string(address: u64, out: *mut u8, length: usize) -> isize {
    if address <= UNREADABLE {
        return -1;
    }
    // SAFETY: tests read strings that end.
    let string = unsafe { core::ffi::CStr::from_ptr(address as *const _) }.to_bytes();
    let copied = string.len().min(length);
    // SAFETY: the module has room for `length`.
    unsafe { core::ptr::copy_nonoverlapping(string.as_ptr(), out, copied) };
    copied as isize
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_thread() -> u64 {
    THREAD.get()
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_process() -> u64 {
    4711
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_processor() -> u32 {
    PROCESSOR.get()
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_now() -> u64 {
    12
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kprobes_comm(out: *mut [u8; 16]) {
    // SAFETY: the module has room for them.
    unsafe { *out = *b"worker\n\xff\0\0\0\0\0\0\0\0" };
}

#[unsafe(no_mangle)]
extern "C" fn kprobes_jprobe_return() {
    unreachable!("no test is a mirror")
}
