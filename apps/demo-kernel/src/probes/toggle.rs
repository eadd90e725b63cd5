//! `toggle`: jumps come and go while all processors run through them.
//!
//! As `fire`, with probes that are placed by jumps, in functions in which nothing else is in the way: one whose first
//! instruction is as long as a jump, one in which the jump displaces several instructions, and one in which it lies
//! across the border of two cache lines besides. A processor may be anywhere in them, also interrupted between the
//! displaced instructions, when the jump comes or goes. A probe behind it stays and counts the calls.

use super::fire::{self, enable, register, unregister};
use super::with_control;
use crate::arch::cpu;
use crate::println;
use crate::probes::tests::{check, same, stepping, under_all_fire};
use crate::shell::Command;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::{Counts, Handler, Hit, Kprobe, Next, Stepping};

/// The command.
pub(super) const COMMAND: Command =
    Command { name: "toggle", usage: "[COUNT]", help: "jumps come and go under fire from all processors", run };

/// How often, if nothing is said.
const CYCLES: u64 = 1000;

// Each returns its argument + 7, and ends in `ret`, where the probe is that stays.
core::arch::global_asm!(
    ".pushsection .text.toggle_targets, \"ax\"",
    ".balign 64",
    ".globl toggle_long",
    ".type toggle_long, @function",
    "toggle_long: .byte 0x48, 0x8d, 0x87, 7, 0, 0, 0", // lea rax, [rdi + 7], with a displacement of four bytes
    "ret",
    ".size toggle_long, . - toggle_long",
    ".balign 64",
    ".globl toggle_several",
    ".type toggle_several, @function",
    "toggle_several: push rbx",
    "mov rbx, rdi",
    "lea rax, [rbx + 7]",
    "pop rbx",
    "ret",
    ".size toggle_several, . - toggle_several",
    ".balign 64",
    ".skip 62",
    ".globl toggle_across",
    ".type toggle_across, @function",
    "toggle_across: push rbx",
    "mov rbx, rdi",
    "lea rax, [rbx + 7]",
    "pop rbx",
    "ret",
    ".size toggle_across, . - toggle_across",
    ".popsection",
);

unsafe extern "C" {
    safe fn toggle_long(x: u64) -> u64;
    safe fn toggle_several(x: u64) -> u64;
    safe fn toggle_across(x: u64) -> u64;
}

/// A function, and where its `ret` is.
struct Target {
    name: &'static str,
    function: extern "C" fn(u64) -> u64,
    ret: u64,
}

const TARGETS: [Target; 3] = [
    Target { name: "one instruction", function: toggle_long, ret: 7 },
    Target { name: "several", function: toggle_several, ret: 9 },
    Target { name: "across cache lines", function: toggle_across, ret: 9 },
];

/// How often the handler ran.
static RAN: AtomicU64 = AtomicU64::new(0);

extern "C" fn pre(_: &mut Hit<'_>) -> Next {
    RAN.fetch_add(1, Ordering::Relaxed);
    Next::Step
}

fn run(argument: &str) -> Result<(), String> {
    toggle(fire::cycles(argument, CYCLES)?)
}

/// Does it so often, in turns in each function.
pub(super) fn toggle(cycles: u64) -> Result<(), String> {
    RAN.store(0, Ordering::Relaxed);
    let calls = AtomicU64::new(0);
    let stay = TARGETS.iter().map(|t| register(Kprobe::address(t.function as usize as u64 + t.ret)));
    let stay = stay.collect::<Result<Vec<_>, _>>()?;
    let shoot = |_| {
        for x in 0..50 {
            TARGETS.iter().try_for_each(|target| same(target.name, (target.function)(x), x + 7))?;
        }
        calls.fetch_add(50, Ordering::Relaxed);
        Ok(())
    };
    let lives = stepping(Stepping::Jump, || under_all_fire(shoot, || (0..cycles).try_fold([0; 2], one_life)));
    let calls = calls.load(Ordering::Relaxed);
    for (probe, target) in stay.into_iter().zip(&TARGETS) {
        let Counts { hits, missed, .. } = unregister(probe)?;
        same(&format!("hits behind the jump over {}, and misses", target.name), (hits, missed), (calls, 0))?;
    }
    let [hits, switched] = lives?;
    same("runs of the pre-handler", RAN.load(Ordering::Relaxed), hits)?;
    check(cycles == 0 || calls > 0, || "nobody has called".to_string())?;
    println!(
        "toggle: {cycles} cycles on {} processors: {} calls, {hits} hits by jumps that came and went, {switched} switched off between",
        cpu::count(),
        calls * TARGETS.len() as u64
    );
    Ok(())
}

/// A jump comes, is taken out and comes back, and goes for good; sums of its hits, and of the cycles with the former.
fn one_life([hits, switched]: [u64; 2], cycle: u64) -> Result<[u64; 2], String> {
    let target = &TARGETS[cycle as usize % TARGETS.len()];
    // SAFETY: it adds to an atomic.
    let pre = unsafe { Handler::new(pre as _) };
    let probe = register(Kprobe::address(target.function as usize as u64).pre(pre))?;
    let is_jump = with_control(|control| control.list().any(|listed| listed.placement == "jump"))?;
    check(is_jump, || format!("no jump over {}", target.name))?;
    // Every fourth, in each of the functions.
    let switch = cycle / TARGETS.len() as u64 % 4 == 3;
    if switch {
        enable(&probe, false)?;
        enable(&probe, true)?;
    }
    let counts = unregister(probe)?;
    same("misses", counts.missed, 0)?;
    Ok([hits + counts.hits, switched + u64::from(switch)])
}
