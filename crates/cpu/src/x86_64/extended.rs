//! The state of a program that is not in the general registers: x87, vector and mask registers, and their control words.

use core::arch::asm;

/// Which components `XSAVE` saves (Intel SDM vol. 1, section 13.1): x87, SSE, AVX, and the three of AVX-512. Those that the
/// processor or the kernel does not have are left out by itself.
const COMPONENTS: u32 = 0b1110_0111;
/// Bytes of these components in the standard format: the last one ends at 2688 (Intel SDM vol. 1, section 13.4.3;
/// `CPUID.0DH`).
const BYTES: usize = 2688;
/// Where the header is, which `XSAVE` does not write as a whole.
const HEADER: core::ops::Range<usize> = 512..576;
/// `MXCSR` as a program begins with it: all exceptions masked, round to nearest.
const MXCSR: u32 = 0x1F80;

#[repr(C, align(64))]
struct Area([u8; BYTES]);

/// Calls `f` with these registers as a program begins with them, and puts them back behind it.
///
/// ```
/// // SAFETY: every 64-bit processor that runs a supported Linux has the instructions if it has this one.
/// # if std::arch::is_x86_feature_detected!("xsave") {
/// let sum = unsafe { cpu::with_initial_vectors(|| 1.5_f64 + 2.5) };
/// assert_eq!(sum, 4.0);
/// # }
/// ```
///
/// # Safety
///
/// The processor and the kernel must have `XSAVE` (`CPUID.01H:ECX.OSXSAVE`), and the stack room for 3 KiB.
#[inline(never)]
pub unsafe fn with_initial_vectors<R>(f: impl FnOnce() -> R) -> R {
    let mut area = core::mem::MaybeUninit::<Area>::uninit();
    let at = area.as_mut_ptr().cast::<u8>();
    // SAFETY: the header is within the area.
    unsafe { at.add(HEADER.start).write_bytes(0, HEADER.end - HEADER.start) };
    let mxcsr = MXCSR;
    // SAFETY: the area is large enough and aligned; the caller promises the instructions. What they change is put back
    // below, and no value of the compiler's lives in those registers across a call.
    unsafe {
        asm!("xsave64 [{area}]", "fninit", "ldmxcsr [{mxcsr}]", area = in(reg) at, mxcsr = in(reg) &raw const mxcsr,
            inout("eax") COMPONENTS => _, inout("edx") 0 => _, clobber_abi("C"), options(nostack));
    }
    let result = f();
    // SAFETY: as above; the area is as `XSAVE` has left it.
    unsafe {
        asm!("xrstor64 [{area}]", area = in(reg) at, inout("eax") COMPONENTS => _, inout("edx") 0 => _,
            clobber_abi("C"), options(nostack));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_ends_where_the_last_component_does() {
        // The components that this processor has, if it has none beyond ours below them.
        let ends = (2..8).map(|component| core::arch::x86_64::__cpuid_count(0xD, component)).map(|id| id.eax + id.ebx);
        assert!(ends.max().unwrap() as usize <= BYTES);
    }

    #[test]
    fn vector_registers_are_put_back_whole() {
        if !std::arch::is_x86_feature_detected!("avx") {
            return;
        }
        let wipe = || {
            // SAFETY: `with_initial_vectors` puts them back.
            unsafe { asm!("vzeroall", "fldpi", options(nostack)) };
        };
        extern "C" fn call(wipe: &&dyn Fn()) {
            // SAFETY: a processor with AVX has the instruction.
            unsafe { with_initial_vectors(*wipe) }
        }
        let wiping: &dyn Fn() = &wipe;
        let (mut before, mut after) = ([0u64; 4], [0u64; 4]);
        before.iter_mut().zip(1..).for_each(|(word, n)| *word = n * 0x0101_0101_0101_0101);
        // SAFETY: the call keeps ymm9, which is what is tested; all else is declared.
        unsafe {
            asm!("vmovdqu ymm9, [r12]", "call {call}", "vmovdqu [r13], ymm9", in("r12") &raw const before,
                in("r13") &raw mut after, call = sym call, inout("rdi") &raw const wiping => _, clobber_abi("C"));
        }
        assert_eq!(before, after);
    }
}
