//! The instructions that the model machine executes by itself, against the processor: each instruction of the suite's
//! program that goes on with the next one, and those that images of calls are made of, from random states.
#![cfg(all(target_os = "linux", target_arch = "x86_64", feature = "suite"))]

use isa::x86::{Flow, Privilege, Regs, analyse, flags, gpr};
use std::collections::BTreeSet;
use testkit::differential::{Case, Oracle};
use testkit::generate::{Generator, seed};
use testkit::model::{Cpu, Machine, Program};
use testkit::processor::{CODE, DATA, End, STACK};
use testkit::suite::{VECTORS, program};

/// States that each instruction is tried from.
const STATES: usize = 8;

/// `push [rsp+0x10]`, `lea rsp, [rsp+8]`, `cmp rdi, 3`, `sub rax, -1`: what the program has not.
const MORE: [&[u8]; 4] = [
    &[0xFF, 0xB4, 0x24, 0x10, 0, 0, 0],
    &[0x48, 0x8D, 0x64, 0x24, 0x08],
    &[0x48, 0x83, 0xFF, 0x03],
    &[0x48, 0x83, 0xE8, 0xFF],
];

/// The instructions, each once.
fn instructions() -> BTreeSet<Vec<u8>> {
    let program = program();
    let mut all: BTreeSet<Vec<u8>> = MORE.iter().map(|code| code.to_vec()).collect();
    for function in program.functions.iter().filter(|f| !VECTORS.contains(&f.name)) {
        let code = program.code_of(function);
        let bytes = function.instructions.iter().map(|i| code[i.offset as usize..][..i.length].to_vec());
        all.extend(
            bytes.filter(|bytes| analyse(bytes, CODE.addr, Privilege::User).is_ok_and(|a| a.flow == Flow::Next)),
        );
    }
    all
}

/// A machine whose memory is that of the case.
fn machine(case: &Case) -> Machine {
    let mut machine = Machine::new(Program::new(), 1);
    for window in [CODE, DATA, STACK] {
        machine.memory.map(window.addr, window.len as usize);
    }
    assert!(machine.memory.write(case.addr, &case.code));
    let (data, stack) = case.memory.split_at(DATA.len as usize);
    assert!(machine.memory.write(DATA.addr, data) && machine.memory.write(STACK.addr, stack));
    machine
}

/// Flags that the processor leaves undefined behind this instruction (SDM volume 1, appendix A): the auxiliary carry
/// behind logical operations.
fn undefined(case: &Case) -> u64 {
    let text = isa::x86::disassemble(&case.code, case.addr).expect("it is an instruction");
    let logical = ["and ", "test ", "xor "].iter().any(|mnemonic| text.starts_with(mnemonic));
    if logical { flags::AF } else { 0 }
}

fn without(regs: Regs, undefined: u64) -> Regs {
    Regs { flags: regs.flags & !undefined, ..regs }
}

#[test]
fn the_model_machine_computes_what_the_processor_computes() {
    let mut oracle = Oracle::new();
    let mut generator = Generator::new(seed(), instructions().into_iter().collect());
    let mut compared = 0;
    for code in instructions() {
        for _ in 0..STATES {
            let mut case = Case { code: code.clone(), ..generator.case(&oracle.processor) };
            case.state.regs.gpr[gpr::RSP] = STACK.addr + 0x1000;
            case.state.regs.gpr[gpr::RBP] = STACK.addr + 0x1800;
            // What `rdi` or `rsi` point at must be there.
            let text = isa::x86::disassemble(&case.code, case.addr).expect("it is an instruction");
            for (operand, register) in [("[rdi]", gpr::RDI), ("[rsi]", gpr::RSI)] {
                if text.contains(operand) {
                    case.state.regs.gpr[register] = DATA.addr + case.state.regs.gpr[register] % 0x1000;
                }
            }
            let expected = oracle.in_place(&case);
            assert_eq!(expected.end, End::Completed, "{code:02x?}");
            let machine = machine(&case);
            let mut cpu = Cpu::new(1, case.addr, STACK.addr + 0x1000);
            cpu.regs = case.state.regs;
            machine.step(&mut cpu, &mut ());
            assert_eq!(cpu.end, None, "{code:02x?} is none that the machine has");
            let undefined = undefined(&case);
            let (ours, theirs) = (without(cpu.regs, undefined), without(expected.state.regs, undefined));
            assert_eq!(ours, theirs, "{code:02x?} from {:x?}", case.state.regs);
            let memory = [DATA, STACK].map(|window| machine.memory.copy(window.addr, window.len as usize)).concat();
            assert!(memory == expected.memory, "{code:02x?} from {:x?}: memory differs", case.state.regs);
            compared += 1;
        }
    }
    assert!(compared > 30 * STATES, "only {compared} comparisons");
}
