//! The repository's corpus of instructions, as forms.
//!
//! It was written for a process's addresses: `rip`-relative operands are led to data here, and lines are left out that
//! would go where nothing is.

use super::form::{Fix, Form, Needs};
use alloc::vec::Vec;

/// Assembly and bytes; the build takes them from `corpus/x86_64`.
const LINES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/corpus.rs"));

/// What is left out, by what the assembly contains or begins with, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("[rsp-", "reads below rsp, where a kernel's traps and interrupts write"),
    ("gs:", "reads the processor's own block"),
    ("pop gs", "would lose the processor's own block"),
    ("0xfff0", "returns far beyond the stack"),
    ("far", "the systematic forms have far returns with pointers that lead somewhere"),
    ("[r15]", "the address would be random"),
    ("[rax]", "the address would be random"),
    ("jmp rax", "the target would be random"),
    ("call rax", "the target would be random"),
    ("call rsp", "would execute the stack"),
    ("jmp rsp", "would execute the stack"),
    ("call 0x", "the systematic forms have literal targets that lead somewhere"),
    ("jmp 0x", "the systematic forms have literal targets that lead somewhere"),
    ("short 0x10000800", "jumps to itself"),
    ("loop 0x10000800", "jumps to itself"),
];

/// All lines that can run here.
pub(super) fn all() -> Vec<Form> {
    LINES.iter().filter(|(assembly, code)| runs(assembly, code)).map(|(assembly, code)| form(assembly, code)).collect()
}

fn runs(assembly: &str, code: &[u8]) -> bool {
    !is_jcc(code) && !LEFT_OUT.iter().any(|(text, _)| assembly.contains(text))
}

/// A conditional jump with four bytes of displacement: the systematic forms have those.
fn is_jcc(code: &[u8]) -> bool {
    code.len() >= 6 && matches!(code[code.len() - 6..], [0x0F, 0x80..0x90, ..])
}

fn form(assembly: &str, code: &[u8]) -> Form {
    let form = Form::new("corpus", code).needing(needs(assembly));
    let displacement = code.windows(4).position(|four| four == [0, 0, 0, 0x10]);
    match displacement.filter(|_| assembly.contains("[rip+")) {
        Some(at) => form.fixed(Fix::Data(at)),
        None => form,
    }
}

fn needs(assembly: &str) -> Needs {
    let first = |words: &[&str]| assembly.split(' ').any(|word| words.contains(&word));
    let needs = match () {
        () if first(&["call", "jmp", "ret"]) => Needs::TARGETS,
        () if first(&["popf", "popfq"]) => Needs::FLAGS_TOP,
        () if assembly.starts_with("enter") || assembly.starts_with("sub rsp") => Needs::ALLOCATES,
        () if assembly == "pop rsp" => Needs::POINTER_TOP,
        () if first(&["div", "idiv"]) => Needs::DIVIDES,
        () if assembly.contains("cmpxchg") => Needs::EQUAL.and(Needs::ALIGNED),
        () if assembly.contains("lock") || assembly.contains("xchg") => Needs::ALIGNED,
        () => Needs::NOTHING,
    };
    needs.and(Needs::SMALL_RCX)
}
