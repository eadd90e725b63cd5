//! What modules call: the functions of [`kprobes::raw`].
//!
//! A module is trusted as the kernel itself is, but a pointer that is wrong should not end the kernel in `init`, so
//! what is pointed at is read with care.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use host_bare::{Kernel, Registered, Spec};
use kprobes::raw::{self, Counts, Failure, Probe, Text};
use kprobes::{DATA_BYTES, HandlerData, Place, SpecKind};

use super::caller::{self, Caller};
use crate::arch::{cpu, interrupts, time};
use crate::probes::{Demo, with_control};
use crate::{export, ksyms, log, sched};

export!(
    kprobes_register,
    kprobes_unregister,
    kprobes_enable,
    kprobes_counts,
    kprobes_symbol,
    kprobes_print,
    kprobes_read,
    kprobes_read_string,
    kprobes_thread,
    kprobes_process,
    kprobes_processor,
    kprobes_now,
    kprobes_comm,
    kprobes_jprobe_return
);

const FAILED: i32 = -1;

/// What a call that only `init` and `exit` may make says to others.
const NOT_HERE: &str = "probes are registered and unregistered in init and exit only";

/// Reads a value that a module points at.
///
/// # Safety
///
/// Any bytes are a value of `T`.
unsafe fn read<T: Copy>(address: *const T) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the bytes of `value`, all of them zero.
    let bytes = unsafe { core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
    // SAFETY: all bytes are set, and any are a value by the caller's promise.
    Demo::read(address as u64, bytes).then(|| unsafe { value.assume_init() })
}

/// Reads so many values.
///
/// # Safety
///
/// As for [`read`].
unsafe fn read_all<T: Copy>(first: *const T, count: usize) -> Option<Vec<T>> {
    // SAFETY: the caller's promise.
    (0..count).map(|index| unsafe { read(first.wrapping_add(index)) }).collect()
}

fn read_text(text: Text) -> Option<String> {
    if text.length > raw::NAME_BYTES {
        return None;
    }
    let mut bytes = alloc::vec![0; text.length];
    let there = Demo::read(text.bytes as u64, &mut bytes);
    there.then(|| String::from_utf8(bytes).ok()).flatten()
}

/// A probe as a module describes it, with its symbol's name.
fn described(probe: Probe) -> Result<(Probe, String), String> {
    let name = read_text(probe.symbol).ok_or("the symbol's name is no text, or too long")?;
    Ok((probe, name))
}

/// A probe as kprobes wants it.
fn spec<'a>(caller: &Caller, (probe, name): &'a (Probe, String)) -> Result<Spec<'a>, String> {
    let place = match (probe.address, name.as_str()) {
        (0, "") => return Err("it has no place: neither an address nor a symbol".into()),
        (0, name) => Place::Symbol { name, offset: probe.offset },
        (address, "") => Place::Address(address.wrapping_add(probe.offset)),
        _ => return Err("it has two places, an address and a symbol".into()),
    };
    let handlers = HandlerData {
        before: probe.before,
        after: probe.after,
        fault: probe.fault,
        user: probe.user,
        area: 0,
        entry_bytes: probe.entry_bytes,
        owner: caller.owner,
        mirror: probe.kind & !raw::kind::LIGHT == raw::kind::JPROBE,
        light: probe.kind & raw::kind::LIGHT != 0,
    };
    let functions = [handlers.before, handlers.after, handlers.fault];
    if let Some(stranger) = functions.into_iter().find(|at| *at != 0 && !caller.text.contains(at)) {
        return Err(alloc::format!("the handler {stranger:#x} is none of the module's functions"));
    }
    let kind = kind(probe, functions == [0; 3])?;
    // SAFETY: a module's handlers, in its own memory, which stays until its probes are unregistered; its author has kept
    // the rules, as of all code that is loaded into a kernel.
    Ok(unsafe { Spec::new(place, kind, handlers, probe.disabled != 0) })
}

