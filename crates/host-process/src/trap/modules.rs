//! Probe modules in this process: whose handler runs, when none may, and what is said of them.
//!
//! A module's handlers are called like all others. What belongs to the module is known by its probes' owner: before a
//! handler is called, the thread notes the owner at its place ([`admits`]), so that what the handler prints is the
//! module's. A handler that faults switches its module off ([`broken`]): one store, and no thread calls another of its
//! handlers. What is left of it the next tool takes out.

use super::memory;
use super::{Memory, TrapHost, fork};
pub(crate) use crate::abi::modules::FIRST_ID;
use crate::abi::modules::{Entry, Log, MESSAGE_BYTES, Note, log, off, state};
use crate::abi::{Home, NO_BANK, window};
use cpu::{nr, syscall};
use hit::{Counters, Probe};
use sync::Ring;
use sync::primitive::Ordering;

const CLOCK_GETTIME: u64 = 228;
const CLOCK_MONOTONIC: u64 = 1;
const NANOSECONDS: u64 = 1_000_000_000;

/// Whether this process has any.
pub(crate) fn are_here(home: &Home) -> bool {
    home.modules.present.load(Ordering::Relaxed) != 0
}

/// The counters of a module's probe; `None` for ids that are no module's.
pub(crate) fn counters(home: &Home, id: u32) -> Option<&Counters> {
    home.modules.counters.get(id.checked_sub(FIRST_ID)? as usize)
}

/// Whether a handler of this probe may be called; notes whose it is.
pub(crate) fn admits(host: &TrapHost<'_>, probe: &Probe) -> bool {
    let owner = probe.handlers.owner.load(Ordering::Relaxed);
    // A light handler has no place, and calls nothing that would ask.
    if let Some(note) = host.place().and_then(|place| host.memory.home.modules.notes.get(place)) {
        note.owner.store(u64::from(owner), Ordering::Relaxed);
    }
    // Probes of nobody's are the process's own.
    let Some(number) = owner.checked_sub(1) else { return true };
    let entry = host.memory.home.modules.table.get(number as usize);
    entry.is_some_and(|e| {
        let works = matches!(e.state.load(Ordering::Acquire), state::LOADING | state::LIVE);
        works && e.off.load(Ordering::Acquire) == off::NOT
    })
}

/// A thread that calls a handler has raised a fault: kept for the case that the handler ends by it.
pub(crate) fn note_fault(home: &Home, tid: u64, signal: u64, instruction: u64, address: u64) {
    if let Some(note) = note_of(home, tid) {
        note.signal.store(signal, Ordering::Relaxed);
        note.instruction.store(instruction, Ordering::Relaxed);
        note.address.store(address, Ordering::Relaxed);
    }
}

/// A handler of this probe has faulted and was ended: its module calls no other.
pub(crate) fn broken(host: &TrapHost<'_>, probe: &Probe) {
    let home = host.memory.home;
    if let Some(counters) = hit::Host::counters(host, probe.id.load(Ordering::Relaxed)) {
        Counters::add(&counters.faults);
    }
    let owner = probe.handlers.owner.load(Ordering::Relaxed);
    let entry = owner.checked_sub(1).and_then(|n| home.modules.table.get(n as usize));
    let Some(entry) = entry.filter(|e| switch_off(e, off::FAULTED)) else { return };
    let base = entry.base.load(Ordering::Relaxed);
    let noted = |word: fn(&Note) -> u64| note_of(home, host.tid()).map_or(0, word);
    let words = [
        noted(|n| n.signal.load(Ordering::Relaxed)),
        // Nothing is noted of a light handler.
        noted(|n| n.instruction.load(Ordering::Relaxed)).saturating_sub(base),
        noted(|n| n.address.load(Ordering::Relaxed)),
    ];
    let log = log_of(host.memory, u64::from(owner));
    push(log, log::FAULT | u64::from(owner), host.tid(), words.len() as u64 * 8, words.into_iter());
}

/// The process is about to restrict its own system calls, and no tool has taken the probes out before: no handler of a
/// module runs any more, and hits make no system call, as in a child that nobody counts.
pub(crate) fn before_sandbox(memory: Memory) {
    if !are_here(memory.home) {
        return;
    }
    for entry in &memory.home.modules.table {
        switch_off(entry, off::SILENT);
    }
    memory.home.modules.present.store(0, Ordering::Relaxed);
    memory.identity().bank.store(NO_BANK, Ordering::Relaxed);
    memory.home.epoch.fetch_add(1, Ordering::Relaxed);
    memory.identity().pid.store(fork::UNCOUNTED, Ordering::Relaxed);
}

/// Switches a module off; false when it is already.
fn switch_off(entry: &Entry, why: u32) -> bool {
    entry.off.compare_exchange(off::NOT, why, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Where a thread that is in a handler notes whose that is.
pub(crate) fn note_of(home: &Home, tid: u64) -> Option<&Note> {
    home.modules.notes.get(place_of(home, tid)?)
}

/// The place of a thread that is in a handler.
pub(crate) fn place_of(home: &Home, tid: u64) -> Option<usize> {
    let window = window(tid);
    let place = home.active.get(window.clone())?.iter().position(|w| w.load(Ordering::Relaxed) == tid)?;
    Some(window.start + place)
}

/// Appends what a module has printed. `text` can be read.
pub(crate) fn print(memory: Memory, tid: u64, owner: u64, text: &[u8]) {
    let text = text.get(..MESSAGE_BYTES).unwrap_or(text);
    let words = (0..text.len().div_ceil(8)).map(|i| {
        let part = text.get(8 * i..).unwrap_or_default();
        part.iter().take(8).rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
    });
    push(log_of(memory, owner), owner, tid, text.len() as u64, words);
}

/// Where a module's messages go.
fn log_of(memory: Memory, owner: u64) -> &'static Log {
    let entry = owner.checked_sub(1).and_then(|n| memory.home.modules.table.get(n as usize));
    let guest = entry.is_some_and(|e| e.guest.load(Ordering::Relaxed) != 0);
    memory.bank().filter(|_| guest).map_or(&memory.home.modules.log, |bank| &bank.log)
}

fn push(to: &Log, tag: u64, tid: u64, bytes: u64, words: impl ExactSizeIterator<Item = u64> + Clone) {
    let head = [now(), tid, bytes];
    let all = (0..head.len() + words.len()).map(|i| match head.get(i) {
        Some(&word) => word,
        None => words.clone().nth(i - head.len()).unwrap_or(0),
    });
    if !Ring::new(&to.head, &to.tail, &to.data).push(tag, all) {
        to.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn now() -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes a `timespec`, two words, to a local variable.
    unsafe { syscall(CLOCK_GETTIME, [CLOCK_MONOTONIC, (&raw mut time) as u64, 0, 0, 0, 0]) };
    time[0].wrapping_mul(NANOSECONDS).wrapping_add(time[1])
}

/// The running thread.
pub(crate) fn thread() -> u64 {
    // SAFETY: `gettid` has no argument and no effect.
    unsafe { syscall(nr::GETTID, [0; 6]) }.cast_unsigned()
}

/// Reads memory of the process's; false when not all of it can be read.
pub(crate) fn read(address: u64, out: &mut [u8]) -> bool {
    memory::read(thread(), address, out)
}
