//! The suite's program: functions of every shape that matters to probes.
//!
//! All take their arguments in `rdi` and `rsi` and give their result in `rax`, but for those that a `…_call` calls with
//! more, and keep the registers that a function must keep (System V ABI). None touches memory but its stack, or what it
//! is given the address of; none knows where it lies, and none uses what is below its stack pointer: a kernel's trap
//! frames are there. [`VECTORS`] are executed only where programs have vector registers. Each instruction stands as text beside its bytes; a test
//! compares the two.

use super::assembler::Line::{self, Function as Fn, Label, Near, Plain, Short};
use super::assembler::{ALIGNMENT, PADDING, assemble};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// Functions in one piece of code.
///
/// ```
/// use testkit::suite::{assembly, program};
///
/// let program = program();
/// let leaf = program.find("suite_leaf").unwrap();
/// assert_eq!(leaf.instructions.iter().map(|i| i.text).collect::<Vec<_>>(), ["nop", "mov rax, rdi", "inc rax", "ret"]);
/// assert_eq!(program.code_of(leaf), [0x90, 0x48, 0x89, 0xF8, 0x48, 0xFF, 0xC0, 0xC3]);
/// assert!(program.find("main").is_none());
/// // The same as an assembler takes it.
/// assert!(assembly().contains("suite_leaf:\n    .byte 0x90 # nop\n"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The code. It may lie at any multiple of 16.
    pub code: Vec<u8>,
    /// Its functions, in ascending order.
    pub functions: Vec<Function>,
}

/// A function of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its symbol.
    pub name: &'static str,
    /// Where in the code it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its instructions, in ascending order.
    pub instructions: Vec<Instruction>,
}

/// An instruction of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where in the function it begins.
    pub offset: u64,
    /// Its length in bytes.
    pub length: usize,
    /// It as a text, in Intel's syntax; targets by name.
    pub text: &'static str,
}

impl Program {
    /// The function of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name)
    }

    /// The code of a function.
    #[must_use]
    pub fn code_of(&self, function: &Function) -> &[u8] {
        let start = function.offset as usize;
        self.code.get(start..start + function.size as usize).unwrap_or_default()
    }
}

/// The program.
#[must_use]
pub fn program() -> Program {
    assemble(LINES)
}

/// The program as text for an assembler (GNU's or LLVM's, for ELF): bytes, symbols, types and sizes. The section is the
/// one that is current.
///
/// It holds no braces, so it can be an argument of `global_asm!` as it is.
#[must_use]
pub fn assembly() -> String {
    let program = program();
    let mut text = String::new();
    for function in &program.functions {
        let name = function.name;
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "    .balign {ALIGNMENT}, {PADDING:#x}\n    .globl {name}\n    .type {name}, @function\n{name}:\n"
        );
        let code = program.code_of(function);
        for instruction in &function.instructions {
            let at = instruction.offset as usize;
            let bytes = code.get(at..at + instruction.length).unwrap_or_default();
            let _ = write!(text, "    .byte ");
            for (i, byte) in bytes.iter().enumerate() {
                let _ = write!(text, "{}{byte:#04x}", if i > 0 { ", " } else { "" });
            }
            let _ = writeln!(text, " # {}", instruction.text);
        }
        let _ = writeln!(text, "    .size {name}, . - {name}");
    }
    text
}

