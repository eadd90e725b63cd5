//! Faults in probes' handlers: the handler ends, the kernel goes on.

use crate::probes::plain::{self, Plain};
use alloc::format;
use alloc::string::{String, ToString};
use core::arch::asm;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use host_bare::{Next, Regs};
use isa::x86::gpr;

use super::STEPPINGS;
use super::displaced::{probed, watching};
use super::programs::{Registers, edge, like, memory, program, run};
use crate::arch::copy;
use crate::mm::{PAGE, lazy};
use crate::probes::Demo;
use crate::probes::tests::{check, counts, define, remove, same, stepping};
use crate::probes::with_control;

fn reads_nothing(_: &mut Regs) -> Next {
    // SAFETY: it is none: the read faults, which ends this handler.
    unsafe { core::ptr::without_provenance::<u64>(0x10).read_volatile() };
    Next::Redirected
}

fn writes_text(regs: &mut Regs) -> Next {
    // SAFETY: as above; text cannot be written.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(regs.rip as usize).write_volatile(0) };
    Next::Redirected
}

fn reads_non_canonical(_: &mut Regs) -> Next {
    // SAFETY: as above.
    unsafe { core::ptr::without_provenance::<u64>(1 << 63).read_volatile() };
    Next::Redirected
}

fn divides_by_zero(_: &mut Regs) -> Next {
    // SAFETY: faults.
    unsafe { asm!("xor ecx, ecx", "div ecx", out("rax") _, out("rcx") _, out("rdx") _) };
    Next::Redirected
}

fn executes_ud2(_: &mut Regs) -> Next {
    // SAFETY: faults.
    unsafe { asm!("ud2") };
    Next::Redirected
}

fn jumps_nowhere(_: &mut Regs) -> Next {
    // SAFETY: faults where it arrives.
    unsafe { asm!("jmp {}", in(reg) 0x10_u64) };
    Next::Redirected
}

fn calls_data(_: &mut Regs) -> Next {
    static DATA: u64 = 0xc3;
    // SAFETY: faults where it arrives, since data are not executable.
    unsafe { asm!("call {}", in(reg) &raw const DATA, clobber_abi("C")) };
    Next::Redirected
}

/// With all registers that a function must keep destroyed, the stack pointer moved and the direction turned.
fn faults_in_disorder(_: &mut Regs) -> Next {
    // SAFETY: does not come back: the fault ends the handler, and the engine restores what it has kept.
    unsafe {
        asm!(
            "sub rsp, 1000",
            "xor ebx, ebx",
            "mov rbp, -1",
            "mov r12, rbp",
            "mov r13, rbp",
            "mov r14, rbp",
            "mov r15, rbp",
            "std",
            "stc",
            "ud2",
            options(noreturn)
        )
    }
}

#[inline(never)]
fn descend(levels: u64) -> u64 {
    if levels > 0 {
        return core::hint::black_box(descend(levels - 1)) + 1;
    }
    // SAFETY: faults.
    unsafe { asm!("ud2") };
    0
}

fn faults_deep_down(regs: &mut Regs) -> Next {
    regs.gpr[gpr::RAX] = descend(20);
    Next::Redirected
}

const FAULTY: [(&str, Plain); 9] = [
    ("reads nothing", reads_nothing),
    ("writes text", writes_text),
    ("reads a non-canonical address", reads_non_canonical),
    ("divides by zero", divides_by_zero),
    ("executes ud2", executes_ud2),
    ("jumps nowhere", jumps_nowhere),
    ("calls data", calls_data),
    ("faults in disorder", faults_in_disorder),
    ("faults deep down", faults_deep_down),
];

fn attach(name: &str, address: u64, handler: Plain) -> Result<(), String> {
    with_control(|c| plain::attach(c, name, address, handler))?.map_err(|e| e.to_string())
}

/// Whether an event's probe is said to have faulted.
fn faulted(name: &str) -> Result<bool, String> {
    let name = format!("kprobes/{name}");
    let found = with_control(|c| c.list().find(|l| l.name == name))?;
    Ok(found.ok_or_else(|| format!("no event {name}"))?.faulted)
}

/// Each faulty handler, twice: the second time it does not run.
pub(super) fn every_kind() -> Result<(), String> {
    let sum = program("sum")?;
    let control = run(sum, Registers::new());
    for how in STEPPINGS {
        for (kind, handler) in FAULTY {
            let what = format!("{kind}, {how:?}");
            stepping(how, || {
                attach("faults_bad", sum.at, handler)?;
                same(&format!("{what}: marked at first"), faulted("faults_bad")?, false)?;
                let first = run(sum, Registers::new());
                let second = run(sum, Registers::new());
                let (hits, marked) = (counts("faults_bad")?.hits, faulted("faults_bad")?);
                remove(&["faults_bad"])?;
                like(&what, &first, &control)?;
                like(&what, &second, &control)?;
                same(&format!("{what}: hits and mark"), (hits, marked), (1, true))
            })?;
        }
    }
    Ok(())
}

