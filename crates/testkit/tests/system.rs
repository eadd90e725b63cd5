//! Instructions that involve the system, each from a state in which it can be completed.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use isa::x86::{Plan, Privilege, Repair, Verdict, analyse, flags, gpr};
use testkit::corpus;
use testkit::differential::{Case, Checked, Model, Oracle};
use testkit::processor::{CODE, End, Outcome, SLOT, STACK, Watch, memory_offset};

const PROGRAM_CODE: u64 = 0x33;
const PROGRAM_DATA: u64 = 0x2B;

fn plan(case: &Case) -> Plan {
    match analyse(&case.code, case.addr, Privilege::User).expect("not refused").verdict {
        Verdict::Slot(plan) => plan,
        Verdict::Emulate(op) => panic!("{op:?}"),
    }
}

fn equal(oracle: &mut Oracle, case: &Case) -> Outcome {
    match oracle.check(case) {
        Ok(Checked::Equal { .. }) => oracle.in_place(case),
        Ok(Checked::Refused(refusal)) => panic!("{refusal}"),
        Err(difference) => panic!("{difference}"),
    }
}

fn push(case: &mut Case, words: &[u64]) {
    for word in words {
        case.state.regs.gpr[gpr::RSP] -= 8;
        let at = memory_offset(case.state.regs.rsp(), 8).expect("the stack is in its window");
        case.memory[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
}

#[test]
fn a_system_call_leaves_the_original_next_address_in_rcx() {
    let mut oracle = Oracle::new();
    let mut case = corpus::case(&oracle, &[0x0F, 0x05]);
    case.state.regs.gpr[gpr::RAX] = libc::SYS_getppid as u64;
    let outcome = equal(&mut oracle, &case);
    assert_eq!(outcome.end, End::Completed);
    assert_eq!(outcome.state.regs.gpr[gpr::RCX], case.addr + 2);
}

#[test]
fn int_80_returns_behind_the_copy() {
    let mut oracle = Oracle::new();
    let mut case = corpus::case(&oracle, &[0xCD, 0x80]);
    case.state.regs.gpr[gpr::RAX] = 64; // getppid
    equal(&mut oracle, &case);
}

#[test]
fn popf_loads_flags() {
    let mut oracle = Oracle::new();
    for code in [&[0x9D_u8][..], &[0x66, 0x9D]] {
        let mut case = corpus::case(&oracle, code);
        push(&mut case, &[0x202 | flags::CF | flags::OF | flags::DF]);
        let outcome = equal(&mut oracle, &case);
        assert_ne!(outcome.state.regs.flags & flags::DF, 0);
    }
}

#[test]
fn iretq_goes_where_its_frame_says() {
    let mut oracle = Oracle::new();
    let mut case = corpus::case(&oracle, &[0x48, 0xCF]);
    push(&mut case, &[PROGRAM_DATA, STACK.addr + 0x800, 0x203, PROGRAM_CODE, CODE.addr + 0x100]);
    let outcome = equal(&mut oracle, &case);
    assert_eq!((outcome.end, outcome.state.regs.rsp()), (End::Completed, STACK.addr + 0x800));
}

#[test]
fn far_returns_and_jumps_go_where_memory_says() {
    let mut oracle = Oracle::new();
    let mut ret = corpus::case(&oracle, &[0x48, 0xCB]);
    push(&mut ret, &[PROGRAM_CODE, CODE.addr + 0x100]);
    assert_eq!(equal(&mut oracle, &ret).state.regs.rip, CODE.addr + 0x100);
    let mut jump = corpus::case(&oracle, &[0xFF, 0x2C, 0x24]); // jmp far [rsp]
    push(&mut jump, &[PROGRAM_CODE << 32 | (CODE.addr + 0x180)]);
    assert_eq!(equal(&mut oracle, &jump).state.regs.rip, CODE.addr + 0x180);
}

#[test]
fn moving_to_ss_runs_boosted() {
    let mut oracle = Oracle::new();
    let mut case = corpus::case(&oracle, &[0x8E, 0xD0]);
    case.state.regs.gpr[gpr::RAX] = PROGRAM_DATA;
    assert_eq!(equal(&mut oracle, &case).end, End::Completed);
    assert!(!plan(&case).steppable());
}

/// Steps the bare copy by trap flag, repairs, and compares with the instruction in place.
fn step_and_repair(case: &Case, expected_repair: Repair) {
    let mut oracle = Oracle::new();
    let plan = plan(case);
    assert_eq!(plan.repair(), expected_repair);
    let expected = oracle.in_place(case);
    let image = plan.step_image(SLOT.addr).expect("the slot is near");
    let copy = (image.at(), image.as_slice());
    let run = oracle.processor.execute(copy, (case.addr, &case.code), &case.state, &case.memory, Watch::Step);
    let mut found = run.expect("the processor is there");
    assert_eq!(found.state.regs.rip, SLOT.addr + image.len() as u64);
    let mut memory = Model::new(case);
    memory.set_bytes(&found.memory);
    let next = case.addr + case.code.len() as u64;
    plan.repair().apply(&mut found.state.regs, &mut memory, next, false).expect("the stack is there");
    found.memory = memory.bytes().to_vec();
    assert_eq!(found, expected);
}

#[test]
fn stepping_pushf_does_not_show_the_trap_flag() {
    let case = corpus::case(&Oracle::new(), &[0x66, 0x9C]);
    step_and_repair(&case, Repair::PushedTrapFlag(isa::Width::B2));
}

#[test]
fn stepping_a_relocated_copy_needs_no_repair_but_the_instruction_pointer() {
    let case = corpus::case(&Oracle::new(), &[0x48, 0x8B, 0x05, 0, 0, 0, 0x10]); // mov rax, [rip+0x10000000]
    step_and_repair(&case, Repair::Nothing);
}
