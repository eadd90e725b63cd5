//! What probes do to memory: to its protection, and to the return addresses on stacks.

use super::{Test, check, define, remove, same};
use crate::ksyms;
use crate::mm::{self, alias};
use crate::probes::Demo;
use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::true_return_address;

pub(super) const TESTS: &[Test] = &[
    Test { name: "no page is writable and executable, with probes or without", run: protection },
    Test { name: "the oracle sees a writable alias of text", run: oracle },
    Test { name: "a stack walk sees the true callers", run: callers },
];

fn audit(what: &str) -> Result<(), String> {
    let found = mm::audit();
    same(&format!("writable and executable, {what}"), found.writable_and_executable, 0)?;
    same(&format!("writable aliases of text, {what}"), found.writable_aliases_of_executable, 0)
}

fn protection() -> Result<(), String> {
    audit("before")?;
    define(&["p:memory_p memory_outer", "r:memory_r memory_outer $retval"])?;
    audit("with probes")?;
    same("result", memory_outer(1), 4)?;
    audit("after a hit")?;
    remove(&["memory_p", "memory_r"])?;
    audit("after their removal")
}

/// The negative control: while text is written, it has an alias.
fn oracle() -> Result<(), String> {
    let found = alias::during_write(alias::text().start, || mm::audit().writable_aliases_of_executable);
    same("writable aliases during a write", found.map_err(|e| e.to_string())?, 1)
}

/// Return addresses, as `memory_inner` has found them: its own, and its caller's.
static SEEN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn memory_inner(a: u64) -> u64 {
    let mut frame: u64;
    // SAFETY: reads a register; the kernel is built with frame pointers.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    for seen in &SEEN {
        seen.store(crate::arch::copy::read_u64(frame + 8).unwrap_or(0), Ordering::Relaxed);
        frame = crate::arch::copy::read_u64(frame).unwrap_or(0);
    }
    a + 1
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn memory_outer(a: u64) -> u64 {
    core::hint::black_box(memory_inner(core::hint::black_box(a))) + 2
}

/// The function that an address is in.
fn name(address: u64) -> Option<&'static str> {
    ksyms::at(address).map(|(symbol, _)| symbol.name)
}

fn callers() -> Result<(), String> {
    let seen = || SEEN.each_ref().map(|s| s.load(Ordering::Relaxed));
    same("result", memory_outer(1), 4)?;
    let unprobed = seen().map(name);
    same("the caller", unprobed[0], Some("memory_outer"))?;
    define(&["r:memory_inner memory_inner", "r:memory_outer memory_outer"])?;
    same("result", memory_outer(1), 4)?;
    check(seen().iter().all(|&address| name(address).is_none()), || "there are no stubs on the stack".into())?;
    same("the true callers", seen().map(|address| name(true_return_address::<Demo>(address))), unprobed)?;
    remove(&["memory_inner", "memory_outer"])
}
