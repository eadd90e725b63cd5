//! Handlers of probes: ordinary functions that run in trap context, and what happens when one faults.
//!
//! Before a handler is called, the stack pointer and a place to go on are kept in the processor's control block. A
//! fault that nobody else handles then goes on there, as if the handler had returned: what it had on the stack is
//! gone, what it had locked stays locked. Its probe is switched off, for it would fault again.

use crate::Regs;
use hit::Next;
use isa::x86::{flags, gpr};
use sync::primitive::{AtomicU64, Ordering};

/// A probe's handler. It gets the registers as they are at the probe, and may change them; with
/// [`Next::Redirected`] it says that it has set the instruction pointer itself.
///
/// It runs with interrupts off: it must not wait, allocate, or take a lock that is taken with interrupts on.
pub type Handler = fn(&mut Regs) -> Next;

/// Where to go on if the running handler faults. The offsets are known to [`protected`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Recovery {
    sp: AtomicU64,
    ip: AtomicU64,
}

/// What [`protected`] gives for a handler that has faulted.
const FAULTED: u32 = 2;

impl Recovery {
    pub(crate) const fn new() -> Self {
        Self { sp: AtomicU64::new(0), ip: AtomicU64::new(0) }
    }

    /// Calls `handler`; `None` when it has faulted.
    pub(crate) fn call(&self, handler: Handler, regs: &mut Regs) -> Option<Next> {
        // SAFETY: `call` is `extern "C"` and takes these arguments; the block is this processor's, and interrupts are
        // off, so nobody else uses it until `protected` returns.
        match unsafe { protected(handler as *const (), regs, self) } {
            0 => Some(Next::Step),
            1 => Some(Next::Redirected),
            _ => None,
        }
    }

    /// The registers are those of a fault: if a handler runs, they become those of its end.
    pub(crate) fn recover(&self, regs: &mut Regs) -> bool {
        let sp = self.sp.swap(0, Ordering::Relaxed);
        if sp == 0 {
            return false;
        }
        regs.gpr[gpr::RSP] = sp;
        regs.rip = self.ip.load(Ordering::Relaxed);
        regs.flags &= !(flags::DF | flags::TF | flags::AC);
        true
    }
}

/// Calls the handler, and says what it said.
///
/// # Safety
///
/// `handler` is a [`Handler`].
unsafe extern "C" fn call(handler: *const (), regs: &mut Regs) -> u32 {
    // SAFETY: it was one before it was made a pointer, by the caller's promise.
    let handler = unsafe { core::mem::transmute::<*const (), Handler>(handler) };
    match handler(regs) {
        Next::Step => 0,
        Next::Redirected => 1,
    }
}

/// [`call`] with a way out: `recovery` says where a fault shall go on, which then gives [`FAULTED`].
///
/// # Safety
///
/// As [`call`]; and `recovery` is the running processor's own, with interrupts off.
#[unsafe(naked)]
unsafe extern "C" fn protected(handler: *const (), regs: &mut Regs, recovery: &Recovery) -> u32 {
    core::arch::naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdx", // the stack is aligned now
        "lea rax, [rip + 2f]",
        "mov [rdx + 8], rax",
        "mov [rdx], rsp", // last: from here on it counts
        "call {call}",
        "1:",
        "pop rdx",
        "mov qword ptr [rdx], 0",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        "2:",
        "mov eax, {faulted}",
        "jmp 1b",
        call = sym call,
        faulted = const FAULTED,
    )
}

const _: () = assert!(core::mem::offset_of!(Recovery, sp) == 0 && core::mem::offset_of!(Recovery, ip) == 8);
