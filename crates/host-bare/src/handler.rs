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

/// Where to go on if the running handler faults. The offsets are known to [`Recovery::call`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Recovery {
    sp: AtomicU64,
    ip: AtomicU64,
}

/// What [`call`] gives, and what stands in its place when the handler has faulted.
const STEP: u64 = 0;
const REDIRECTED: u64 = 1;
const FAULTED: u64 = 2;

impl Recovery {
    pub(crate) const fn new() -> Self {
        Self { sp: AtomicU64::new(0), ip: AtomicU64::new(0) }
    }

    /// Calls `handler`; `None` when it has faulted.
    pub(crate) fn call(&self, handler: Handler, regs: &mut Regs) -> Option<Next> {
        let said: u64;
        // SAFETY: `call` is `extern "C"` and takes these two arguments. What it may change is said, but for rbx and rbp,
        // which are kept on the stack: from there they come also after a fault, when rsp is as it was before the call
        // and rax says so ([`recover`](Self::recover)). The block is this processor's, and interrupts are off: nobody
        // else uses it meanwhile.
        unsafe {
            core::arch::asm!(
                "push rbx",
                "push rbp",
                "lea rax, [rip + 2f]",
                "mov [rdx + 8], rax",
                "mov [rdx], rsp", // last: from here on it counts
                "call {call}",
                "2:",
                "pop rbp",
                "pop rbx",
                call = sym call,
                inout("rdi") handler as *const () => _,
                inout("rsi") core::ptr::from_mut(regs) => _,
                inout("rdx") core::ptr::from_ref(self) => _,
                out("rax") said,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                clobber_abi("C"),
            );
        }
        self.sp.store(0, Ordering::Relaxed);
        match said {
            STEP => Some(Next::Step),
            REDIRECTED => Some(Next::Redirected),
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
        regs.gpr[gpr::RAX] = FAULTED;
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
unsafe extern "C" fn call(handler: *const (), regs: &mut Regs) -> u64 {
    // SAFETY: it was one before it was made a pointer, by the caller's promise.
    let handler = unsafe { core::mem::transmute::<*const (), Handler>(handler) };
    match handler(regs) {
        Next::Step => STEP,
        Next::Redirected => REDIRECTED,
    }
}

const _: () = assert!(core::mem::offset_of!(Recovery, sp) == 0 && core::mem::offset_of!(Recovery, ip) == 8);
