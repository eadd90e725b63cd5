//! Detours: what a jump into kprobes calls, instead of a trap.
//!
//! A site that is placed by a jump has a detour of its own, made by [`kprobes::Isa::detour`]: it leaves the red zone
//! alone, pushes the site's index, and calls [`entry`]; the copy of the displaced instructions follows. So the return
//! address is where execution goes on, and the processor's prediction of returns stays right.
//!
//! [`entry`] makes the registers that a trap's handler would find in its frame, lets the hit path run on them, and
//! mostly returns to the copy. If a handler has sent execution elsewhere, or moved the stack, it leaves by `iretq`, which
//! restores everything at once.
//!
//! ```text
//! interrupted stack │ red zone │ site │ return address │ flags rip r15 … rax │ xmm15 … xmm0 │ …
//!               rsp ┘                                                     └ Regs
//! ```
//!
//! Most probes count and nothing else. For those [`entry`] needs neither registers nor a function: if the site has one probe,
//! and that counts, and the thread has a row of its own to count in, it adds one there.
//!
//! # What is different from a trap
//!
//! * **Signals** are delivered meanwhile. Their handlers may hit probes, which run; and may never come back (`longjmp`).
//!   Nothing here is left in a state that this would spoil: `lanes` says how it is known that a thread is in a detour.
//! * The **stack** is the program's, and what runs here uses less of it than a signal's frame would. A handler of a
//!   user's runs on a stack of its own, with signals masked, as in a trap.
//! * **Registers** that a signal's frame has and `Regs` has not: the agent is compiled code, which may use the lower
//!   halves of the vector registers, so those are saved; it does no arithmetic in floating point. Before a
//!   handler of a user's runs, all that there is is saved ([`cpu::with_initial_vectors`]).
//! * The **flags**: compiled code wants the direction and the alignment check flag cleared. `popfq` is slow, so it is only
//!   executed for flags that `sahf` cannot set.
//! * The **trap flag**: a thread that steps itself does not come here, it is sent to a breakpoint instead
//!   ([`hit::single_step`]). Who steps through this is a debugger, whose flag the kernel sets behind the thread's back, and
//!   which `pushfq` shows nevertheless. If it were restored, the thread would go on stepping when the debugger has left, and die.
//! * The **thread** has no name here but its fs base: a system call would cost more than all the rest.
//!
//! Source: Linux, `arch/x86/kernel/kprobes/opt.c` (`optprobe_template_func`).

use super::{Memory, TrapHost, fork, lanes, start};
use crate::abi::lanes::{LANE_GOLDEN, LANE_SHIFT, LANE_WINDOW, Lane};
use crate::abi::{EVENTS, Home, Identity, PROBES};
use core::mem::offset_of;
use hit::{Kind, Onward, Probe, Site};
use isa::x86::{Privilege, Regs, flags};

/// Bytes that a detour leaves below the stack pointer.
const GAP: usize = arch::x86::detour_gap(Privilege::User) as usize;
/// CF, PF, AF, ZF, SF, which `sahf` sets, and OF.
const ARITHMETIC: i32 = 0x8D5;
/// Flags under which compiled code must not run: single step, direction, nested task, alignment check.
const UNWANTED: i32 = 0x4_4500;
/// As a mask of 32 bits, which an instruction takes.
pub(super) const TRAP_FLAG: i32 = flags::TF as i32;
/// The flags that a program has beside the arithmetic ones, nearly always: interrupts on, and the bit that is always 1.
const USUAL: i32 = 0x202;

/// The running thread is in a detour, which has saved its registers in `frame`, until the host is dropped.
#[inline(always)]
fn inside<'f>(memory: Memory, frame: &Regs, vectors: &'f [[u64; 2]; 8]) -> TrapHost<'f> {
    // Where nothing counts there is nothing to keep, and no system call is to be made.
    let lane = lanes::here(memory.home).filter(|_| memory.is_active());
    let stay = lane.map(|lane| lanes::Stay::begin(memory.home, lane, frame));
    TrapHost::in_detour(memory, stay, vectors)
}

/// The registers, and the vector registers from `xmm0`, are those of a jump that this site was placed by; true when the copy comes next, with these.
extern "C" fn detoured(regs: &mut Regs, site: u64, vectors: &[[u64; 2]; 8]) -> bool {
    let memory = start::memory();
    if !fork::notice(memory) {
        return true;
    }
    let host = inside(memory, regs, vectors);
    hit::detoured(&host, site, regs) == Onward::Copy
}

/// A function has returned to the stub of instance `id`; true when it is the caller's stack that execution goes on with.
extern "C" fn returned(regs: &mut Regs, id: u64, vectors: &[[u64; 2]; 8]) -> bool {
    let memory = start::memory();
    fork::notice(memory);
    let host = inside(memory, regs, vectors);
    let sp = regs.rsp();
    hit::returned(&host, id as u32, regs);
    regs.rsp() == sp
}

