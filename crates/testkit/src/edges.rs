//! Cases at the edges, each once: before chance is asked, what is known to go wrong.
//!
//! | Class | Instructions | Varied |
//! |---|---|---|
//! | flags | what reads flags, or passes them on | every set of arithmetic flags, both directions |
//! | stack | everything that pushes or pops, with 16-bit operands too; what lies below the stack pointer is compared, so a copy that writes into the red zone shows | the stack pointer: at both ends of its memory, misaligned, no address at all |
//! | address size | memory, counters and targets through 32-bit registers | upper halves of the registers |
//! | vectors | moves, clears, control words, relative to the instruction too | the vector state |
//! | faults | what can fault in the midst of its work | how far the operand reaches over the end of its memory |
//! | counts | loops and repeated string instructions | the counter |

use isa::x86::{flags, gpr};

use crate::corpus;
use crate::differential::{Case, Oracle};
use crate::processor::{DATA, STACK};

const ARITHMETIC: [u64; 6] = [flags::CF, flags::PF, flags::AF, flags::ZF, flags::SF, flags::OF];

/// `lahf`, `pushf`, `adc`, `sbb`, `rcl`, `cmc`, `loope`, `loopne`, `add`, `inc`, `setz [rbx]`, `popf`-like `sahf`.
const FLAGS: &[&[u8]] = &[
    &[0x9F],
    &[0x9C],
    &[0x66, 0x9C],
    &[0x48, 0x11, 0xC8],
    &[0x48, 0x19, 0xC8],
    &[0x48, 0xD1, 0xD0],
    &[0x48, 0xD3, 0xE0],
    &[0xF5],
    &[0xE1, 0x10],
    &[0xE0, 0x10],
    &[0x48, 0x01, 0xC8],
    &[0x48, 0xFF, 0xC0],
    &[0x9E],
    &[0xFC],
    &[0xFD],
    &[0xA4],
    &[0xA5],
    &[0xAB],
    &[0xAD],
    &[0xAE],
    &[0xA6],
];

/// Pushes, pops, calls, returns, frames.
const STACKS: &[&[u8]] = &[
    &[0x50],
    &[0x41, 0x54],
    &[0x66, 0x50],
    &[0x66, 0x41, 0x54],
    &[0x58],
    &[0x66, 0x58],
    &[0x54],
    &[0x66, 0x54],
    &[0x5C],
    &[0x66, 0x5C],
    &[0x9C],
    &[0x66, 0x9C],
    &[0x6A, 0x80],
    &[0x66, 0x6A, 0x80],
    &[0x68, 0x78, 0x56, 0x34, 0x92],
    &[0x66, 0x68, 0x78, 0x96],
    &[0xFF, 0x33],
    &[0x66, 0xFF, 0x33],
    &[0xFF, 0x34, 0x24],
    &[0xFF, 0x74, 0x24, 0xF8],
    &[0xFF, 0x35, 0, 0, 0, 0x10],
    &[0x8F, 0x03],
    &[0x66, 0x8F, 0x03],
    &[0x8F, 0x04, 0x24],
    &[0x8F, 0x44, 0x24, 0xF8],
    &[0x8F, 0x05, 0, 0, 0, 0x10],
    &[0xC8, 0x10, 0, 0],
    &[0xC8, 0x10, 0, 1],
    &[0xC8, 0x10, 0, 3],
    &[0xC9],
    &[0x66, 0xC9],
    &[0x0F, 0xA0],
    &[0x66, 0x0F, 0xA0],
    &[0xE8, 0, 1, 0, 0],
    &[0xE8, 0, 0, 0, 0],
    &[0x66, 0x48, 0xE8, 0, 1, 0, 0],
    &[0xFF, 0xD0],
    &[0xFF, 0xD3],
    &[0xFF, 0x13],
    &[0xFF, 0x14, 0x24],
    &[0xFF, 0x54, 0x24, 0xF8],
    &[0xFF, 0x54, 0x24, 0xFC],
    &[0xFF, 0x15, 0, 0, 0, 0x10],
    &[0xFF, 0xD4],
    &[0xFF, 0xE4],
    &[0xFF, 0x24, 0x24],
    &[0xC3],
    &[0xF3, 0xC3],
    &[0xC2, 8, 0],
    &[0xC2, 0xFF, 0xFF],
    &[0x48, 0x8D, 0x64, 0x24, 0x80],
    &[0x48, 0x89, 0x44, 0x24, 0x80],
    &[0x48, 0x8B, 0x44, 0x24, 0x88],
    &[0x48, 0x83, 0xEC, 0x10],
];

