//! The signal frame: what the kernel saved of the interrupted thread, and restores when the handler returns.
//!
//! Layout: `struct ucontext` and `struct sigcontext_64` in Linux `arch/x86/include/uapi/asm/{ucontext,sigcontext}.h`.

use isa::x86::Regs;

/// Offset of the registers in `struct ucontext`.
const REGISTERS: usize = 40;
/// Offset of `uc_stack` (pointer, flags, size).
const STACK: usize = 16;
/// Offset of the number of the exception (`uc_mcontext.trapno`).
const TRAP: usize = REGISTERS + 20 * 8;
/// Offset of `uc_sigmask`.
const MASK: usize = 296;
/// Offset of the pointer to the vector state (`uc_mcontext.fpstate`).
const VECTOR_STATE: usize = REGISTERS + 23 * 8;
/// Offset of `xmm0` in it: its first 512 bytes are as `FXSAVE` leaves them (Intel SDM vol. 1, table 10-2).
const XMM0: usize = 160;
/// Words from the first register to the last that is used here.
const WORDS: usize = 18;

/// Where each general register, in hardware numbering, stands among the frame's words.
const ORDER: [usize; 16] = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
const RIP: usize = 16;
const FLAGS: usize = 17;

/// A view of the signal frame of a running handler.
///
/// # Invariants
///
/// `context` points to the `struct ucontext` that the kernel made for the handler that holds this value, and nobody
/// else refers to it while the handler runs.
///
/// ```
/// use cpu::{SignalFrame, nr, restorer, syscall};
/// use isa::x86::gpr;
///
/// const USR1: u64 = 1 << 9;
///
/// /// Does what a function would: gives `rdi + xmm0`. Also masks `SIGUSR1`.
/// extern "C" fn on_breakpoint(_: i32, _: *mut u8, context: *mut u8) {
///     // SAFETY: the third argument of the handler that is running.
///     let mut frame = unsafe { SignalFrame::new(context) };
///     assert_eq!(frame.trap(), 3);
///     let vectors = frame.vectors().expect("the kernel saves them");
///     let mut regs = frame.registers();
///     regs.gpr[gpr::RAX] = regs.argument(1) + f64::from_bits(vectors[0][0]) as u64;
///     frame.set_registers(&regs);
///     frame.set_mask(frame.mask() | USR1);
///     // This handler did not ask for the alternate stack: its frame is on the other.
///     let (low, high) = frame.signal_stack();
///     assert!(!(low..high).contains(&(context as u64)));
/// }
///
/// const SIGTRAP: u64 = 5;
/// const FLAGS: u64 = 0x0400_0004; // SA_RESTORER, SA_SIGINFO
/// let action = [on_breakpoint as *const () as u64, FLAGS, restorer as *const () as u64, 0];
/// // SAFETY: a whole `struct sigaction` of the kernel's, for a handler of this kind.
/// assert_eq!(unsafe { syscall(nr::RT_SIGACTION, [SIGTRAP, (&raw const action) as u64, 0, 8, 0, 0]) }, 0);
///
/// let sum: u64;
/// // SAFETY: the handler changes rax, and nothing else that is in use here.
/// unsafe { std::arch::asm!("int3", in("rdi") 40, in("xmm0") 2.0_f64, out("rax") sum) };
/// assert_eq!(sum, 42);
///
/// let mut mask = 0_u64;
/// // SAFETY: the kernel writes one word, which is there.
/// unsafe { syscall(nr::RT_SIGPROCMASK, [0, 0, (&raw mut mask) as u64, 8, 0, 0]) };
/// assert_eq!(mask & USR1, USR1);
/// ```
#[derive(Debug)]
pub struct SignalFrame {
    context: *mut u8,
}

impl SignalFrame {
    /// Takes the third argument of an `SA_SIGINFO` handler.
    ///
    /// # Safety
    ///
    /// `context` must be that argument, of a handler that is running now, and no other `SignalFrame` of it may exist.
    #[must_use]
    pub unsafe fn new(context: *mut u8) -> Self {
        // INVARIANT: the caller's promise.
        Self { context }
    }

    /// The interrupted registers.
    #[must_use]
    pub fn registers(&self) -> Regs {
        let words = self.words();
        let gpr = ORDER.map(|at| words[at]);
        Regs { gpr, rip: words[RIP], flags: words[FLAGS] }
    }

