//! What the agent offers to probe modules: the functions of [`kprobes::raw`], as this host has them.
//!
//! Those that read and say something run where they are called: in a handler, or in a module's `init` and `exit`. Those
//! that change what is planted are the tool's work. The thread that runs `init` or `exit` is held by it (`ptrace`), so
//! the function executes a breakpoint at a known place, `agent_hypercall`, with the arguments in registers; the tool
//! does what is asked and lets the thread go on behind it. From a handler they fail at once: nobody holds that thread.
//!
//! If the tool dies meanwhile, the thread runs into the same breakpoint with nobody to answer. Its handler gives the
//! thread back to what it was doing before it was taken (`abandoned`); the module stays half loaded,
//! and the next tool takes it out.
//!
//! Some need no more than the system calls that they make:
//!
//! ```
//! use host_process::trap::services;
//!
//! assert_eq!(services::process(), u64::from(std::process::id()));
//! assert_ne!(std::thread::spawn(services::thread).join().unwrap(), services::thread());
//! let begin = services::now();
//!
//! let (path, mut room, mut name) = (c"/tmp", [0; 8], [0; 16]);
//! // SAFETY: there is room for as many bytes as are said.
//! unsafe {
//!     services::comm(&raw mut name);
//!     assert_eq!(services::read_string(path.as_ptr() as u64, room.as_mut_ptr(), 8), 4);
//!     assert_eq!(services::read(path.as_ptr() as u64 + 1, room.as_mut_ptr(), 2), 0);
//!     assert_eq!(services::read(1, room.as_mut_ptr(), 2), -1, "nothing is mapped there");
//! }
//! assert_eq!((&room[..4], name[15]), (b"tmmp".as_slice(), 0));
//! assert!(services::now() >= begin, "on processor {}", services::processor());
//! ```
//!
//! # Safety
//!
//! All functions here are called by modules, by the rules of [`kprobes::raw`]: pointers are valid for what the table
//! there says. A pointer that is not faults as in any C program; in a handler that ends the handler.

use super::modules::{self, now as clock, place_of, thread as own_thread};
use super::{memory, start};
use crate::abi::modules::{FIRST_ID, call};
use cpu::{nr, syscall};
use hit::Counters;
use kprobes::raw::{Counts, Failure, Probe};
use sync::primitive::{AtomicU64, Ordering};

const PR_GET_NAME: u64 = 16;
const PAGE: usize = 4096;

/// The agent's `agent_hypercall`: a number and its arguments; what the tool answers.
type Hypercall = extern "C" fn(u64, u64, u64, u64, u64) -> u64;

/// Asks the tool; `None` when it does not hold this thread.
fn ask(number: u64, args: [u64; 4]) -> Option<u64> {
    let home = start::memory().home;
    let held = home.held.tid.load(Ordering::Relaxed) == own_thread();
    let at = home.modules.hypercall.load(Ordering::Relaxed);
    if !held || at == 0 || home.modules.running.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // SAFETY: the tool has stored the address of the agent's own function there, which has this type.
    let hypercall: Hypercall = unsafe { core::mem::transmute(at) };
    let [a, b, c, d] = args;
    Some(hypercall(number, a, b, c, d))
}

/// `kprobes_register`.
///
/// ```no_run
/// use host_process::trap::services;
/// use kprobes::raw::{Counts, Failure, Probe};
///
/// /// In a module's `init`: registered, and switched off for now.
/// fn begin(probe: &Probe) -> Result<u32, Failure> {
///     let (mut id, mut failure) = (0, Failure::NONE);
///     // SAFETY: one probe, and room for its number and for a reason.
///     if unsafe { services::register(probe, 1, &raw mut id, &raw mut failure) } != 0 {
///         return Err(failure);
///     }
///     assert_eq!(services::enable(id, 0), 0);
///     Ok(id)
/// }
///
/// /// In its `exit`: how often it was hit.
/// fn end(id: u32) -> u64 {
///     let mut counts = Counts::default();
///     // SAFETY: room for the counts; one number.
///     let said = unsafe { (services::counts(id, &raw mut counts), services::unregister(&raw const id, 1)) };
///     assert_eq!(said, (0, 0));
///     counts.hits
/// }
/// ```
///
/// # Safety
///
/// See the module.
pub unsafe fn register(probes: *const Probe, count: usize, ids: *mut u32, failure: *mut Failure) -> i32 {
    let args = [probes as u64, count as u64, ids as u64, failure as u64];
    if let Some(said) = ask(call::REGISTER, args) {
        return said as i32;
    }
    // SAFETY: the caller's promise: null, or a `Failure` to be written.
    if let Some(failure) = unsafe { failure.as_mut() } {
        failure.set(0, "probes are registered in init only");
    }
    -1
}

/// `kprobes_unregister`.
///
/// # Safety
///
/// See the module.
pub unsafe fn unregister(ids: *const u32, count: usize) -> i32 {
    ask(call::UNREGISTER, [ids as u64, count as u64, 0, 0]).map_or(-1, |said| said as i32)
}

