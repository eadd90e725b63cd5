//! The agent: what the tool maps into a traced process.
//!
//! All that it does is [`host_process::trap`]; here is only what makes that a freestanding image: the entry point, the
//! few functions that the compiler calls by name, and a panic handler that cannot be reached. The image has no
//! undefined symbol, no thread-local storage and no relocation but relative ones; the tool's loader applies those.

#![no_std]

mod exports;

use core::arch::{asm, naked_asm};
use host_process::abi::Home;

/// Where the tool lets a stopped thread begin: `rdi` is the address of [`Home`], the stack is a fresh one. Ends in a
/// breakpoint, where the tool takes the thread back.
///
/// # Safety
///
/// As [`host_process::trap::start`]; only the tool jumps here.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn agent_entry(home: *const Home) -> ! {
    naked_asm!("xor ebp, ebp", "and rsp, -16", "cld", "call {start}", "int3", start = sym host_process::trap::start)
}

/// A `syscall` instruction that belongs to nobody else: the tool makes its remote calls here.
///
/// # Safety
///
/// Only the tool jumps here.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn agent_syscall() -> ! {
    naked_asm!("syscall", "int3")
}

/// Where a probe module's `init` or `exit` asks the tool, which holds the thread: the breakpoint stops it with a call's
/// number and arguments in registers, and it goes on with the answer in `rax`. Nobody comes here otherwise.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub extern "C" fn agent_hypercall(number: u64, a: u64, b: u64, c: u64, d: u64) -> u64 {
    naked_asm!("int3", "ret")
}

/// Where the tool lets a held thread run a module's `init` or `exit`: `rdi` is the function, the stack is a fresh one.
/// Ends in a breakpoint with the result in `rax`.
///
/// # Safety
///
/// Only the tool jumps here.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn agent_run(function: u64) -> ! {
    naked_asm!("xor ebp, ebp", "and rsp, -16", "cld", "call rdi", "int3")
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the process at once; nothing here panics, and if it did, going on would be worse.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Named by the compiler's tables; never called, because nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// # Safety
///
/// As C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise: both ranges are valid and do not overlap.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// As C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: copying upwards does not overwrite what is still to be read.
        return unsafe { memcpy(to, from, len) };
    }
    // SAFETY: the caller's promise; copying downwards from the last byte, with the direction flag cleared again.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") len => _,
            inout("rdi") to.wrapping_add(len).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(len).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// # Safety
///
/// As C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise: the range is valid.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// As C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for i in 0..len {
        // SAFETY: the caller's promise: both ranges are valid for `len` bytes.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

/// # Safety
///
/// As `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, len) }
}
