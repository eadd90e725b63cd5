//! The kernel's functions, and what each calls.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};
use object::{Object, ObjectSection};

use super::walk::Calls;
use crate::qemu::symbols::{self, Image, Symbol};

/// A piece of the image: address and bytes.
type Piece = (u64, Vec<u8>);

/// Functions and the bytes of the image.
#[derive(Debug)]
pub(super) struct Code {
    /// All symbols, by address; at one address what has a size comes first.
    symbols: Vec<Symbol>,
    sections: Vec<Piece>,
}

impl Code {
    /// # Errors
    ///
    /// If the file has no symbols.
    pub(super) fn read(file: &Image<'_>) -> Result<Self> {
        let loaded = file.sections().filter(|section| section.address() != 0);
        let sections = loaded.filter_map(|section| Some((section.address(), section.data().ok()?.to_vec())));
        let sections = sections.filter(|(_, bytes)| !bytes.is_empty()).collect();
        Ok(Self { symbols: symbols::read(file)?, sections })
    }

    /// A symbol's address, by its whole name.
    ///
    /// # Errors
    ///
    /// If there is none of that name, or several at different addresses.
    pub(super) fn address(&self, name: &str) -> Result<u64> {
        let found: BTreeSet<_> =
            self.symbols.iter().filter(|symbol| symbol.name == name).map(|symbol| symbol.address).collect();
        let only = found.first().filter(|_| found.len() == 1).copied();
        only.with_context(|| format!("the kernel has {} symbols named {name}", found.len()))
    }

    /// The name of what lies at an address.
    pub(super) fn name(&self, address: u64) -> String {
        self.function(address).map_or_else(|| format!("{address:#x}"), |function| function.name.clone())
    }

    /// The function that an address lies in; a piece of text that belongs to none is known by its own address.
    fn function(&self, address: u64) -> Option<&Symbol> {
        let until = self.symbols.partition_point(|symbol| symbol.address <= address);
        let near = self.symbols[..until].iter().rev().filter(|symbol| symbol.is_text() && symbol.size > 0);
        // The last at the address is an alias; the first is the function itself.
        let mut near = near.skip_while(|symbol| address - symbol.address >= symbol.size).peekable();
        let start = near.peek()?.address;
        near.take_while(|symbol| symbol.address == start).last()
    }

    fn start(&self, address: u64) -> u64 {
        self.function(address).map_or(address, |function| function.address)
    }

    fn bytes(&self, address: u64) -> Option<&[u8]> {
        let (start, bytes) = self.sections.iter().find(|(start, bytes)| {
            address.checked_sub(*start).is_some_and(|offset| offset < u64::try_from(bytes.len()).unwrap_or(0))
        })?;
        bytes.get(usize::try_from(address - start).ok()?..)
    }

    /// What the function at an address calls, jumps to and falls into.
    pub(super) fn calls(&self, address: u64) -> Calls {
        let Some(function) = self.function(address) else {
            return Calls { unknown: BTreeSet::from([address]), ..Calls::default() };
        };
        let bytes = self.bytes(function.address).unwrap_or_default();
        let size = usize::try_from(function.size).unwrap_or(usize::MAX).min(bytes.len());
        let (mut targets, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        let mut flow = FlowControl::Next;
        for instruction in Decoder::with_ip(64, &bytes[..size], function.address, DecoderOptions::NONE).iter() {
            flow = instruction.flow_control();
            match self.target(&instruction) {
                Target::None => {}
                Target::Known(target) => _ = targets.insert(self.start(target)),
                Target::Unknown => _ = unknown.insert(instruction.ip()),
            }
        }
        // Assembly may run on into what follows. After a call, that is one that never returns.
        if matches!(flow, FlowControl::Next | FlowControl::ConditionalBranch) {
            targets.insert(self.start(function.address + function.size));
        }
        targets.remove(&function.address);
        Calls { direct: targets, unknown }
    }

    fn target(&self, instruction: &Instruction) -> Target {
        match instruction.flow_control() {
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call => {
                if instruction.is_call_near() || instruction.is_jmp_short_or_near() || is_conditional(instruction) {
                    Target::Known(instruction.near_branch_target())
                } else {
                    // System calls and far transfers, which a kernel's trap code does not have.
                    Target::Unknown
                }
            }
            FlowControl::IndirectCall | FlowControl::IndirectBranch => self.through_memory(instruction),
            FlowControl::Exception if instruction.is_invalid() => Target::Unknown,
            _ => Target::None,
        }
    }

    /// A call through a pointer in memory goes where the image's pointer says, if it points to code.
    fn through_memory(&self, instruction: &Instruction) -> Target {
        let fixed = instruction.op0_kind() == OpKind::Memory
            && (instruction.is_ip_rel_memory_operand() || instruction.memory_base() == Register::None)
            && instruction.memory_index() == Register::None;
        let pointer = fixed.then(|| self.bytes(instruction.memory_displacement64())).flatten();
        let pointer = pointer.and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes));
        match pointer.filter(|pointer| self.function(*pointer).is_some()) {
            Some(pointer) => Target::Known(pointer),
            None => Target::Unknown,
        }
    }
}

