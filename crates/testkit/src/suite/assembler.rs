//! From a table of instructions to code: labels, and jumps and calls between functions.

use super::program::{Function, Instruction, Program};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Functions begin at multiples of this.
pub(super) const ALIGNMENT: usize = 16;
/// What lies between functions: `nop`.
pub(super) const PADDING: u8 = 0x90;

/// A line of assembly.
#[derive(Clone, Copy, Debug)]
pub(super) enum Line {
    /// A function begins.
    Function(&'static str),
    /// A place in a function.
    Label(&'static str),
    /// An instruction: its text, its bytes.
    Plain(&'static str, &'static [u8]),
    /// An instruction that ends with a 32-bit displacement to a function or label.
    Near(&'static str, &'static [u8], &'static str),
    /// An instruction that ends with an 8-bit displacement to a function or label.
    Short(&'static str, &'static [u8], &'static str),
}

/// Assembles a table. A label that is not there, or out of a short jump's reach, is a displacement of 0: the tests of
/// the one table there is would show it.
pub(super) fn assemble(lines: &[Line]) -> Program {
    let mut program = Program { code: Vec::new(), functions: Vec::new() };
    let mut places = BTreeMap::new();
    let mut transfers = Vec::new();
    for &line in lines {
        match line {
            Line::Function(name) => {
                while !program.code.len().is_multiple_of(ALIGNMENT) {
                    program.code.push(PADDING);
                }
                let offset = program.code.len() as u64;
                places.insert(name, program.code.len());
                program.functions.push(Function { name, offset, size: 0, instructions: Vec::new() });
            }
            Line::Label(name) => {
                places.insert(name, program.code.len());
            }
            Line::Plain(text, bytes) => append(&mut program, text, bytes, 0),
            Line::Near(text, opcode, to) => {
                append(&mut program, text, opcode, 4);
                transfers.push((program.code.len(), 4, to));
            }
            Line::Short(text, opcode, to) => {
                append(&mut program, text, opcode, 1);
                transfers.push((program.code.len(), 1, to));
            }
        }
    }
    for (end, width, to) in transfers {
        let target = places.get(to).copied().unwrap_or(end);
        let displacement = (target as i64 - end as i64).to_le_bytes();
        if let (Some(place), Some(bytes)) = (program.code.get_mut(end - width..end), displacement.get(..width)) {
            place.copy_from_slice(bytes);
        }
    }
    program
}

/// Appends an instruction to the last function, with room for a displacement.
fn append(program: &mut Program, text: &'static str, bytes: &[u8], displacement: usize) {
    let Some(function) = program.functions.last_mut() else { return };
    let offset = program.code.len() as u64 - function.offset;
    program.code.extend_from_slice(bytes);
    program.code.extend(core::iter::repeat_n(0, displacement));
    let length = bytes.len() + displacement;
    function.instructions.push(Instruction { offset, length, text });
    function.size = offset + length as u64;
}

#[cfg(test)]
mod tests {
    use super::Line::{Function, Label, Near, Plain, Short};
    use super::*;

    #[test]
    fn a_jump_leads_backwards_and_forwards() {
        let lines = [
            Function("f"),
            Label("again"),
            Plain("nop", &[0x90]),
            Short("jne again", &[0x75], "again"),
            Near("jmp g", &[0xE9], "g"),
            Function("g"),
            Plain("ret", &[0xC3]),
        ];
        let program = assemble(&lines);
        assert_eq!(program.code[..8], [0x90, 0x75, 0xFD, 0xE9, 8, 0, 0, 0]);
        assert_eq!(program.code[16..], [0xC3]);
    }

    #[test]
    fn a_function_ends_with_its_last_instruction() {
        let lines = [Function("f"), Plain("nop", &[0x90]), Plain("ret", &[0xC3]), Function("g"), Plain("ret", &[0xC3])];
        let program = assemble(&lines);
        let sizes: Vec<_> = program.functions.iter().map(|f| (f.offset, f.size)).collect();
        assert_eq!(sizes, [(0, 2), (16, 1)]);
        assert_eq!(program.functions[0].instructions[1].offset, 1);
    }
}
