//! The thread control block.

/// The fs base, which the C library lets point at the thread control block (x86-64 psABI, thread-local storage).
///
/// ```
/// // SAFETY: the kernel says that programs may use the instruction.
/// # if unsafe { libc::getauxval(libc::AT_HWCAP2) } & 2 != 0 {
/// let base = unsafe { cpu::fs_base() };
/// // SAFETY: this thread is a C library's, whose block begins with its own address.
/// assert_eq!(base, unsafe { cpu::thread_word::<0>() });
/// # }
/// ```
///
/// # Safety
///
/// The kernel must have enabled the instruction: it says so in `AT_HWCAP2` (Linux
/// `Documentation/arch/x86/x86_64/fsgs.rst`).
#[must_use]
#[inline(always)]
pub unsafe fn fs_base() -> u64 {
    let base: u64;
    // SAFETY: the caller promises that the instruction exists. It changes nothing.
    unsafe { core::arch::asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

/// The word at `fs:OFFSET`: a field of the C library's thread control block.
///
/// ```
/// use cpu::thread_word;
///
/// // The first word is the block's own address, so every thread has another one.
/// // SAFETY: this thread, and the one that it makes, are a C library's.
/// let word = || unsafe { thread_word::<0>() };
/// let other = std::thread::spawn(word).join().expect("does not panic");
/// assert!(word() == word() && word() != other);
/// ```
///
/// # Safety
///
/// The calling thread must run under a C library that keeps a field at `OFFSET`; elsewhere nothing may be mapped there.
#[must_use]
pub unsafe fn thread_word<const OFFSET: usize>() -> u64 {
    let word: u64;
    // SAFETY: the caller promises that the field exists. Reading changes nothing.
    unsafe {
        core::arch::asm!("mov {}, fs:[{}]", out(reg) word, const OFFSET, options(nostack, readonly, preserves_flags));
    }
    word
}
