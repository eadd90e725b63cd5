//! The register file that operations work on.

use self::flags as bit;

/// Bits of the flags register (SDM volume 1, section 3.4.3).
pub mod flags {
    /// Carry.
    pub const CF: u64 = 1 << 0;
    /// Parity.
    pub const PF: u64 = 1 << 2;
    /// Auxiliary carry.
    pub const AF: u64 = 1 << 4;
    /// Zero.
    pub const ZF: u64 = 1 << 6;
    /// Sign.
    pub const SF: u64 = 1 << 7;
    /// Trap: single step.
    pub const TF: u64 = 1 << 8;
    /// Interrupts enabled.
    pub const IF: u64 = 1 << 9;
    /// String instructions count down.
    pub const DF: u64 = 1 << 10;
    /// Overflow.
    pub const OF: u64 = 1 << 11;
    /// I/O privilege level, two bits.
    pub const IOPL: u64 = 3 << 12;
    /// Nested task.
    pub const NT: u64 = 1 << 14;
    /// Resume: instruction breakpoints are off for one instruction.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check, or supervisor access to user pages.
    pub const AC: u64 = 1 << 18;
    /// `cpuid` is available.
    pub const ID: u64 = 1 << 21;
}

/// Indices into [`Regs::gpr`]: the hardware's numbers.
pub mod gpr {
    /// `rax`.
    pub const RAX: usize = 0;
    /// `rcx`.
    pub const RCX: usize = 1;
    /// `rdx`.
    pub const RDX: usize = 2;
    /// `rbx`.
    pub const RBX: usize = 3;
    /// `rsp`.
    pub const RSP: usize = 4;
    /// `rbp`.
    pub const RBP: usize = 5;
    /// `rsi`.
    pub const RSI: usize = 6;
    /// `rdi`.
    pub const RDI: usize = 7;
}

/// General registers, instruction pointer and flags of the probed program.
///
/// ```
/// use isa::x86::{Condition, Regs, flags, gpr};
///
/// let mut regs = Regs { rip: 0x1000, flags: flags::ZF, ..Regs::default() };
/// regs.set(4, 0x8000);
/// assert_eq!((regs.get(4), regs.rsp(), regs.gpr[gpr::RSP]), (0x8000, 0x8000, 0x8000));
/// assert!(regs.holds(Condition::new(4))); // equal
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Regs {
    /// In hardware numbering: rax rcx rdx rbx rsp rbp rsi rdi r8 … r15.
    pub gpr: [u64; 16],
    /// The instruction pointer.
    pub rip: u64,
    /// The flags register.
    pub flags: u64,
}

impl Regs {
    /// The register that an instruction encodes as `number`; only the low four bits count, as in
    /// the encoding.
    #[must_use]
    pub const fn get(&self, number: u8) -> u64 {
        self.gpr[(number & 15) as usize]
    }

    /// Sets the register that an instruction encodes as `number`.
    pub const fn set(&mut self, number: u8, value: u64) {
        self.gpr[(number & 15) as usize] = value;
    }

    /// The stack pointer.
    #[must_use]
    pub const fn rsp(&self) -> u64 {
        self.gpr[gpr::RSP]
    }

    /// At a function's first instruction, its argument with this number, from 1 to 6: integers and pointers as C passes
    /// them (System V psABI, 3.2.3). 0 for other numbers: those are on the stack.
    ///
    /// ```
    /// let mut regs = isa::x86::Regs::default();
    /// regs.set(7, 42); // rdi
    /// assert_eq!(regs.argument(1), 42);
    /// ```
    #[must_use]
    pub const fn argument(&self, number: usize) -> u64 {
        match number {
            1 => self.gpr[gpr::RDI],
            2 => self.gpr[gpr::RSI],
            3 => self.gpr[gpr::RDX],
            4 => self.gpr[gpr::RCX],
            5 => self.gpr[8],
            6 => self.gpr[9],
            _ => 0,
        }
    }

    /// After a function has returned, what it gave (System V psABI, 3.2.3: an integer or a pointer).
    ///
    /// ```
    /// let mut regs = isa::x86::Regs::default();
    /// regs.set(0, 7); // rax
    /// assert_eq!(regs.return_value(), 7);
    /// ```
    #[must_use]
    pub const fn return_value(&self) -> u64 {
        self.gpr[gpr::RAX]
    }

    /// Whether `condition` holds in these flags.
    #[must_use]
    pub const fn holds(&self, condition: Condition) -> bool {
        condition.holds(self.flags)
    }
}

/// A condition as `jcc`, `setcc` and `cmovcc` encode it: four bits, of which the lowest negates
/// (SDM volume 2, appendix B.1.4.7).
///
/// ```
/// use isa::x86::{Condition, flags};
///
/// let less = Condition::new(0xC); // as in 7C, jl
/// assert_eq!(less, Condition::new(0x7C));
/// assert!(less.holds(flags::SF) && !less.holds(flags::SF | flags::OF));
///
/// let not_less = less.negated(); // jge
/// assert_eq!(not_less.code(), 0xD);
/// assert!(not_less.holds(flags::SF | flags::OF));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Condition(u8);

impl Condition {
    /// The condition with this code; only the low four bits count.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        Self(code & 15)
    }

    /// The four bits of the encoding.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The opposite.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// Whether it holds in `flags`.
    #[must_use]
    pub const fn holds(self, flags: u64) -> bool {
        let less = any_bit(flags, bit::SF) != any_bit(flags, bit::OF);
        let positive = match self.0 >> 1 {
            0 => any_bit(flags, bit::OF),
            1 => any_bit(flags, bit::CF),
            2 => any_bit(flags, bit::ZF),
            3 => any_bit(flags, bit::CF | bit::ZF),
            4 => any_bit(flags, bit::SF),
            5 => any_bit(flags, bit::PF),
            6 => less,
            _ => less || any_bit(flags, bit::ZF),
        };
        positive != (self.0 & 1 != 0)
    }
}

const fn any_bit(flags: u64, mask: u64) -> bool {
    flags & mask != 0
}

/// Assembly that makes a [`Regs`](crate::x86::Regs) below the stack pointer, to whose flags it points: what was in the registers, with
/// nothing sensible yet for `rip` and `rsp`. It changes no register but the stack pointer.
///
/// ```
/// // r8 is the ninth.
/// assert_eq!(isa::push_registers!().split_whitespace().rev().step_by(2).position(|register| register == "r8"), Some(8));
/// ```
#[macro_export]
macro_rules! push_registers {
    () => {
        "
        push rax
        push r15
        push r14
        push r13
        push r12
        push r11
        push r10
        push r9
        push r8
        push rdi
        push rsi
        push rbp
        push rax
        push rbx
        push rdx
        push rcx
        push rax
        "
    };
}

/// Assembly that takes the registers from the [`Regs`](crate::x86::Regs) at the stack pointer, up to `r14`: `r15` is the next word.
/// The stack pointer among them is passed over: who leaves has it from elsewhere. The flags stay as they are.
///
/// ```
/// // Fifteen registers: the place of rsp is popped into rbp first.
/// assert_eq!(isa::pop_registers!().lines().filter(|line| line.contains("pop")).count(), 15);
/// ```
#[macro_export]
macro_rules! pop_registers {
    () => {
        "
        pop rax
        pop rcx
        pop rdx
        pop rbx
        pop rbp
        pop rbp
        pop rsi
        pop rdi
        pop r8
        pop r9
        pop r10
        pop r11
        pop r12
        pop r13
        pop r14
        "
    };
}
