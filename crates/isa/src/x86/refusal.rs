//! Why an instruction cannot be probed, or a copy not be made for an address.

use core::fmt;

use super::MAX_LEN;

/// An instruction that was refused: where it is and its bytes.
///
/// ```
/// use isa::x86::Site;
///
/// let site = Site::new(0x1000, &[0xFF, 0x18]);
/// assert_eq!((site.addr(), site.bytes()), (0x1000, &[0xFF, 0x18][..]));
/// assert_eq!(site.to_string(), "0x1000 (ff 18)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Site {
    addr: u64,
    bytes: [u8; MAX_LEN],
    len: u8,
}

impl Site {
    /// The instruction at `addr` that begins with `bytes`, of which at most the longest
    /// instruction's length is kept.
    #[must_use]
    pub fn new(addr: u64, bytes: &[u8]) -> Self {
        let mut kept = [0; MAX_LEN];
        kept.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self { addr, bytes: kept, len: bytes.len().min(MAX_LEN) as u8 }
    }

    /// The address of the instruction.
    #[must_use]
    pub const fn addr(&self) -> u64 {
        self.addr
    }

    /// Its bytes, or as many as were there where it could not be decoded.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.addr)?;
        if self.len != 0 {
            f.write_str(" (")?;
            for (i, byte) in self.bytes().iter().enumerate() {
                let separator = if i == 0 { "" } else { " " };
                write!(f, "{separator}{byte:02x}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why an instruction is refused. Each variant is one rule of the hardware.
///
/// ```
/// use isa::x86::{Privilege, analyse};
///
/// // call far [rax]
/// let refusal = analyse(&[0xFF, 0x18], 0x1000, Privilege::User).expect_err("cannot be copied");
/// assert_eq!((refusal.rule(), refusal.addr()), ("far-call", 0x1000));
/// assert_eq!(refusal.to_string(), "0x1000 (ff 18): a far call pushes its own code segment and address");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are no instruction in 64-bit mode: executing them raises `#UD` (SDM volume 2,
    /// chapter 2 and appendix A).
    Undecodable(Site),
    /// The bytes end inside the instruction.
    Truncated(Site),
    /// `int3` or `int1`: it traps by itself, and its trap is reported at its own address, where
    /// somebody else expects it (SDM volume 2, INT3).
    Breakpoint(Site),
    /// `int n`: the handler of the vector, or the `#GP` that a missing one raises, looks at the
    /// address of the instruction (SDM volume 3, section 6.4.4).
    Interrupt(Site),
    /// `ud0`, `ud1`, `ud2`: always raises `#UD`, and who handles it looks it up by address (SDM
    /// volume 2, UD).
    InvalidOpcode(Site),
    /// `call far`: pushes its own code segment and address, and a copy those of the slot (SDM
    /// volume 2, CALL).
    FarCall(Site),
    /// A near branch with a 16-bit operand size: Intel ignores the prefix 66, AMD truncates the
    /// target and has a shorter displacement (SDM volume 2, section 2.2.1.7 and appendix A.3; APM
    /// volume 3, section 1.2.7), so neither its length nor its target is known.
    OperandSize(Site),
    /// `loope` or `loopne` with a prefix F2 or F3: AMD's processors take the condition from the
    /// prefix instead of the opcode (measured; APM volume 3, section 1.2.6, and SDM volume 2,
    /// section 2.1.1, leave its effect undefined), so where it goes is not known.
    RepeatPrefix(Site),
    /// Raises `#GP` at every privilege level but 0 (SDM volume 3, section 5.9).
    Privileged(Site),
    /// `iret`, `sysret`, `sysexit`, `syscall`, `sysenter` in a kernel: around them the stack or the
    /// GS base is the program's, where no trap may come (SDM volume 2, SYSRET, "Instruction
    /// Ordering").
    PrivilegeTransition(Site),
    /// VMX or SVM: the hardware leaves to, or comes back from, an address that is recorded
    /// elsewhere (SDM volume 3, chapters 24 to 27; APM volume 2, chapter 15).
    Virtualization(Site),
    /// `rsm`, `enclu`, `enclv`: keeps or shows the address of the instruction in a place that
    /// cannot be repaired (SDM volume 3, sections 32.3 and 36).
    AddressVisible(Site),
    /// The image lies too far from what the instruction refers to: a RIP-relative operand and a
    /// 32-bit displacement reach 2 GiB (SDM volume 2, section 2.2.1.6).
    Unreachable {
        /// The address of the instruction.
        addr: u64,
        /// What it refers to.
        target: u64,
        /// Where the image was to be.
        at: u64,
    },
    /// `call rsp`, or a call whose target is in the eight bytes into which it pushes: no sequence
    /// does the same without another register (SDM volume 2, CALL). It is emulated; only an image
    /// cannot be made.
    NoImage {
        /// The address of the instruction.
        addr: u64,
    },
}

impl Refusal {
    /// The rule, in one word.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => "undecodable",
            Self::Truncated(_) => "truncated",
            Self::Breakpoint(_) => "breakpoint",
            Self::Interrupt(_) => "interrupt",
            Self::InvalidOpcode(_) => "invalid-opcode",
            Self::FarCall(_) => "far-call",
            Self::OperandSize(_) => "operand-size",
            Self::RepeatPrefix(_) => "repeat-prefix",
            Self::Privileged(_) => "privileged",
            Self::PrivilegeTransition(_) => "privilege-transition",
            Self::Virtualization(_) => "virtualization",
            Self::AddressVisible(_) => "address-visible",
            Self::Unreachable { .. } => "unreachable",
            Self::NoImage { .. } => "no-image",
        }
    }

    /// The address of the instruction.
    #[must_use]
    pub const fn addr(&self) -> u64 {
        match self {
            Self::Undecodable(site)
            | Self::Truncated(site)
            | Self::Breakpoint(site)
            | Self::Interrupt(site)
            | Self::InvalidOpcode(site)
            | Self::FarCall(site)
            | Self::OperandSize(site)
            | Self::RepeatPrefix(site)
            | Self::Privileged(site)
            | Self::PrivilegeTransition(site)
            | Self::Virtualization(site)
            | Self::AddressVisible(site) => site.addr(),
            Self::Unreachable { addr, .. } | Self::NoImage { addr } => *addr,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable(site) => write!(f, "{site}: these bytes are no instruction in 64-bit mode"),
            Self::Truncated(site) => write!(f, "{site}: the code ends inside this instruction"),
            Self::Breakpoint(site) => {
                write!(f, "{site}: this is a breakpoint already; its trap must be reported at this address")
            }
            Self::Interrupt(site) => {
                write!(f, "{site}: a software interrupt is handled by the address that it comes from")
            }
            Self::InvalidOpcode(site) => write!(f, "{site}: always raises #UD, which is handled by its address"),
            Self::FarCall(site) => write!(f, "{site}: a far call pushes its own code segment and address"),
            Self::OperandSize(site) => {
                write!(f, "{site}: with the prefix 66, processors disagree on the length and target of a near branch")
            }
            Self::RepeatPrefix(site) => {
                write!(f, "{site}: with a repeat prefix, processors disagree on the condition of this loop")
            }
            Self::Privileged(site) => write!(f, "{site}: raises #GP at every privilege level but 0"),
            Self::PrivilegeTransition(site) => {
                write!(
                    f,
                    "{site}: around a change of privilege level the stack is not the kernel's, so no trap may come"
                )
            }
            Self::Virtualization(site) => {
                write!(f, "{site}: enters or leaves a virtual machine by an address that the hardware keeps elsewhere")
            }
            Self::AddressVisible(site) => {
                write!(f, "{site}: shows its own address in a place that cannot be repaired")
            }
            Self::Unreachable { addr, target, at } => {
                write!(f, "{addr:#x}: refers to {target:#x}, more than 2 GiB from its copy at {at:#x}")
            }
            Self::NoImage { addr } => {
                write!(f, "{addr:#x}: this call reads its target where it pushes; it can be emulated, not copied")
            }
        }
    }
}

impl core::error::Error for Refusal {}
