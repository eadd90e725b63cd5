//! Calling a function as another one was called: same argument registers, same arguments on the stack.
//!
//! For handlers that have the signature of the function that they watch (Linux: jprobes).

use super::contained::Recovery;
use core::arch::naked_asm;
use core::mem::offset_of;
use isa::x86::{Regs, gpr};

/// What [`mirrored`] reads.
#[repr(C)]
struct Mirror {
    function: u64,
    /// `rdi`, `rsi`, `rdx`, `rcx`, `r8`, `r9`, `rax`, `r10`.
    registers: [u64; 8],
    /// Address of eight vector registers, or 0.
    vectors: u64,
    stack: u64,
    stack_bytes: u64,
}

/// The registers of [`Mirror::registers`]: the arguments (System V psABI, 3.2.3), the number of vector registers that a
/// function with a variable number of arguments asks for, and the static chain.
const REGISTERS: [usize; 8] = [gpr::RDI, gpr::RSI, gpr::RDX, gpr::RCX, 8, 9, gpr::RAX, 10];

/// Calls `function` as the function was called that `regs` have just entered: with its argument registers, with
/// `vectors` as `xmm0` to `xmm7` if they are known, and with `stack` as the bytes above the return address. Gives
/// `rax`; `None` when the function has faulted ([`Recovery`]).
///
/// Where the compiler may not use vector registers (a kernel's code), they are left as they are.
///
/// # Safety
///
/// As [`Recovery::call`]: at `function` there must be a function that can be called so, also if it ends in the middle.
/// The stack must have room for `stack`; more than a guard page's size must not be copied.
///
/// ```
/// use cpu::{Recovery, call_mirrored};
/// use isa::x86::{Regs, gpr};
///
/// extern "C" fn weighted(a: u64, b: u64, _: u64, _: u64, _: u64, _: u64, seventh: u64, factor: f64) -> u64 {
///     ((a + 10 * b + 100 * seventh) as f64 * factor) as u64
/// }
///
/// // As a program was when it entered `weighted(1, 2, 0, 0, 0, 0, 3, 0.5)`.
/// let mut regs = Regs::default();
/// (regs.gpr[gpr::RDI], regs.gpr[gpr::RSI]) = (1, 2);
/// let mut vectors = [[0; 2]; 8];
/// vectors[0][0] = 0.5_f64.to_bits();
/// let stack = 3_u64.to_le_bytes();
///
/// let function = weighted as *const () as u64;
/// // SAFETY: the function takes these.
/// let said = unsafe { call_mirrored(&Recovery::new(), function, &regs, Some(&vectors), &stack) };
/// assert_eq!(said, Some(160));
/// ```
pub unsafe fn call_mirrored(
    recovery: &Recovery,
    function: u64,
    regs: &Regs,
    vectors: Option<&[[u64; 2]; 8]>,
    stack: &[u8],
) -> Option<u64> {
    let mut mirror = Mirror {
        function,
        registers: REGISTERS.map(|r| regs.gpr[r]),
        vectors: vectors.map_or(0, |v| core::ptr::from_ref(v) as u64),
        stack: stack.as_ptr() as u64,
        stack_bytes: stack.len() as u64,
    };
    // SAFETY: `mirrored` takes a `Mirror`, which lives across the call; what it calls is the caller's promise.
    unsafe { recovery.call(mirrored as *const () as u64, (&raw mut mirror).cast(), core::ptr::null_mut()) }
}

