//! Faults of the probed instruction itself.

use crate::probes::plain;
use alloc::format;
use alloc::string::{String, ToString};
use core::ops::Range;

use host_bare::{Next, Regs};
use isa::x86::{flags, gpr};

use super::STEPPINGS;
use super::programs::{self, Outcome, Program, Registers, edge, like, memory, program, run};
use crate::arch::trap::{self, Frame};
use crate::ksyms;
use crate::mm::{PAGE, alias};
use crate::probes::tests::{check, counts, define, remove, same, stepping};
use crate::probes::with_control;

/// The kernel's handling of what is not in the exception table; the frame is its first argument, `cr2` its second.
const FAULT: &str = "demo_kernel::arch::trap::fault";

/// A program and what it gets.
struct Case {
    program: &'static str,
    /// Sets registers: of those, and the address of untouched demand-zero memory.
    set: fn(&mut Registers, u64),
    /// How many reports there are of its faults: one for each that is handled, two for others (the hook's is one).
    faults: usize,
}

const fn case(program: &'static str, faults: usize, set: fn(&mut Registers, u64)) -> Case {
    Case { program, set, faults }
}

const RAX: usize = gpr::RAX;
const RCX: usize = gpr::RCX;
const RDX: usize = gpr::RDX;
const RBX: usize = gpr::RBX;
const RBP: usize = gpr::RBP;
const RSI: usize = gpr::RSI;
const RDI: usize = gpr::RDI;

/// No memory, and no address either.
const NON_CANONICAL: u64 = 0x8000_0000_0000_0010;
/// Never mapped: the image is linked high.
const NOWHERE: u64 = 0x10;

const DEMAND_ZERO: &[Case] = &[
    case("load", 1, |r, at| r.gpr[RDI] = at + 24),
    case("store", 1, |r, at| r.gpr[RDI] = at + PAGE),
    case("store", 2, |r, at| r.gpr[RDI] = at + PAGE - 3),
    case("add", 1, |r, at| r.gpr[RDI] = at),
    case("xadd", 1, |r, at| r.gpr[RDI] = at + 8),
    case("cmpxchg", 1, |r, at| r.gpr[RDI] = at + 8),
    case("cmpxchg", 1, |r, at| (r.gpr[RDI], r.gpr[RAX]) = (at + 8, 0)),
    case("compare", 1, |r, at| r.gpr[RDI] = at),
    case("gs_load", 1, |r, at| r.gpr[RDI] = at.wrapping_sub(gs_base())),
    case("xlat", 1, |r, at| r.gpr[RBX] = at),
    case("push", 1, |r, at| r.gpr[RDI] = at),
    case("pop", 1, |r, at| r.gpr[RDI] = at),
    // Its stack is in the demand-zero page then, and no interrupt may want more of it.
    case("leave", 1, |r, at| (r.gpr[RBP], r.flags) = (at + 2 * PAGE - 64, r.flags & !flags::IF)),
    case("movs", 4, |r, at| (r.gpr[RDI], r.gpr[RSI], r.gpr[RCX]) = (at + PAGE - 6, text().start, 2 * PAGE + 100)),
    case("movs", 2, |r, at| (r.gpr[RDI], r.gpr[RSI], r.gpr[RCX]) = (at + 2 * PAGE, at, 300)),
    case("movs_down", 2, |r, at| (r.gpr[RDI], r.gpr[RSI], r.gpr[RCX]) = (at + PAGE + 90, text().start + 500, 200)),
    case("stos", 3, |r, at| (r.gpr[RDI], r.gpr[RCX]) = (at + 4, 1024)),
    case("scas", 2, |r, at| (r.gpr[RDI], r.gpr[RCX], r.gpr[RAX]) = (at, PAGE + 1, 1)),
    case("cmps", 4, |r, at| (r.gpr[RDI], r.gpr[RSI], r.gpr[RCX]) = (at, at + 2 * PAGE, PAGE + 10)),
];

