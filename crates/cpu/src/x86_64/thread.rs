//! The thread control block.

/// The word at `fs:OFFSET`: a field of the C library's thread control block.
///
/// Only for a thread of a C library that keeps a field there; elsewhere the word means nothing, or does not exist.
#[must_use]
pub fn thread_word<const OFFSET: usize>() -> u64 {
    let word: u64;
    // SAFETY: the caller's thread runs under a C library, whose thread control block begins at fs:0 and is mapped for
    // the thread's life; OFFSET is a field of it. Reading changes nothing.
    unsafe {
        core::arch::asm!("mov {}, fs:[{}]", out(reg) word, const OFFSET, options(nostack, readonly, preserves_flags));
    }
    word
}
