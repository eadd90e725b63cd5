//! Negative controls: the oracle reports what is wrong on purpose.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use isa::Fault;
use isa::x86::{Op, flags, gpr};
use testkit::corpus;
use testkit::differential::{Oracle, check_emulation, check_operation};
use testkit::processor::SLOT;

/// `loop .-16`.
const LOOP: [u8; 2] = [0xE2, 0xF0];
/// `ret 8`.
const RET_8: [u8; 3] = [0xC2, 8, 0];
/// `mov rax, [rip+0x10000000]`.
const LOAD: [u8; 7] = [0x48, 0x8B, 0x05, 0, 0, 0, 0x10];

#[test]
fn a_loop_that_tests_before_it_counts_is_reported() {
    let mut oracle = Oracle::new();
    let mut case = corpus::case(&oracle, &LOOP);
    case.state.regs.gpr[gpr::RCX] = 1;
    let expected = oracle.in_place(&case);
    let wrong = check_emulation("Linux".to_owned(), &case, &expected, |regs, _| {
        let taken = regs.gpr[gpr::RCX] != 0;
        regs.gpr[gpr::RCX] = regs.gpr[gpr::RCX].wrapping_sub(1);
        regs.rip = regs.rip.wrapping_add(2).wrapping_sub(if taken { 16 } else { 0 });
        Ok::<_, Fault>(())
    });
    assert!(wrong.is_err());
    assert!(check_operation(&case, &expected, &Op::counted(2, LOOP[0], false, -16)).is_ok());
}

#[test]
fn a_return_that_forgets_what_it_releases_is_reported() {
    let mut oracle = Oracle::new();
    let case = corpus::case(&oracle, &RET_8);
    let expected = oracle.in_place(&case);
    assert!(check_operation(&case, &expected, &Op::ret(3, 0)).is_err());
    assert!(check_operation(&case, &expected, &Op::ret(3, 8)).is_ok());
}

#[test]
fn a_branch_with_the_opposite_condition_is_reported() {
    let mut oracle = Oracle::new();
    let mut case = corpus::case(&oracle, &[0x7E, 0x10]); // jle
    case.state.regs.flags = 0x202 | flags::SF;
    let expected = oracle.in_place(&case);
    assert!(check_operation(&case, &expected, &Op::branch(2, 0xF, 0x10)).is_err());
    assert!(check_operation(&case, &expected, &Op::branch(2, 0xE, 0x10)).is_ok());
}

/// A copy of `code` at the slot as it is, and the jump back.
fn bare_copy(addr: u64, code: &[u8]) -> Vec<u8> {
    let mut copy = code.to_vec();
    let end = SLOT.addr + copy.len() as u64 + 5;
    let back = (addr + code.len() as u64).wrapping_sub(end) as u32;
    copy.push(0xE9);
    copy.extend(back.to_le_bytes());
    copy
}

#[test]
fn a_copy_that_was_not_relocated_is_reported() {
    let mut oracle = Oracle::new();
    let case = corpus::case(&oracle, &LOAD);
    let expected = oracle.in_place(&case);
    let copy = bare_copy(case.addr, &LOAD);
    assert!(oracle.check_code(&case, &expected, (SLOT.addr, &copy), |_| (case.addr, 0)).is_err());
    assert!(oracle.check(&case).is_ok());
}

#[test]
fn a_fault_that_is_reported_in_the_slot_is_reported() {
    let mut oracle = Oracle::new();
    let division = [0x48, 0xF7, 0xF2]; // div rdx, which is 0
    let case = corpus::case(&oracle, &division);
    let expected = oracle.in_place(&case);
    let copy = bare_copy(case.addr, &division);
    let in_slot = |offset| (SLOT.addr + offset as u64, 0);
    assert!(oracle.check_code(&case, &expected, (SLOT.addr, &copy), in_slot).is_err());
    assert!(oracle.check_code(&case, &expected, (SLOT.addr, &copy), |_| (case.addr, 0)).is_ok());
}

#[test]
fn a_change_of_one_vector_register_is_reported() {
    let mut oracle = Oracle::new();
    let case = corpus::case(&oracle, &[0x90]);
    let expected = oracle.in_place(&case);
    let copy = bare_copy(case.addr, &[0x0F, 0x57, 0xFF]); // xorps xmm7, xmm7
    let mut wrong = copy.clone();
    // Back to behind the one byte that it stands for.
    let back = u32::from_le_bytes(copy[4..8].try_into().unwrap()).wrapping_sub(2);
    wrong[4..8].copy_from_slice(&back.to_le_bytes());
    assert!(oracle.check_code(&case, &expected, (SLOT.addr, &wrong), |_| (case.addr, 0)).is_err());
}