const LINES: &[Line] = &[
    // a + 1
    Fn("suite_leaf"),
    Plain("nop", &[0x90]),
    Plain("mov rax, rdi", &[0x48, 0x89, 0xF8]),
    Plain("inc rax", &[0x48, 0xFF, 0xC0]),
    Plain("ret", &[0xC3]),
    // leaf(leaf(a) + b)
    Fn("suite_nested"),
    Plain("push rbp", &[0x55]),
    Plain("mov rbp, rsp", &[0x48, 0x89, 0xE5]),
    Near("call suite_leaf", &[0xE8], "suite_leaf"),
    Plain("mov rdi, rax", &[0x48, 0x89, 0xC7]),
    Plain("add rdi, rsi", &[0x48, 0x01, 0xF7]),
    Near("call suite_leaf", &[0xE8], "suite_leaf"),
    Plain("leave", &[0xC9]),
    Plain("ret", &[0xC3]),
    // nested(a, b), three deep
    Fn("suite_deep"),
    Plain("push rbp", &[0x55]),
    Near("call suite_nested", &[0xE8], "suite_nested"),
    Plain("pop rbp", &[0x5D]),
    Plain("ret", &[0xC3]),
    // a + (a - 1) + … + 1, by recursion
    Fn("suite_recurse"),
    Plain("push rbx", &[0x53]),
    Plain("mov rbx, rdi", &[0x48, 0x89, 0xFB]),
    Plain("xor eax, eax", &[0x31, 0xC0]),
    Plain("test rdi, rdi", &[0x48, 0x85, 0xFF]),
    Short("je recurse_end", &[0x74], "recurse_end"),
    Plain("dec rdi", &[0x48, 0xFF, 0xCF]),
    Near("call suite_recurse", &[0xE8], "suite_recurse"),
    Plain("add rax, rbx", &[0x48, 0x01, 0xD8]),
    Label("recurse_end"),
    Plain("pop rbx", &[0x5B]),
    Plain("ret", &[0xC3]),
    // leaf(a + 2), by a jump
    Fn("suite_tail"),
    Plain("add rdi, 2", &[0x48, 0x83, 0xC7, 0x02]),
    Near("jmp suite_leaf", &[0xE9], "suite_leaf"),
    // 1 when a is even: the two take turns by jumps
    Fn("suite_even"),
    Plain("test rdi, rdi", &[0x48, 0x85, 0xFF]),
    Short("je even_end", &[0x74], "even_end"),
    Plain("dec rdi", &[0x48, 0xFF, 0xCF]),
    Near("jmp suite_odd", &[0xE9], "suite_odd"),
    Label("even_end"),
    Plain("mov eax, 1", &[0xB8, 0x01, 0x00, 0x00, 0x00]),
    Plain("ret", &[0xC3]),
    // 1 when a is odd
    Fn("suite_odd"),
    Plain("test rdi, rdi", &[0x48, 0x85, 0xFF]),
    Short("je odd_end", &[0x74], "odd_end"),
    Plain("dec rdi", &[0x48, 0xFF, 0xCF]),
    Near("jmp suite_even", &[0xE9], "suite_even"),
    Label("odd_end"),
    Plain("xor eax, eax", &[0x31, 0xC0]),
    Plain("ret", &[0xC3]),
    // a + (a - 1) + … + 1, by a loop with a branch at its end
    Fn("suite_loop"),
    Plain("xor eax, eax", &[0x31, 0xC0]),
    Plain("test rdi, rdi", &[0x48, 0x85, 0xFF]),
    Short("je loop_end", &[0x74], "loop_end"),
    Label("loop_again"),
    Plain("add rax, rdi", &[0x48, 0x01, 0xF8]),
    Plain("dec rdi", &[0x48, 0xFF, 0xCF]),
    Short("jne loop_again", &[0x75], "loop_again"),
    Label("loop_end"),
    Plain("ret", &[0xC3]),
    // a, counted by the instruction `loop`
    Fn("suite_count"),
    Plain("mov rcx, rdi", &[0x48, 0x89, 0xF9]),
    Plain("xor eax, eax", &[0x31, 0xC0]),
    Short("jrcxz count_end", &[0xE3], "count_end"),
    Label("count_again"),
    Plain("inc rax", &[0x48, 0xFF, 0xC0]),
    Short("loop count_again", &[0xE2], "count_again"),
    Label("count_end"),
    Plain("ret", &[0xC3]),
    // a, by as many calls of leaf
    Fn("suite_many"),
    Plain("push rbx", &[0x53]),
    Plain("mov rbx, rdi", &[0x48, 0x89, 0xFB]),
    Plain("xor edi, edi", &[0x31, 0xFF]),
    Plain("test rbx, rbx", &[0x48, 0x85, 0xDB]),
    Short("je many_end", &[0x74], "many_end"),
    Label("many_again"),
    Near("call suite_leaf", &[0xE8], "suite_leaf"),
    Plain("mov rdi, rax", &[0x48, 0x89, 0xC7]),
    Plain("dec rbx", &[0x48, 0xFF, 0xCB]),
    Short("jne many_again", &[0x75], "many_again"),
    Label("many_end"),
    Plain("mov rax, rdi", &[0x48, 0x89, 0xF8]),
    Plain("pop rbx", &[0x5B]),
    Plain("ret", &[0xC3]),
    // the greater one
    Fn("suite_max"),
    Plain("mov rax, rdi", &[0x48, 0x89, 0xF8]),
    Plain("cmp rdi, rsi", &[0x48, 0x39, 0xF7]),
    Short("jae max_end", &[0x73], "max_end"),
    Plain("mov rax, rsi", &[0x48, 0x89, 0xF0]),
    Label("max_end"),
    Plain("ret", &[0xC3]),
    // a, or the error -2 when it is odd
    Fn("suite_error"),
    Plain("mov rax, rdi", &[0x48, 0x89, 0xF8]),
    Plain("test rdi, 1", &[0x48, 0xF7, 0xC7, 0x01, 0x00, 0x00, 0x00]),
    Short("je error_end", &[0x74], "error_end"),
    Plain("mov rax, 0xfffffffffffffffe", &[0x48, 0xC7, 0xC0, 0xFE, 0xFF, 0xFF, 0xFF]),
    Label("error_end"),
    Plain("ret", &[0xC3]),
    // leaf(a), called through a register
    Fn("suite_call_register"),
    Near("lea rax, suite_leaf", &[0x48, 0x8D, 0x05], "suite_leaf"),
    Plain("call rax", &[0xFF, 0xD0]),
    Plain("ret", &[0xC3]),
    // leaf(a), called through memory that the call's own push lies beside
    Fn("suite_call_memory"),
    Near("lea rax, suite_leaf", &[0x48, 0x8D, 0x05], "suite_leaf"),
    Plain("push rax", &[0x50]),
    Plain("call [rsp]", &[0xFF, 0x14, 0x24]),
    Plain("pop rcx", &[0x59]),
    Plain("ret", &[0xC3]),
    // leaf(a), by a jump through a register
    Fn("suite_jump_register"),
    Near("lea rax, suite_leaf", &[0x48, 0x8D, 0x05], "suite_leaf"),
    Plain("jmp rax", &[0xFF, 0xE0]),
    // leaf(a), by a jump that looks like a return
    Fn("suite_push_return"),
    Near("lea rax, suite_leaf", &[0x48, 0x8D, 0x05], "suite_leaf"),
    Plain("push rax", &[0x50]),
    Plain("ret", &[0xC3]),
    // 0: how far the return address of a call lies from where it must
    Fn("suite_where"),
    Near("call where_next", &[0xE8], "where_next"),
    Label("where_next"),
    Plain("pop rax", &[0x58]),
    Near("lea rcx, where_next", &[0x48, 0x8D, 0x0D], "where_next"),
    Plain("sub rax, rcx", &[0x48, 0x29, 0xC8]),
    Plain("ret", &[0xC3]),
    // the zero flag, which is set; the trap flag would show too
    Fn("suite_flags"),
    Plain("xor eax, eax", &[0x31, 0xC0]),
    Plain("pushfq", &[0x9C]),
    Plain("pop rax", &[0x58]),
    Plain("and rax, 0x140", &[0x48, 0x25, 0x40, 0x01, 0x00, 0x00]),
    Plain("ret", &[0xC3]),
    // takes two words off its caller's stack, and adds them
    Fn("suite_pops"),
    Plain("mov rax, [rsp+8]", &[0x48, 0x8B, 0x44, 0x24, 0x08]),
    Plain("mov rcx, [rsp+0x10]", &[0x48, 0x8B, 0x4C, 0x24, 0x10]),
    Plain("add rax, rcx", &[0x48, 0x01, 0xC8]),
    Plain("ret 0x10", &[0xC2, 0x10, 0x00]),
    // a + b
    Fn("suite_pushes"),
    Plain("push rdi", &[0x57]),
    Plain("push rsi", &[0x56]),
    Near("call suite_pops", &[0xE8], "suite_pops"),
    Plain("ret", &[0xC3]),
    // a, jumping over an instruction that never runs
    Fn("suite_first_jump"),
    Short("jmp first_jump_end", &[0xEB], "first_jump_end"),
    Plain("inc rdi", &[0x48, 0xFF, 0xC7]),
    Label("first_jump_end"),
    Plain("mov rax, rdi", &[0x48, 0x89, 0xF8]),
    Plain("ret", &[0xC3]),
    // leaf(a) + 10
    Fn("suite_first_call"),
    Near("call suite_leaf", &[0xE8], "suite_leaf"),
    Plain("add rax, 0xa", &[0x48, 0x83, 0xC0, 0x0A]),
    Plain("ret", &[0xC3]),
    // a + b
    Fn("suite_first_copied"),
    Plain("mov rax, rdi", &[0x48, 0x89, 0xF8]),
    Plain("add rax, rsi", &[0x48, 0x01, 0xF0]),
    Plain("ret", &[0xC3]),
    // 0: how far an address that is relative to the instruction lies from where it must
    Fn("suite_first_relative"),
    Near("lea rax, suite_first_relative", &[0x48, 0x8D, 0x05], "suite_first_relative"),
    Near("lea rcx, suite_first_relative", &[0x48, 0x8D, 0x0D], "suite_first_relative"),
    Plain("sub rax, rcx", &[0x48, 0x29, 0xC8]),
    Plain("ret", &[0xC3]),
    // a
    Fn("suite_first_endbr"),
    Plain("endbr64", &[0xF3, 0x0F, 0x1E, 0xFA]),
    Plain("mov rax, rdi", &[0x48, 0x89, 0xF8]),
    Plain("ret", &[0xC3]),
    // nothing
    Fn("suite_first_return"),
    Plain("ret", &[0xC3]),
    // the sum of eight arguments, two of them on the stack
    Fn("suite_wide"),
    Plain("mov rax, rdi", &[0x48, 0x89, 0xF8]),
    Plain("add rax, rsi", &[0x48, 0x01, 0xF0]),
    Plain("add rax, rdx", &[0x48, 0x01, 0xD0]),
    Plain("add rax, rcx", &[0x48, 0x01, 0xC8]),
    Plain("add rax, r8", &[0x4C, 0x01, 0xC0]),
    Plain("add rax, r9", &[0x4C, 0x01, 0xC8]),
    Plain("add rax, [rsp+8]", &[0x48, 0x03, 0x44, 0x24, 0x08]),
    Plain("add rax, [rsp+0x10]", &[0x48, 0x03, 0x44, 0x24, 0x10]),
    Plain("ret", &[0xC3]),
    // wide(a + 2, b + 1, b + 2, a + 3, b + 3, a + 4, a, b)
    Fn("suite_wide_call"),
    Plain("push rbp", &[0x55]),
    Plain("push rsi", &[0x56]),
    Plain("push rdi", &[0x57]),
    Plain("add rdi, 2", &[0x48, 0x83, 0xC7, 0x02]),
    Plain("inc rsi", &[0x48, 0xFF, 0xC6]),
    Plain("mov rdx, rsi", &[0x48, 0x89, 0xF2]),
    Plain("inc rdx", &[0x48, 0xFF, 0xC2]),
    Plain("mov rcx, rdi", &[0x48, 0x89, 0xF9]),
    Plain("inc rcx", &[0x48, 0xFF, 0xC1]),
    Plain("mov r8, rdx", &[0x49, 0x89, 0xD0]),
    Plain("inc r8", &[0x49, 0xFF, 0xC0]),
    Plain("mov r9, rcx", &[0x49, 0x89, 0xC9]),
    Plain("inc r9", &[0x49, 0xFF, 0xC1]),
    Near("call suite_wide", &[0xE8], "suite_wide"),
    Plain("add rsp, 0x10", &[0x48, 0x83, 0xC4, 0x10]),
    Plain("pop rbp", &[0x5D]),
    Plain("ret", &[0xC3]),
    // the sum of a structure's three words, passed by value on the stack, and an argument
    Fn("suite_struct"),
    Plain("mov rax, [rsp+8]", &[0x48, 0x8B, 0x44, 0x24, 0x08]),
    Plain("add rax, [rsp+0x10]", &[0x48, 0x03, 0x44, 0x24, 0x10]),
    Plain("add rax, [rsp+0x18]", &[0x48, 0x03, 0x44, 0x24, 0x18]),
    Plain("add rax, rdi", &[0x48, 0x01, 0xF8]),
    Plain("ret", &[0xC3]),
    // struct({a, b + 1, b}, a + 1)
    Fn("suite_struct_call"),
    Plain("push rbp", &[0x55]),
    Plain("push rsi", &[0x56]),
    Plain("push rsi", &[0x56]),
    Plain("inc rsi", &[0x48, 0xFF, 0xC6]),
    Plain("push rsi", &[0x56]),
    Plain("push rdi", &[0x57]),
    Plain("inc rdi", &[0x48, 0xFF, 0xC7]),
    Near("call suite_struct", &[0xE8], "suite_struct"),
    Plain("add rsp, 0x20", &[0x48, 0x83, 0xC4, 0x20]),
    Plain("pop rbp", &[0x5D]),
    Plain("ret", &[0xC3]),
    // a, and how many vector registers its caller says that it uses, as functions with a variable number of arguments
    // are told
    Fn("suite_variadic"),
    Plain("movzx eax, al", &[0x0F, 0xB6, 0xC0]),
    Plain("add rax, rdi", &[0x48, 0x01, 0xF8]),
    Plain("ret", &[0xC3]),
    // a + 3
    Fn("suite_variadic_call"),
    Plain("push rbp", &[0x55]),
    Plain("mov eax, 3", &[0xB8, 0x03, 0x00, 0x00, 0x00]),
    Near("call suite_variadic", &[0xE8], "suite_variadic"),
    Plain("pop rbp", &[0x5D]),
    Plain("ret", &[0xC3]),
    // the word at a, + 1
    Fn("suite_load"),
    Plain("mov rax, [rdi]", &[0x48, 0x8B, 0x07]),
    Plain("inc rax", &[0x48, 0xFF, 0xC0]),
    Plain("ret", &[0xC3]),
    // a + 1, which goes through memory
    Fn("suite_load_call"),
    Plain("push rdi", &[0x57]),
    Plain("mov rdi, rsp", &[0x48, 0x89, 0xE7]),
    Near("call suite_load", &[0xE8], "suite_load"),
    Plain("pop rcx", &[0x59]),
    Plain("ret", &[0xC3]),
    // writes something into the word at b, waits until there is something in the word at a, and gives that
    Fn("suite_wait"),
    Plain("mov [rsi], rsi", &[0x48, 0x89, 0x36]),
    Label("wait_again"),
    Plain("mov rax, [rdi]", &[0x48, 0x8B, 0x07]),
    Plain("test rax, rax", &[0x48, 0x85, 0xC0]),
    Short("je wait_again", &[0x74], "wait_again"),
    Plain("ret", &[0xC3]),
    // a, which must not be 0
    Fn("suite_wait_call"),
    Plain("push rdi", &[0x57]),
    Plain("push rsi", &[0x56]),
    Plain("mov rsi, rsp", &[0x48, 0x89, 0xE6]),
    Plain("lea rdi, [rsp+8]", &[0x48, 0x8D, 0x7C, 0x24, 0x08]),
    Near("call suite_wait", &[0xE8], "suite_wait"),
    Plain("pop rcx", &[0x59]),
    Plain("pop rcx", &[0x59]),
    Plain("ret", &[0xC3]),
    // the sum of two floating-point numbers, as an integer
    Fn("suite_float"),
    Plain("addsd xmm0, xmm1", &[0xF2, 0x0F, 0x58, 0xC1]),
    Plain("cvttsd2si rax, xmm0", &[0xF2, 0x48, 0x0F, 0x2C, 0xC0]),
    Plain("ret", &[0xC3]),
    // float(a, b)
    Fn("suite_float_call"),
    Plain("push rbp", &[0x55]),
    Plain("cvtsi2sd xmm0, rdi", &[0xF2, 0x48, 0x0F, 0x2A, 0xC7]),
    Plain("cvtsi2sd xmm1, rsi", &[0xF2, 0x48, 0x0F, 0x2A, 0xCE]),
    Near("call suite_float", &[0xE8], "suite_float"),
    Plain("pop rbp", &[0x5D]),
    Plain("ret", &[0xC3]),
];

