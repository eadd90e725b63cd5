//! Traps: what a stub saves it restores, and what a handler changes takes effect.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use isa::x86::flags::TF;
use isa::x86::gpr::RSP;

use super::{Check, ensure};
use crate::arch::trap::{self, Frame};
use crate::arch::{cpu, ipi, time};
use crate::sched;

pub(super) const CHECKS: &[Check] = &[
    ("a breakpoint leaves all registers as they were", breakpoint_keeps_registers),
    ("a breakpoint in a breakpoint's handler", breakpoint_nests),
    ("a handler pushes below the interrupted stack", handler_pushes),
    ("the trap flag steps one instruction", trap_flag_steps),
    ("an invalid instruction is skipped by the fault hook", fault_hook_skips),
    ("a processor's NMI to itself", nmi_to_self),
    ("an NMI to every processor, with a breakpoint in its handler", nmi_to_all),
];

static SEEN: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);
static NESTED: AtomicBool = AtomicBool::new(false);

fn int3() {
    // SAFETY: the hook of the check goes on behind it.
    unsafe { asm!("int3") };
}

/// Runs with a fault hook.
fn with_hook<T>(hook: trap::TrapHook, f: impl FnOnce() -> T) -> T {
    SEEN.store(0, Relaxed);
    trap::set_fault_hook(hook);
    let result = f();
    trap::clear_fault_hook();
    result
}

fn count(frame: &mut Frame) -> bool {
    SEEN.fetch_add(1, Relaxed);
    frame.vector == 3
}

fn breakpoint_keeps_registers() -> Result<(), &'static str> {
    let (sum, moved) = with_hook(count, sum_around_breakpoint);
    ensure(SEEN.load(Relaxed) == 1, "the hook did not see one breakpoint")?;
    ensure(moved == 0, "the stack pointer is another")?;
    ensure(sum == 16383 + 1 + 1024, "a register or a flag is another")
}

/// Gives each register a bit, and adds them up behind a breakpoint, with the carry (1) and the direction flag (1024);
/// and how far the stack pointer has moved.
fn sum_around_breakpoint() -> (u64, u64) {
    let (sum, moved): (u64, u64);
    // SAFETY: changes only what it names; the hook goes on behind the breakpoint.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rbx, rsp",
            "mov rax, 1", "mov rcx, 2", "mov rdx, 4", "mov rsi, 8", "mov rdi, 16", "mov rbp, 32",
            "mov r8, 64", "mov r9, 128", "mov r10, 256", "mov r11, 512", "mov r12, 1024", "mov r13, 2048",
            "mov r14, 4096", "mov r15, 8192",
            "std",
            "stc",
            "int3",
            "adc rax, rcx",
            "add rax, rdx", "add rax, rsi", "add rax, rdi", "add rax, rbp", "add rax, r8", "add rax, r9",
            "add rax, r10", "add rax, r11", "add rax, r12", "add rax, r13", "add rax, r14", "add rax, r15",
            "mov rcx, rsp",
            "sub rcx, rbx",
            "pushfq",
            "pop rdx",
            "and edx, 1024",
            "add rax, rdx",
            "cld",
            "pop rbp",
            "pop rbx",
            out("rax") sum, out("rcx") moved, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _,
            out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    (sum, moved)
}

fn nest(frame: &mut Frame) -> bool {
    if SEEN.fetch_add(1, Relaxed) < 3 {
        int3();
    }
    frame.vector == 3
}

fn breakpoint_nests() -> Result<(), &'static str> {
    with_hook(nest, int3);
    ensure(SEEN.load(Relaxed) == 4, "not every breakpoint was seen")
}

/// Emulates six pushes of the vector.
fn push(frame: &mut Frame) -> bool {
    for _ in 0..6 {
        frame.regs.gpr[RSP] -= 8;
        // SAFETY: the stub leaves 48 bytes below the interrupted stack.
        unsafe { (frame.regs.gpr[RSP] as *mut u64).write(frame.vector) };
    }
    true
}

fn handler_pushes() -> Result<(), &'static str> {
    let sum = with_hook(push, || {
        let sum: u64;
        // SAFETY: pops what the hook pushes, six words.
        unsafe {
            asm!("xor eax, eax", "int3", ".rept 6", "pop rcx", "add rax, rcx", ".endr", out("rax") sum, out("rcx") _);
        }
        sum
    });
    ensure(sum == 6 * 3, "something else was popped")
}

/// A breakpoint turns single stepping on, the third step turns it off.
fn step(frame: &mut Frame) -> bool {
    match frame.vector {
        3 => frame.regs.flags |= TF,
        1 => {
            SEEN.fetch_add(frame.regs.rip, Relaxed);
            if STEPS.fetch_add(1, Relaxed) == 2 {
                frame.regs.flags &= !TF;
            }
        }
        _ => return false,
    }
    true
}

fn trap_flag_steps() -> Result<(), &'static str> {
    STEPS.store(0, Relaxed);
    let start = with_hook(step, || {
        let start: u64;
        // SAFETY: three instructions without effect, stepped.
        unsafe { asm!("lea {}, [rip + 2f]", "int3", "2: nop", "nop", "nop", "nop", out(reg) start) };
        start
    });
    ensure(STEPS.load(Relaxed) == 3, "not three steps")?;
    ensure(SEEN.load(Relaxed) == 3 * start + 6, "the steps were elsewhere")
}

fn skip_ud2(frame: &mut Frame) -> bool {
    frame.regs.rip += 2;
    frame.vector == 6
}

fn fault_hook_skips() -> Result<(), &'static str> {
    let before = trap::fault_count();
    // SAFETY: the hook goes on behind the instruction.
    with_hook(skip_ud2, || unsafe { asm!("ud2") });
    ensure(trap::fault_count() > before, "no fault was counted")
}

fn on_nmi(_: &mut Frame) {
    SEEN.fetch_add(1, Relaxed);
    if NESTED.load(Relaxed) {
        int3();
    }
}

/// Waits for something that another processor does.
fn soon(holds: impl Fn() -> bool) -> bool {
    let end = time::now_ns() + 2_000_000_000;
    while !holds() {
        if time::now_ns() > end {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

fn nmi_to_self() -> Result<(), &'static str> {
    NESTED.store(false, Relaxed);
    SEEN.store(0, Relaxed);
    trap::set_nmi_hook(on_nmi);
    sched::preempt_disable();
    let me = cpu::id();
    let before = trap::nmi_count(me);
    ipi::nmi(me);
    let came = soon(|| trap::nmi_count(me) == before + 1);
    sched::preempt_enable();
    trap::clear_nmi_hook();
    ensure(came && SEEN.load(Relaxed) == 1, "it did not come once")
}

fn nmi_to_all() -> Result<(), &'static str> {
    NESTED.store(true, Relaxed);
    trap::set_nmi_hook(on_nmi);
    let came = with_hook(count, || {
        (0..100).all(|_| {
            (0..cpu::count()).all(|id| {
                let before = trap::nmi_count(id);
                ipi::nmi(id);
                soon(|| trap::nmi_count(id) > before)
            })
        })
    });
    trap::clear_nmi_hook();
    ensure(came, "one did not come")?;
    // Each counts twice: in its hook, and for the breakpoint there.
    ensure(SEEN.load(Relaxed) == 200 * cpu::count() as u64, "a breakpoint in it was lost")
}
