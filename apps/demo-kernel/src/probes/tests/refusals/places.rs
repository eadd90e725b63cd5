//! Places where there can be no probe.

use crate::probes::plain;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use host_bare::{Kernel, Next, Regs};
use isa::x86::gpr;

use super::{TARGET_BYTES, refusals_target, refused, refused_with, still_works, target};
use crate::arch::copy;
use crate::arch::trap::{self, Frame};
use crate::ksyms;
use crate::mm::alias;
use crate::probes::Demo;
use crate::probes::tests::{check, define, remove, same};
use crate::probes::with_control;

const ITSELF: &str = "is part of kprobes itself";
const NO_CODE: &str = "is not in the target's code";

/// Probes of each kind at an address are refused, and this is said.
fn refused_at(address: u64, why: &str) -> Result<(), String> {
    refused_with(&format!("p {address:#x}"), &[why])?;
    refused_with(&format!("r {address:#x}"), &[why])?;
    let attached = with_control(|c| plain::attach(c, "refusals_handler", address, |_| Next::Step))?;
    check(attached.is_err(), || format!("a handler was attached at {address:#x}"))?;
    let counted = with_control(|c| c.count_all("refusals_all", &[address]))?;
    same("refused by count_all", counted.len(), 1)?;
    check(counted[0].1.to_string().contains(why), || format!("count_all says: {}", counted[0].1))
}

/// Trap stubs and dispatch, the hit path, the guarded reads: every function of the section.
pub(super) fn kprobes_itself() -> Result<(), String> {
    for name in ["trap_breakpoint", "trap_debug", "trap_fault", "trap_stub_breakpoint"] {
        refused_with(&format!("p {name}"), &[ITSELF, "^"])?;
        refused_with(&format!("r {name}"), &[ITSELF, "^"])?;
    }
    let functions: Vec<ksyms::Symbol> =
        ksyms::all().iter().copied().filter(|s| s.is_function() && Demo::is_noprobe(s.address)).collect();
    check(functions.len() > 20, || format!("only {} functions of kprobes", functions.len()))?;
    let crates = ["hit::", "sync::", "host_bare::"];
    let hit_path = functions.iter().filter(|s| crates.iter().any(|c| s.name.contains(c))).count();
    check(hit_path > 5, || format!("only {hit_path} functions of the hit path"))?;
    for symbol in functions {
        refused_at(symbol.address, ITSELF)?;
        refused_with(&format!("p {:#x}", symbol.address + symbol.size - 1), &[ITSELF])?;
    }
    still_works()
}

static PLACE: AtomicU64 = AtomicU64::new(0);

global_asm!(
    ".pushsection .text.refusals_load, \"ax\"",
    ".globl refusals_load",
    ".type refusals_load, @function",
    "refusals_load: mov rax, [rdi]",
    "ret",
    ".size refusals_load, . - refusals_load",
    ".popsection",
);

unsafe extern "C" {
    fn refusals_load(address: u64) -> u64;
}

/// Where the processor really was is in its own part of the frame: in the slot.
pub(super) fn slot() -> Result<(), String> {
    fn hook(frame: &mut Frame) -> bool {
        PLACE.store(frame.rip, Relaxed);
        frame.regs.rip += 3;
        frame.vector == 14
    }
    define(&["p:refusals_slot refusals_load"])?;
    trap::set_fault_hook(hook);
    // SAFETY: the hook goes on behind the load, which faults.
    unsafe { refusals_load(0x10) };
    trap::clear_fault_hook();
    let slot = PLACE.load(Relaxed);
    check(slot != refusals_load as *const () as u64, || "no slot was seen".into())?;
    for offset in [0, 3, 64, 63] {
        refused_at(slot + offset, ITSELF)?;
    }
    remove(&["refusals_slot"])?;
    refused_at(slot, ITSELF)?;
    still_works()
}

/// The return address of a function whose return is probed.
pub(super) fn stub() -> Result<(), String> {
    fn handler(regs: &mut Regs) -> Next {
        PLACE.store(copy::read_u64(regs.gpr[gpr::RSP]).unwrap_or(0), Relaxed);
        Next::Step
    }
    define(&["r:refusals_return refusals_target"])?;
    with_control(|c| plain::attach(c, "refusals_inside", target() + 4, handler))?.map_err(|e| e.to_string())?;
    refusals_target(1);
    let stub = PLACE.load(Relaxed);
    check(!alias::text().contains(&stub), || format!("{stub:#x} is no stub"))?;
    for offset in [0, 1] {
        refused_at(stub + offset, ITSELF)?;
    }
    remove(&["refusals_return", "refusals_inside"])?;
    refused_at(stub, ITSELF)?;
    still_works()
}