/// With `67`, through 32-bit registers; without, for comparison.
const ADDRESSES: &[&[u8]] = &[
    &[0x67, 0xE3, 0x10],
    &[0xE3, 0x10],
    &[0x67, 0xE2, 0xF0],
    &[0x67, 0xE1, 0xF0],
    &[0x67, 0xE0, 0xF0],
    &[0x67, 0x8B, 0x03],
    &[0x67, 0x48, 0x89, 0x03],
    &[0x67, 0x48, 0x8B, 0x05, 0, 0, 0, 0x10],
    &[0x67, 0x48, 0x8D, 0x05, 0, 0, 0, 0x10],
    &[0x67, 0x8D, 0x04, 0x0B],
    &[0x67, 0x48, 0x8B, 0x04, 0x25, 0, 1, 0, 0x20],
    &[0x48, 0x8B, 0x04, 0x25, 0, 1, 0, 0x20],
    &[0x67, 0xA4],
    &[0x67, 0xF3, 0xA4],
    &[0x67, 0xFF, 0x13],
    &[0x67, 0xFF, 0x23],
    &[0x67, 0xFF, 0x33],
    &[0x67, 0x8F, 0x03],
    &[0x67, 0xFF, 0x15, 0, 0, 0, 0x10],
    &[0x67, 0xC8, 0x10, 0, 0],
    &[0x67, 0xD7],
    &[0xD7],
    &[0x64, 0x67, 0x8B, 0x03],
    &[0x64, 0x48, 0x8B, 0x04, 0x25, 0, 1, 0, 0],
    &[0x65, 0x48, 0xFF, 0x34, 0x25, 0, 1, 0, 0],
];

/// `xorps`, `pxor`, `vzeroupper`, `vzeroall`, moves to, from and relative to the instruction, `ldmxcsr`, `stmxcsr`, `maskmovdqu`.
const VECTORS: &[&[u8]] = &[
    &[0x0F, 0x57, 0xC1],
    &[0x66, 0x0F, 0xEF, 0xFA],
    &[0xC5, 0xF8, 0x77],
    &[0xC5, 0xFC, 0x77],
    &[0xC5, 0xFE, 0x6F, 0x03],
    &[0xC5, 0xFE, 0x7F, 0x3B],
    &[0x0F, 0x10, 0x05, 0, 0, 0, 0x10],
    &[0x0F, 0x11, 0x05, 0, 0, 0, 0x10],
    &[0xC5, 0xFC, 0x10, 0x05, 0, 0, 0, 0x10],
    &[0xF3, 0x0F, 0x10, 0x05, 4, 0, 0, 0x10],
    &[0x0F, 0x28, 0x05, 1, 0, 0, 0x10],
    &[0x62, 0xF1, 0x7C, 0x48, 0x10, 0x05, 0, 0, 0, 0x10],
    &[0x0F, 0xAE, 0x1B],
    &[0x0F, 0xAE, 0x15, 0, 0, 0, 0x10],
    &[0x66, 0x0F, 0xF7, 0xC1],
    &[0xF2, 0x0F, 0x58, 0xC1],
    &[0xD9, 0xE8],
    &[0xDD, 0x05, 0, 0, 0, 0x10],
    &[0xDB, 0x3B],
];

/// What can fault when part of its work is done: wide moves, string moves, exchanges, divisions, pushes from memory.
const FAULTS: &[&[u8]] = &[
    &[0x0F, 0x10, 0x03],
    &[0x0F, 0x11, 0x03],
    &[0xC5, 0xFE, 0x7F, 0x03],
    &[0x48, 0x8B, 0x03],
    &[0x48, 0x89, 0x03],
    &[0x48, 0x87, 0x03],
    &[0xF0, 0x48, 0x0F, 0xB1, 0x0B],
    &[0x48, 0x0F, 0xC7, 0x0B],
    &[0x48, 0xF7, 0x33],
    &[0x48, 0xF7, 0xF2],
    &[0xFF, 0x33],
    &[0x8F, 0x03],
    &[0xFF, 0x13],
    &[0xFF, 0x23],
    &[0x48, 0xFF, 0x03],
    &[0xF3, 0xA4],
    &[0xF3, 0x48, 0xA5],
    &[0xF3, 0xAA],
    &[0xF2, 0xAE],
    &[0x48, 0xA5],
    &[0xA7],
    &[0xC8, 0x00, 0x40, 0],
    &[0x0F, 0xAE, 0x13],
];

/// Loops, and string instructions that are repeated.
const COUNTS: &[&[u8]] = &[
    &[0xE2, 0x10],
    &[0xE1, 0x10],
    &[0xE0, 0xF0],
    &[0xE3, 0x10],
    &[0xF3, 0xA4],
    &[0xF3, 0xAB],
    &[0xF3, 0xA6],
    &[0xF2, 0xAE],
];

