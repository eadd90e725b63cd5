//! The instructions that transfer nothing: a handful, enough for small programs and for what images of others hold.
//!
//! Source: Intel SDM volume 2. Operands are 64 bits wide unless said otherwise, registers the first eight, or with a
//! prefix that says so all of them.

use super::Memory;
use isa::x86::{Regs, flags, gpr};

/// Executes the instruction in front of `code`, whose successor is at `next`. `None`: it is none of these, or it
/// faults. The program counter is left to the caller.
pub(super) fn execute(code: &[u8], next: u64, regs: &mut Regs, memory: &Memory) -> Option<()> {
    let relative = |bytes: [u8; 4]| next.wrapping_add_signed(i64::from(i32::from_le_bytes(bytes)));
    match *code {
        // mov eax, imm32
        [0xB8, a, b, c, d, ..] => regs.gpr[gpr::RAX] = u64::from(u32::from_le_bytes([a, b, c, d])),
        // movzx eax, al
        [0x0F, 0xB6, 0xC0, ..] => regs.gpr[gpr::RAX] &= 0xFF,
        // leave
        [0xC9, ..] => {
            let frame = regs.gpr[gpr::RBP];
            regs.gpr[gpr::RBP] = memory.word(frame)?;
            regs.gpr[gpr::RSP] = frame.wrapping_add(8);
        }
        // xor r32, r32
        [0x31, modrm @ 0xC0..=0xFF, ..] => {
            let (to, from) = fields(modrm);
            let value = (regs.gpr[to] ^ regs.gpr[from]) & 0xffff_ffff;
            regs.gpr[to] = value;
            // The sign is that of 32 bits.
            logic_flags(regs, value << 32);
            set(regs, flags::PF, even_parity(value));
        }
        // push [rip+displacement], as images of calls have it
        [0xFF, 0x35, a, b, c, d, ..] => {
            push(regs, memory, memory.word(relative([a, b, c, d]))?)?;
        }
        // push [rsp+disp32], likewise
        [0xFF, 0xB4, 0x24, a, b, c, d, ..] => {
            let from = regs.rsp().wrapping_add(extended([a, b, c, d]));
            push(regs, memory, memory.word(from)?)?;
        }
        [rex @ 0x48..=0x4F, ref rest @ ..] if rex & REX_X == 0 => wide(rex, rest, &relative, regs, memory)?,
        _ => return None,
    }
    Some(())
}

/// Bits of the prefix: they extend an index, the reg field, the r/m field.
const REX_X: u8 = 2;
const REX_R: u8 = 4;
const REX_B: u8 = 1;

