//! What the tests on the model machine have in common: a small program, and short names for requests.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part")]

use kprobes::{Error, Handle, ProbeKind, Registry, Request};
use testkit::model::{Action, Control, Cpu, End, Machine, Program, Runtime};

/// Where the first stack is.
pub(crate) const STACK: u64 = 0x7000_0000;
/// Enough steps for every program here.
pub(crate) const LIMIT: usize = 10_000;

/// `leaf` has an instruction of each kind; `main` calls it, and `main_twice` calls `main`.
pub(crate) fn program() -> Program {
    let mut p = Program::new();
    p.function("leaf", 0);
    p.nop(); // emulated
    p.add_rdi(1); // copied
    p.lea_rax(0x10); // relocated
    p.mov_eax(7); // copied
    p.ret(); // copied, leaves the slot
    p.function("main", 1);
    p.push_rbp();
    p.call("leaf");
    p.inc_rax();
    p.pop_rbp();
    p.ret();
    p.function("main_twice", 1);
    p.push_rbp();
    p.call("main");
    p.call("main");
    p.pop_rbp();
    p.ret();
    p
}

pub(crate) const NOP: u64 = 0;
pub(crate) const ADD: u64 = 1;
pub(crate) const LEA: u64 = 5;
pub(crate) const MOV: u64 = 12;
pub(crate) const RET: u64 = 17;

/// A machine with [`program`] and one stack.
pub(crate) fn machine() -> (Machine, u64) {
    machine_with(program(), 16)
}

pub(crate) fn machine_with(program: Program, instances: usize) -> (Machine, u64) {
    let mut machine = Machine::new(program, instances);
    let top = machine.add_stack(STACK);
    (machine, top)
}

/// A probe that records.
pub(crate) fn entry(address: u64, id: u32) -> Request {
    Request { record: true, program: vec![1], ..Request::counting(address, ProbeKind::Entry, id) }
}

/// A return probe that records.
pub(crate) fn returns(address: u64, id: u32, maxactive: u32) -> Request {
    Request { record: true, program: vec![1], ..Request::counting(address, ProbeKind::Return { maxactive }, id) }
}

pub(crate) fn internal(address: u64, action: Action) -> Request {
    Request::counting(address, ProbeKind::Internal { data: action.data() }, 0)
}

pub(crate) fn registry() -> Registry {
    Registry::new(0, 0)
}

/// Registers one probe.
pub(crate) fn register(registry: &mut Registry, control: &mut Control<'_>, request: Request) -> Handle {
    try_register(registry, control, request).expect("nothing refuses it")
}

pub(crate) fn try_register(r: &mut Registry, control: &mut Control<'_>, request: Request) -> Result<Handle, Error> {
    r.register(control, &[request]).map(|mut h| h.remove(0)).map_err(|(_, e)| e)
}

/// Calls a function and gives how that ended.
pub(crate) fn call(machine: &Machine, function: &str, top: u64) -> Cpu {
    call_with(machine, function, top, &mut ())
}

pub(crate) fn call_with(machine: &Machine, function: &str, top: u64, runtime: &mut dyn Runtime) -> Cpu {
    let mut cpu = machine.start(1, machine.address(function), top);
    machine.run(&mut cpu, runtime, LIMIT);
    cpu
}

/// Calls a function, which must end well, and gives `rax`.
pub(crate) fn value(machine: &Machine, function: &str, top: u64) -> u64 {
    let cpu = call(machine, function, top);
    assert_eq!(cpu.end, Some(End::Exited));
    cpu.regs.gpr[0]
}

/// How often a probe with this id was hit.
pub(crate) fn hits(machine: &Machine, id: u32) -> u64 {
    machine.tables.counts(id)[0]
}
