//! Images: their bytes, and what their offsets stand for. That they do the same as the original is
//! tested on the processor, in `testkit`.
#![cfg(feature = "decode")]

use isa::x86::{Image, Op, Operand, Privilege, Refusal, Verdict, analyse};

const ADDR: u64 = 0x40_1000;
const NEAR: u64 = 0x41_0000;
const FAR: u64 = 0x7000_0000_0000;

fn image(bytes: &[u8], at: u64) -> Result<Image, Refusal> {
    analyse(bytes, ADDR, Privilege::User)?.image(at)
}

#[test]
fn a_near_image_is_the_copy_and_a_short_jump_back() {
    let image = image(&[0x48, 0x89, 0xD8], NEAR).unwrap(); // mov rax, rbx
    let back = (ADDR as i32 + 3 - (NEAR as i32 + 8)).to_le_bytes();
    assert_eq!(image.as_slice(), [&[0x48, 0x89, 0xD8, 0xE9][..], &back].concat());
}

#[test]
fn a_far_image_jumps_back_through_an_address() {
    let image = image(&[0x48, 0x89, 0xD8], FAR).unwrap();
    assert_eq!(image.as_slice()[3..9], [0xFF, 0x25, 0, 0, 0, 0]);
    assert_eq!(image.as_slice()[9..], (ADDR + 3).to_le_bytes());
}

#[test]
fn only_the_displacement_of_a_rip_relative_operand_changes() {
    let original = [0xC7, 0x05, 0x10, 0, 0, 0, 0x78, 0x56, 0x34, 0x12]; // mov dword [rip+0x10], 0x12345678
    let image = image(&original, NEAR).unwrap();
    let displacement = (ADDR as i32 + 0x10 - NEAR as i32).to_le_bytes();
    assert_eq!(image.as_slice()[..10], [&original[..2], &displacement, &original[6..]].concat());
}

#[test]
fn an_operand_out_of_reach_is_refused_with_its_address() {
    let refusal = image(&[0x48, 0x8B, 0x05, 0x10, 0, 0, 0], FAR).unwrap_err(); // mov rax, [rip+0x10]
    assert_eq!(refusal, Refusal::Unreachable { addr: ADDR, target: ADDR + 0x17, at: FAR });
}

#[test]
fn an_eip_relative_operand_is_reached_from_everywhere() {
    let image = image(&[0x67, 0x8D, 0x05, 0x10, 0, 0, 0], FAR).unwrap(); // lea eax, [eip+0x10]
    let displacement = u32::from_le_bytes(image.as_slice()[3..7].try_into().unwrap());
    assert_eq!((FAR as u32).wrapping_add(7).wrapping_add(displacement), ADDR as u32 + 0x17);
}

#[test]
fn the_copy_stands_for_the_original_and_what_follows_for_the_next_instruction() {
    let image = image(&[0x48, 0x89, 0xD8], NEAR).unwrap();
    let originals: Vec<_> = (0..image.len()).map(|offset| image.original(offset)).collect();
    assert_eq!(originals, [[ADDR; 3].as_slice(), &[ADDR + 3; 5]].concat());
}

#[test]
fn syscall_is_followed_by_the_repair_of_rcx() {
    let image = image(&[0x0F, 0x05], NEAR).unwrap();
    assert_eq!(image.as_slice()[..4], [0x0F, 0x05, 0x48, 0xB9]);
    assert_eq!(image.as_slice()[4..12], (ADDR + 2).to_le_bytes());
}

#[test]
fn the_image_of_a_call_pushes_the_original_return_address() {
    let image = image(&[0xE8, 0, 1, 0, 0], NEAR).unwrap();
    let code = image.as_slice();
    assert_eq!(code[..6], [0xFF, 0x35, 5, 0, 0, 0]); // push [rip+5], over the jump
    assert_eq!(code[11..], (ADDR + 5).to_le_bytes());
    assert_eq!((image.original(0), image.original(6)), (ADDR, ADDR + 0x105));
}

#[test]
fn a_fault_behind_the_push_of_an_indirect_call_takes_it_back() {
    let image = image(&[0xFF, 0xD0], NEAR).unwrap(); // call rax
    assert_eq!((image.original(6), image.pushed(6)), (ADDR, 8));
    assert_eq!((image.original(0), image.pushed(0)), (ADDR, 0));
}

#[test]
fn calls_whose_target_the_push_destroys_have_no_image() {
    assert_eq!(image(&[0xFF, 0xD4], NEAR), Err(Refusal::NoImage { addr: ADDR })); // call rsp
    for displacement in [-15_i32, -8, -1] {
        let operand = Operand { base: Some(4), displacement, ..Operand::default() };
        assert_eq!(Op::call_memory(4, operand).image(ADDR, 4, NEAR), Err(Refusal::NoImage { addr: ADDR }));
    }
    for displacement in [-16_i32, 0, 8] {
        let operand = Operand { base: Some(4), displacement, ..Operand::default() };
        assert!(Op::call_memory(4, operand).image(ADDR, 4, NEAR).is_ok());
    }
}

#[test]
fn a_branch_that_is_taken_stands_at_its_target_inside_the_image() {
    let image = image(&[0x74, 0x10], NEAR).unwrap(); // je +0x10
    assert_eq!(image.as_slice()[..2], [0x75, 5]); // jne over
    let originals = [0, 2, 7].map(|offset| image.original(offset));
    assert_eq!(originals, [ADDR, ADDR + 0x12, ADDR + 2]);
}

#[test]
fn the_image_of_nop_is_the_jump() {
    let image = image(&[0x90], NEAR).unwrap();
    assert_eq!((image.len(), image.as_slice()[0]), (5, 0xE9));
}

#[test]
fn a_body_falls_off_its_end() {
    let Ok(Verdict::Slot(plan)) = analyse(&[0x48, 0x89, 0xD8], ADDR, Privilege::User).map(|a| a.verdict) else {
        panic!("mov is copied")
    };
    assert_eq!(plan.body(NEAR).unwrap().as_slice(), [0x48, 0x89, 0xD8]);
    assert!(Op::nop(1).body(ADDR, 1, NEAR).unwrap().is_empty());
}

#[test]
fn the_abort_handler_of_a_transaction_stays_where_it_was() {
    let image = image(&[0xC7, 0xF8, 0, 1, 0, 0], NEAR).unwrap(); // xbegin +0x100
    let displacement = (ADDR as i32 + 0x100 - NEAR as i32).to_le_bytes();
    assert_eq!(image.as_slice()[..6], [&[0xC7, 0xF8][..], &displacement].concat());
}

#[test]
fn the_image_of_a_loop_jumps_over_the_jump_that_jumps_over_its_target() {
    let image = image(&[0x67, 0xE3, 0x10], NEAR).unwrap(); // jecxz +0x10
    assert_eq!(image.as_slice()[..6], [0x67, 0xE3, 2, 0xEB, 5, 0xE9]);
    let originals = [0, 3, 5, 10].map(|offset| image.original(offset));
    assert_eq!(originals, [ADDR, ADDR + 3, ADDR + 0x13, ADDR + 3]);
}
