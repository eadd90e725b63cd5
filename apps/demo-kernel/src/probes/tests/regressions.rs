//! What was wrong once: one test for each error that a review has found.
//!
//! The probed function is `nop`, `lea rax, [rdi + 1]`, `ret`: the first is emulated where that is asked for, the second
//! is copied or emulated. What it gives without a probe is known, so each test says what it must give with one.

use super::processors::{
    STEPPINGS, address, attach, count, count_returns, counted, counted_returns, entry, remove_all, under_fire,
};
use super::{Test, check, counts, define, remove, same, stepping};
use crate::arch::{copy, cpu, ipi};
use crate::mm::alias;
use crate::probes::fire::{enable, register, unregister};
use crate::probes::hooks::CHAIN;
use crate::probes::plain::Plain;
use crate::probes::with_control;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use host_bare::{Counts, Die, Error, Kprobe, Next, Notifier, Regs, Stepping, Verdict};
use isa::x86::{BREAKPOINT, JUMP, gpr};

pub(super) const TESTS: &[Test] = &[
    Test { name: "a handler that skips a function leaves the stack alone beside a return probe", run: skipped },
    Test { name: "probes behind a handler that redirects are not run", run: behind_redirection },
    Test { name: "a handler that does not redirect cannot move the instruction", run: not_moved },
    Test { name: "a foreign breakpoint where a probe once was comes unchanged", run: foreign_breakpoint },
    Test { name: "text that has changed since its probe was removed is not executed stale", run: changed_text },
    Test { name: "a foreign write over a breakpoint leaves the place probeable", run: foreign_write },
    Test { name: "a foreign breakpoint inside a former jump comes unchanged", run: former_jump },
    Test { name: "a probe inside a former jump counts", run: inside_former_jump },
    Test { name: "a probe that is off changes nothing inside a jump", run: off_inside_jump },
    Test { name: "a stepping program sees no stub of a return probe", run: no_stub },
    Test { name: "swapgs is probed under every stepping", run: swapgs },
    Test { name: "an event named twice is removed once", run: removed_twice },
    Test { name: "a line's sentence is about the event that it has defined", run: sentence },
    Test { name: "a full address is refused alone", run: full_alone },
    Test { name: "draining ends although it is recorded itself", run: drains_itself },
    Test { name: "draining ends while others record", run: drains_others },
];

global_asm!(
    ".pushsection .text.regressions_target, \"ax\"",
    ".globl regressions_target",
    ".type regressions_target, @function",
    "regressions_target:",
    "nop",                // 90
    "lea rax, [rdi + 1]", // 48 8d 47 01
    "ret",
    ".size regressions_target, . - regressions_target",
    ".popsection",
    // Keeps a word above the return address of its callee, and gives it as the second half of the result.
    ".pushsection .text.regressions_caller, \"ax\"",
    ".globl regressions_caller",
    ".type regressions_caller, @function",
    "regressions_caller:",
    "push rdi",
    "call regressions_target",
    "pop rdx",
    "ret",
    ".size regressions_caller, . - regressions_caller",
    ".popsection",
    // Steps itself through the call.
    ".pushsection .text.regressions_stepping, \"ax\"",
    ".globl regressions_stepping",
    ".type regressions_stepping, @function",
    "regressions_stepping:",
    "pushfq",
    "pop rax",
    "mov rdx, rax",
    "or rdx, 256",
    "push rax",
    "push rdx",
    "popfq", // the flag takes effect behind the next instruction
    "call regressions_target",
    "nop",
    "popfq", // turns it off
    "nop",
    "ret",
    ".size regressions_stepping, . - regressions_stepping",
    ".popsection",
    // No interrupt may come while the bases are exchanged.
    ".pushsection .text.regressions_swapgs, \"ax\"",
    ".globl regressions_swapgs",
    ".type regressions_swapgs, @function",
    "regressions_swapgs:",
    "pushfq", // 9c
    "cli",    // fa
    "swapgs",
    "lea rax, [rdi + 1]",
    "swapgs",
    "popfq",
    "ret",
    ".size regressions_swapgs, . - regressions_swapgs",
    ".popsection",
);