/// The handler's fault is contained, the instruction's is the kernel's.
pub(super) fn at_faulting_instruction() -> Result<(), String> {
    for name in ["movs_down", "divide"] {
        let program = program(name)?;
        let mut registers = Registers::new();
        registers.gpr[gpr::RDI] = memory() + 500;
        registers.gpr[gpr::RSI] = edge() + 10;
        registers.gpr[gpr::RCX] = if name == "divide" { 0 } else { 100 };
        let control = watching(|| Ok(run(program, registers)))?;
        check(control.seen.len() >= 2, || "no fault".into())?;
        for how in STEPPINGS {
            let outcome = stepping(how, || {
                attach("faults_bad", program.at, executes_ud2)?;
                let outcome = watching(|| Ok(run(program, registers)));
                same("marked", faulted("faults_bad")?, true)?;
                remove(&["faults_bad"])?;
                outcome
            })?;
            // The handler's own fault is reported too, first; then the instruction's, as ever.
            let mut rest = outcome;
            rest.seen.retain(|seen| seen.vector != 6);
            like(&format!("{name}, {how:?}"), &rest, &control)?;
        }
    }
    Ok(())
}

/// Reads a word, by a program's code: the second instruction is to be probed.
fn calls_load(regs: &mut Regs) -> Next {
    NESTED.fetch_add(1, Relaxed);
    let address = ADDRESS.load(Relaxed);
    // SAFETY: `faults_load` reads through `rdi`, into `rax`, and changes `r12`; it is called on an aligned stack or not.
    unsafe {
        asm!("call faults_load", in("rdi") address, out("r12") _, clobber_abi("C"));
    }
    NESTED.fetch_add(100, Relaxed);
    regs.gpr[gpr::RBX] ^= 1;
    Next::Step
}

static ADDRESS: AtomicU64 = AtomicU64::new(0);
static NESTED: AtomicU64 = AtomicU64::new(0);

/// The handler calls a function whose probed instruction faults: for good, and so that it goes on.
pub(super) fn in_nested_probe() -> Result<(), String> {
    let (sum, load) = (program("sum")?, program("load")?);
    let control = run(sum, Registers::new());
    let lazy = lazy::reserve(STEPPINGS.len() as u64 * PAGE);
    for (n, how) in (0..).zip(STEPPINGS) {
        for (address, ends) in [(0x10, true), (1 << 63, true), (lazy + n * PAGE, false)] {
            let what = format!("{address:#x}, {how:?}");
            ADDRESS.store(address, Relaxed);
            NESTED.store(0, Relaxed);
            stepping(how, || {
                let (outcome, (hits, missed)) = probed(load, || {
                    attach("faults_outer", sum.at, calls_load)?;
                    let outcome = run(sum, Registers::new());
                    let (marked, hits) = (faulted("faults_outer")?, counts("faults_outer")?.hits);
                    remove(&["faults_outer"])?;
                    same(&format!("{what}: mark and hits"), (marked, hits), (ends, 1))?;
                    Ok(outcome)
                })?;
                same(&format!("{what}: the nested probe"), (hits, missed), (0, 1))?;
                same(&format!("{what}: how far"), NESTED.load(Relaxed), if ends { 1 } else { 101 })?;
                let mut expected = control.clone();
                expected.registers.gpr[gpr::RBX] ^= u64::from(!ends);
                like(&what, &outcome, &expected)
            })?;
        }
    }
    Ok(())
}

/// A probe before it and two behind it count all hits, one of them with a handler, one a return probe.
pub(super) fn others_go_on() -> Result<(), String> {
    let sum = program("sum")?;
    for how in STEPPINGS {
        stepping(how, || {
            with_control(|c| c.count("faults_before", sum.at))?.map_err(|e| e.to_string())?;
            attach("faults_bad", sum.at, reads_nothing)?;
            attach("faults_handler", sum.at, |_| {
                NESTED.fetch_add(1, Relaxed);
                Next::Step
            })?;
            define(&[&format!("p:faults_record {:#x} at=%ip", sum.at)])?;
            NESTED.store(0, Relaxed);
            for _ in 0..5 {
                run(sum, Registers::new());
            }
            let records = with_control(|c| c.records())?.len();
            let hits = |name| counts(name).map(|c| (c.hits, c.missed));
            let all = ["faults_before", "faults_bad", "faults_handler", "faults_record"];
            let found = [hits(all[0])?, hits(all[1])?, hits(all[2])?, hits(all[3])?];
            let marks = [faulted(all[0])?, faulted(all[1])?, faulted(all[2])?, faulted(all[3])?];
            remove(&all)?;
            same("hits", found, [(5, 0), (1, 0), (5, 0), (5, 0)])?;
            same("marks", marks, [false, true, false, false])?;
            same("records and calls", (records, NESTED.load(Relaxed)), (5, 5))
        })?;
    }
    Ok(())
}

