//! Small programs around one instruction, and what a run of one comes to.
//!
//! A program keeps its stack pointer in `r12` before the instruction and takes it from there behind it, so it can go on
//! whatever the instruction has pushed. It runs with registers, flags and stack that are given: two runs see the same
//! values, and whatever differs between them the probe has done.

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use isa::x86::{Regs, flags, gpr};

use super::super::check;
use crate::arch::copy;
use crate::arch::trap::Frame;
use crate::mm::{PAGE, lazy, stacks};
use crate::{ksyms, sched};

/// A program: its function, the instruction that it is about, and the one behind.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    entry: u64,
    pub(super) at: u64,
    pub(super) next: u64,
}

macro_rules! programs {
    ($($name:ident: $before:literal, $at:literal, $after:literal;)*) => {
        core::arch::global_asm!(
            $(concat!(
                ".pushsection .text.faults_", stringify!($name), ", \"ax\"\n",
                ".globl faults_", stringify!($name), "\n",
                ".type faults_", stringify!($name), ", @function\n",
                "faults_", stringify!($name), ": mov r12, rsp\n", $before, "\n",
                "faults_", stringify!($name), "_at: ", $at, "\n",
                "faults_", stringify!($name), "_next: ", $after, "\n",
                "mov rsp, r12\n ret\n",
                ".size faults_", stringify!($name), ", . - faults_", stringify!($name), "\n",
                ".popsection"
            ),)*
            ".pushsection .rodata.faults_programs, \"a\"",
            ".balign 8",
            ".globl faults_programs",
            "faults_programs:",
            $(concat!(
                ".quad faults_", stringify!($name), ", faults_", stringify!($name), "_at, faults_",
                stringify!($name), "_next"
            ),)*
            ".popsection",
        );

        /// Their names, in the order of `faults_programs`.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

programs! {
    load: "", "mov rax, [rdi]", "";
    store: "", "mov [rdi], rsi", "";
    add: "", "add [rdi], rsi", "";
    xadd: "", "lock xadd [rdi], rsi", "";
    cmpxchg: "", "lock cmpxchg [rdi], rsi", "";
    compare: "", "cmp [rdi], rsi", "";
    gs_load: "", "mov rax, gs:[rdi]", "";
    xlat: "", "xlatb", "";
    push: "", "push qword ptr [rdi]", "pop rdx";
    pop: "push rsi", "pop qword ptr [rdi]", "";
    leave: "", "leave", "";
    movs: "", "rep movsb", "";
    movs_down: "std", "rep movsb", "cld";
    stos: "", "rep stosq", "";
    scas: "", "repne scasb", "";
    cmps: "", "repe cmpsb", "";
    div_memory: "", "div qword ptr [rdi]", "";
    divide: "", "div rcx", "";
    idiv: "", "idiv ecx", "";
    call_memory: "", "call [rdi]", "";
    call_register: "", "call rax", "";
    jump_memory: "", "jmp [rdi]", "";
    jump_register: "", "jmp rax", "";
    load_ds: "", "mov ds, eax", "";
    load_ss: "", "mov ss, eax", "nop";
    load_idt: "", "lidt [rdi]", "";
    xgetbv: "", "xgetbv", "";
    sse: "", "movaps xmm0, [rdi]", "";
    excepted: "", "mov rax, [rdi]", "2: nop\n\
        .pushsection __ex_table, \"a\"\n .balign 8\n .quad faults_excepted_at, faults_excepted_fix\n .popsection\n\
        mov rsp, r12\n ret\n faults_excepted_fix: mov rax, -1";
    excepted_movs: "", "rep movsb", "2: nop\n\
        .pushsection __ex_table, \"a\"\n .balign 8\n .quad faults_excepted_movs_at, faults_excepted_movs_fix\n\
        .popsection\n mov rsp, r12\n ret\n faults_excepted_movs_fix: mov rax, -1";
    sum: "", "lea rax, [rdi + rsi*2]", "add rax, rcx";
}

core::arch::global_asm!(
    // rdi: registers and flags; rsi: the program; rdx: the end of its stack.
    ".pushsection .text.faults_execute, \"ax\"",
    ".globl faults_execute",
    ".type faults_execute, @function",
    "faults_execute:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rax, rsp",
    "lea rsp, [rdx - 8]",
    "push rax",
    "push rdi",
    "push rsi",
    "push [rdi + 16*8]",
    "popfq",
    ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov r\\n, [rdi + \\n*8]",
    ".endr",
    "mov rax, [rdi]",
    "mov rcx, [rdi + 1*8]",
    "mov rdx, [rdi + 2*8]",
    "mov rbx, [rdi + 3*8]",
    "mov rbp, [rdi + 5*8]",
    "mov rsi, [rdi + 6*8]",
    "mov rdi, [rdi + 7*8]",
    "call [rsp]",
    "xchg rdi, [rsp + 8]", // the registers' place; and the program's rdi
    ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov [rdi + \\n*8], r\\n",
    ".endr",
    "mov [rdi], rax",
    "mov [rdi + 1*8], rcx",
    "mov [rdi + 2*8], rdx",
    "mov [rdi + 3*8], rbx",
    "mov [rdi + 5*8], rbp",
    "mov [rdi + 6*8], rsi",
    "pop rax",
    "pop [rdi + 7*8]",
    "pushfq",
    "pop [rdi + 16*8]",
    "sti",
    "cld",
    "pop rsp",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".size faults_execute, . - faults_execute",
    ".popsection",
);

unsafe extern "C" {
    static faults_programs: [Program; NAMES.len()];
    fn faults_execute(registers: *mut Registers, entry: u64, stack_end: u64);
}

/// What a program gets, and what it leaves; `rsp` is not used.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) gpr: [u64; 16],
    pub(super) flags: u64,
}

impl Registers {
    /// Different values everywhere, interrupts on, and some flags.
    pub(super) fn new() -> Self {
        let gpr = core::array::from_fn(|n| 0x1111_0000_0000_0000 + n as u64 * 0x0101_0101);
        Self { gpr, flags: 2 | flags::IF | flags::CF | flags::SF }
    }
}

/// The program of a name.
pub(super) fn program(name: &str) -> Result<Program, String> {
    // SAFETY: the macro above writes the table, as long as the names.
    let programs = unsafe { &faults_programs };
    let index = NAMES.iter().position(|&n| n == name).ok_or_else(|| format!("no program {name}"))?;
    programs.get(index).copied().ok_or_else(|| format!("no program {name}"))
}

const STACK_BYTES: usize = 16 << 10;

#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; STACK_BYTES]>);

// SAFETY: one program runs at a time: tests follow each other.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([0; STACK_BYTES]));

/// Runs a program; the same stack addresses each time.
fn execute(program: Program, mut registers: Registers) -> Registers {
    let end = STACK.0.get() as u64 + STACK_BYTES as u64;
    // SAFETY: the program ends with the `ret` that belongs to the call, and keeps to this stack and to the memory that
    // its test has given it; a fault that nobody handles is reported by the kernel.
    unsafe { faults_execute(&raw mut registers, program.entry, end) };
    registers.gpr[gpr::RSP] = 0;
    registers
}

/// A fault as it was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Nobody had handled it, and the hook was asked.
    pub(super) unhandled: bool,
    pub(super) regs: Regs,
    pub(super) vector: u64,
    error: u64,
    cr2: u64,
    /// The word on top of the stack: what a call has pushed.
    top: Option<u64>,
}

