//! Mirrors of the program's functions, for jprobes.

use super::notes::{What, call_as_told, fault, handler, jprobe_return, note};
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use kprobes::{Handler, Jprobe};

/// A jprobe on a function with this mirror.
pub(super) fn on<F: kprobes::Mirror>(function: &'static str, mirror: F) -> Jprobe<'static> {
    let mirror: Handler<F> = handler(mirror);
    Jprobe::symbol(function, mirror)
}

/// A structure that is passed by value on the stack (System V psABI, 3.2.3: more than two words).
#[repr(C)]
#[derive(Debug)]
pub(super) struct Structure([AtomicU64; 3]);

/// Mirrors a function of two arguments.
pub(super) extern "C" fn two(a: u64, b: u64) {
    note(What::Mirror, 0, &[a, b]);
    call_as_told(What::Mirror);
}

/// Mirrors `suite_wide`, as far as registers go.
pub(super) extern "C" fn six(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) {
    note(What::Mirror, 0, &[a, b, c, d, e, f]);
}

/// Mirrors `suite_wide`.
pub(super) extern "C" fn eight(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64) {
    note(What::Mirror, 0, &[a, b, c, d, e, f, g, h]);
}

/// Mirrors `suite_struct`, and overwrites what it was given.
pub(super) extern "C" fn structure(given: Structure, last: u64) {
    let [a, b, c] = given.0.each_ref().map(|word| word.swap(u64::MAX, Ordering::Relaxed));
    core::hint::black_box(&given);
    note(What::Mirror, 0, &[a, b, c, last]);
}

/// Mirrors a function that is given the address of a word of ours.
pub(super) extern "C" fn pointer(to: &'static AtomicU64) {
    note(What::Mirror, 0, &[to.load(Ordering::Relaxed)]);
}

/// Mirrors a function that returns something, and returns something else.
pub(super) extern "C" fn other_result(a: u64) -> u64 {
    note(What::Mirror, 0, &[a]);
    0xBAD
}

/// Mirrors `suite_float`.
pub(super) extern "C" fn floats(x: f64, y: f64) {
    note(What::Mirror, 0, &[x.to_bits(), y.to_bits()]);
}

/// Ends before its end, from another function.
pub(super) extern "C" fn leaves(a: u64) {
    note(What::Mirror, 0, &[a]);
    leave_from_within();
    note(What::Mirror, 1, &[a]);
}

/// Faults before its end.
pub(super) extern "C" fn faulty(a: u64) {
    note(What::Mirror, 0, &[a]);
    fault();
    note(What::Mirror, 1, &[a]);
}

/// [`Tools::fault`](super::Tools::fault) where handlers are executed by the processor itself.
///
/// ```
/// # use testkit::suite::fault_directly;
/// // From an address that can be read it comes back.
/// let word = 7_u64;
/// // SAFETY: a word is there.
/// unsafe { fault_directly(&raw const word as u64) };
/// ```
///
/// # Safety
///
/// If the address cannot be read, whoever handles the fault must end the caller: a probe's handler.
#[unsafe(naked)]
pub unsafe extern "C" fn fault_directly(_address: u64) {
    naked_asm!("mov rax, [rdi]", "ret")
}

#[inline(never)]
fn leave_from_within() {
    jprobe_return();
    note(What::Mirror, 2, &[]);
}

/// Mirrors `suite_variadic`: notes `al`, and the argument.
#[unsafe(naked)]
pub(super) extern "C" fn variadic(_: u64) {
    naked_asm!("movzx esi, al", "jmp {}", sym two)
}

/// Mirrors `suite_wide`, and leaves no register that it may change, and no argument on the stack, as it was.
#[unsafe(naked)]
pub(super) extern "C" fn spoils(_: u64) {
    naked_asm!(
        "mov qword ptr [rsp + 8], -1",
        "mov qword ptr [rsp + 16], -1",
        "push -1",
        "pop rsi",
        "mov rax, rsi",
        "mov rcx, rsi",
        "mov rdx, rsi",
        "mov r8, rsi",
        "mov r9, rsi",
        "mov r10, rsi",
        "mov r11, rsi",
        "jmp {}",
        sym two,
    )
}
