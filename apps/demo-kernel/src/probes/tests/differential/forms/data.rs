//! What computes and moves.

use super::{Maker, PLACES, RCX, RSP, VALUE, WIDTHS, coded, sized};
use crate::probes::tests::differential::form::{Coded, Form, Needs};
use alloc::vec::Vec;

pub(super) fn all(maker: &mut Maker) {
    arithmetic(maker);
    groups(maker);
    shifts(maker);
    moves(maker);
    bits(maker);
    atomics(maker);
    strings(maker);
}

fn arithmetic(maker: &mut Maker) {
    for operation in 0..8 {
        for width in WIDTHS {
            for direction in [0, 2] {
                let register = maker.register();
                let opcode = [operation << 3 | direction | width.w];
                maker.both(Coded { register, ..sized("arithmetic", width, &opcode) }, Needs::NOTHING);
            }
            let whole = width.whole();
            let mut accumulator = Vec::from(width.prefix);
            accumulator.extend(width.wide.then_some(0x48));
            accumulator.push(operation << 3 | 4 | width.w);
            accumulator.extend(whole);
            maker.add(Form::new("arithmetic", &accumulator));
            let opcode = [0x80 | width.w];
            maker.both(
                Coded { register: operation, value: whole, ..sized("arithmetic", width, &opcode) },
                Needs::NOTHING,
            );
            if width.w == 1 {
                let short = Coded { register: operation, value: &VALUE[..1], ..sized("arithmetic", width, &[0x83]) };
                maker.both(short, Needs::NOTHING);
            }
        }
    }
}

/// Groups 3 to 5: `test not neg mul imul div idiv`, `inc dec`; and `test`, `imul` with two and three operands.
fn groups(maker: &mut Maker) {
    for width in WIDTHS {
        let whole = width.whole();
        let (third, fourth, test) = ([0xF6 | width.w], [0xFE | width.w], [0x84 | width.w]);
        maker.both(Coded { value: whole, ..sized("arithmetic", width, &third) }, Needs::NOTHING);
        for register in 2..6 {
            maker.both(Coded { register, ..sized("arithmetic", width, &third) }, Needs::NOTHING);
        }
        for register in [6, 6, 7, 7] {
            maker.both(Coded { register, ..sized("arithmetic", width, &third) }, Needs::DIVIDES);
        }
        for register in [0, 1] {
            maker.both(Coded { register, ..sized("arithmetic", width, &fourth) }, Needs::NOTHING);
        }
        let register = maker.register();
        maker.both(Coded { register, ..sized("arithmetic", width, &test) }, Needs::NOTHING);
        if width.w == 1 {
            maker.both(Coded { register, ..sized("arithmetic", width, &[0x0F, 0xAF]) }, Needs::NOTHING);
            maker.both(Coded { register, value: &VALUE[..1], ..sized("arithmetic", width, &[0x6B]) }, Needs::NOTHING);
            maker.both(Coded { register, value: whole, ..sized("arithmetic", width, &[0x69]) }, Needs::NOTHING);
        }
    }
}

fn shifts(maker: &mut Maker) {
    for width in WIDTHS {
        for register in [0, 1, 2, 3, 4, 5, 7] {
            let (by_value, by_one, by_cl) = ([0xC0 | width.w], [0xD0 | width.w], [0xD2 | width.w]);
            maker.both(
                Coded { register, value: &[register * 5 + 1], ..sized("shifts", width, &by_value) },
                Needs::NOTHING,
            );
            maker.memory(Coded { register, ..sized("shifts", width, &by_one) }, Needs::NOTHING);
            maker.both(Coded { register, ..sized("shifts", width, &by_cl) }, Needs::NOTHING);
        }
        if width.w == 1 {
            for opcode in [0xA4, 0xAC] {
                let register = maker.register();
                maker.both(Coded { register, value: &[9], ..sized("shifts", width, &[0x0F, opcode]) }, Needs::NOTHING);
                maker.both(Coded { register, ..sized("shifts", width, &[0x0F, opcode | 1]) }, Needs::NOTHING);
            }
        }
    }
}

fn moves(maker: &mut Maker) {
    for width in WIDTHS {
        let whole = width.whole();
        for opcode in [0x88, 0x8A, 0x86, 0xC6] {
            let (register, value) = if opcode == 0xC6 { (0, whole) } else { (maker.register(), &[] as &[u8]) };
            // xchg locks.
            let needs = if opcode == 0x86 { Needs::ALIGNED } else { Needs::NOTHING };
            maker.both(Coded { register, value, ..sized("moves", width, &[opcode | width.w]) }, needs);
        }
        if width.w == 0 {
            continue;
        }
        for opcode in [0xB6, 0xB7, 0xBE, 0xBF] {
            let register = maker.register();
            maker.both(Coded { register, ..sized("moves", width, &[0x0F, opcode]) }, Needs::NOTHING);
        }
        for condition in 0x40..0x50 {
            let register = maker.register();
            maker.both(Coded { register, ..sized("moves", width, &[0x0F, condition]) }, Needs::NOTHING);
        }
        for place in PLACES {
            let register = maker.register();
            maker.add(Coded { register, place, ..sized("moves", width, &[0x8D]) }.form());
        }
    }
    for condition in 0x90..0xA0 {
        maker.both(coded("moves", &[0x0F, condition]), Needs::NOTHING);
    }
    for wide in [false, true] {
        maker.both(Coded { wide, register: 10, ..coded("moves", &[0x63]) }, Needs::NOTHING);
    }
    for code in 0..8 {
        // movabs, bswap, xchg with rax
        if code != RSP {
            maker.add(Form::new("moves", &[0x48, 0xB8 | code, 1, 2, 3, 4, 5, 6, 7, 0x88]));
            maker.plain("moves", &[&[0x48, 0x0F, 0xC8 | code], &[0x0F, 0xC8 | code], &[0x48, 0x90 | code]]);
        }
        maker.plain("moves", &[&[0x49, 0x0F, 0xC8 | code], &[0x49, 0x90 | code], &[0x41, 0xB0 | code, 0x77]]);
    }
    maker.plain("moves", &[&[0x98], &[0x48, 0x98], &[0x66, 0x98], &[0x99], &[0x48, 0x99], &[0x66, 0x99], &[0xD7]]);
}