const FOR_GOOD: &[Case] = &[
    case("load", 2, |r, _| r.gpr[RDI] = NOWHERE),
    case("load", 2, |r, _| r.gpr[RDI] = NON_CANONICAL),
    case("store", 2, |r, _| r.gpr[RDI] = edge() - 16),
    case("store", 2, |r, _| r.gpr[RDI] = text().start),
    case("add", 2, |r, _| r.gpr[RDI] = NON_CANONICAL),
    case("xadd", 2, |r, _| r.gpr[RDI] = edge() - 8),
    // Half of it is there.
    case("add", 2, |r, _| r.gpr[RDI] = edge() - 4),
    case("gs_load", 2, |r, _| r.gpr[RDI] = NON_CANONICAL.wrapping_sub(gs_base())),
    case("push", 2, |r, _| r.gpr[RDI] = NOWHERE),
    case("push", 2, |r, _| r.gpr[RDI] = NON_CANONICAL),
    case("pop", 2, |r, _| r.gpr[RDI] = NOWHERE),
    case("pop", 2, |r, _| r.gpr[RDI] = text().start),
    case("leave", 2, |r, _| r.gpr[RBP] = NON_CANONICAL),
    // Some of it is done before the fault.
    case("movs_down", 2, |r, _| (r.gpr[RDI], r.gpr[RSI], r.gpr[RCX]) = (edge() + 29, text().start + 500, 100)),
    case("movs_down", 3, |r, at| (r.gpr[RDI], r.gpr[RSI], r.gpr[RCX]) = (at + 500, edge() + 29, 100)),
    case("stos", 2, |r, _| r.gpr[RDI] = NON_CANONICAL),
    case("div_memory", 3, |r, at| r.gpr[RDI] = at),
    case("divide", 2, |r, _| r.gpr[RCX] = 0),
    // The quotient does not fit.
    case("divide", 2, |r, _| (r.gpr[RDX], r.gpr[RCX]) = (7, 7)),
    case("idiv", 2, |r, _| (r.gpr[RDX], r.gpr[RAX], r.gpr[RCX]) = (0xffff_ffff, 0x8000_0000, 0xffff_ffff)),
    case("load_ds", 2, |r, _| r.gpr[RAX] = 0xfff8),
    case("load_ss", 2, |r, _| r.gpr[RAX] = 0xfff0),
    case("load_idt", 2, |r, _| r.gpr[RDI] = NOWHERE),
    case("xgetbv", 2, |r, _| r.gpr[RCX] = 0),
    case("sse", 2, |r, _| r.gpr[RDI] = NOWHERE),
];

const BRANCHES: &[Case] = &[
    // Demand-zero memory says 0: one fault to read it, one to go there.
    case("call_memory", 3, |r, at| r.gpr[RDI] = at),
    case("jump_memory", 3, |r, at| r.gpr[RDI] = at),
    case("call_memory", 2, |r, _| r.gpr[RDI] = NOWHERE),
    case("call_memory", 2, |r, _| r.gpr[RDI] = NON_CANONICAL),
    case("jump_memory", 2, |r, _| r.gpr[RDI] = NON_CANONICAL),
    case("call_register", 2, |r, _| r.gpr[RAX] = NOWHERE),
    case("jump_register", 2, |r, _| r.gpr[RAX] = NOWHERE),
    // Data are not executable.
    case("call_register", 2, |r, _| r.gpr[RAX] = (&raw const RODATA) as u64),
];

static RODATA: u64 = 0x9090_9090_9090_9090;

const EXCEPTED: &[Case] = &[
    case("excepted", 0, |r, _| r.gpr[RDI] = NOWHERE),
    case("excepted", 0, |r, _| r.gpr[RDI] = NON_CANONICAL),
    // The table comes first: memory that nobody has touched is no memory for who asks with care.
    case("excepted", 0, |r, at| r.gpr[RDI] = at),
    case("excepted_movs", 0, |r, _| (r.gpr[RDI], r.gpr[RSI], r.gpr[RCX]) = (NON_CANONICAL, text().start, 9)),
    case("excepted_movs", 0, |r, at| (r.gpr[RDI], r.gpr[RSI], r.gpr[RCX]) = (at, text().start, 9)),
];

fn text() -> Range<u64> {
    alias::text()
}

fn gs_base() -> u64 {
    x86_64::registers::model_specific::GsBase::read().as_u64()
}

/// The handler of the probe that watches [`FAULT`].
fn watch(regs: &mut Regs) -> Next {
    let frame = regs.gpr[RDI] as *const Frame;
    // SAFETY: the function's first argument, which it has just been given by the trap's stub.
    programs::note(unsafe { &*frame }, regs.gpr[RSI], false);
    Next::Step
}

/// Runs `f` while faults are watched, and go on behind what has raised them.
pub(super) fn watching<R>(f: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    let address = ksyms::lookup(FAULT).map_err(|e| e.to_string())?.address;
    with_control(|c| plain::attach(c, "faults_watch", address, watch))?.map_err(|e| e.to_string())?;
    trap::set_fault_hook(programs::skip);
    let result = f();
    trap::clear_fault_hook();
    remove(&["faults_watch"])?;
    result
}

impl Case {
    fn registers(&self) -> Registers {
        let mut registers = Registers::new();
        (self.set)(&mut registers, memory());
        registers
    }

    fn run(&self) -> Result<Outcome, String> {
        Ok(run(program(self.program)?, self.registers()))
    }

