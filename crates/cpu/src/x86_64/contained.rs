//! Calling code that may fault, and going on behind the call if it does.
//!
//! Before the call, the stack pointer and a place to go on are kept in a [`Recovery`]. Whoever handles the fault asks it
//! for the registers there ([`Recovery::recover`]): what the function had on the stack is gone, what it had locked stays
//! locked. The function can end itself in the same way ([`Recovery::leave`]), from any depth.

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU64, Ordering};
use isa::x86::{Regs, flags, gpr};

/// Where to go on if the function that is being called faults. Zero bytes are one that calls nothing.
///
/// The offsets are known to the assembly here. One belongs to whoever runs one thing at a time: a processor with
/// interrupts off, a thread with signals masked; only it uses it. A call within a call keeps the outer one's place.
#[derive(Debug)]
#[repr(C)]
pub struct Recovery {
    /// The stack pointer to go on with; 0: nothing is being called.
    sp: AtomicU64,
    ip: AtomicU64,
}

/// How a call has ended, in `rdx`.
const RETURNED: u64 = 0;
const FAULTED: u64 = 1;

impl Recovery {
    /// One that calls nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { sp: AtomicU64::new(0), ip: AtomicU64::new(0) }
    }

    /// Whether a call is under way.
    #[must_use]
    pub fn is_calling(&self) -> bool {
        self.sp.load(Ordering::Relaxed) != 0
    }

    /// Calls the function at `function`, an `extern "C" fn(*mut u8, *mut u8) -> u64`; `None` when it has faulted.
    ///
    /// # Safety
    ///
    /// At `function` there must be such a function, and calling it with these arguments must be sound, also if it ends in
    /// the middle. No call is under way; nobody else uses this `Recovery` meanwhile, and whoever handles faults asks it.
    #[inline(always)]
    pub unsafe fn call(&self, function: u64, first: *mut u8, second: *mut u8) -> Option<u64> {
        let (said, how): (u64, u64);
        // SAFETY: the function is the caller's promise. What it may change is said, but for rbx and rbp, which are kept
        // on the stack: from there they come also after a fault and after `leave`, when rsp is as it was before the
        // call, and rax and rdx say how it ended. Two words are pushed, so the stack is aligned at the call.
        unsafe {
            asm!(
                "push rbx",
                "push rbp",
                "lea rax, [rip + 2f]",
                "mov [rdx + 8], rax",
                "mov [rdx], rsp", // last: from here on it counts
                "call rcx",
                "xor edx, edx",
                "2:",
                "pop rbp",
                "pop rbx",
                inout("rdi") first => _,
                inout("rsi") second => _,
                inout("rcx") function => _,
                inout("rdx") core::ptr::from_ref(self) => how,
                out("rax") said,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                clobber_abi("C"),
            );
        }
        self.sp.store(0, Ordering::Relaxed);
        (how == RETURNED).then_some(said)
    }

    /// The same while another call may be under way, which goes on afterwards.
    ///
    /// # Safety
    ///
    /// As [`call`](Self::call), but for the call that is under way.
    pub unsafe fn call_within(&self, function: u64, first: *mut u8, second: *mut u8) -> Option<u64> {
        let outer = (self.sp.load(Ordering::Relaxed), self.ip.load(Ordering::Relaxed));
        // SAFETY: the same promise; what the outer call has kept is put back.
        let said = unsafe { self.call(function, first, second) };
        self.ip.store(outer.1, Ordering::Relaxed);
        self.sp.store(outer.0, Ordering::Relaxed);
        said
    }

    /// The registers are those of a fault: if a call is under way, they become those of its end, and this is true. To be
    /// asked about faults of the processor or thread that this belongs to.
    pub fn recover(&self, regs: &mut Regs) -> bool {
        let sp = self.sp.swap(0, Ordering::Relaxed);
        if sp == 0 {
            return false;
        }
        regs.gpr[gpr::RSP] = sp;
        regs.gpr[gpr::RAX] = 0;
        regs.gpr[gpr::RDX] = FAULTED;
        regs.rip = self.ip.load(Ordering::Relaxed);
        regs.flags &= !(flags::DF | flags::TF | flags::AC);
        true
    }

    /// Ends the innermost call that is under way, as if its function had returned `result`. Comes back only if there is
    /// none.
    ///
    /// # Safety
    ///
    /// To be called from within that call, by the thread that made it. The functions in between are left where they
    /// are: nothing of theirs is dropped.
    pub unsafe fn leave(&self, result: u64) {
        let sp = self.sp.swap(0, Ordering::Relaxed);
        if sp != 0 {
            // SAFETY: `call` is under way further up this stack and has left these two for whoever ends it.
            unsafe { leave(result, sp, self.ip.load(Ordering::Relaxed)) }
        }
    }
}