/// With `Regs` at the stack pointer, which was [`rsp + above`] before: calls `function` with them, the word behind the one
/// that follows them, and the vector registers, which are saved. Goes on with `Regs` at the stack pointer and in `al` what
/// the function said.
macro_rules! call_with_registers {
    ($function:literal) => {
        concat!(
            "
        mov rdi, rsp
        mov rsi, [rsp + 19*8]
        mov rbx, rsp
        test dword ptr [rsp + 17*8], {unwanted}
        jz 4f
        push {usual}
        popfq
    4:
        sub rsp, 16*16
        and rsp, -16
        movaps [rsp], xmm0
        movaps [rsp + 1*16], xmm1
        movaps [rsp + 2*16], xmm2
        movaps [rsp + 3*16], xmm3
        movaps [rsp + 4*16], xmm4
        movaps [rsp + 5*16], xmm5
        movaps [rsp + 6*16], xmm6
        movaps [rsp + 7*16], xmm7
        movaps [rsp + 8*16], xmm8
        movaps [rsp + 9*16], xmm9
        movaps [rsp + 10*16], xmm10
        movaps [rsp + 11*16], xmm11
        movaps [rsp + 12*16], xmm12
        movaps [rsp + 13*16], xmm13
        movaps [rsp + 14*16], xmm14
        movaps [rsp + 15*16], xmm15
        mov rdx, rsp
        call {",
            $function,
            "}
        movaps xmm0, [rsp]
        movaps xmm1, [rsp + 1*16]
        movaps xmm2, [rsp + 2*16]
        movaps xmm3, [rsp + 3*16]
        movaps xmm4, [rsp + 4*16]
        movaps xmm5, [rsp + 5*16]
        movaps xmm6, [rsp + 6*16]
        movaps xmm7, [rsp + 7*16]
        movaps xmm8, [rsp + 8*16]
        movaps xmm9, [rsp + 9*16]
        movaps xmm10, [rsp + 10*16]
        movaps xmm11, [rsp + 11*16]
        movaps xmm12, [rsp + 12*16]
        movaps xmm13, [rsp + 13*16]
        movaps xmm14, [rsp + 14*16]
        movaps xmm15, [rsp + 15*16]
        mov rsp, rbx
        "
        )
    };
}

/// Sets the arithmetic flags from `Regs`, if the others are as usual; else goes to the label 5. Spoils `rax` and `rcx`.
/// Overflow by an addition that overflows if `al` is 1; then the others, from `ah`.
macro_rules! set_flags {
    () => {
        "
        mov ecx, [rsp + 17*8]
        mov eax, ecx
        and eax, {other}
        cmp eax, {usual}
        jne 5f
        mov eax, ecx
        shr ecx, 11
        and ecx, 1
        shl eax, 8
        mov al, cl
        add al, 127
        sahf
        "
    };
}

/// Goes on where `Regs` say, with all of them: `iretq` takes rip, cs, flags, rsp, ss, from the place of `r15` to the second
/// word behind them.
macro_rules! leave_by_iret {
    () => {
        concat!(
            "
        mov r15, [rsp + 15*8]
        mov rax, [rsp + 16*8]
        mov [rsp + 15*8], rax
        mov eax, cs
        mov [rsp + 16*8], rax
        mov rax, [rsp + 4*8]
        mov [rsp + 18*8], rax
        mov eax, ss
        mov [rsp + 19*8], rax
        ",
            isa::pop_registers!(),
            "
        iretq
        "
        )
    };
}

/// What detours call.
///
/// # Safety
///
/// Only a detour may.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn entry() {
    core::arch::naked_asm!(
        // A site with one probe that counts, and a thread that has its place for that.
        "push rax",
        "lahf",
        "seto al",
        "push rax",
        "push rcx",
        "push rdx",
        "mov rcx, [rip + {home}]",
        "mov rax, [rcx + {identity}]",
        "cmp qword ptr [rax + {pid}], 0", // it is a child that does not know yet
        "je 9f",
        "rdfsbase rax",
        "mov rdx, rax",
        "shr rdx, 6",
        "imul rdx, [rip + 7f]",
        "shr rdx, {lane_shift}",
        "shl rdx, {lane_scale}",
        "lea rdx, [rcx + rdx + {lanes}]",
        "inc rax",
        "cmp [rdx + {owner}], rax",
        "jne 9f",
        "mov eax, [rcx + {home_epoch}]",
        "cmp [rdx + {epoch}], rax",
        "jne 9f",
        "mov rax, [rdx + {frame}]", // it has interrupted another detour,
        "or rax, [rdx + {calling}]", // or it is hit in a handler
        "jnz 9f",
        "lea rax, [rsp + 4*8 - {regs}]",
        "mov [rdx + {frame}], rax",
        "mov eax, [rsp + 5*8]",
        "shl rax, {site_scale}",
        "cmp dword ptr [rcx + rax + {sites} + {site_state}], {live}",
        "jne 8f",
        "mov eax, [rcx + rax + {sites} + {first}]",
        "dec eax",
        "cmp eax, {probe_count}",
        "jae 8f",
        "shl rax, {probe_scale}",
        "lea rcx, [rcx + rax + {probes}]",
        "cmp dword ptr [rcx + {state}], {live}",
        "jne 8f",
        "cmp dword ptr [rcx + {kind}], {counts}",
        "jne 8f",
        "mov eax, [rcx + {next}]",
        "or eax, [rcx + {flags}]",
        "jnz 8f",
        "mov eax, [rcx + {id}]",
        "cmp eax, {events}",
        "jae 8f",
        "mov rcx, [rdx + {cells}]",
        "test rcx, rcx",
        "jz 8f",
        "inc qword ptr [rcx + 8*rax]",
        "inc qword ptr [rdx + {entries}]",
        "mov qword ptr [rdx + {frame}], 0",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "add al, 127",
        "sahf",
        "pop rax",
        "ret {gap} + 8",
        ".balign 8",
        "7:",
        ".quad {golden}",
        "8:",
        "mov qword ptr [rdx + {frame}], 0",
        "9:",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "add al, 127",
        "sahf",
        "pop rax",
        // All others.
        "pushfq",
        "and dword ptr [rsp], {not_stepped}",
        isa::push_registers!(),
        "lea rax, [rsp + 20*8 + {gap}]",
        "mov [rsp + 4*8], rax",
        call_with_registers!("detoured"),
        "test al, al",
        "je 2f",
        set_flags!(),
        isa::pop_registers!(),
        "pop r15",
        "lea rsp, [rsp + 2*8]",
        "ret {gap} + 8",
        // With all flags.
        "5:",
        isa::pop_registers!(),
        "pop r15",
        "lea rsp, [rsp + 8]",
        "popfq",
        "ret {gap} + 8",
        "2:",
        leave_by_iret!(),
        home = sym start::HOME,
        identity = const offset_of!(Home, identity),
        pid = const offset_of!(Identity, pid),
        golden = const LANE_GOLDEN,
        lane_shift = const LANE_SHIFT,
        lane_scale = const (size_of::<Lane>() * LANE_WINDOW).trailing_zeros(),
        lanes = const offset_of!(Home, lanes),
        owner = const offset_of!(Lane, owner),
        home_epoch = const offset_of!(Home, epoch),
        epoch = const offset_of!(Lane, epoch),
        frame = const offset_of!(Lane, frame),
        calling = const offset_of!(Lane, calling),
        entries = const offset_of!(Lane, entries),
        cells = const offset_of!(Lane, cells),
        regs = const size_of::<Regs>(),
        site_scale = const size_of::<Site>().trailing_zeros(),
        sites = const offset_of!(Home, sites),
        site_state = const offset_of!(Site, state),
        first = const offset_of!(Site, first),
        live = const Site::ARMED,
        probe_count = const PROBES,
        probe_scale = const size_of::<Probe>().trailing_zeros(),
        probes = const offset_of!(Home, probes),
        state = const offset_of!(Probe, state),
        kind = const offset_of!(Probe, kind),
        counts = const Kind::Entry.code(),
        next = const offset_of!(Probe, next),
        flags = const offset_of!(Probe, flags),
        id = const offset_of!(Probe, id),
        events = const EVENTS,
        gap = const GAP,
        unwanted = const UNWANTED,
        other = const !ARITHMETIC,
        usual = const USUAL,
        not_stepped = const !TRAP_FLAG,
        detoured = sym detoured,
    )
}

