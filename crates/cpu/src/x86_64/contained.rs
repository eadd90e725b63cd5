//! Calling code that may fault, and going on behind the call if it does.
//!
//! Before the call, the registers that a function preserves are put on the stack, and the stack pointer is kept in a
//! [`Recovery`]. Whoever handles the fault asks it for the registers there ([`Recovery::recover`]): what the function
//! had on the stack is gone, what it had locked stays locked. The function can end itself in the same way
//! ([`Recovery::leave`]), from any depth. Only then are those registers taken from the stack: a function that returns
//! has preserved them.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use isa::x86::{Regs, flags, gpr};

/// Where to go on if the function that is being called faults. Zero bytes are one that calls nothing.
///
/// One belongs to whoever runs one thing at a time: a processor with
/// interrupts off, a thread with signals masked; only it uses it. A call within a call keeps the outer one's place.
///
/// ```
/// use cpu::Recovery;
///
/// extern "C" fn sum(a: *mut u8, b: *mut u8) -> u64 {
///     a as u64 + b as u64
/// }
///
/// /// Ends the call with 7, whatever comes behind; before that, makes another one within it.
/// extern "C" fn gives_up(recovery: *mut u8, _: *mut u8) -> u64 {
///     // SAFETY: below, the argument is the `Recovery` of the call.
///     let recovery = unsafe { &*recovery.cast::<Recovery>() };
///     // SAFETY: `sum` takes any two.
///     let inner = unsafe { recovery.call_within(sum as *const () as u64, 1 as *mut u8, 2 as *mut u8) };
///     assert!(inner == Some(3) && recovery.is_calling());
///     // SAFETY: this is within the call, in its thread.
///     unsafe { recovery.leave(7) };
///     unreachable!()
/// }
///
/// let recovery = Recovery::new();
/// let own = (&raw const recovery).cast_mut().cast();
/// // SAFETY: the function takes this argument, and holds nothing that would have to be dropped.
/// let said = unsafe { recovery.call(gives_up as *const () as u64, own, std::ptr::null_mut()) };
/// assert_eq!(said, Some(7));
/// assert!(!recovery.is_calling());
/// ```
#[derive(Debug)]
#[repr(C)]
pub struct Recovery {
    /// The stack pointer to go on with at [`ended`]; 0: nothing is being called.
    sp: AtomicU64,
}

/// How a call has ended, in `rdx`, beside what the function has said, in `rax`.
#[repr(C)]
struct Ended {
    said: u64,
    how: u64,
}

const RETURNED: u64 = 0;
const FAULTED: u64 = 1;

impl Recovery {
    /// One that calls nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { sp: AtomicU64::new(0) }
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
    /// At `function` there must be such a function, and calling it with these arguments must be sound, also if it ends
    /// in the middle. No call is under way; nobody else uses this `Recovery` meanwhile, and whoever handles faults asks
    /// it.
    #[inline(always)]
    pub unsafe fn call(&self, function: u64, first: *mut u8, second: *mut u8) -> Option<u64> {
        // SAFETY: the function is the caller's promise; the word is this one's.
        let Ended { said, how } = unsafe { call(first, second, function, self.sp.as_ptr()) };
        (how == RETURNED).then_some(said)
    }

    /// The same while another call may be under way, which goes on afterwards.
    ///
    /// # Safety
    ///
    /// As [`call`](Self::call), but for the call that is under way.
    pub unsafe fn call_within(&self, function: u64, first: *mut u8, second: *mut u8) -> Option<u64> {
        let outer = self.sp.load(Ordering::Relaxed);
        // SAFETY: the same promise; what the outer call has kept is put back.
        let said = unsafe { self.call(function, first, second) };
        self.sp.store(outer, Ordering::Relaxed);
        said
    }

