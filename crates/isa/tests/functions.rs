//! Boundaries and exits of functions.
#![cfg(feature = "decode")]

use isa::x86::{Boundary, Exit, boundaries, exits};

const START: u64 = 0x40_1000;

#[test]
fn an_address_is_a_boundary_inside_an_instruction_or_outside() {
    let code = [0x55, 0x48, 0x89, 0xE5, 0xC3]; // push rbp; mov rbp, rsp; ret
    let sweep = boundaries(&code, START);
    assert_eq!(sweep.at(START), Boundary::Start);
    assert_eq!(sweep.at(START + 2), Boundary::Inside(START + 1));
    assert_eq!(sweep.at(START + 5), Boundary::Outside);
    assert_eq!(sweep.at(START - 1), Boundary::Outside);
    assert_eq!(sweep.starts().collect::<Vec<_>>(), [START, START + 1, START + 4]);
    assert_eq!(sweep.lost(), None);
}

#[test]
fn behind_bytes_that_are_no_instruction_nothing_is_known() {
    let code = [0x90, 0x06, 0x90]; // nop; (bad); nop
    let sweep = boundaries(&code, START);
    assert_eq!(sweep.lost(), Some(START + 1));
    assert_eq!(sweep.at(START + 2), Boundary::Lost(START + 1));
}

#[test]
fn returns_and_tail_jumps_are_exits_and_local_jumps_are_not() {
    let code = [
        0x74, 0x02, // je +2
        0xEB, 0xFC, // jmp start
        0x0F, 0x85, 0, 1, 0, 0,    // jne out
        0xC3, // ret
        0xE9, 0, 2, 0, 0, // jmp out
    ];
    let exits = exits(&code, START);
    let expected = [
        Exit::ConditionalTailJump { addr: START + 4, target: START + 0x10A },
        Exit::Ret { addr: START + 10 },
        Exit::TailJump { addr: START + 11, target: START + 0x210 },
    ];
    assert_eq!(exits.ways, expected);
    assert!(exits.enumerable() && !exits.only_returns());
}

#[test]
fn a_relative_jump_table_stays_inside() {
    let code = [
        0x48, 0x8D, 0x15, 0, 1, 0, 0, // lea rdx, [rip+0x100]
        0x48, 0x63, 0x04, 0x82, // movsxd rax, dword [rdx+rax*4]
        0x48, 0x01, 0xD0, // add rax, rdx
        0x3E, 0xFF, 0xE0, // notrack jmp rax
    ];
    let exits = exits(&code, START);
    assert_eq!((exits.ways.as_slice(), exits.tables.as_slice()), ([].as_slice(), [START + 14].as_slice()));
}

#[test]
fn a_relative_table_whose_address_changed_before_the_sum_is_an_exit() {
    let code = [
        0x48, 0x63, 0x04, 0x82, // movsxd rax, dword [rdx+rax*4]
        0x48, 0x89, 0xFA, // mov rdx, rdi
        0x48, 0x01, 0xD0, // add rax, rdx
        0xFF, 0xE0, // jmp rax
    ];
    assert_eq!(exits(&code, START).ways, [Exit::Indirect { addr: START + 10 }]);
}

#[test]
fn a_jump_that_is_reached_around_its_table_is_an_exit() {
    let code = [
        0x74, 0x04, // je to the sum
        0x48, 0x63, 0x04, 0x82, // movsxd rax, dword [rdx+rax*4]
        0x48, 0x01, 0xD0, // add rax, rdx
        0xFF, 0xE0, // jmp rax
    ];
    assert_eq!(exits(&code, START).ways, [Exit::Indirect { addr: START + 9 }]);
}

#[test]
fn an_address_table_counts_only_with_a_bounded_index() {
    let bounded = [
        0x83, 0xFF, 0x07, // cmp edi, 7
        0xFF, 0x24, 0xFD, 0, 0x20, 0x40, 0, // jmp [rdi*8+0x402000]
    ];
    assert_eq!(exits(&bounded, START).tables, [START + 3]);
    assert_eq!(exits(&bounded[3..], START).ways, [Exit::Indirect { addr: START }]);
}

#[test]
fn a_virtual_tail_call_is_an_exit() {
    let code = [0x48, 0x8B, 0x07, 0xFF, 0x60, 0x18]; // mov rax, [rdi]; jmp [rax+0x18]
    let exits = exits(&code, START);
    assert_eq!(exits.ways, [Exit::Indirect { addr: START + 3 }]);
    assert!(!exits.enumerable());
}

#[test]
fn a_tail_call_through_the_global_offset_table_is_known_to_leave() {
    let exits = exits(&[0xFF, 0x25, 0, 1, 0, 0], START); // jmp [rip+0x100]
    assert_eq!(exits.ways, [Exit::IndirectTailJump { addr: START, pointer: START + 0x106 }]);
    assert!(exits.enumerable());
}

#[test]
fn running_past_the_end_is_an_exit_and_padding_is_not() {
    assert_eq!(exits(&[0x90, 0x90], START).ways, [Exit::FallsOff { addr: START + 2, after_call: false }]);
    assert_eq!(exits(&[0xC3, 0x90, 0xCC], START).ways, [Exit::Ret { addr: START }]);
    let call = [0xE8, 0, 0x10, 0, 0];
    let exits = exits(&call, START);
    assert_eq!(exits.ways, [Exit::FallsOff { addr: START + 5, after_call: true }]);
    assert!(exits.enumerable());
}

#[test]
fn a_jump_into_an_instruction_is_noticed() {
    let exits = exits(&[0xEB, 0x01, 0xB8, 0x90, 0x90, 0x90, 0xC3, 0xC3], START); // jmp +1; mov eax, 0xc3909090
    assert_eq!(exits.misaligned, [START]);
    assert!(!exits.enumerable());
}

#[test]
fn undecodable_bytes_are_an_exit() {
    assert_eq!(exits(&[0x90, 0x06], START).ways, [Exit::Undecodable { addr: START + 1 }]);
}
