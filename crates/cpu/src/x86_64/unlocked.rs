//! Single instructions that are not locked, for words that one thread writes and others may read.
//!
//! A lock costs more than all else that they do. What interrupts the thread comes before such an instruction or behind it.

use core::sync::atomic::AtomicU64;

/// Adds one.
///
/// ```
/// let word = std::sync::atomic::AtomicU64::new(41);
/// cpu::add_one(&word);
/// assert_eq!(word.into_inner(), 42);
/// ```
#[inline(always)]
pub fn add_one(word: &AtomicU64) {
    // SAFETY: the word is ours to change by an atomic's rules; another processor sees the old value or the new one.
    unsafe { core::arch::asm!("inc qword ptr [{}]", in(reg) word.as_ptr(), options(nostack)) };
}

/// Replaces `old` by `new`; false when it was not `old`.
///
/// ```
/// let word = std::sync::atomic::AtomicU64::new(41);
/// assert!(cpu::replace(&word, 41, 42) && !cpu::replace(&word, 41, 43));
/// assert_eq!(word.into_inner(), 42);
/// ```
#[inline(always)]
pub fn replace(word: &AtomicU64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: as above; if the word is not `old`, what it is is written back, or nothing.
    unsafe {
        core::arch::asm!(
            "cmpxchg [{}], {}",
            in(reg) word.as_ptr(),
            in(reg) new,
            inout("rax") old => found,
            options(nostack)
        );
    }
    found == old
}
