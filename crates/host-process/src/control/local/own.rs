//! The calling thread as the one that makes control's system calls, and that runs the agent's start.

use crate::abi::{HeldThread, Home};
use crate::control::stop::{Remote, Servant, checked};
use crate::control::{HostError, Result};
use core::mem::offset_of;
use cpu::{nr, syscall};
use sync::primitive::Ordering;

/// `rt_sigprocmask`: do not change, only ask. The kernel ignores the first argument when the second is null.
const ASK: u64 = 0;
const SET_BYTES: u64 = 8;

/// Our own process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    pub(crate) pid: i32,
}

impl Own {
    /// Whoever this process is.
    pub(crate) fn new() -> Self {
        Self { pid: std::process::id().cast_signed() }
    }

    /// The calling thread's id.
    pub(crate) fn thread() -> u64 {
        // SAFETY: `gettid` has no argument and no effect.
        unsafe { syscall(nr::GETTID, [0; 6]) }.cast_unsigned()
    }

    /// The calling thread's signal mask.
    pub(crate) fn mask() -> u64 {
        let mut mask = 0u64;
        // SAFETY: the kernel writes one set to a local variable.
        unsafe { syscall(nr::RT_SIGPROCMASK, [ASK, 0, (&raw mut mask) as u64, SET_BYTES, 0, 0]) };
        mask
    }
}

impl Remote for Own {
    fn call(&mut self, what: &'static str, number: i64, args: [u64; 6]) -> Result<u64> {
        // SAFETY: control makes calls that map memory where nothing is, unmap what it has mapped so and uses no more,
        // make and close a descriptor of its own, register for `membarrier` and use it, and change signal actions by
        // way of the agent's memory. It asks for the same in other processes.
        let result = unsafe { syscall(number.cast_unsigned(), args) };
        checked(self.pid, what, result.cast_unsigned())
    }
}

impl Servant for Own {
    fn keep(&mut self, home: u64) -> Result<()> {
        let held = held(home);
        held.mask.store(Self::mask(), Ordering::Relaxed);
        held.tid.store(Self::thread(), Ordering::Release);
        Ok(())
    }

    /// On the thread's own stack: other signals may come meanwhile.
    fn run(&mut self, function: u64, argument: u64, _: u64) -> Result<u64> {
        if held(argument).tid.load(Ordering::Relaxed) != Self::thread() {
            let what = "nobody could give this thread back".into();
            return Err(HostError::Unexpected { pid: self.pid, what });
        }
        // SAFETY: `function` is the entry point of the image that was mapped just now; `argument` is its home, whose
        // place for a held thread bears our id: the handler that the function has installed when it comes to its
        // breakpoint gives us back from there. Without a handler the breakpoint ends the process, which
        // `threads::unblock` has made sure is not for want of a right.
        unsafe { enter(function, argument, held(argument)) };
        Ok(0)
    }
}

/// The place for a held thread in the home at `home`.
fn held(home: u64) -> &'static HeldThread {
    let at = home + offset_of!(Home, held) as u64;
    // SAFETY: `inject` has mapped the home, and it stays mapped; it is all atomics.
    unsafe { &*(at as *const HeldThread) }
}

/// Notes where the thread goes on, and jumps to `entry` with `argument`. Comes back by the agent's handler, which sets
/// all registers from `held`: those that a function must preserve are on the stack.
///
/// # Safety
///
/// `entry` must be a function that keeps to its own stack frames, touches no memory of the program's, and ends in a
/// breakpoint that gives the thread back with what `held` says.
#[unsafe(naked)]
unsafe extern "C" fn enter(entry: u64, argument: u64, held: &HeldThread) {
    core::arch::naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "pushfq",
        "pop qword ptr [rdx + {flags}]",
        "mov qword ptr [rdx + {rsp}], rsp",
        "lea rax, [rip + 2f]",
        "mov qword ptr [rdx + {rip}], rax",
        "mov rax, rdi",
        "mov rdi, rsi",
        "jmp rax",
        "2:",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        flags = const offset_of!(HeldThread, flags),
        rsp = const offset_of!(HeldThread, gpr) + 8 * RSP,
        rip = const offset_of!(HeldThread, rip),
    )
}

/// The stack pointer's number, as the hardware counts registers.
const RSP: usize = 4;