const MOST_SEEN: usize = 16;

struct Log {
    /// The thread whose faults count; 0 for none.
    thread: AtomicU64,
    count: AtomicU64,
    seen: UnsafeCell<[Option<Seen>; MOST_SEEN]>,
}

// SAFETY: written in the trap handlers of one thread (`thread`), read by that thread outside of them.
unsafe impl Sync for Log {}

static LOG: Log = Log { thread: AtomicU64::new(0), count: AtomicU64::new(0), seen: UnsafeCell::new([None; MOST_SEEN]) };
/// Where the hook goes on.
static GO_ON: AtomicU64 = AtomicU64::new(0);

/// Notes a fault of the thread that a program runs in.
pub(super) fn note(frame: &Frame, cr2: u64, unhandled: bool) {
    if LOG.thread.load(Relaxed) != sched::current() {
        return;
    }
    let at = LOG.count.fetch_add(1, Relaxed) as usize;
    let (regs, vector, error) = (frame.regs, frame.vector, frame.error);
    let seen = Seen { unhandled, regs, vector, error, cr2, top: copy::read_u64(regs.rsp()) };
    // SAFETY: only this thread writes, with interrupts off.
    if let Some(place) = unsafe { (*LOG.seen.get()).get_mut(at) } {
        *place = Some(seen);
    }
}

