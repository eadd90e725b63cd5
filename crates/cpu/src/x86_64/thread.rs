//! The thread control block.

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