unsafe extern "C" {
    safe fn regressions_target(x: u64) -> u64;
    safe fn regressions_caller(x: u64) -> Pair;
    safe fn regressions_stepping(x: u64) -> u64;
    safe fn regressions_swapgs(x: u64) -> u64;
}

/// What [`regressions_caller`] gives: its callee's result, and its argument as it has found it on its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Pair(u64, u64);

/// The `nop`, and the `lea` behind it.
fn places() -> [u64; 2] {
    [entry(regressions_target), entry(regressions_target) + 1]
}

/// Does `f` under every stepping; no probe is left.
fn under_all(f: impl Fn() -> Result<(), String>) -> Result<(), String> {
    STEPPINGS
        .into_iter()
        .try_for_each(|how| stepping(how, || f().and_then(|()| remove_all())).map_err(|why| format!("{how:?}: {why}")))
}

/// Writes text as another part of the kernel would, which knows nothing of probes.
fn poke(address: u64, byte: u8) -> Result<(), String> {
    alias::write(address, &[byte]).map_err(|error| error.to_string())?;
    ipi::on_all(cpu::serialize);
    Ok(())
}

/// Does `f` while `new` stands at `address`; puts `original` there afterwards.
fn with_byte<R>(address: u64, original: u8, new: u8, f: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    poke(address, new)?;
    let result = f();
    poke(address, original)?;
    result
}

/// Breakpoints and steps that came to [`NOTES`], and where.
static NOTED: AtomicU64 = AtomicU64::new(0);
static NOTED_AT: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
/// Takes the traps that are not kprobes'.
static NOTES: Notifier = Notifier::new(0, note);

fn note(die: Die, regs: &mut Regs) -> Verdict {
    if matches!(die, Die::Fault(..)) {
        return Verdict::Pass;
    }
    let number = NOTED.fetch_add(1, Relaxed) as usize;
    if let Some(at) = NOTED_AT.get(number) {
        at.store(regs.rip, Relaxed);
    }
    Verdict::Stop
}

/// Does `f` with a notifier in the chain.
fn with<R>(notifier: &'static Notifier, f: impl FnOnce() -> R) -> R {
    CHAIN.register(notifier);
    let result = f();
    CHAIN.unregister(notifier);
    result
}

/// Does `f`; gives where foreign traps came meanwhile.
fn noting<R>(f: impl FnOnce() -> R) -> (R, Vec<u64>) {
    NOTED.store(0, Relaxed);
    let result = with(&NOTES, f);
    (result, NOTED_AT.iter().take(NOTED.load(Relaxed) as usize).map(|at| at.load(Relaxed)).collect())
}

/// Returns 42 at once in place of the function (Linux: `override_function_with_return`).
fn skip(regs: &mut Regs) -> Next {
    let stack = regs.gpr[gpr::RSP];
    // SAFETY: the probe is at the beginning of a function, where the stack pointer points at the return address.
    regs.rip = unsafe { *(stack as *const u64) };
    regs.gpr[gpr::RSP] = stack + 8;
    regs.gpr[gpr::RAX] = 42;
    Next::Redirected
}

/// The handler takes the return address away that the return probe was about to exchange: the exchange hit the caller's
/// word behind it. A return probe that was there first has seen the call, and sees the return; a later one sees nothing.
fn skipped() -> Result<(), String> {
    let place = entry(regressions_target);
    under_all(|| {
        same("without probes", regressions_caller(5), Pair(6, 5))?;
        count_returns("before", place, 4)?;
        attach("skip", place, skip)?;
        count_returns("behind", place, 4)?;
        same("the caller's result and stack", regressions_caller(5), Pair(42, 5))?;
        counted_returns("before", 1)?;
        counted("skip", 1)?;
        counted("behind", 0)?;
        remove(&["before"])?;
        same("the caller's result and stack, skipped first", regressions_caller(6), Pair(42, 6))?;
        counted("skip", 2)?;
        counted("behind", 0)?;
        remove(&["skip"])?;
        same("after the handler's removal", regressions_caller(7), Pair(8, 7))?;
        counted_returns("behind", 1)
    })
}

/// Goes on behind the `nop`.
fn passes_nop(regs: &mut Regs) -> Next {
    regs.rip += 1;
    Next::Redirected
}