/// What a register's upper half can hide.
const UPPER: [u64; 6] = [0, 1 << 32, 1 << 47, 1 << 63, 0xFFFF_FFFF_0000_0000, 0x8000_0000];

/// A class of edges, by its name.
pub type Class = &'static str;

/// All of them, with their classes; the order is always the same.
///
/// ```
/// use testkit::differential::Oracle;
/// use testkit::edges::edges;
///
/// let mut oracle = Oracle::new();
/// let all = edges(&oracle);
/// for class in ["flags", "stack", "address size", "vectors", "faults", "counts"] {
///     let (_, case) = all.iter().find(|(of, _)| *of == class).expect("a class has cases");
///     assert!(oracle.check(case).is_ok());
/// }
/// ```
#[must_use]
pub fn edges(oracle: &Oracle) -> Vec<(Class, Case)> {
    let mut all = Vec::new();
    flag_edges(oracle, &mut all);
    stack_edges(oracle, &mut all);
    let mut add = |class, code: &[u8], change: &dyn Fn(&mut Case)| {
        let mut case = corpus::case(oracle, code);
        change(&mut case);
        all.push((class, case));
    };
    for code in ADDRESSES {
        for (rbx, rcx) in UPPER.iter().flat_map(|rbx| UPPER.map(|rcx| (*rbx, rcx))) {
            for count in [0, 1, 2] {
                add("address size", code, &|case| {
                    case.state.regs.gpr[gpr::RBX] |= rbx;
                    case.state.regs.gpr[gpr::RCX] = count | rcx;
                    // A repeated instruction ends within its memory, or faults at once.
                    if code.contains(&0xF3) && case.state.regs.gpr[gpr::RCX] > 64 && !code.contains(&0x67) {
                        case.state.regs.gpr[gpr::RCX] = count;
                    }
                });
            }
        }
    }
    for code in VECTORS {
        for seed in 0..16 {
            add("vectors", code, &|case| case.state.vectors = oracle.processor.vectors(seed));
        }
    }
    for code in FAULTS {
        for back in 0..72 {
            add("faults", code, &|case| {
                for register in [gpr::RBX, gpr::RSI, gpr::RDI] {
                    case.state.regs.gpr[register] = DATA.addr + DATA.len - back;
                }
                case.state.regs.gpr[gpr::RCX] = 16;
            });
        }
    }
    for code in COUNTS {
        for count in [0, 1, 2, 3, 63, 64, 255] {
            add("counts", code, &|case| case.state.regs.gpr[gpr::RCX] = count);
        }
    }
    all
}

fn flag_edges(oracle: &Oracle, all: &mut Vec<(Class, Case)>) {
    let conditional = (0..16).flat_map(|condition: u8| {
        let jumps = [vec![0x70 | condition, 0x10], vec![0x0F, 0x80 | condition, 0, 1, 0, 0]];
        jumps.into_iter().chain([vec![0x0F, 0x90 | condition, 0xC0], vec![0x48, 0x0F, 0x40 | condition, 0xC1]])
    });
    for code in conditional.chain(FLAGS.iter().map(|code| code.to_vec())) {
        for set in 0..128_u64 {
            let mut case = corpus::case(oracle, &code);
            let chosen = ARITHMETIC.iter().enumerate().filter(|(bit, _)| set >> bit & 1 != 0).map(|(_, flag)| flag);
            case.state.regs.flags = 0x202 | chosen.sum::<u64>() | if set >= 64 { flags::DF } else { 0 };
            all.push(("flags", case));
        }
    }
}

fn stack_edges(oracle: &Oracle, all: &mut Vec<(Class, Case)>) {
    let ends = (0..=24).flat_map(|n| [STACK.addr + n, STACK.addr + STACK.len - n]);
    let middle = [0, 1, 2, 3, 4, 7, 8, 0x100].map(|n| STACK.addr + 0x1000 + n);
    let nowhere = [0, 1, 8, u64::MAX, 1 << 47, 1 << 63, 0xFFFF_FFFF, DATA.addr];
    let pointers: Vec<u64> = ends.chain(middle).chain(nowhere).collect();
    for (code, rsp) in STACKS.iter().flat_map(|code| pointers.iter().map(move |rsp| (code, *rsp))) {
        let mut case = corpus::case(oracle, code);
        case.state.regs.gpr[gpr::RSP] = rsp;
        // For calls through a register: half of them somewhere.
        case.state.regs.gpr[gpr::RAX] = case.addr + 0x40;
        all.push(("stack", case));
    }
}