/// A variable whose bytes are good instructions.
#[unsafe(no_mangle)]
static REFUSALS_DATA: [u8; 16] = [0x90; 16];

/// Nothing is read where nothing is: addresses that cannot be and addresses that are not mapped.
pub(super) fn no_code() -> Result<(), String> {
    let heap = alloc::boxed::Box::new(0x9090_9090_u64);
    let data = (&raw const REFUSALS_DATA) as u64;
    let on_stack = (&raw const heap) as u64;
    let addresses = [
        data,
        &raw const *heap as u64,
        on_stack,
        0,
        1,
        0x1000,
        1 << 63,
        0x7fff_ffff_ffff_ffff,
        u64::MAX,
        u64::MAX - 14,
        alias::text().start - 1,
        // The end may be a border where the last function's padding follows: only behind the page it is none.
        alias::text().end.next_multiple_of(4096),
        0xffff_8000_0000_0000,
        crate::mm::lazy::reserve(4096),
    ];
    for address in addresses {
        refused_at(address, NO_CODE)?;
    }
    still_works()
}

/// The instruction around is named: where it begins and where the next one does.
pub(super) fn middle() -> Result<(), String> {
    let boundaries = [0, 4, 10, 13, TARGET_BYTES];
    for offset in 0..TARGET_BYTES {
        let next = boundaries.partition_point(|&b| b <= offset);
        let [before, after] = [boundaries[next - 1], boundaries[next]];
        if before == offset {
            continue;
        }
        let address = format!("{:#x} is no instruction boundary", target() + offset);
        let around = format!(
            "inside the instruction at {:#x}; the next one begins at {:#x}",
            target() + before,
            target() + after
        );
        let caret = "\n    ^";
        refused_with(&format!("p refusals_target+{offset}"), &[&address, &around, caret, "first byte"])?;
        refused_with(&format!("p {:#x}", target() + offset), &[&address, &around])?;
    }
    // Where it is allowed it also works, with a probe on each side.
    define(&["p:refusals_a refusals_target", "p:refusals_b refusals_target+4", "p:refusals_c refusals_target+0xa"])?;
    refused_with("p refusals_target+5", &["inside the instruction"])?;
    same("result", refusals_target(1), 0x2222_2223)?;
    remove(&["refusals_a", "refusals_b", "refusals_c"])?;
    still_works()
}

pub(super) fn beyond() -> Result<(), String> {
    for offset in ["0xe", "0xf", "4096", "0xffffffffffffffff"] {
        let line = format!("p refusals_target+{offset}");
        let said = refused(&line)?;
        check(said.contains("beyond the end") || said.contains("Invalid probed address"), || said.clone())?;
        check(said.contains('^'), || said)?;
    }
    refused_with("p refusals_target+0xe", &["beyond the end of `refusals_target`, which has 0xe bytes"])?;
    still_works()
}

macro_rules! instructions {
    ($($name:ident: $code:literal, $why:literal;)*) => {
        global_asm!($(concat!(
            ".pushsection .text.refusals_", stringify!($name), ", \"ax\"\n",
            ".globl refusals_", stringify!($name), "\n",
            ".type refusals_", stringify!($name), ", @function\n",
            "refusals_", stringify!($name), ": xor eax, eax\n", $code, "\n ret\n",
            ".size refusals_", stringify!($name), ", . - refusals_", stringify!($name), "\n",
            ".popsection"
        ),)*
            ".pushsection .rodata.refusals_kept, \"a\"\n .balign 8\n .globl refusals_kept\n refusals_kept:",
            $(concat!(".quad refusals_", stringify!($name)),)*
            ".popsection"
        );

        /// Functions that nobody calls, whose second instruction (at +2) is refused, and by which rule.
        const INSTRUCTIONS: &[(&str, &str)] = &[$((concat!("refusals_", stringify!($name)), $why)),*];

        unsafe extern "C" {
            /// Their addresses, which keep them in the image.
            static refusals_kept: [u64; INSTRUCTIONS.len()];
        }
    };
}

instructions! {
    int3: "int3", "a breakpoint that is not ours";
    int1: ".byte 0xf1", "breakpoint already";
    int_n: "int 0x80", "a software interrupt";
    ud2: "ud2", "always raises #UD";
    iretq: "iretq", "change of privilege level";
    sysretq: "sysretq", "change of privilege level";
    syscall: "syscall", "change of privilege level";
    sysexit: "sysexit", "change of privilege level";
    vmcall: "vmcall", "virtual machine";
    far_call: ".byte 0xff, 0x1f", "far call"; // call far [rdi]
    rsm: "rsm", "shows its own address";
    short_call: ".byte 0x66, 0xe8, 0, 0, 0, 0", "prefix 66";
}

