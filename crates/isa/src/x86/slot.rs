//! Copies of instructions: how one is made for an address, and what is left to repair after it ran.

use super::image::{Image, reach};
use super::{MAX_LEN, Refusal, Regs, flags, gpr};
use crate::{Fault, Memory, Width};

/// What in a copy depends on the address where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relocation {
    /// Nothing.
    None,
    /// The 32-bit displacement at this offset leads to `target`.
    Displacement { offset: u8, target: u64 },
    /// The same modulo 2³²: prefix 67 makes the operand EIP-relative, and every slot reaches every
    /// target.
    Displacement32 { offset: u8, target: u64 },
}

/// What is left to do after the copy of an instruction was stepped over. Boosted images contain it.
///
/// ```
/// # use isa::{Fault, Memory, Segment, Width};
/// # struct Ram(std::collections::BTreeMap<u64, u64>);
/// # impl Memory for Ram {
/// #     fn read(&mut self, addr: u64, _: Width) -> Result<u64, Fault> {
/// #         self.0.get(&addr).copied().ok_or(Fault { addr, write: false })
/// #     }
/// #     fn write(&mut self, addr: u64, _: Width, value: u64) -> Result<(), Fault> {
/// #         self.0.insert(addr, value);
/// #         Ok(())
/// #     }
/// #     fn segment_base(&self, _: Segment) -> u64 {
/// #         0
/// #     }
/// # }
/// use isa::x86::{Regs, Repair, flags};
///
/// // pushf at 0x1000 was stepped: what it has pushed shows the host's trap flag.
/// let mut regs = Regs { rip: 0x2002, ..Regs::default() };
/// regs.set(4, 0x8000); // rsp
/// let mut ram = Ram([(0x8000, flags::ZF | flags::TF)].into());
/// Repair::PushedTrapFlag(Width::B2).apply(&mut regs, &mut ram, 0x1002, false)?;
/// assert_eq!(ram.read(0x8000, Width::B2), Ok(flags::ZF));
/// assert_eq!(regs.rip, 0x1002);
/// # Ok::<(), Fault>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing but to set the instruction pointer, if it is at the end of the copy, to the next
    /// instruction.
    Nothing,
    /// `syscall` has put the address behind the copy into `rcx`; it shall be the next
    /// instruction's.
    Rcx,
    /// `pushf` has pushed the trap flag, which the host set to step: it is to be cleared in the
    /// value, of this width, at the top of the stack.
    PushedTrapFlag(Width),
    /// `popf` has loaded the flags: those that the host saved before the step are outdated.
    LoadedFlags,
}

impl Repair {
    /// Repairs `regs` and `mem` after the copy was stepped by trap flag and has fallen through to
    /// `next`. `trap_flag` is the program's own trap flag.
    ///
    /// # Errors
    ///
    /// The stack could not be accessed; nothing was changed.
    pub fn apply<M: Memory>(self, regs: &mut Regs, mem: &mut M, next: u64, trap_flag: bool) -> Result<(), Fault> {
        match self {
            Self::Rcx => regs.gpr[gpr::RCX] = next,
            Self::PushedTrapFlag(width) if !trap_flag => {
                let pushed = mem.read(regs.rsp(), width)?;
                mem.write(regs.rsp(), width, pushed & !flags::TF)?;
            }
            Self::Nothing | Self::PushedTrapFlag(_) | Self::LoadedFlags => {}
        }
        regs.rip = next;
        Ok(())
    }
}