impl Default for Recovery {
    fn default() -> Self {
        Self::new()
    }
}

/// Goes on at `ip` with the stack at `sp`, as after a call that returned `result`.
///
/// # Safety
///
/// Both must be those that a [`Recovery::call`] under way has kept.
#[unsafe(naked)]
unsafe extern "C" fn leave(result: u64, sp: u64, ip: u64) -> ! {
    // `ip` is in rdx, which has to say how the call ended.
    naked_asm!(
        "cld",
        "mov rax, rdi",
        "mov rsp, rsi",
        "mov rcx, rdx",
        "mov edx, {returned}",
        "jmp rcx",
        returned = const RETURNED,
    )
}

const _: () = assert!(core::mem::offset_of!(Recovery, sp) == 0 && core::mem::offset_of!(Recovery, ip) == 8);

#[cfg(test)]
mod tests {
    use super::*;

    fn call(recovery: &Recovery, function: extern "C" fn(*mut u8) -> u64, argument: *mut u8) -> Option<u64> {
        // SAFETY: these functions take what they are given here, and hold nothing that must be dropped.
        unsafe { recovery.call_within(function as *const () as u64, argument, core::ptr::null_mut()) }
    }

    extern "C" fn doubled(argument: *mut u8) -> u64 {
        argument as u64 * 2
    }

    #[test]
    fn a_call_gives_what_the_function_returns() {
        let recovery = Recovery::new();
        assert_eq!(call(&recovery, doubled, 21 as *mut u8), Some(42));
        assert!(!recovery.is_calling());
    }

    /// Does to the processor what the handler of a fault does, when it gives the registers back.
    fn fault(recovery: &Recovery) {
        let mut regs = Regs::default();
        assert!(recovery.recover(&mut regs));
        assert_eq!(regs.gpr[gpr::RDX], FAULTED);
        // SAFETY: the registers are those of the end of a call under way; a fault's end differs from another's in rdx.
        unsafe {
            asm!("mov rsp, {}", "xor eax, eax", "jmp {}", in(reg) regs.gpr[gpr::RSP], in(reg) regs.rip,
                in("rdx") regs.gpr[gpr::RDX], options(noreturn));
        }
    }

    extern "C" fn faulty(recovery: *mut u8) -> u64 {
        // SAFETY: the tests pass one.
        fault(unsafe { &*recovery.cast::<Recovery>() });
        1
    }

    #[test]
    fn a_fault_ends_the_call_with_nothing() {
        let recovery = Recovery::new();
        for _ in 0..3 {
            assert_eq!(call(&recovery, faulty, (&raw const recovery) as *mut u8), None);
            assert!(!recovery.is_calling());
        }
    }

    extern "C" fn leaving(recovery: *mut u8) -> u64 {
        // SAFETY: the tests pass the one that has called this function.
        unsafe { (*recovery.cast::<Recovery>()).leave(7) };
        1
    }

    #[test]
    fn a_call_can_be_left_with_a_result() {
        let recovery = Recovery::new();
        assert_eq!(call(&recovery, leaving, (&raw const recovery) as *mut u8), Some(7));
        // SAFETY: nothing is called: it comes back.
        unsafe { recovery.leave(1) };
    }

    extern "C" fn nested(recovery: *mut u8) -> u64 {
        // SAFETY: the tests pass one.
        let at = unsafe { &*recovery.cast::<Recovery>() };
        let inner = (call(at, faulty, recovery), call(at, leaving, recovery), call(at, doubled, 4 as *mut u8));
        assert_eq!(inner, (None, Some(7), Some(8)));
        fault(at);
        1
    }

    #[test]
    fn a_call_within_a_call_ends_alone() {
        let recovery = Recovery::new();
        assert_eq!(call(&recovery, nested, (&raw const recovery) as *mut u8), None);
        assert!(!recovery.is_calling());
    }

    #[test]
    fn without_a_call_there_is_nothing_to_recover() {
        let mut regs = Regs { rip: 5, ..Regs::default() };
        assert!(!Recovery::new().recover(&mut regs));
        assert_eq!(regs.rip, 5);
    }
}
