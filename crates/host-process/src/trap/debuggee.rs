//! A process that is about to be traced by the program itself: a debugger, under our probes, starts its target.
//!
//! Between `ptrace(PTRACE_TRACEME)` and `execve` the child runs code of its parent's, with our breakpoints in it, and
//! each of them would stop it for a tracer that knows nothing of them. A forked child has its own copy of the text, so
//! the breakpoints are taken out of it first. A `vfork` child has not: its call is made just before it executes the
//! program, which nobody can tell apart, since its parent sleeps until then.

use super::Memory;
use cpu::{nr, syscall};

use hit::Site;
use sync::primitive::Ordering;

const PTRACE_TRACEME: u64 = 0;
const O_RDWR_CLOEXEC: u64 = 0o2_000_002;
const KCMP_VM: u64 = 1;

/// Whether this process shares its memory with its parent, as a `vfork` child does.
pub(crate) fn shares_memory_with_parent() -> bool {
    // SAFETY: these calls have no memory argument.
    unsafe {
        let (own, parent) = (syscall(nr::GETPID, [0; 6]).cast_unsigned(), syscall(nr::GETPPID, [0; 6]).cast_unsigned());
        syscall(nr::KCMP, [own, parent, KCMP_VM, 0, 0, 0]) == 0
    }
}

/// Thread `tid` asks to be traced by its parent. True: the call is answered with success, and made later.
pub(crate) fn asks(memory: Memory, tid: u64) -> bool {
    if shares_memory_with_parent() {
        memory.home.asked.store(tid, Ordering::Relaxed);
        return true;
    }
    restore_text(memory);
    false
}

/// Thread `tid` is about to execute a program. True when it had asked to be traced: it is from now on, by its parent
/// and not by us.
pub(crate) fn executes(memory: Memory, tid: u64) -> bool {
    let asked = memory.home.asked.compare_exchange(tid, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    if asked {
        // SAFETY: the request has no memory argument.
        unsafe { syscall(nr::PTRACE, [PTRACE_TRACEME, 0, 0, 0, 0, 0]) };
    }
    asked
}

/// Takes every breakpoint, and every jump, out of this process's own copy of the text. No other thread runs in it.
fn restore_text(memory: Memory) {
    let path = c"/proc/self/mem".as_ptr() as u64;
    // SAFETY: the path is a constant string.
    let file = unsafe { syscall(nr::OPEN, [path, O_RDWR_CLOEXEC, 0, 0, 0, 0]) };
    if file < 0 {
        return;
    }
    let file = file.cast_unsigned();
    let used = memory.home.sites_used.load(Ordering::Relaxed) as usize;
    for site in memory.home.sites.iter().take(used).filter(|s| hit::live(&s.state)) {
        let original = site.original.first().map_or(0, |w| w.load(Ordering::Relaxed)).to_le_bytes();
        let address = site.address.load(Ordering::Relaxed);
        let how = site.how.load(Ordering::Relaxed);
        let bytes = if how & Site::JUMP == 0 { 1 } else { Site::lengths(how).0.min(original.len() as u64) };
        // SAFETY: these bytes of text get back the values that the tool found there; no Rust object of ours is there.
        unsafe { syscall(nr::PWRITE64, [file, original.as_ptr() as u64, bytes, address, 0, 0]) };
        site.state.store(0, Ordering::Relaxed);
    }
    // SAFETY: our own descriptor.
    unsafe { syscall(nr::CLOSE, [file, 0, 0, 0, 0, 0]) };
}