/// Functions that use vector registers: no [`SAMPLES`](super::SAMPLES) call them.
pub const VECTORS: [&str; 2] = ["suite_float", "suite_float_call"];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn functions_do_not_overlap_and_are_their_instructions() {
        let program = program();
        let mut end = 0;
        for function in &program.functions {
            assert!(function.offset >= end && function.offset.is_multiple_of(16), "{}", function.name);
            let length: usize = function.instructions.iter().map(|i| i.length).sum();
            assert_eq!(length as u64, function.size, "{}", function.name);
            end = function.offset + function.size;
        }
        assert_eq!(end, program.code.len() as u64);
    }

    #[test]
    fn no_byte_is_a_breakpoint() {
        // A byte that differs from the program's can then only be one that was planted.
        assert!(!program().code.contains(&0xCC));
    }

    #[test]
    fn the_assembly_holds_every_byte_in_order() {
        let program = program();
        let text = assembly();
        let lines = text.lines().filter_map(|l| l.trim_start().strip_prefix(".byte ")?.split(" #").next());
        let bytes: Vec<u8> = lines
            .flat_map(|l| l.split(", "))
            .map(|b| u8::from_str_radix(b.trim_start_matches("0x"), 16).unwrap())
            .collect();
        let expected: Vec<u8> = program.functions.iter().flat_map(|f| program.code_of(f)).copied().collect();
        assert_eq!(bytes, expected);
        assert!(!text.contains(['{', '}']));
        for function in &program.functions {
            assert!(text.contains(&format!("\n{0}:\n", function.name)), "{}", function.name);
        }
    }

    #[cfg(feature = "std")]
    #[test]
    fn bytes_are_what_their_text_says() {
        let program = program();
        let base = 0x10_0000;
        let places = |target: &str| program.find(target).map(|f| base + f.offset);
        for function in &program.functions {
            let code = program.code_of(function);
            for instruction in &function.instructions {
                let at = base + function.offset + instruction.offset;
                let bytes = &code[instruction.offset as usize..][..instruction.length];
                let real = isa::x86::disassemble(bytes, at).unwrap();
                let (mnemonic, operands) = instruction.text.split_once(' ').unwrap_or((instruction.text, ""));
                assert!(real.starts_with(mnemonic), "{real}: {}", instruction.text);
                let last = operands.rsplit(", ").next().unwrap_or_default();
                match places(last) {
                    Some(target) => {
                        let displacement = i32::from_le_bytes(*bytes.last_chunk().unwrap());
                        let end = at + bytes.len() as u64;
                        assert_eq!(
                            end.wrapping_add_signed(displacement.into()),
                            target,
                            "{real}: {}",
                            instruction.text
                        );
                    }
                    // A label. Where it leads shows in what the samples give.
                    None if last.contains('_') => {}
                    None => assert_eq!(real.replace("qword ptr ", ""), instruction.text),
                }
            }
        }
    }
}