/// How to execute an instruction out of line.
///
/// ```
/// use isa::x86::{Plan, Privilege, Refusal, Repair, Verdict, analyse};
///
/// fn plan(bytes: &[u8]) -> Option<Plan> {
///     match analyse(bytes, 0x1000, Privilege::User).ok()?.verdict {
///         Verdict::Slot(plan) => Some(plan),
///         Verdict::Emulate(_) => None,
///     }
/// }
///
/// # fn main() -> Result<(), Refusal> {
/// let syscall = plan(&[0x0F, 0x05]).expect("is copied");
/// assert_eq!(syscall.bytes(), [0x0F, 0x05]);
/// assert!(syscall.position_independent() && syscall.boostable() && !syscall.steppable());
/// // The copy; with a `mov` of 10 bytes to rcx behind it; and with the jump to the next instruction.
/// assert_eq!(syscall.repair(), Repair::Rcx);
/// assert_eq!(syscall.step_image(0x2000)?.len(), 2);
/// assert_eq!(syscall.body(0x2000)?.len(), 12);
/// assert_eq!(syscall.image(0x2000)?.len(), 17);
///
/// let load = plan(&[0x48, 0x8B, 0x05, 0x10, 0, 0, 0]).expect("is copied"); // mov rax, [rip+0x10]
/// assert!(!load.position_independent());
/// assert!(matches!(load.image(0x7000_0000_0000), Err(Refusal::Unreachable { target: 0x1017, .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(super) addr: u64,
    pub(super) bytes: [u8; MAX_LEN],
    pub(super) len: u8,
    pub(super) relocation: Relocation,
    pub(super) repair: Repair,
    pub(super) boostable: bool,
    pub(super) steppable: bool,
}

impl Plan {
    /// The bytes of the original instruction.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether execution goes on at the next instruction, so that [`Plan::image`] ends with a jump
    /// there.
    ///
    /// The others (`iretq`, `retf`, `jmp far`, `sysenter`) go elsewhere by themselves, and their
    /// image is the bare copy. All are complete: no second trap is needed.
    #[must_use]
    pub const fn boostable(&self) -> bool {
        self.boostable
    }

    /// Whether a host that steps by trap flag may do so: the trap comes directly after the copy.
    ///
    /// `mov ss` and `pop ss` hold it back for one more instruction (SDM volume 3, section 6.8.3),
    /// system calls clear the flag for their duration, `xbegin` is aborted by it.
    #[must_use]
    pub const fn steppable(&self) -> bool {
        self.steppable
    }

    /// What remains to be done after [`Plan::step_image`].
    #[must_use]
    pub const fn repair(&self) -> Repair {
        self.repair
    }

    /// Whether the copy can run at any address.
    #[must_use]
    pub const fn position_independent(&self) -> bool {
        !matches!(self.relocation, Relocation::Displacement { .. })
    }

    /// The image to write at `at`: the copy, its repair and the jump to the next instruction.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unreachable`].
    pub fn image(&self, at: u64) -> Result<Image, Refusal> {
        let mut image = self.body(at)?;
        if self.boostable {
            image.jump(self.next());
        }
        Ok(image)
    }

    /// The copy and its repair, without the jump: execution falls off its end. For detours, which
    /// displace several instructions.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unreachable`].
    pub fn body(&self, at: u64) -> Result<Image, Refusal> {
        let mut image = self.step_image(at)?;
        if self.repair == Repair::Rcx {
            // mov rcx, next
            image.code(&[0x48, 0xB9]);
            image.code(&self.next().to_le_bytes());
        }
        Ok(image)
    }

    /// The copy alone, for a host that steps it and then applies [`Plan::repair`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Unreachable`].
    pub fn step_image(&self, at: u64) -> Result<Image, Refusal> {
        let mut image = Image::new(at, self.addr);
        image.code(self.bytes());
        let end = image.here();
        match self.relocation {
            Relocation::None => {}
            Relocation::Displacement { offset, target } => {
                patch(&mut image, offset, reach(self.addr, at, end, target)?.cast_unsigned());
            }
            Relocation::Displacement32 { offset, target } => {
                patch(&mut image, offset, target.wrapping_sub(end) as u32);
            }
        }
        image.stands_for(self.next(), 0);
        Ok(image)
    }

    const fn next(&self) -> u64 {
        self.addr.wrapping_add(self.len as u64)
    }
}

fn patch(image: &mut Image, offset: u8, displacement: u32) {
    for (i, byte) in displacement.to_le_bytes().into_iter().enumerate() {
        image.patch(usize::from(offset) + i, byte);
    }
}
