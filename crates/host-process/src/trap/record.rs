//! An event becomes a record: header words, then what the fetch program fetched.

use super::host::TrapHost;
use super::mailbox;
use super::memory::{read, read_string, read_word};
use crate::abi::{Bank, Home, RINGS, RingMemory};
use arch::x86::{Fetch, Reader};
use cpu::{nr, syscall};
use events::run;
use events::wire::Header;
use hit::{Cause, Probe};
use isa::x86::Regs;
use sync::Ring;
use sync::primitive::Ordering;

const PR_GET_NAME: u64 = 16;

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
    payload: &mut [u8],
) -> bool {
    let (tsc, cpu) = cpu::now();
    let source = Fetch { reader: host, regs, cause };
    let length = run(code(host.memory.home, probe), &source, payload).min(payload.len());
    let caller = match cause {
        Cause::Hit => 0,
        // Behind a tail call the address may be another instance's stub.
        Cause::Return(instance) => {
            let to = instance.return_address.load(Ordering::Relaxed);
            hit::Host::returns(host).true_return_address(to)
        }
        Cause::ReturnSite => read_word(host.tid(), regs.rsp()).unwrap_or(0),
    };
    let address = match cause {
        Cause::Hit => regs.rip,
        _ => probe.data.load(Ordering::Relaxed),
    };
    let header = Header {
        event: probe.id.load(Ordering::Relaxed),
        is_return: !matches!(cause, Cause::Hit),
        time: tsc,
        thread: host.tid() as u32,
        cpu,
        process: host.memory.identity().pid.load(Ordering::Relaxed),
        address,
        caller,
        name: host.thread_name(tsc),
    };
    let Some(memory) = bank.rings.get(cpu as usize % RINGS) else { return false };
    push(host, memory, &header, payload.get(..length).unwrap_or_default())
}

/// The running thread's name, padded with zeros.
pub(crate) fn thread_name() -> [u64; 2] {
    let mut name = [0u64; 2];
    // SAFETY: PR_GET_NAME writes at most 16 bytes to its argument.
    unsafe { syscall(nr::PRCTL, [PR_GET_NAME, name.as_mut_ptr() as u64, 0, 0, 0, 0]) };
    name
}

fn push(host: &TrapHost<'_>, memory: &RingMemory, header: &Header, payload: &[u8]) -> bool {
    let ring = Ring::new(&memory.head, &memory.tail, &memory.data);
    let words = header.words(payload);
    let len = words.len() as u64 + 1;
    let stored = ring.push(header.tag(), words);
    let (used, capacity) = ring.fill();
    // Wake the tool once, when the ring becomes half full; it looks by itself now and then otherwise.
    if used * 2 > capacity && used.saturating_sub(len) * 2 <= capacity {
        mailbox::ring_doorbell(host.memory);
    }
    stored
}

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

impl Reader for &TrapHost<'_> {
    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        read(self.tid(), address, out)
    }

    fn read_string(&self, address: u64, out: &mut [u8]) -> Option<usize> {
        read_string(self.tid(), address, out)
    }

    fn comm(&self, out: &mut [u8; 16]) {
        for (to, word) in out.chunks_exact_mut(8).zip(thread_name()) {
            to.copy_from_slice(&word.to_le_bytes());
        }
    }
}
