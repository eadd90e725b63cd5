//! Counting without a lock.

/// Adds one by a single instruction that is not locked: for a word that only one thread writes. What interrupts the thread
/// comes before it or behind it.
///
/// ```
/// let word = std::sync::atomic::AtomicU64::new(41);
/// cpu::add_one(&word);
/// assert_eq!(word.into_inner(), 42);
/// ```
#[inline(always)]
pub fn add_one(word: &core::sync::atomic::AtomicU64) {
    // SAFETY: the word is ours to change by an atomic's rules; another processor sees the old value or the new one.
    unsafe { core::arch::asm!("inc qword ptr [{}]", in(reg) word.as_ptr(), options(nostack)) };
}
