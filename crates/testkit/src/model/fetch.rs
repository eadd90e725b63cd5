//! Fetch programs on the machine: what a probe records besides the hit itself.

use super::{Event, Memory};
use events::{Source, run};
use isa::x86::{Regs, gpr};
use std::cell::Cell;

thread_local! {
    /// The registers of the trap that is being handled: one at a time in each thread of the test's, and a handler that
    /// hits a probe puts its own in between.
    static REGISTERS: Cell<Regs> = const { Cell::new(Regs { gpr: [0; 16], rip: 0, flags: 0 }) };
}

/// The most bytes of a record.
const PAYLOAD_BYTES: usize = 1024;

/// Does something in a trap that was taken with these registers.
pub(super) fn with_registers<T>(registers: Regs, handle: impl FnOnce() -> T) -> T {
    let outer = REGISTERS.replace(registers);
    let done = handle();
    REGISTERS.set(outer);
    done
}

/// What a fetch program sees.
#[derive(Debug)]
pub(super) struct Fetch<'m> {
    memory: &'m Memory,
    event: Event,
    registers: Regs,
}

impl<'m> Fetch<'m> {
    /// The running trap, which has led to `event`.
    pub(super) fn new(memory: &'m Memory, event: Event) -> Self {
        let mut registers = REGISTERS.get();
        if let Event::Hit { address, .. } = event {
            registers.rip = address;
        }
        Self { memory, event, registers }
    }

    /// What `program` fetches.
    pub(super) fn run(&self, program: &[u8]) -> Vec<u8> {
        let mut payload = vec![0; PAYLOAD_BYTES];
        let length = run(program, self, &mut payload);
        payload.truncate(length);
        payload
    }
}

impl Source for Fetch<'_> {
    fn register(&self, index: u8) -> u64 {
        match index {
            16 => self.registers.rip,
            17 => self.registers.flags,
            number => self.registers.get(number),
        }
    }

    /// Of a return only the first argument is known.
    fn argument(&self, n: u8) -> u64 {
        match (self.event, n) {
            (Event::Return { argument, .. }, 1) => argument,
            (Event::Hit { .. }, 1) => self.registers.gpr[gpr::RDI],
            (Event::Hit { .. }, 2) => self.registers.gpr[gpr::RSI],
            _ => 0,
        }
    }

    fn return_value(&self) -> u64 {
        self.registers.gpr[gpr::RAX]
    }

    fn comm(&self, out: &mut [u8; 16]) {
        *out = *b"model\0\0\0\0\0\0\0\0\0\0\0";
    }

    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        self.memory.read(address, out)
    }

    fn read_string(&self, address: u64, out: &mut [u8]) -> Option<usize> {
        for (length, (at, to)) in (address..).zip(out.iter_mut()).enumerate() {
            let mut byte = [0];
            if !self.memory.read(at, &mut byte) {
                return None;
            }
            if byte == [0] {
                return Some(length);
            }
            *to = byte[0];
        }
        Some(out.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let mut memory = Memory::default();
        memory.map(0x1000, 16);
        assert!(memory.write(0x1000, b"text"));
        memory
    }

    #[test]
    fn a_string_ends_at_its_nul_or_where_there_is_no_more_room() {
        let memory = memory();
        let fetch = Fetch::new(&memory, Event::Hit { id: 0, address: 0, thread: 1 });
        let mut out = [0; 8];
        assert_eq!(fetch.read_string(0x1000, &mut out), Some(4));
        assert_eq!(fetch.read_string(0x1000, &mut out[..2]), Some(2));
        assert_eq!(fetch.read_string(0x2000, &mut out), None);
    }

    #[test]
    fn a_nested_trap_has_registers_of_its_own() {
        let memory = memory();
        let rax = || Fetch::new(&memory, Event::ReturnSite { id: 0, value: 0 }).return_value();
        let registers = |value| {
            let mut registers = Regs::default();
            registers.gpr[gpr::RAX] = value;
            registers
        };
        with_registers(registers(1), || {
            assert_eq!(with_registers(registers(2), rax), 2);
            assert_eq!(rax(), 1);
        });
    }
}