/// Calls what the mirror at `rdi` says; a function of [`Recovery::call`]'s.
///
/// # Safety
///
/// As [`call_mirrored`].
#[unsafe(naked)]
unsafe extern "C" fn mirrored(mirror: *mut u8) -> u64 {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov r11, rdi",
        // The stack's copy, with its end free so that it begins at a multiple of 16.
        "mov rcx, [r11 + {stack_bytes}]",
        "sub rsp, rcx",
        "and rsp, -16",
        "mov rsi, [r11 + {stack}]",
        "mov rdi, rsp",
        "rep movsb",
        ".if {sse}",
        "mov rax, [r11 + {vectors}]",
        "test rax, rax",
        "jz 2f",
        "movups xmm0, [rax]",
        "movups xmm1, [rax + 16]",
        "movups xmm2, [rax + 32]",
        "movups xmm3, [rax + 48]",
        "movups xmm4, [rax + 64]",
        "movups xmm5, [rax + 80]",
        "movups xmm6, [rax + 96]",
        "movups xmm7, [rax + 112]",
        "2:",
        ".endif",
        "mov rdi, [r11 + {registers}]",
        "mov rsi, [r11 + {registers} + 8]",
        "mov rdx, [r11 + {registers} + 16]",
        "mov rcx, [r11 + {registers} + 24]",
        "mov r8, [r11 + {registers} + 32]",
        "mov r9, [r11 + {registers} + 40]",
        "mov rax, [r11 + {registers} + 48]",
        "mov r10, [r11 + {registers} + 56]",
        "call [r11 + {function}]",
        "leave",
        "ret",
        sse = const cfg!(target_feature = "sse") as u32,
        function = const offset_of!(Mirror, function),
        registers = const offset_of!(Mirror, registers),
        vectors = const offset_of!(Mirror, vectors),
        stack = const offset_of!(Mirror, stack),
        stack_bytes = const offset_of!(Mirror, stack_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that an argument can be in: six registers, eight vector registers, three places on the stack.
    extern "C" fn weighted(
        a: u64,
        b: u64,
        c: u64,
        d: u64,
        e: u64,
        f: u64,
        v0: f64,
        v1: f64,
        v2: f64,
        v3: f64,
        v4: f64,
        v5: f64,
        v6: f64,
        v7: f64,
        s0: u64,
        s1: u64,
        s2: u64,
    ) -> u64 {
        let integers = [a, b, c, d, e, f, s0, s1, s2];
        let doubles = [v0, v1, v2, v3, v4, v5, v6, v7];
        let sum: u64 = integers.iter().zip(1..).map(|(x, n)| x * n).sum();
        sum + doubles.iter().zip(10..).map(|(x, n)| *x as u64 * n).sum::<u64>()
    }

    fn entered() -> Regs {
        let mut regs = Regs::default();
        for (register, value) in REGISTERS.iter().zip(1..) {
            regs.gpr[*register] = value;
        }
        regs
    }

    #[test]
    fn arguments_arrive_where_the_original_had_them() {
        let vectors: [[u64; 2]; 8] = core::array::from_fn(|i| [(i as f64 + 20.0).to_bits(), 0]);
        let stack: Vec<u8> = [40u64, 41, 42].iter().flat_map(|w| w.to_le_bytes()).collect();
        let function = weighted as *const () as u64;
        // SAFETY: the function takes these.
        let said = unsafe { call_mirrored(&Recovery::new(), function, &entered(), Some(&vectors), &stack) };
        let direct = weighted(1, 2, 3, 4, 5, 6, 20., 21., 22., 23., 24., 25., 26., 27., 40, 41, 42);
        assert_eq!(said, Some(direct));
    }

    #[unsafe(naked)]
    extern "C" fn stack_and_rax() -> u64 {
        naked_asm!("mov ecx, esp", "and ecx, 15", "shl ecx, 8", "or eax, ecx", "ret")
    }

    #[test]
    fn the_stack_is_as_at_a_function_s_entry_whatever_is_on_it() {
        for bytes in 0..33 {
            let stack = vec![0xAA; bytes];
            let function = stack_and_rax as *const () as u64;
            // SAFETY: the function takes anything, and changes nothing but what any function may.
            let said = unsafe { call_mirrored(&Recovery::new(), function, &entered(), None, &stack) };
            assert_eq!(said, Some(0x800 | 7), "{bytes} bytes");
        }
    }
}