/// Each by its own rule, with address and bytes.
pub(super) fn instructions() -> Result<(), String> {
    // SAFETY: the table above, which is never written.
    let functions = unsafe { refusals_kept };
    for (address, (name, why)) in functions.into_iter().zip(INSTRUCTIONS) {
        let place = format!("{:#x}", address + 2);
        refused_with(&format!("p {name}+2"), &[why, &place])?;
        refused_with(&format!("p {place}"), &[why, &place])?;
    }
    refused_with("p refusals_iretq+2", &["(48 cf", "^"])?;
    // The one before is an instruction like any other.
    for (name, _) in INSTRUCTIONS {
        define(&[&format!("p:refusals_before {name}")])?;
        remove(&["refusals_before"])?;
    }
    still_works()
}

pub(super) fn returns() -> Result<(), String> {
    refused_with("r refusals_target+4", &["Retprobe address must be an function entry", "\n    ^"])?;
    refused_with("p refusals_target+4%return", &["Retprobe address must be an function entry"])?;
    let said = refused(&format!("r {:#x}", target() + 4))?;
    check(said.contains("is not the first instruction of a function"), || said.clone())?;
    check(said.contains(&format!("({:#x} is)", target())), || said)?;
    refused_with(&format!("r {:#x}", target() + 5), &["inside the instruction"])?;
    let attached = with_control(|c| c.count_returns("refusals_r", target() + 4, 4))?;
    check(attached.is_err(), || "count_returns behind the entry".into())?;
    refused_with("r0 refusals_target", &["Invalid maxactive"])?;
    refused_with("r4097 refusals_target", &["Maxactive is too big"])?;
    refused_with("p10 refusals_target", &["only for function exit"])?;
    still_works()
}

/// Writes a byte of text, and gives what was there.
fn poke(address: u64, byte: u8) -> Result<u8, String> {
    let mut old = [0];
    check(copy::read(address, &mut old), || format!("{address:#x} cannot be read"))?;
    alias::write(address, &[byte]).map_err(|e| e.to_string())?;
    Demo::sync_processors();
    Ok(old[0])
}

/// At an address that was never probed, at one that was, and at one where a probe is.
pub(super) fn foreign_breakpoint() -> Result<(), String> {
    let fresh = refusals_fresh as *const () as u64;
    for address in [fresh, target()] {
        let old = poke(address, 0xcc)?;
        let said = refused_at(address, "a breakpoint that is not ours");
        let now = poke(address, old)?;
        said?;
        same("the breakpoint that stands", now, 0xcc)?;
    }
    // Ours stands there: a second probe joins it, and nobody else's is to be seen.
    define(&["p:refusals_first refusals_target"])?;
    define(&["p:refusals_second refusals_target"])?;
    remove(&["refusals_first", "refusals_second"])?;
    still_works()
}

global_asm!(
    ".macro refusals_hidden name",
    ".pushsection .text.\\name, \"ax\"",
    ".globl \\name",
    ".type \\name, @function",
    "\\name: nop",
    "mov eax, 0x90909090",
    "ret",
    ".size \\name, . - \\name",
    ".popsection",
    ".endm",
    "refusals_hidden refusals_fresh",
    "refusals_hidden refusals_hides",
);

unsafe extern "C" {
    safe fn refusals_fresh() -> u64;
    safe fn refusals_hides() -> u64;
}

/// A debugger's breakpoint hides the instruction that it stands on: what follows must not be taken for boundaries.
pub(super) fn foreign_before() -> Result<(), String> {
    let function = refusals_hides as *const () as u64;
    let old = poke(function + 1, 0xcc)?;
    let inside = with_control(|c| c.line(&format!("p:refusals_inside {:#x}", function + 2)))?;
    if inside.is_ok() {
        remove(&["refusals_inside"])?;
    }
    poke(function + 1, old)?;
    check(inside.is_err(), || {
        "a probe was planted in an instruction whose first byte is a debugger's breakpoint".into()
    })?;
    // Seen as it is, the function takes probes.
    refused_with(&format!("p {:#x}", function + 2), &["inside the instruction"])?;
    define(&["p:refusals_hides refusals_hides+1"])?;
    same("result", refusals_hides() as u32, 0x9090_9090)?;
    remove(&["refusals_hides"])?;
    still_works()
}