/// `kprobes_enable`.
#[must_use]
pub fn enable(id: u32, on: u32) -> i32 {
    ask(call::ENABLE, [u64::from(id), u64::from(on), 0, 0]).map_or(-1, |said| said as i32)
}

/// `kprobes_symbol`.
///
/// ```no_run
/// # use host_process::trap::services;
/// # fn init() {
/// let name = "libc.so.6:environ";
/// // SAFETY: the address and length of a text.
/// if unsafe { services::symbol(name.as_ptr(), name.len()) } == 0 {
///     let text = "there is no environment";
///     // SAFETY: as above.
///     unsafe { services::print(text.as_ptr(), text.len()) };
/// }
/// # }
/// ```
///
/// # Safety
///
/// See the module.
#[must_use]
pub unsafe fn symbol(name: *const u8, length: usize) -> u64 {
    ask(call::SYMBOL, [name as u64, length as u64, 0, 0]).unwrap_or(0)
}

/// `kprobes_counts`.
///
/// # Safety
///
/// See the module.
pub unsafe fn counts(id: u32, out: *mut Counts) -> i32 {
    let Some(counters) = modules::counters(start::memory().home, id) else { return -1 };
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let Counters { hits, missed, returns, unwound, declined, faults, .. } = counters;
    let [hits, missed, returns] = [hits, missed, returns].map(get);
    let [unwound, declined, faults] = [unwound, declined, faults].map(get);
    // SAFETY: the caller's promise.
    unsafe { out.write(Counts { hits, missed, returns, unwound, declined, faults }) };
    0
}

/// `kprobes_print`.
///
/// # Safety
///
/// See the module.
pub unsafe fn print(text: *const u8, length: usize) {
    if text.is_null() || length == 0 {
        return;
    }
    let length = length.min(crate::abi::modules::MESSAGE_BYTES);
    // A text that cannot be read faults here, before there is a place in the log that would never be filled.
    for at in (0..length).step_by(PAGE).chain([length - 1]) {
        // SAFETY: the caller's promise: `length` bytes can be read.
        unsafe { text.add(at).read_volatile() };
    }
    // SAFETY: the same promise.
    let text = unsafe { core::slice::from_raw_parts(text, length) };
    let (memory, tid) = (start::memory(), own_thread());
    let home = memory.home;
    let owner = match home.held.tid.load(Ordering::Relaxed) == tid {
        true => u64::from(home.modules.running.load(Ordering::Relaxed)),
        false => modules::note_of(home, tid).map_or(0, |note| note.owner.load(Ordering::Relaxed)),
    };
    modules::print(memory, tid, owner, text);
}

/// `kprobes_read`.
///
/// # Safety
///
/// See the module.
pub unsafe fn read(address: u64, out: *mut u8, length: usize) -> i32 {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    let out = unsafe { core::slice::from_raw_parts_mut(out, length) };
    if modules::read(address, out) { 0 } else { -1 }
}

/// `kprobes_read_string`.
///
/// # Safety
///
/// See the module.
pub unsafe fn read_string(address: u64, out: *mut u8, length: usize) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    let out = unsafe { core::slice::from_raw_parts_mut(out, length) };
    memory::read_string(own_thread(), address, out).map_or(-1, usize::cast_signed)
}

/// `kprobes_thread`.
#[must_use]
pub fn thread() -> u64 {
    own_thread()
}

/// `kprobes_process`.
#[must_use]
pub fn process() -> u64 {
    // SAFETY: `getpid` has no argument and no effect.
    unsafe { syscall(nr::GETPID, [0; 6]) }.cast_unsigned()
}

/// `kprobes_processor`.
#[must_use]
pub fn processor() -> u32 {
    cpu::now().1
}

/// `kprobes_now`.
#[must_use]
pub fn now() -> u64 {
    clock()
}

/// `kprobes_comm`.
///
/// # Safety
///
/// See the module.
pub unsafe fn comm(out: *mut [u8; 16]) {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes to its argument.
    unsafe { syscall(nr::PRCTL, [PR_GET_NAME, name.as_mut_ptr() as u64, 0, 0, 0, 0]) };
    // SAFETY: the caller's promise.
    unsafe { out.write(name) };
}

/// `kprobes_jprobe_return`: comes back only when no handler runs.
///
/// ```no_run
/// # use host_process::trap::services;
/// extern "C" fn mirror(number: u64) {
///     if number == 0 {
///         // SAFETY: in a mirror, and nothing here waits to be dropped.
///         unsafe { services::jprobe_return() }
///     }
/// }
/// ```
///
/// # Safety
///
/// To be called in a jprobe's mirror.
pub unsafe fn jprobe_return() {
    let home = start::memory().home;
    if let Some(running) = place_of(home, own_thread()).and_then(|place| home.running.get(place)) {
        // SAFETY: the caller's promise: this thread runs a handler, which is kept at its place.
        unsafe { running.leave() };
    }
}

const _: () = assert!(FIRST_ID > 0);
