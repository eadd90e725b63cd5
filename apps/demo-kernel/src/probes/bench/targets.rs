//! The functions of `targets.s`.

use alloc::vec::Vec;
use core::hint::black_box;

use super::COPIES;

/// Bytes from one copy to the next.
const COPY_BYTES: usize = 64;
/// Functions that only fill the table of probes, and the instructions of each.
const FILLERS: usize = 10;
const FILLER_LENGTH: usize = super::OTHERS / FILLERS;
/// Bytes of a filler's instructions, and from one filler to the next.
const FILLER_STEP: usize = 4;
const FILLER_BYTES: usize = 512;

const _: () = assert!(FILLER_STEP * FILLER_LENGTH < FILLER_BYTES);

core::arch::global_asm!(
    include_str!("targets.s"),
    copies = const COPIES,
    copy_size = const COPY_BYTES,
    filler_length = const FILLER_LENGTH,
    filler_count = const FILLERS,
    filler_size = const FILLER_BYTES,
);

type Copies = [[u8; COPY_BYTES]; COPIES];

unsafe extern "C" {
    static bench_lea: Copies;
    static bench_push: Copies;
    static bench_nop: Copies;
    static bench_jmp: Copies;
    static bench_call: Copies;
    static bench_fillers: [[u8; FILLER_BYTES]; FILLERS];
}

/// A function to probe, by its first instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) name: &'static str,
    code: *const Copies,
}

pub(super) const LEA: Target = Target { name: "lea", code: &raw const bench_lea };
pub(super) const PUSH: Target = Target { name: "push", code: &raw const bench_push };
pub(super) const NOP: Target = Target { name: "nop", code: &raw const bench_nop };
pub(super) const JMP: Target = Target { name: "jmp", code: &raw const bench_jmp };
pub(super) const CALL: Target = Target { name: "call", code: &raw const bench_call };

/// One copy.
#[derive(Clone, Copy)]
pub(super) struct Function(extern "C" fn(u64, *const u8) -> u64);

/// What functions get as second argument: a string of C's, for a record.
const TEXT: &[u8] = b"hello, world\0";

impl Target {
    /// Each of its copies.
    pub(super) fn copies(self) -> impl Iterator<Item = Function> {
        (0..COPIES).map(move |copy| {
            let code = self.code.cast::<u8>().wrapping_add(copy * COPY_BYTES);
            // SAFETY: `targets.s` places a function with C's calling convention there.
            Function(unsafe { core::mem::transmute::<*const u8, extern "C" fn(u64, *const u8) -> u64>(code) })
        })
    }
}

impl Function {
    pub(super) fn address(self) -> u64 {
        self.0 as usize as u64
    }

    pub(super) fn call(self, x: u64) -> u64 {
        black_box(self.0)(x, TEXT.as_ptr())
    }
}

/// The addresses of the fillers' instructions.
pub(super) fn fillers() -> Vec<u64> {
    let first = (&raw const bench_fillers) as u64;
    let instructions = |filler: usize| (0..FILLER_LENGTH).map(move |i| filler * FILLER_BYTES + i * FILLER_STEP);
    (0..FILLERS).flat_map(instructions).map(|offset| first + offset as u64).collect()
}