fn kind(probe: &Probe, counts_only: bool) -> Result<SpecKind, String> {
    match probe.kind & !raw::kind::LIGHT {
        raw::kind::KPROBE if counts_only => Ok(SpecKind::Counter),
        raw::kind::KPROBE => Ok(SpecKind::Kprobe),
        raw::kind::JPROBE if probe.before == 0 => Err("a jprobe without a function".into()),
        raw::kind::JPROBE if probe.after != 0 => Err("a jprobe has no handler that runs later".into()),
        raw::kind::JPROBE => Ok(SpecKind::Jprobe),
        raw::kind::KRETPROBE if probe.entry_bytes as usize > DATA_BYTES => {
            Err(alloc::format!("an activation has {DATA_BYTES} bytes of data at most, not {}", probe.entry_bytes))
        }
        raw::kind::KRETPROBE => Ok(SpecKind::Kretprobe { maxactive: Some(probe.maxactive).filter(|calls| *calls > 0) }),
        kind => Err(alloc::format!("there is no kind {kind} of probe")),
    }
}

fn register(caller: &mut Caller, probes: Vec<Probe>) -> Result<Vec<u32>, (usize, String)> {
    let described: Result<Vec<_>, _> =
        probes.into_iter().enumerate().map(|(index, probe)| described(probe).map_err(|why| (index, why))).collect();
    let described = described?;
    let specs: Result<Vec<_>, _> =
        described.iter().enumerate().map(|(index, probe)| spec(caller, probe).map_err(|why| (index, why))).collect();
    let specs = specs?;
    let registered = with_control(|control| control.register_all(specs)).map_err(|why| (0, why))?;
    let registered = registered.map_err(|(index, error)| (index, error.to_string()))?;
    let ids = registered.iter().map(Registered::id).collect();
    caller.probes.extend(registered);
    Ok(ids)
}

/// Registers probes, all or none: 0, or -1 with the reason.
///
/// # Safety
///
/// `ids` has room for `count` numbers; `failure` is null or may be written.
unsafe extern "C" fn kprobes_register(probes: *const Probe, count: usize, ids: *mut u32, failure: *mut Failure) -> i32 {
    let register = |caller: &mut Caller| {
        if count > raw::PROBES {
            return Err((0, alloc::format!("{count} probes at once are too many, {} are not", raw::PROBES)));
        }
        // SAFETY: a `Probe` consists of integers and of a pointer that is not followed.
        let probes = unsafe { read_all(probes, count) }.ok_or((0, "the probes cannot be read".to_string()))?;
        register(caller, probes)
    };
    let result = caller::with(register).unwrap_or_else(|| Err((0, NOT_HERE.into())));
    match result {
        Ok(registered) => {
            for (index, id) in registered.into_iter().enumerate() {
                // SAFETY: there is room for `count`, by the caller's promise.
                unsafe { ids.add(index).write(id) };
            }
            0
        }
        Err((index, why)) => {
            // SAFETY: null or writable, by the caller's promise.
            if let Some(failure) = unsafe { failure.as_mut() } {
                failure.set(index as u32, &why);
            }
            FAILED
        }
    }
}

/// Takes probes off: 0, or -1 if one is none of the module's or the text cannot be written.
///
/// # Safety
///
/// None: what is pointed at is read with care.
unsafe extern "C" fn kprobes_unregister(ids: *const u32, count: usize) -> i32 {
    // SAFETY: any bytes are a number.
    let Some(ids) = (count <= raw::PROBES).then(|| unsafe { read_all(ids, count) }).flatten() else { return FAILED };
    let unregister = |caller: &mut Caller| {
        let own = |id: &u32| caller.probes.iter().any(|probe| probe.id() == *id);
        if !ids.iter().all(own) {
            return false;
        }
        let probes = core::mem::take(&mut caller.probes);
        let (gone, stays): (Vec<_>, _) = probes.into_iter().partition(|probe| ids.contains(&probe.id()));
        caller.probes = stays;
        let result = with_control(|control| {
            let gone = gone.into_iter().filter(|probe| control.counts_of(probe).is_some()).collect();
            control.unregister_all(gone).map_err(|(left, _)| left)
        });
        match result {
            Ok(Err(left)) => caller.probes.extend(left),
            Ok(Ok(_)) => return true,
            Err(_) => {}
        }
        false
    };
    if caller::with(unregister) == Some(true) { 0 } else { FAILED }
}