/// A probe behind it recorded the address that the handler had chosen (Linux: `aggr_pre_handler` stops there).
fn behind_redirection() -> Result<(), String> {
    let place = entry(regressions_target);
    under_all(|| {
        define(&["p:before regressions_target ip=%ip"])?;
        attach("moves", place, passes_nop)?;
        define(&["p:behind regressions_target ip=%ip"])?;
        count("silent", place)?;
        same("the result", regressions_target(1), 2)?;
        for (name, hits) in [("before", 1), ("moves", 1), ("behind", 0), ("silent", 0)] {
            counted(name, hits)?;
        }
        let records = with_control(|control| control.records())?;
        let told: Vec<_> = records.iter().map(|record| (record.event.as_str(), record.header.address)).collect();
        same("records", told, vec![("before", place)])
    })
}

/// Far away: to go on there, or to emulate with it, would be a fault.
const FAR: u64 = 0x1000_0000_0000;

fn moves_and_steps(regs: &mut Regs) -> Next {
    regs.rip = regs.rip.wrapping_add(FAR);
    Next::Step
}

fn moves_and_faults(regs: &mut Regs) -> Next {
    regs.rip = regs.rip.wrapping_add(FAR);
    // SAFETY: faults, which ends this handler.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

/// An emulated instruction goes on from the instruction pointer, which the handler had left elsewhere.
fn not_moved() -> Result<(), String> {
    let handlers: [(Plain, u64); 2] = [(moves_and_steps, 0), (moves_and_faults, 1)];
    under_all(|| {
        for (place, (handler, faults)) in places().into_iter().flat_map(|place| handlers.map(|h| (place, h))) {
            attach("moves", place, handler)?;
            count("behind", place)?;
            same("the result", regressions_target(1), 2)?;
            same("moves", counts("moves")?, Counts { hits: 1, faults, ..Counts::default() })?;
            counted("behind", 1)?;
            remove_all()?;
        }
        Ok(())
    })
}

/// The site stays known when its probe is removed, and took the trap. The control is the same before any probe.
fn foreign_breakpoint() -> Result<(), String> {
    const NOP: u8 = 0x90;
    let place = entry(regressions_target);
    let run = || with_byte(place, NOP, BREAKPOINT, || Ok(noting(|| regressions_target(1))));
    same("before any probe", run()?, (2, vec![place + 1]))?;
    under_all(|| {
        count("once", place)?;
        same("the result", regressions_target(1), 2)?;
        counted("once", 1)?;
        remove(&["once"])?;
        same("where a probe once was", run()?, (2, vec![place + 1]))
    })
}

/// The jump over `nop` and `lea` had a breakpoint of its own at the `lea`. When it has gone, one there is its owner's.
fn former_jump() -> Result<(), String> {
    const REX: u8 = 0x48;
    let [nop, lea] = places();
    let run = || with_byte(lea, REX, BREAKPOINT, || Ok(noting(|| regressions_target(1)).1));
    stepping(Stepping::Jump, || {
        count("jump", nop)?;
        same("the result", regressions_target(1), 2)?;
        remove(&["jump"])?;
        same("traps", run()?, vec![lea + 1])
    })
}

/// The table's entry for the `lea` has been the jump's; the site of the `nop` is another one since.
fn inside_former_jump() -> Result<(), String> {
    let [nop, lea] = places();
    let once = |how, name: &str, place| {
        stepping(how, || {
            count(name, place)?;
            same("the result", regressions_target(1), 2)?;
            counted(name, 1)?;
            remove(&[name])
        })
    };
    once(Stepping::Best, "lea", lea)?;
    once(Stepping::Jump, "jump", nop)?;
    once(Stepping::Best, "nop", nop)?;
    once(Stepping::Best, "lea again", lea)
}

/// A probe is registered, switched off, inside a jump that stands: who comes to the `lea` by a branch goes on in the
/// copy. Switched on, it counts, and the other one becomes a breakpoint.
fn off_inside_jump() -> Result<(), String> {
    let [nop, lea] = places();
    // SAFETY: the `lea` and the `ret` behind it are a function like the whole.
    let second = unsafe { core::mem::transmute::<u64, extern "C" fn(u64) -> u64>(lea) };
    stepping(Stepping::Best, || count("lea", lea).and_then(|()| remove(&["lea"])))?;
    stepping(Stepping::Jump, || {
        count("jump", nop)?;
        let off = register(Kprobe::address(lea).disabled())?;
        same("from the lea", second(1), 2)?;
        same("the result", regressions_target(1), 2)?;
        counted("jump", 1)?;
        enable(&off, true)?;
        same("from the lea", second(1), 2)?;
        same("the result", regressions_target(1), 2)?;
        counted("jump", 2)?;
        same("hits of the one inside", unregister(off)?.hits, 2)?;
        same("the result", regressions_target(1), 2)?;
        remove(&["jump"])
    })
}

/// Takes a breakpoint at the `lea`, and does what it says now: adds 7.
fn emulate(die: Die, regs: &mut Regs) -> Verdict {
    if die != Die::Breakpoint {
        return Verdict::Pass;
    }
    regs.gpr[gpr::RAX] = regs.gpr[gpr::RDI] + 7;
    regs.rip += 3;
    Verdict::Stop
}

/// The slot of a removed probe keeps what the text was once. The kernel changes the `lea`, and then: calls it; puts a
/// breakpoint there, which it answers itself; has it probed again.
fn changed_text() -> Result<(), String> {
    static EMULATES: Notifier = Notifier::new(0, emulate);
    const REX: u8 = 0x48;
    let [_, lea] = places();
    under_all(|| {
        count("once", lea)?;
        same("the result", regressions_target(1), 2)?;
        remove(&["once"])?;
        with_byte(lea + 3, 1, 7, || {
            same("called", regressions_target(1), 8)?;
            let answered = with_byte(lea, REX, BREAKPOINT, || Ok(with(&EMULATES, || regressions_target(1))));
            same("with a breakpoint", answered?, 8)?;
            count("again", lea)?;
            same("probed again", regressions_target(1), 8)?;
            counted("again", 1)?;
            remove(&["again"])
        })
    })
}

/// Somebody writes `clc` over the breakpoint on the `nop`. It is his text from then on: removal leaves it, and it can be
/// probed as any other.
fn foreign_write() -> Result<(), String> {
    const NOP: u8 = 0x90;
    const CLC: u8 = 0xf8;
    let place = entry(regressions_target);
    let byte = || {
        let mut byte = [0];
        copy::read(place, &mut byte);
        byte[0]
    };
    // A breakpoint, or a jump.
    let is_ours = |byte| byte == BREAKPOINT || byte == JUMP;
    under_all(|| {
        count("first", place)?;
        same("planted", is_ours(byte()), true)?;
        with_byte(place, NOP, CLC, || {
            remove(&["first"])?;
            same("after removal", byte(), CLC)?;
            count("second", place)?;
            same("planted again", is_ours(byte()), true)?;
            same("the result", regressions_target(1), 2)?;
            counted("second", 1)?;
            remove(&["second"])?;
            same("after the second removal", byte(), CLC)
        })
    })
}

/// The step behind `ret` comes at the stub, where the program never was. The oracle is the same program without a probe.
/// (The steps of the instructions that trap may be missing, at the `nop` and at the stub: see the notifiers' tests.)
fn no_stub() -> Result<(), String> {
    let [place, behind] = places();
    let steps = || {
        let (result, seen) = noting(|| regressions_stepping(1));
        same("the result", result, 2).map(|()| seen)
    };
    let mut unprobed = steps()?;
    let control = unprobed.len() == 6 && unprobed.starts_with(&[place, behind, behind + 4]);
    check(control, || format!("without a probe: {unprobed:x?}"))?;
    let missing = [behind, unprobed[3]];
    unprobed.retain(|at| !missing.contains(at));
    under_all(|| {
        count_returns("returns", place, 4)?;
        let mut seen = steps()?;
        seen.retain(|at| !missing.contains(at));
        check(seen == unprobed, || format!("steps: {seen:x?}, should be {unprobed:x?}"))?;
        counted_returns("returns", 1)
    })
}

/// A trap behind it would come with the other base: it is never stepped.
fn swapgs() -> Result<(), String> {
    let place = entry(regressions_swapgs) + 2;
    same("without a probe", regressions_swapgs(1), 2)?;
    under_all(|| {
        count("swapgs", place)?;
        for x in 0..20 {
            same("the result", regressions_swapgs(x), x + 1)?;
        }
        counted("swapgs", 20)
    })
}

/// The second removal failed when the first was done already: all or none.
fn removed_twice() -> Result<(), String> {
    let [first, second] = places();
    let remove = |names: &[&str]| with_control(|control| control.remove_events(names));
    count("first", first)?;
    count("second", second)?;
    let said = remove(&["first", "nothing"])?;
    check(matches!(&said, Err(Error::NoEvent(name)) if name == "nothing"), || format!("{said:?}"))?;
    same("left", with_control(|control| control.list().count())?, 2)?;
    remove(&["first", "second", "first"])?.map_err(|error| error.to_string())?;
    same("left", with_control(|control| control.list().count())?, 0)?;
    let said = remove(&["first"])?;
    check(matches!(said, Err(Error::NoEvent(_))), || format!("{said:?}"))?;
    remove_all()
}

/// Numbers are given again, the lower ones first, and one that is removed keeps its number until records are read: the
/// latest number of a name need not be the event that was defined last.
fn sentence() -> Result<(), String> {
    let line = |line: &str| with_control(|control| control.line(line))?.map_err(|error| error.to_string());
    remove_all()?;
    line("p:lower regressions_target")?;
    line("p:higher regressions_target")?;
    same("removed", line("-:lower")?, "removed lower".into())?;
    with_control(|control| control.records())?;
    line("-:higher")?;
    let said = line("p:higher regressions_target+1")?;
    let [_, place] = places();
    let wanted = format!("kprobes/higher at regressions_target+0x1/0x6 ({place:#x}): ");
    check(said.starts_with(&wanted) && said.len() > wanted.len(), || format!("{said:?}, should be {wanted:?}…"))?;
    remove_all()
}

/// All addresses of the call were refused for the one.
fn full_alone() -> Result<(), String> {
    const CHAIN: usize = 256;
    let [full, free] = places();
    let count_all = |name: &str, places: &[u64]| with_control(|control| control.count_all(name, places));
    same("refused", count_all("many", &[full; CHAIN])?.len(), 0)?;
    let refused = count_all("more", &[full, free, full])?;
    let said: Vec<_> = refused.iter().map(|&(address, ref error)| (address, error.to_string())).collect();
    let room = |why: &String| why.contains("probes at one address");
    check(said.len() == 2 && said.iter().all(|(at, why)| *at == full && room(why)), || format!("{said:x?}"))?;
    same("planted", with_control(|control| control.list().count())?, CHAIN + 1)?;
    same("the result", regressions_target(1), 2)?;
    counted(&format!("more_{free:x}"), 1)?;
    remove_all()
}

/// Reading records allocates, and each allocation is recorded. That it is so is seen by what the drain has left; so the
/// drain ends because it takes no more than there was. (It hangs otherwise, with the lock of control.)
fn drains_itself() -> Result<(), String> {
    address("allocate_first_fit")?;
    remove_all()?;
    define(&["p:allocations allocate_first_fit"])?;
    for number in 0..100 {
        drop(core::hint::black_box(vec![0_u8; 100 + number]));
    }
    let first = with_control(|control| control.records())?.len();
    let second = with_control(|control| control.records())?.len();
    remove(&["allocations"])?;
    with_control(|control| control.records())?;
    check(first >= 100, || format!("only {first} allocations were recorded"))?;
    check(second > 0, || "the drain recorded nothing".into())
}

/// Every hit is read once, or counted as lost. On one processor the others' work is done in turns.
fn drains_others() -> Result<(), String> {
    define(&["p:drained regressions_target x=%di"])?;
    let work = |_| (0..50).try_for_each(|x| same("the result", regressions_target(x), x + 1));
    let drain = || (0..10).try_fold(0, |sum, _| Ok(sum + with_control(|control| control.records())?.len()));
    let read = under_fire(work, drain)?;
    let Counts { hits, lost, missed, .. } = counts("drained")?;
    let rest = with_control(|control| control.records())?.len();
    same("missed", missed, 0)?;
    check(hits >= 50, || format!("only {hits} hits"))?;
    same("read and lost", (read + rest) as u64 + lost, hits)?;
    remove_all()
}