    /// In every way to step it is as without a probe.
    fn check(&self, index: usize) -> Result<(), String> {
        let name = format!("{} ({index})", self.program);
        let control = watching(|| self.run())?;
        same(&format!("{name}: reports"), control.seen.len(), self.faults)?;
        for how in STEPPINGS {
            let what = format!("{name}, {how:?}");
            let (probed, hits) = stepping(how, || probed(program(self.program)?, || watching(|| self.run())))?;
            like(&what, &probed, &control)?;
            same(&format!("{what}: hits"), hits, (1, 0))?;
        }
        Ok(())
    }
}

/// Runs `f` with a probe at a program's instruction, and gives how often it was hit and missed.
pub(super) fn probed<R>(program: Program, f: impl FnOnce() -> Result<R, String>) -> Result<(R, (u64, u64)), String> {
    with_control(|c| c.count("faults_probe", program.at))?.map_err(|e| e.to_string())?;
    let result = f();
    let counts = counts("faults_probe")?;
    remove(&["faults_probe"])?;
    Ok((result?, (counts.hits, counts.missed)))
}

fn check_all(cases: &[Case]) -> Result<(), String> {
    cases.iter().enumerate().try_for_each(|(index, case)| case.check(index))
}

pub(super) fn demand_zero() -> Result<(), String> {
    check_all(DEMAND_ZERO)
}

pub(super) fn unhandled() -> Result<(), String> {
    check_all(FOR_GOOD)
}

pub(super) fn branches() -> Result<(), String> {
    check_all(BRANCHES)
}

pub(super) fn exception_table() -> Result<(), String> {
    for case in EXCEPTED {
        let left = case.run()?.registers.gpr[RAX];
        same("the table leads here", left, u64::MAX)?;
    }
    check_all(EXCEPTED)
}

/// With interrupts off before, they are off after, and in the report.
pub(super) fn interrupts_off() -> Result<(), String> {
    const CASES: [Case; 2] = [
        case("movs", 4, |r, at| {
            (r.gpr[RDI], r.gpr[RSI], r.gpr[RCX]) = (at + PAGE - 6, text().start, 2 * PAGE + 100);
            r.flags &= !flags::IF;
        }),
        case("divide", 2, |r, _| (r.gpr[RCX], r.flags) = (0, r.flags & !flags::IF)),
    ];
    let left = CASES[0].run()?.registers.flags;
    same("IF", left & flags::IF, 0)?;
    check_all(&CASES)
}

pub(super) fn two_probes() -> Result<(), String> {
    let case = &DEMAND_ZERO[0];
    let program = program(case.program)?;
    let control = watching(|| case.run())?;
    for how in STEPPINGS {
        let (seconds, hits) = stepping(how, || {
            probed(program, || {
                let line = format!("p:faults_second {:#x} value=+0(%di):x64", program.at);
                define(&[&line])?;
                let outcome = watching(|| case.run())?;
                let second = counts("faults_second")?.hits;
                remove(&["faults_second"])?;
                like("two probes", &outcome, &control)?;
                Ok(second)
            })
        })?;
        same("hits of the first", hits, (1, 0))?;
        same("hits of the second", seconds, 1)?;
    }
    Ok(())
}

pub(super) fn placements_differ() -> Result<(), String> {
    let program = program("load")?;
    let wanted = ["boosted", "boosted", "second breakpoint", "single step"];
    for (how, wanted) in STEPPINGS.into_iter().zip(wanted) {
        let (placement, _) = stepping(how, || {
            probed(program, || {
                let found = with_control(|c| c.list().find(|l| l.address == program.at))?;
                Ok(found.map(|l| l.placement).unwrap_or_default())
            })
        })?;
        check(placement.ends_with(wanted), || format!("{how:?}: {placement}, should be {wanted}"))?;
    }
    Ok(())
}

/// The oracle's own test: a fault that is reported where the copy is, or with another register, is found.
pub(super) fn oracle_sees() -> Result<(), String> {
    let case = &FOR_GOOD[0];
    let control = watching(|| case.run())?;
    let mut displaced = control.clone();
    displaced.seen[0].regs.rip += 64;
    check(like("", &displaced, &control).is_err(), || "another place was not seen".into())?;
    let mut trapping = control.clone();
    trapping.seen[0].regs.flags ^= flags::TF;
    check(like("", &trapping, &control).is_err(), || "a flag was not seen".into())?;
    let mut other = control.clone();
    other.registers.gpr[RBX] ^= 1;
    check(like("", &other, &control).is_err(), || "a register was not seen".into())?;
    let mut fewer = control.clone();
    fewer.seen.pop();
    check(like("", &fewer, &control).is_err(), || "a fault less was not seen".into())?;
    let seen = control.seen.iter().map(|s| (s.unhandled, s.regs.rip));
    let at = program(case.program)?.at;
    check(seen.eq([(false, at), (true, at)]), || "the watch or the hook saw something else".into())
}