/// What stands behind the prefix REX.W.
fn wide(rex: u8, code: &[u8], relative: &dyn Fn([u8; 4]) -> u64, regs: &mut Regs, memory: &Memory) -> Option<()> {
    let registers = |modrm: u8| {
        let (rm, reg) = fields(modrm);
        (rm + usize::from(rex & REX_B) * 8, reg + usize::from(rex & REX_R) * 2)
    };
    // The number in the reg field that chooses the operation.
    let digit = |modrm: u8| modrm >> 3 & 7;
    match *code {
        // op r64, r64
        [opcode @ (0x01 | 0x29 | 0x31 | 0x39 | 0x85 | 0x89), modrm @ 0xC0..=0xFF, ..] => {
            let (to, from) = registers(modrm);
            let source = regs.gpr[from];
            match opcode {
                0x01 => add(regs, to, source),
                0x29 => subtract(regs, to, source),
                0x31 => logic(regs, to, regs.gpr[to] ^ source),
                0x39 => compare(regs, to, source),
                0x85 => logic_flags(regs, regs.gpr[to] & source),
                _ => regs.gpr[to] = source,
            }
        }
        // op r64, imm8
        [0x83, modrm @ 0xC0..=0xFF, value, ..] => {
            let to = registers(modrm).0;
            let source = i64::from(value.cast_signed()).cast_unsigned();
            match digit(modrm) {
                0 => add(regs, to, source),
                4 => logic(regs, to, regs.gpr[to] & source),
                5 => subtract(regs, to, source),
                7 => compare(regs, to, source),
                _ => return None,
            }
        }
        // and rax, imm32
        [0x25, a, b, c, d, ..] => logic(regs, gpr::RAX, regs.gpr[gpr::RAX] & extended([a, b, c, d])),
        // test r64, imm32; mov r64, imm32
        [0xF7, modrm @ 0xC0..=0xC7, a, b, c, d, ..] => {
            logic_flags(regs, regs.gpr[registers(modrm).0] & extended([a, b, c, d]));
        }
        [0xC7, modrm @ 0xC0..=0xC7, a, b, c, d, ..] => regs.gpr[registers(modrm).0] = extended([a, b, c, d]),
        // inc r64, dec r64: the carry stays
        [0xFF, modrm @ 0xC0..=0xCF, ..] => {
            let to = registers(modrm).0;
            let carry = regs.flags & flags::CF;
            if digit(modrm) == 0 {
                add(regs, to, 1);
            } else {
                subtract(regs, to, 1);
            }
            regs.flags = regs.flags & !flags::CF | carry;
        }
        // mov r64, [rsp+disp8]; lea r64, [rsp+disp8]; add r64, [rsp+disp8]
        [opcode @ (0x8B | 0x8D | 0x03), modrm @ 0x40..=0x7F, 0x24, displacement, ..]
            if modrm & 7 == 4 && rex & REX_B == 0 =>
        {
            let address = regs.rsp().wrapping_add_signed(i64::from(displacement.cast_signed()));
            let to = registers(modrm).1;
            match opcode {
                0x8B => regs.gpr[to] = memory.word(address)?,
                0x8D => regs.gpr[to] = address,
                _ => add(regs, to, memory.word(address)?),
            }
        }
        // mov r64, [r64]; mov [r64], r64
        [opcode @ (0x8B | 0x89), modrm @ 0x00..=0x3F, ..] if !matches!(modrm & 7, 4 | 5) => {
            let (address, register) = registers(modrm);
            let address = regs.gpr[address];
            if opcode == 0x8B {
                regs.gpr[register] = memory.word(address)?;
            } else {
                memory.set_word(address, regs.gpr[register]).then_some(())?;
            }
        }
        // lea r64, [rip+disp32]
        [0x8D, modrm @ 0x00..=0x3F, a, b, c, d, ..] if modrm & 7 == 5 => {
            regs.gpr[registers(modrm).1] = relative([a, b, c, d]);
        }
        _ => return None,
    }
    Some(())
}

fn push(regs: &mut Regs, memory: &Memory, value: u64) -> Option<()> {
    let sp = regs.rsp().wrapping_sub(8);
    memory.set_word(sp, value).then_some(())?;
    regs.gpr[gpr::RSP] = sp;
    Some(())
}

/// The r/m field of a `ModRM` byte, and its reg field.
fn fields(modrm: u8) -> (usize, usize) {
    (usize::from(modrm & 7), usize::from(modrm >> 3 & 7))
}

fn extended(bytes: [u8; 4]) -> u64 {
    i64::from(i32::from_le_bytes(bytes)).cast_unsigned()
}

fn set(regs: &mut Regs, flag: u64, value: bool) {
    regs.flags = if value { regs.flags | flag } else { regs.flags & !flag };
}

fn even_parity(value: u64) -> bool {
    (value as u8).count_ones().is_multiple_of(2)
}

fn result_flags(regs: &mut Regs, value: u64) {
    set(regs, flags::ZF, value == 0);
    set(regs, flags::SF, value >> 63 != 0);
    set(regs, flags::PF, even_parity(value));
}

fn logic_flags(regs: &mut Regs, value: u64) {
    result_flags(regs, value);
    regs.flags &= !(flags::CF | flags::OF | flags::AF);
}

fn logic(regs: &mut Regs, to: usize, value: u64) {
    logic_flags(regs, value);
    regs.gpr[to] = value;
}

fn add(regs: &mut Regs, to: usize, source: u64) {
    let before = regs.gpr[to];
    let (value, carry) = before.overflowing_add(source);
    result_flags(regs, value);
    set(regs, flags::CF, carry);
    set(regs, flags::OF, before.cast_signed().overflowing_add(source.cast_signed()).1);
    set(regs, flags::AF, (before ^ source ^ value) & 0x10 != 0);
    regs.gpr[to] = value;
}

fn compare(regs: &mut Regs, with: usize, source: u64) {
    let before = regs.gpr[with];
    subtract(regs, with, source);
    regs.gpr[with] = before;
}

fn subtract(regs: &mut Regs, from: usize, source: u64) {
    let before = regs.gpr[from];
    let (value, borrow) = before.overflowing_sub(source);
    result_flags(regs, value);
    set(regs, flags::CF, borrow);
    set(regs, flags::OF, before.cast_signed().overflowing_sub(source.cast_signed()).1);
    set(regs, flags::AF, (before ^ source ^ value) & 0x10 != 0);
    regs.gpr[from] = value;
}