/// Where an instruction leads beside the next one.
enum Target {
    None,
    Known(u64),
    Unknown,
}

fn is_conditional(instruction: &Instruction) -> bool {
    instruction.is_jcc_short_or_near() || instruction.is_loop() || instruction.is_loopcc() || instruction.is_jcx_short()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_ffff_8010_0000;

    /// Functions of 16 bytes each, one after another, padded with `int3`; and a pointer at `BASE + 0x1000`.
    fn code(functions: &[&[u8]], pointer: u64) -> Code {
        let mut bytes = Vec::new();
        let mut symbols = Vec::new();
        for (function, name) in functions.iter().zip('a'..) {
            let address = BASE + u64::try_from(bytes.len()).unwrap();
            symbols.push(Symbol::function(address, u64::try_from(function.len()).unwrap(), &name.to_string()));
            bytes.extend_from_slice(function);
            bytes.resize(bytes.len().next_multiple_of(16), 0xcc);
        }
        Code { symbols, sections: vec![(BASE, bytes), (BASE + 0x1000, pointer.to_le_bytes().to_vec())] }
    }

    fn calls(code: &Code, direct: &[u64], unknown: &[u64]) {
        let set = |offsets: &[u64]| offsets.iter().map(|offset| BASE + offset).collect();
        assert_eq!(code.calls(BASE), Calls { direct: set(direct), unknown: set(unknown) });
    }

    #[test]
    fn calls_and_jumps_lead_to_functions() {
        // call +0x10; je +0x20; jmp into the middle of the one at +0x30
        let first = [0xe8, 0x0b, 0, 0, 0, 0x74, 0x19, 0xe9, 0x28, 0, 0, 0];
        let other: &[u8] = &[0x90, 0x90, 0x90, 0x90, 0x90, 0xc3];
        calls(&code(&[&first, other, other, other], 0), &[0x10, 0x20, 0x30], &[]);
    }

    #[test]
    fn jumps_within_a_function_lead_nowhere() {
        // loop -2; jmp -4; ret
        calls(&code(&[&[0xe2, 0xfe, 0xeb, 0xfc, 0xc3]], 0), &[], &[]);
    }

    #[test]
    fn a_function_that_runs_on_leads_to_the_next() {
        // push rax, without an end; in the 16 bytes that follow at once another
        calls(&code(&[&[0x50; 16], &[0xc3]], 0), &[0x10], &[]);
    }

    #[test]
    fn a_call_at_the_end_does_not_return() {
        // call +0x20, the last instruction
        let first = [0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xe8, 0x10, 0, 0, 0];
        calls(&code(&[&first, &[0xc3], &[0xc3]], 0), &[0x20], &[]);
    }

    #[test]
    fn a_pointer_in_the_image_is_followed() {
        // call [rip + 0xffa]; ret
        calls(&code(&[&[0xff, 0x15, 0xfa, 0x0f, 0, 0, 0xc3], &[0xc3]], BASE + 0x10), &[0x10], &[]);
    }

    #[test]
    fn other_pointers_are_not_followed() {
        // call [rip + 0xffa] with no pointer to code there; call rax; jmp [rax + 8]
        let first = [0xff, 0x15, 0xfa, 0x0f, 0, 0, 0xff, 0xd0, 0xff, 0x60, 0x08];
        calls(&code(&[&first], 7), &[], &[0, 6, 8]);
    }

    #[test]
    fn bytes_that_are_no_instruction_are_unknown() {
        // (bad); ret
        calls(&code(&[&[0x06, 0xc3]], 0), &[], &[0]);
    }

    #[test]
    fn a_function_of_an_alias_is_the_function() {
        let mut code = code(&[&[0xc3; 16]], 0);
        code.symbols.push(Symbol::function(BASE, 0x10, "z"));
        assert_eq!(code.name(BASE + 3), "a");
        assert_eq!(code.name(BASE + 0x10), format!("{:#x}", BASE + 0x10));
    }

    #[test]
    fn a_name_that_is_missing_or_stands_for_two_is_an_error() {
        let mut code = code(&[&[0xc3], &[0xc3]], 0);
        code.symbols[1].name = "a".to_owned();
        assert!(code.address("a").unwrap_err().to_string().contains("2 symbols named a"));
        assert!(code.address("b").unwrap_err().to_string().contains("0 symbols named b"));
    }
}