    /// Changes what the thread goes on with.
    pub fn set_registers(&mut self, regs: &Regs) {
        let words = self.words_mut();
        for (at, value) in ORDER.iter().zip(regs.gpr) {
            words[*at] = value;
        }
        words[RIP] = regs.rip;
        words[FLAGS] = regs.flags;
    }

    /// The exception that has raised the signal: its vector (Intel SDM vol. 3A, table 6-1). It means something in the
    /// handler of a fault.
    #[must_use]
    pub fn trap(&self) -> u64 {
        // SAFETY: by the type's invariant the frame is whole; the number is an aligned word inside it.
        unsafe { self.context.add(TRAP).cast::<u64>().read() }
    }

    /// The signal mask that is installed when the handler returns.
    #[must_use]
    pub fn mask(&self) -> u64 {
        // SAFETY: by the type's invariant the frame is whole; `uc_sigmask` is an aligned word inside it.
        unsafe { self.context.add(MASK).cast::<u64>().read() }
    }

    /// Changes the mask that is installed when the handler returns.
    pub fn set_mask(&mut self, mask: u64) {
        // SAFETY: as in `mask`; `&mut self` makes this the only access.
        unsafe { self.context.add(MASK).cast::<u64>().write(mask) }
    }

    /// The thread's alternate signal stack as (lowest address, one past the highest); an empty range if it has none.
    #[must_use]
    pub fn signal_stack(&self) -> (u64, u64) {
        const SS_DISABLE: u64 = 2;
        // SAFETY: by the type's invariant the frame is whole; `uc_stack` is three aligned words inside it.
        let [low, flags, size] = unsafe { self.context.add(STACK).cast::<[u64; 3]>().read() };
        if flags & SS_DISABLE != 0 { (0, 0) } else { (low, low.saturating_add(size)) }
    }

    /// The interrupted `xmm0` to `xmm7`; `None` when the kernel has saved no vector state.
    #[must_use]
    pub fn vectors(&self) -> Option<[[u64; 2]; 8]> {
        // SAFETY: by the type's invariant the frame is whole; the pointer is an aligned word inside it.
        let state = unsafe { self.context.add(VECTOR_STATE).cast::<*const u8>().read() };
        // SAFETY: the kernel has put at least the 512 bytes of `FXSAVE` there, on the same stack.
        (!state.is_null()).then(|| unsafe { state.add(XMM0).cast::<[[u64; 2]; 8]>().read_unaligned() })
    }

    fn words(&self) -> &[u64; WORDS] {
        // SAFETY: by the type's invariant the frame is whole: its registers are WORDS aligned words, and nobody else
        // writes them while `self` is borrowed.
        unsafe { &*self.context.add(REGISTERS).cast::<[u64; WORDS]>() }
    }

    fn words_mut(&mut self) -> &mut [u64; WORDS] {
        // SAFETY: as in `words`, and `&mut self` makes this the only reference.
        unsafe { &mut *self.context.add(REGISTERS).cast::<[u64; WORDS]>() }
    }
}

/// Returns from a signal handler: the `sa_restorer` of a handler that has no libc.
///
/// The kernel has put its address where the handler's return address is; the frame begins right above.
///
/// # Safety
///
/// Not to be called: only a signal handler may return to it.
///
/// ```
/// use cpu::{nr, syscall};
/// use std::sync::atomic::{AtomicI32, Ordering};
///
/// static SEEN: AtomicI32 = AtomicI32::new(0);
///
/// extern "C" fn handler(signal: i32) {
///     SEEN.store(signal, Ordering::Relaxed);
/// }
///
/// const SIGUSR1: u64 = 10;
/// const SA_RESTORER: u64 = 0x0400_0000;
/// let action = [handler as *const () as u64, SA_RESTORER, cpu::restorer as *const () as u64, 0];
/// // SAFETY: a whole `struct sigaction` of the kernel's, for a handler of this kind; a signal to this thread.
/// unsafe {
///     assert_eq!(syscall(nr::RT_SIGACTION, [SIGUSR1, (&raw const action) as u64, 0, 8, 0, 0]), 0);
///     let own = syscall(nr::GETTID, [0; 6]).cast_unsigned();
///     assert_eq!(syscall(nr::TKILL, [own, SIGUSR1, 0, 0, 0, 0]), 0);
/// }
/// // The handler has returned here.
/// assert_eq!(SEEN.load(Ordering::Relaxed), 10);
/// ```
#[unsafe(naked)]
pub unsafe extern "C" fn restorer() {
    core::arch::naked_asm!("mov eax, 15", "syscall", "ud2")
}