const _: () = assert!(size_of::<Site>().is_power_of_two() && size_of::<Probe>().is_power_of_two());
const _: () = assert!(size_of::<Lane>().is_power_of_two() && Site::ARMED == Probe::REGISTERED);
const _: () = assert!(EVENTS <= crate::abi::modules::FIRST_ID as usize);

/// What the stub of a return probe's instance leads to, when a function has returned there: it has pushed the instance's
/// number, in the word that held the return address. Above it is the caller's stack, below it nothing.
///
/// It goes on by a jump, not by `ret`: the function's own return was the one that the processor has predicted.
///
/// # Safety
///
/// Only a stub may jump here.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn return_entry() {
    core::arch::naked_asm!(
        "lea rsp, [rsp - 8]",
        "pushfq",
        "and dword ptr [rsp], {not_stepped}",
        isa::push_registers!(),
        // What a detour has here is its return address.
        "lea rax, [rip + {this}]",
        "mov [rsp + 18*8], rax",
        "lea rax, [rsp + 20*8]",
        "mov [rsp + 4*8], rax",
        call_with_registers!("returned"),
        "test al, al",
        "je 2f",
        // Where to: below the caller's stack pointer, in the red zone, where no signal's handler puts anything.
        "mov rax, [rsp + 16*8]",
        "mov [rsp + 19*8], rax",
        set_flags!(),
        isa::pop_registers!(),
        "pop r15",
        "lea rsp, [rsp + 4*8]",
        "jmp [rsp - 8]",
        "5:",
        "2:",
        leave_by_iret!(),
        this = sym return_entry,
        unwanted = const UNWANTED,
        other = const !ARITHMETIC,
        usual = const USUAL,
        not_stepped = const !TRAP_FLAG,
        returned = sym returned,
    )
}