/// Neither the address, nor the name, nor the place in the table bears the mark after that.
pub(super) fn forgotten() -> Result<(), String> {
    let (sum, load) = (program("sum")?, program("load")?);
    for taken in [false, true] {
        attach("faults_bad", sum.at, reads_nothing)?;
        run(sum, Registers::new());
        same("marked", faulted("faults_bad")?, true)?;
        remove(&["faults_bad"])?;
        if taken {
            // Gives the event's number back.
            with_control(|c| c.records())?;
        }
        // Two, so that the probe's place and the event's number need not go together again.
        attach("faults_other", load.at, |_| Next::Step)?;
        attach("faults_bad", sum.at, |_| Next::Step)?;
        let marks = (faulted("faults_other")?, faulted("faults_bad")?);
        run(sum, Registers::new());
        let hits = counts("faults_bad")?.hits;
        remove(&["faults_other", "faults_bad"])?;
        same("marks", marks, (false, false))?;
        same("hits", hits, 1)?;
    }
    Ok(())
}

fn touches(_: &mut Regs) -> Next {
    let at = core::ptr::with_exposed_provenance_mut::<u64>(ADDRESS.load(Relaxed) as usize);
    // SAFETY: reserved for this test, and aligned.
    let read = unsafe { at.read_volatile() };
    // SAFETY: as above.
    unsafe { at.byte_add(PAGE as usize).write_volatile(7) };
    NESTED.fetch_add(1 + read, Relaxed);
    Next::Step
}

/// The fault is the kernel's to handle, also in a handler; probes in its path are missed then, and say so.
pub(super) fn touches_demand_zero() -> Result<(), String> {
    let sum = program("sum")?;
    let control = run(sum, Registers::new());
    for how in STEPPINGS {
        let lazy = lazy::reserve(2 * PAGE);
        ADDRESS.store(lazy, Relaxed);
        NESTED.store(0, Relaxed);
        stepping(how, || {
            define(&["p:faults_zero demand_zero"])?;
            attach("faults_touch", sum.at, touches)?;
            let outcome = run(sum, Registers::new());
            let (zero, marked) = (counts("faults_zero")?, faulted("faults_touch")?);
            remove(&["faults_zero", "faults_touch"])?;
            same("the handler went on", (NESTED.load(Relaxed), marked), (1, false))?;
            same("the path's probe", (zero.hits, zero.missed), (0, 2))?;
            same("what it wrote", copy::read_u64(lazy + PAGE), Some(7))?;
            like("touch", &outcome, &control)
        })?;
    }
    Ok(())
}

fn reads_with_care(_: &mut Regs) -> Next {
    let found = [0x10, 1 << 63, edge() - 8].map(copy::read_u64);
    NESTED.store(found.iter().filter(|f| f.is_none()).count() as u64, Relaxed);
    Next::Step
}

/// The exception table comes before the end of the handler.
pub(super) fn guarded_read() -> Result<(), String> {
    let sum = program("sum")?;
    NESTED.store(0, Relaxed);
    attach("faults_care", sum.at, reads_with_care)?;
    run(sum, Registers::new());
    let marked = faulted("faults_care")?;
    remove(&["faults_care"])?;
    same("reads that failed, and the mark", (NESTED.load(Relaxed), marked), (3, false))
}

/// Bad memory is `(fault)` in the record; what is behind it is read all the same.
pub(super) fn fetch_arguments() -> Result<(), String> {
    let sum = program("sum")?;
    let lazy = lazy::reserve(PAGE);
    for (how, bad) in STEPPINGS.into_iter().zip([0x10, 1 << 63, edge() - 64, lazy]) {
        let mut registers = Registers::new();
        registers.gpr[gpr::RDI] = bad;
        stepping(how, || {
            let args = "word=+0(%di):x64 text=+8(%di):string deep=+0(+0(%di)):u8 many=+0(%di):u32[4] si=%si:x64";
            define(&[
                &format!("p:faults_fetch {:#x} {args} there=@{:#x}:u8", sum.at, sum.at + 1),
                &format!("r:faults_returned faults_sum word=+0($arg1):x64 all=@{bad:#x}:x64"),
            ])?;
            run(sum, registers);
            let records = with_control(|c| c.records())?;
            remove(&["faults_fetch", "faults_returned"])?;
            same("records", records.len(), 2)?;
            let text = records[0].text::<Demo>();
            let expected = format!(
                "word=(fault) text=(fault) deep=(fault) many={{(fault),(fault),(fault),(fault)}} si={:#x} there=",
                registers.gpr[gpr::RSI]
            );
            check(text.contains(&expected), || format!("{text}, should have {expected}"))?;
            let text = records[1].text::<Demo>();
            check(text.contains("word=(fault) all=(fault)"), || text)
        })?;
    }
    Ok(())
}
