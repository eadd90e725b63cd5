//! The time stamp counter.

/// The time stamp counter, and the number of the processor it was read on.
///
/// `RDTSCP` reads both at once (Intel SDM vol. 2B); Linux keeps the processor's number in the low 12 bits of
/// `IA32_TSC_AUX` (`arch/x86/include/asm/segment.h`, `vdso_encode_cpunode`).
///
/// ```
/// let (start, processor) = cpu::now();
/// let (end, then) = cpu::now();
/// // A thread may move to another processor in between, whose counter need not agree.
/// assert!(start <= end || processor != then);
/// ```
#[must_use]
pub fn now() -> (u64, u32) {
    let mut aux = 0;
    // SAFETY: RDTSCP only reads the counter and writes `aux`; every x86-64 processor that runs a supported Linux has it.
    let tsc = unsafe { core::arch::x86_64::__rdtscp(&raw mut aux) };
    (tsc, aux & 0xfff)
}

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
