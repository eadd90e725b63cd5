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