/// A fault hook: notes the fault, and goes on behind the instruction.
pub(super) fn skip(frame: &mut Frame) -> bool {
    // Before anything that could fault.
    let cr2 = if frame.vector == 14 { x86_64::registers::control::Cr2::read_raw() } else { 0 };
    note(frame, cr2, true);
    frame.regs.rip = GO_ON.load(Relaxed);
    LOG.thread.load(Relaxed) == sched::current()
}

/// What a run comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) registers: Registers,
    pub(super) seen: Vec<Seen>,
    /// Of each page of the demand-zero memory its bytes, if it was touched.
    pages: Vec<Option<Vec<u8>>>,
}

/// Pages of demand-zero memory that a program may have.
pub(super) const PAGES: u64 = 4;

/// Demand-zero memory for programs, the same in every run.
pub(super) fn memory() -> u64 {
    static MEMORY: AtomicU64 = AtomicU64::new(0);
    once(&MEMORY, || lazy::reserve(PAGES * PAGE))
}

/// An address from which on memory is there, and nobody else's; below it nothing is mapped: the low end of a stack.
pub(super) fn edge() -> u64 {
    static EDGE: AtomicU64 = AtomicU64::new(0);
    once(&EDGE, || stacks::Stack::new().into_top() - stacks::BYTES)
}

fn once(place: &AtomicU64, make: impl FnOnce() -> u64) -> u64 {
    if place.load(Relaxed) == 0 {
        place.store(make(), Relaxed);
    }
    place.load(Relaxed)
}

/// Runs a program with demand-zero memory that nobody has touched.
pub(super) fn run(program: Program, registers: Registers) -> Outcome {
    let memory = memory();
    // SAFETY: reserved for programs, of which none runs.
    unsafe { lazy::release(memory, PAGES * PAGE) };
    // SAFETY: no program runs.
    unsafe { *LOG.seen.get() = [None; MOST_SEEN] };
    GO_ON.store(program.next, Relaxed);
    LOG.count.store(0, Relaxed);
    LOG.thread.store(sched::current(), Relaxed);
    let registers = execute(program, registers);
    LOG.thread.store(0, Relaxed);
    let page = |n| {
        let mut bytes = vec![0; PAGE as usize];
        copy::read(memory + n * PAGE, &mut bytes).then_some(bytes)
    };
    // SAFETY: nobody writes any more.
    let seen = unsafe { *LOG.seen.get() }.into_iter().flatten().collect();
    Outcome { registers, seen, pages: (0..PAGES).map(page).collect() }
}

/// The two runs are the same.
pub(super) fn like(what: &str, got: &Outcome, wanted: &Outcome) -> Result<(), String> {
    for (n, (got, wanted)) in got.seen.iter().zip(&wanted.seen).enumerate() {
        let place = ksyms::describe(got.regs.rip);
        check(got == wanted, || format!("{what}: fault {n} at {place}: {got:x?}, without a probe {wanted:x?}"))?;
    }
    let (faults, expected) = (got.seen.len(), wanted.seen.len());
    check(faults == expected, || format!("{what}: {faults} faults, without a probe {expected}"))?;
    let (now, then) = (got.registers, wanted.registers);
    check(now == then, || format!("{what}: registers {now:x?}, without a probe {then:x?}"))?;
    check(got.pages == wanted.pages, || format!("{what}: memory is another"))
}