fn bits(maker: &mut Maker) {
    for width in WIDTHS {
        if width.w == 0 {
            continue;
        }
        for (extension, opcode) in [(4, 0xA3), (5, 0xAB), (6, 0xB3), (7, 0xBB)] {
            // In memory a large bit number in a register would be far away.
            maker.both(Coded { register: RCX, ..sized("bits", width, &[0x0F, opcode]) }, Needs::SMALL_RCX);
            maker.both(
                Coded { register: extension, value: &[0x2B], ..sized("bits", width, &[0x0F, 0xBA]) },
                Needs::NOTHING,
            );
        }
        for opcode in [0xBC, 0xBD] {
            let register = maker.register();
            maker.both(Coded { register, ..sized("bits", width, &[0x0F, opcode]) }, Needs::NOTHING);
        }
        // tzcnt, lzcnt, popcnt
        let mut repeated = Vec::from(width.prefix);
        repeated.push(0xF3);
        for opcode in [0xB8, 0xBC, 0xBD] {
            let register = maker.register();
            maker.both(Coded { prefix: &repeated, register, ..sized("bits", width, &[0x0F, opcode]) }, Needs::NOTHING);
        }
    }
}

/// `xadd`, `cmpxchg`, and arithmetic with `lock`.
///
/// Locked accesses are aligned: QEMU (7.2) executes others on one processor alone, and if the trap flag is set it loses
/// the flags then, with a probe or without.
fn atomics(maker: &mut Maker) {
    let equal = Needs::EQUAL.and(Needs::ALIGNED);
    for width in WIDTHS {
        let mut lock = Vec::from(width.prefix);
        lock.push(0xF0);
        let register = maker.register();
        maker.both(Coded { register, ..sized("atomics", width, &[0x0F, 0xC0 | width.w]) }, Needs::NOTHING);
        maker.both(Coded { register, ..sized("atomics", width, &[0x0F, 0xB0 | width.w]) }, Needs::EQUAL);
        for _ in 0..2 {
            let register = maker.register();
            maker.memory(
                Coded { prefix: &lock, register, ..sized("atomics", width, &[0x0F, 0xC0 | width.w]) },
                Needs::ALIGNED,
            );
            maker.memory(Coded { prefix: &lock, register, ..sized("atomics", width, &[0x0F, 0xB0 | width.w]) }, equal);
        }
        for operation in 0..7 {
            let register = maker.register();
            maker.memory(
                Coded { prefix: &lock, register, ..sized("atomics", width, &[operation << 3 | width.w]) },
                Needs::ALIGNED,
            );
        }
        for register in [2, 3] {
            maker.memory(
                Coded { prefix: &lock, register, ..sized("atomics", width, &[0xF6 | width.w]) },
                Needs::ALIGNED,
            );
            maker.memory(
                Coded { prefix: &lock, register: register - 2, ..sized("atomics", width, &[0xFE | width.w]) },
                Needs::ALIGNED,
            );
        }
    }
    for wide in [false, true] {
        let form = Coded { prefix: &[0xF0], wide, register: 1, ..coded("atomics", &[0x0F, 0xC7]) };
        (0..4).for_each(|_| maker.memory(form, equal));
    }
    maker.plain("atomics", &[&[0x0F, 0xAE, 0xF0], &[0x0F, 0xAE, 0xE8], &[0x0F, 0xAE, 0xF8], &[0xF3, 0x90]]);
}

fn strings(maker: &mut Maker) {
    const REPEATED: [(u8, &[&[u8]]); 5] = [
        (0xA4, &[&[], &[0xF3]]),
        (0xA6, &[&[], &[0xF3], &[0xF2]]),
        (0xAA, &[&[], &[0xF3]]),
        (0xAC, &[&[], &[0xF3]]),
        (0xAE, &[&[], &[0xF3], &[0xF2]]),
    ];
    for (opcode, repeats) in REPEATED {
        for &repeat in repeats {
            for width in WIDTHS {
                let mut code = Vec::from(width.prefix);
                code.extend(repeat);
                code.extend(width.wide.then_some(0x48));
                code.push(opcode | width.w);
                maker.add(Form::new("strings", &code).needing(Needs::SMALL_RCX));
            }
        }
    }
}