/// Switches a probe on or off: 0, or -1 if it is none of the module's or the text cannot be written.
extern "C" fn kprobes_enable(id: u32, on: u32) -> i32 {
    let enable = |caller: &mut Caller| {
        let probe = caller.probes.iter().find(|probe| probe.id() == id)?;
        with_control(|control| control.enable(probe, on != 0)).ok()?.ok()
    };
    if caller::with(enable).flatten().is_some() { 0 } else { FAILED }
}

/// Reads what a probe has counted: 0, or -1 if there is none.
///
/// # Safety
///
/// `counts` may be written.
unsafe extern "C" fn kprobes_counts(id: u32, counts: *mut Counts) -> i32 {
    let Some(found) = Demo::engine().and_then(|engine| engine.counts(id)) else { return FAILED };
    let host_bare::Counts { hits, missed, returned, unwound, declined, faults, .. } = found;
    // SAFETY: the caller's promise.
    unsafe { counts.write(Counts { hits, missed, returns: returned, unwound, declined, faults }) };
    0
}

/// The address of a function, `[MODULE:]SYMBOL`; 0 if there is none, or several. In `init` and `exit`.
extern "C" fn kprobes_symbol(bytes: *const u8, length: usize) -> u64 {
    if !interrupts::enabled() {
        return 0;
    }
    read_text(Text { bytes, length }).and_then(|name| ksyms::lookup(&name).ok()).map_or(0, |symbol| symbol.address)
}

/// Prints a text.
extern "C" fn kprobes_print(bytes: *const u8, length: usize) {
    let (mut at, end) = (bytes as u64, (bytes as u64).saturating_add(length as u64));
    while at < end {
        let mut piece = [0; log::buffer::PIECE];
        let piece = &mut piece[..((end - at) as usize).min(log::buffer::PIECE)];
        if !Demo::read(at, piece) {
            return log::write(b"kprobes_print: a text that cannot be read\n");
        }
        log::write(piece);
        at += piece.len() as u64;
    }
}

/// Reads memory: 0, or -1 if not all can be read.
///
/// # Safety
///
/// `out` has room for `length` bytes.
unsafe extern "C" fn kprobes_read(address: u64, out: *mut u8, length: usize) -> i32 {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    let out = unsafe { core::slice::from_raw_parts_mut(out, length) };
    if Demo::read(address, out) { 0 } else { FAILED }
}

/// Reads a text up to its NUL, or as much as there is room for: its length, or -1 if it cannot be read.
///
/// # Safety
///
/// `out` has room for `length` bytes.
unsafe extern "C" fn kprobes_read_string(address: u64, out: *mut u8, length: usize) -> isize {
    for index in 0..length {
        let mut byte = [0];
        if !Demo::read(address.wrapping_add(index as u64), &mut byte) {
            return -1;
        }
        // SAFETY: the caller's promise.
        unsafe { out.add(index).write(byte[0]) };
        if byte == [0] {
            return index as isize;
        }
    }
    length as isize
}

/// The running thread.
extern "C" fn kprobes_thread() -> u64 {
    sched::current()
}

/// The running process: this kernel has none.
extern "C" fn kprobes_process() -> u64 {
    0
}

/// The running processor.
extern "C" fn kprobes_processor() -> u32 {
    cpu::id() as u32
}

/// Nanoseconds since the start.
extern "C" fn kprobes_now() -> u64 {
    time::now_ns()
}

/// The running thread's name.
///
/// # Safety
///
/// `out` may be written.
unsafe extern "C" fn kprobes_comm(out: *mut [u8; 16]) {
    let mut name = [0; 16];
    Demo::thread_name(&mut name);
    // SAFETY: the caller's promise.
    unsafe { out.write(name) };
}

/// Ends the jprobe's mirror that calls it.
///
/// # Safety
///
/// To be called from within a mirror.
unsafe extern "C" fn kprobes_jprobe_return() -> ! {
    // SAFETY: the caller's promise.
    unsafe { host_bare::jprobe_return::<Demo>() };
    panic!("a module has called kprobes_jprobe_return outside a jprobe's function");
}