    /// The registers are those of a fault: if a call is under way, they become those of its end, and this is true. To
    /// be asked about faults of the processor or thread that this belongs to.
    ///
    /// ```
    /// use cpu::{Recovery, SignalFrame, nr, restorer, syscall};
    ///
    /// static RECOVERY: Recovery = Recovery::new();
    ///
    /// extern "C" fn on_fault(_: i32, _: *mut u8, context: *mut u8) {
    ///     // SAFETY: the third argument of the handler that is running.
    ///     let mut frame = unsafe { SignalFrame::new(context) };
    ///     let mut regs = frame.registers();
    ///     assert!(RECOVERY.recover(&mut regs), "another fault");
    ///     frame.set_registers(&regs);
    /// }
    ///
    /// /// The word at an address that may be none.
    /// #[unsafe(naked)]
    /// extern "C" fn load(_at: *mut u8, _: *mut u8) -> u64 {
    ///     std::arch::naked_asm!("mov rax, [rdi]", "ret")
    /// }
    ///
    /// const SIGSEGV: u64 = 11;
    /// const FLAGS: u64 = 0x0400_0004; // SA_RESTORER, SA_SIGINFO
    /// let action = [on_fault as *const () as u64, FLAGS, restorer as *const () as u64, 0];
    /// // SAFETY: a whole `struct sigaction` of the kernel's, for a handler of this kind.
    /// assert_eq!(unsafe { syscall(nr::RT_SIGACTION, [SIGSEGV, (&raw const action) as u64, 0, 8, 0, 0]) }, 0);
    ///
    /// // SAFETY: `load` only reads, and its faults are handled; one thread uses `RECOVERY`.
    /// let peek = |at: u64| unsafe { RECOVERY.call(load as *const () as u64, at as *mut u8, std::ptr::null_mut()) };
    /// let word = 42_u64;
    /// assert_eq!(peek((&raw const word) as u64), Some(42));
    /// assert_eq!(peek(8), None);
    /// ```
    pub fn recover(&self, regs: &mut Regs) -> bool {
        let sp = self.sp.swap(0, Ordering::Relaxed);
        if sp == 0 {
            return false;
        }
        regs.gpr[gpr::RSP] = sp;
        regs.gpr[gpr::RAX] = 0;
        regs.gpr[gpr::RDX] = FAULTED;
        regs.rip = ended as *const () as u64;
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
            // SAFETY: `call` is under way further up this stack and has left this for whoever ends it.
            unsafe { leave(result, sp) }
        }
    }
}

impl Default for Recovery {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls `function` with the two arguments, and keeps the stack pointer in `sp` meanwhile; then that is 0 again, as it
/// is after [`Recovery::recover`] and [`Recovery::leave`].
///
/// # Safety
///
/// As [`Recovery::call`].
#[unsafe(naked)]
unsafe extern "C" fn call(first: *mut u8, second: *mut u8, function: u64, sp: *mut u64) -> Ended {
    // Seven words with the return address below: the stack is aligned at the call.
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rcx], rsp", // from here on it counts
        "push rcx",
        "call rdx",
        "pop rcx",
        "mov qword ptr [rcx], 0",
        "add rsp, 48",
        "xor edx, edx", // RETURNED
        "ret",
    )
}

/// Where a call goes on that has not returned: with the stack pointer that [`call`] has kept, and an [`Ended`] in the
/// registers for it.
///
/// # Safety
///
/// Nobody calls it.
#[unsafe(naked)]
unsafe extern "C" fn ended() -> ! {
    naked_asm!("pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp", "ret")
}

/// Goes on as after a call that has returned `result`.
///
/// # Safety
///
/// `sp` must be that which a [`Recovery::call`] under way has kept.
#[unsafe(naked)]
unsafe extern "C" fn leave(result: u64, sp: u64) -> ! {
    naked_asm!(
        "cld",
        "mov rax, rdi",
        "mov rsp, rsi",
        "mov edx, {returned}",
        "jmp {ended}",
        returned = const RETURNED,
        ended = sym ended,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::arch::asm;

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

    /// Changes all registers that a function preserves, and then faults.
    #[unsafe(naked)]
    extern "C" fn rude(recovery: *mut u8) -> u64 {
        naked_asm!(
            "xor ebx, ebx",
            "xor ebp, ebp",
            "xor r12d, r12d",
            "xor r13d, r13d",
            "xor r14d, r14d",
            "xor r15d, r15d",
            "sub rsp, 8",
            "call {faulty}",
            faulty = sym faulty,
        )
    }

    extern "C" fn call_rude(recovery: *mut u8) -> u64 {
        // SAFETY: the test passes one.
        call(unsafe { &*recovery.cast::<Recovery>() }, rude, recovery).is_none().into()
    }

    #[test]
    fn registers_that_functions_preserve_are_as_before_after_a_fault() {
        let recovery = Recovery::new();
        let (faulted, rbx, rbp, mut kept): (u64, u64, u64, [u64; 4]);
        kept = [12, 13, 14, 15];
        // SAFETY: the function takes a `Recovery`; what it must preserve is checked, and rbx and rbp are put back.
        unsafe {
            asm!(
                "push rbx", "push rbp",
                "mov ebx, 3", "mov ebp, 5",
                "call {call_rude}",
                "mov rcx, rbx", "mov rdx, rbp",
                "pop rbp", "pop rbx",
                call_rude = sym call_rude,
                inout("rdi") &raw const recovery => _,
                out("rax") faulted, out("rcx") rbx, out("rdx") rbp,
                inout("r12") kept[0], inout("r13") kept[1], inout("r14") kept[2], inout("r15") kept[3],
                clobber_abi("C"),
            );
        }
        assert_eq!((faulted, rbx, rbp, kept), (1, 3, 5, [12, 13, 14, 15]));
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
