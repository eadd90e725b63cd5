//! The operations, without a decoder: what `--no-default-features` leaves.

use isa::x86::{Condition, Op, Operand, Regs, flags, gpr};
use isa::{Fault, Memory, Segment, Width};

const CODE: u64 = 0x40_1000;
const STACK: u64 = 0x7000;

/// 64 KiB at 0, of which some addresses cannot be accessed.
struct Ram {
    bytes: Vec<u8>,
    forbidden: Option<u64>,
    accesses: Vec<(char, u64)>,
}

impl Ram {
    fn new() -> Self {
        Self { bytes: vec![0; 0x1_0000], forbidden: None, accesses: Vec::new() }
    }

    fn with(words: &[(u64, u64)]) -> Self {
        let mut ram = Self::new();
        words.iter().for_each(|(addr, value)| ram.write(*addr, Width::B8, *value).expect("in memory"));
        ram.accesses.clear();
        ram
    }

    fn word(&mut self, addr: u64) -> u64 {
        self.read(addr, Width::B8).expect("in memory")
    }
}

impl Memory for Ram {
    fn read(&mut self, addr: u64, width: Width) -> Result<u64, Fault> {
        self.accesses.push(('r', addr));
        let at = addr as usize..addr.saturating_add(width.bytes() as u64) as usize;
        let found = self.bytes.get(at).filter(|_| self.forbidden != Some(addr));
        let bytes = found.ok_or(Fault { addr, write: false })?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn write(&mut self, addr: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.accesses.push(('w', addr));
        let at = addr as usize..addr.saturating_add(width.bytes() as u64) as usize;
        let forbidden = self.forbidden == Some(addr);
        let bytes = self.bytes.get_mut(at).filter(|_| !forbidden).ok_or(Fault { addr, write: true })?;
        bytes.copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
        Ok(())
    }

    fn segment_base(&self, segment: Segment) -> u64 {
        match segment {
            Segment::Fs => 0x2000,
            Segment::Gs => 0x3000,
        }
    }
}

fn regs() -> Regs {
    let mut regs = Regs { rip: CODE, flags: 0x202, ..Regs::default() };
    regs.gpr[gpr::RSP] = STACK;
    regs
}

fn run(op: Op, regs: &mut Regs, ram: &mut Ram) {
    op.execute(regs, ram).expect("nothing faults");
}

#[test]
fn call_pushes_the_original_return_address() {
    let (mut regs, mut ram) = (regs(), Ram::new());
    run(Op::call(5, 0x100), &mut regs, &mut ram);
    assert_eq!((regs.rip, regs.rsp()), (CODE + 0x105, STACK - 8));
    assert_eq!(ram.word(STACK - 8), CODE + 5);
}

#[test]
fn call_through_memory_reads_its_target_before_it_pushes() {
    let (mut regs, mut ram) = (regs(), Ram::with(&[(STACK - 8, 0x5000)]));
    let operand = Operand { base: Some(4), displacement: -8, ..Operand::default() };
    run(Op::call_memory(4, operand), &mut regs, &mut ram); // call [rsp-8]
    assert_eq!(regs.rip, 0x5000);
    assert_eq!(ram.accesses, [('r', STACK - 8), ('w', STACK - 8)]);
}

#[test]
fn a_fault_of_the_push_of_a_call_changes_nothing() {
    let (mut regs, mut ram) = (regs(), Ram::new());
    ram.forbidden = Some(STACK - 8);
    let before = regs;
    assert_eq!(Op::call(5, 0).execute(&mut regs, &mut ram), Err(Fault { addr: STACK - 8, write: true }));
    assert_eq!(regs, before);
}

#[test]
fn a_call_to_a_non_canonical_address_pushes_nothing() {
    let (mut regs, mut ram) = (regs(), Ram::new());
    regs.gpr[gpr::RAX] = 1 << 47;
    let before = regs;
    assert_eq!(Op::call_register(2, 0).execute(&mut regs, &mut ram), Err(Fault { addr: 1 << 47, write: false }));
    assert_eq!(regs, before);
    assert!(ram.accesses.is_empty());
}

#[test]
fn call_rsp_goes_where_rsp_was() {
    let (mut regs, mut ram) = (regs(), Ram::new());
    run(Op::call_register(2, 4), &mut regs, &mut ram);
    assert_eq!((regs.rip, regs.rsp()), (STACK, STACK - 8));
}

#[test]
fn return_releases_its_immediate() {
    let (mut regs, mut ram) = (regs(), Ram::with(&[(STACK, 0x5000)]));
    run(Op::ret(3, 0xFFF0), &mut regs, &mut ram);
    assert_eq!((regs.rip, regs.rsp()), (0x5000, STACK + 8 + 0xFFF0));
}

#[test]
fn loop_counts_before_it_tests() {
    for (rcx, taken) in [(0, true), (1, false), (2, true)] {
        let (mut regs, mut ram) = (regs(), Ram::new());
        regs.gpr[gpr::RCX] = rcx;
        run(Op::counted(2, 0xE2, false, -0x10), &mut regs, &mut ram);
        assert_eq!(regs.gpr[gpr::RCX], rcx.wrapping_sub(1));
        assert_eq!(regs.rip == CODE + 2 - 0x10, taken, "rcx={rcx}");
    }
}

#[test]
fn loop_with_a_32_bit_counter_clears_the_upper_half() {
    let (mut regs, mut ram) = (regs(), Ram::new());
    regs.gpr[gpr::RCX] = 0x1_0000_0000;
    run(Op::counted(3, 0xE2, true, 8), &mut regs, &mut ram);
    assert_eq!((regs.gpr[gpr::RCX], regs.rip), (0xFFFF_FFFF, CODE + 3 + 8));
}

#[test]
fn jecxz_looks_at_the_lower_half_and_changes_nothing() {
    let (mut regs, mut ram) = (regs(), Ram::new());
    regs.gpr[gpr::RCX] = 0x1_0000_0000;
    run(Op::counted(3, 0xE3, true, 8), &mut regs, &mut ram);
    assert_eq!((regs.gpr[gpr::RCX], regs.rip), (0x1_0000_0000, CODE + 11));
    regs.rip = CODE;
    run(Op::counted(2, 0xE3, false, 8), &mut regs, &mut ram);
    assert_eq!(regs.rip, CODE + 2);
}

#[test]
fn loope_and_loopne_need_the_zero_flag_set_and_clear() {
    for (opcode, zero, taken) in [(0xE0, false, true), (0xE0, true, false), (0xE1, false, false), (0xE1, true, true)] {
        let (mut regs, mut ram) = (regs(), Ram::new());
        regs.gpr[gpr::RCX] = 2;
        regs.flags |= if zero { flags::ZF } else { 0 };
        run(Op::counted(2, opcode, false, 0x20), &mut regs, &mut ram);
        assert_eq!(regs.rip == CODE + 0x22, taken, "{opcode:x} zero={zero}");
    }
}

#[test]
fn every_condition_is_the_opposite_of_its_neighbour() {
    let all = [flags::CF, flags::PF, flags::ZF, flags::SF, flags::OF];
    for set in 0..32_u32 {
        let flags = all.iter().enumerate().filter(|(i, _)| set >> i & 1 != 0).map(|(_, flag)| flag).sum();
        for code in (0..16).step_by(2) {
            assert_ne!(Condition::new(code).holds(flags), Condition::new(code + 1).holds(flags), "{code} {flags:x}");
        }
    }
}

#[test]
fn less_or_equal_is_zero_or_sign_unlike_overflow() {
    let jle = Condition::new(0xE);
    assert!(jle.holds(flags::ZF) && jle.holds(flags::SF) && jle.holds(flags::OF));
    assert!(!jle.holds(flags::SF | flags::OF) && !jle.holds(0));
}

#[test]
fn push_rsp_pushes_the_old_value_and_pop_rsp_keeps_what_it_loads() {
    let (mut regs, mut ram) = (regs(), Ram::new());
    run(Op::push(1, 4), &mut regs, &mut ram);
    assert_eq!((ram.word(STACK - 8), regs.rsp()), (STACK, STACK - 8));
    run(Op::pop(1, 4), &mut regs, &mut ram);
    assert_eq!(regs.rsp(), STACK);
}

#[test]
fn an_operand_is_base_index_displacement_and_segment() {
    let (mut regs, mut ram) = (regs(), Ram::with(&[(0x2000 + 0x100 + 3 * 8 - 4, 0x5000)]));
    (regs.gpr[gpr::RBX], regs.gpr[gpr::RCX]) = (0x100, 3);
    let segment = Some(Segment::Fs);
    let operand = Operand { base: Some(3), index: Some((1, 3)), displacement: -4, segment, ..Operand::default() };
    run(Op::jump_memory(7, operand), &mut regs, &mut ram);
    assert_eq!(regs.rip, 0x5000);
}

#[test]
fn addresses_of_32_bits_wrap_before_the_segment_is_added() {
    let (mut regs, mut ram) = (regs(), Ram::with(&[(0x3008, 0x5000)]));
    regs.gpr[gpr::RBX] = 0xFFFF_FFFF_FFFF_FFF8;
    let segment = Some(Segment::Gs);
    let operand = Operand { base: Some(3), displacement: 16, segment, address_32: true, ..Operand::default() };
    run(Op::jump_memory(5, operand), &mut regs, &mut ram);
    assert_eq!(regs.rip, 0x5000);
}

#[test]
fn popf_in_a_kernel_loads_the_interrupt_flag_and_keeps_what_it_must() {
    let (mut regs, mut ram) = (regs(), Ram::with(&[(STACK, flags::IF | flags::CF | flags::VM | flags::RF)]));
    regs.flags = 2 | flags::ZF | flags::RF;
    run(Op::pop_flags(1), &mut regs, &mut ram);
    assert_eq!(regs.flags, 2 | flags::IF | flags::CF);
}

#[test]
fn cli_and_sti_change_one_flag() {
    let (mut regs, mut ram) = (regs(), Ram::new());
    run(Op::clear_interrupts(1), &mut regs, &mut ram);
    assert_eq!(regs.flags, 2);
    run(Op::set_interrupts(1), &mut regs, &mut ram);
    assert_eq!((regs.flags, regs.rip), (0x202, CODE + 2));
}

#[test]
fn any_bytes_execute_or_decline_and_an_error_changes_nothing() {
    let mut random = 1_u64;
    let untouched = Ram::new().bytes;
    for _ in 0..20_000 {
        let mut bytes = [0; Op::SIZE];
        for byte in &mut bytes {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (random >> 56) as u8;
        }
        bytes[0] %= 18;
        let op = Op::from_bytes(bytes);
        assert_eq!(op.to_bytes(), bytes);
        let (mut regs, mut ram) = (regs(), Ram::new());
        let before = regs;
        if op.execute(&mut regs, &mut ram).is_err() {
            assert_eq!(regs, before);
            assert!(ram.bytes == untouched, "{op:?}");
        }
        if !op.touches_memory() {
            assert!(ram.accesses.is_empty(), "{op:?}");
        }
    }
}

#[test]
fn a_kind_that_means_nothing_declines() {
    let mut bytes = Op::nop(1).to_bytes();
    bytes[0] = 200;
    let (mut regs, mut ram) = (regs(), Ram::new());
    assert_eq!(Op::from_bytes(bytes).execute(&mut regs, &mut ram), Err(Fault { addr: CODE, write: false }));
}

#[test]
fn the_default_operation_is_nop_and_operations_are_small() {
    assert_eq!(Op::default(), Op::nop(0));
    assert!(size_of::<Op>() <= 32);
}
