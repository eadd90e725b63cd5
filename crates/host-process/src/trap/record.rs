//! An event becomes a record: header words, then what the fetch program fetched.

use super::host::TrapHost;
use super::mailbox;
use super::memory::{read, read_string, read_word};
use crate::abi::{Bank, Home, PAYLOAD_BYTES, RINGS, RingMemory, record as layout};
use cpu::{nr, syscall};
use events::{Source, run};
use hit::returns::Instance;
use hit::{Cause, Probe};
use isa::x86::Regs;
use sync::Ring;
use sync::primitive::Ordering;

const RAX: usize = 0;
const RSP: usize = 4;
const PR_GET_NAME: u64 = 16;
/// Saved argument registers are the first ones of the calling convention.
const IN_REGISTERS: u8 = 6;

/// Records an event; false when it found no room.
pub(crate) fn write(host: &TrapHost<'_>, probe: &Probe, regs: &Regs, cause: Cause<'_>) -> bool {
    let Some(bank) = host.memory.bank() else { return false };
    host.with_payload(|payload| write_with(host, probe, regs, cause, bank, payload)).unwrap_or(false)
}

fn write_with(
    host: &TrapHost<'_>,
    probe: &Probe,
    regs: &Regs,
    cause: Cause<'_>,
    bank: &Bank,
    payload: &mut [u8; PAYLOAD_BYTES],
) -> bool {
    let (tsc, cpu) = cpu::now();
    let source = Fetch { host, regs, cause };
    let length = run(code(host.memory.home, probe), &source, payload).min(PAYLOAD_BYTES);
    let (kind, other) = match cause {
        Cause::Hit => (layout::HIT, 0),
        // Behind a tail call the address may be another instance's stub.
        Cause::Return(instance) => {
            let to = instance.return_address.load(Ordering::Relaxed);
            (layout::RETURN, hit::Host::returns(host).true_return_address(to))
        }
        Cause::ReturnSite => (layout::RETURN, read_word(host.tid(), regs.gpr[RSP]).unwrap_or(0)),
    };
    let address = match cause {
        Cause::Hit => regs.rip,
        _ => probe.data.load(Ordering::Relaxed),
    };
    let pid = host.memory.identity().pid.load(Ordering::Relaxed);
    let [name, name_end] = thread_name();
    let header: [u64; layout::HEADER_WORDS] =
        [tsc, host.tid() | u64::from(cpu) << 32, pid, address, other, length as u64, name, name_end];
    let tag = kind << layout::ID_BITS | u64::from(probe.id.load(Ordering::Relaxed));
    let Some(memory) = bank.rings.get(cpu as usize % RINGS) else { return false };
    push(host, memory, tag, &header, payload.get(..length).unwrap_or_default())
}

/// The running thread's name, padded with zeros.
fn thread_name() -> [u64; 2] {
    let mut name = [0u64; 2];
    // SAFETY: PR_GET_NAME writes at most 16 bytes to its argument.
    unsafe { syscall(nr::PRCTL, [PR_GET_NAME, name.as_mut_ptr() as u64, 0, 0, 0, 0]) };
    name
}

fn push(host: &TrapHost<'_>, memory: &RingMemory, tag: u64, header: &[u64], payload: &[u8]) -> bool {
    let ring = Ring::new(&memory.head, &memory.tail, &memory.data);
    let words = Words { header, payload };
    let len = words.len() as u64 + 1;
    let stored = ring.push(tag, words);
    let (used, capacity) = ring.fill();
    // Wake the tool once, when the ring becomes half full; it looks by itself now and then otherwise.
    if used * 2 > capacity && used.saturating_sub(len) * 2 <= capacity {
        mailbox::ring_doorbell(host.memory);
    }
    stored
}

/// The record's words: the header's, then the payload's bytes, the last word filled up with zeros.
struct Words<'a> {
    header: &'a [u64],
    payload: &'a [u8],
}

impl Iterator for Words<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if let Some((first, rest)) = self.header.split_first() {
            self.header = rest;
            return Some(*first);
        }
        if self.payload.is_empty() {
            return None;
        }
        let (word, rest) = self.payload.split_at(self.payload.len().min(8));
        self.payload = rest;
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(word) {
            *to = *from;
        }
        Some(u64::from_le_bytes(bytes))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.header.len() + self.payload.len().div_ceil(8);
        (len, Some(len))
    }
}

impl ExactSizeIterator for Words<'_> {}

/// The probe's fetch program.
fn code<'h>(home: &'h Home, probe: &Probe) -> &'h [u8] {
    let (at, len) = (probe.code.load(Ordering::Relaxed) as usize, probe.code_length.load(Ordering::Relaxed) as usize);
    if at.checked_add(len).is_none_or(|end| end > PROGRAM_BYTES_TOTAL) {
        return &[];
    }
    let base = home.programs.as_ptr().cast::<u8>();
    // SAFETY: `at + len` is within `programs`. The tool writes a program before it registers the probe, and never
    // changes one that a registered probe refers to.
    unsafe { core::slice::from_raw_parts(base.add(at), len) }
}

const PROGRAM_BYTES_TOTAL: usize = crate::abi::PROGRAM_BYTES;

/// What a fetch program reads.
struct Fetch<'a, 'f> {
    host: &'a TrapHost<'f>,
    regs: &'a Regs,
    cause: Cause<'a>,
}

impl Fetch<'_, '_> {
    fn saved(&self, n: u8) -> Option<u64> {
        let Cause::Return(Instance { arguments, .. }) = self.cause else { return None };
        arguments.get(usize::from(n.checked_sub(1)?)).map(|a| a.load(Ordering::Relaxed))
    }
}

impl Source for Fetch<'_, '_> {
    fn register(&self, index: u8) -> u64 {
        match index {
            16 => self.regs.rip,
            17 => self.regs.flags,
            i => self.regs.gpr.get(usize::from(i)).copied().unwrap_or(0),
        }
    }

    fn argument(&self, n: u8) -> u64 {
        const REGISTERS: [u8; IN_REGISTERS as usize] = [7, 6, 2, 1, 8, 9];
        if let Some(value) = self.saved(n) {
            return value;
        }
        match REGISTERS.get(usize::from(n.wrapping_sub(1))) {
            Some(&register) => self.register(register),
            None => {
                let slot = self.regs.gpr[RSP].wrapping_add(8 * u64::from(n.saturating_sub(IN_REGISTERS)));
                read_word(self.host.tid(), slot).unwrap_or(0)
            }
        }
    }

    fn return_value(&self) -> u64 {
        self.regs.gpr[RAX]
    }

    fn comm(&self, out: &mut [u8; 16]) {
        for (to, word) in out.chunks_exact_mut(8).zip(thread_name()) {
            to.copy_from_slice(&word.to_le_bytes());
        }
    }

    fn read(&self, addr: u64, out: &mut [u8]) -> bool {
        read(self.host.tid(), addr, out)
    }

    fn read_string(&self, addr: u64, out: &mut [u8]) -> Option<usize> {
        read_string(self.host.tid(), addr, out)
    }
}
