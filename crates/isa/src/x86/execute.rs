//! Execution of operations on a register file.
//!
//! Each follows the pseudo code of its instruction in SDM volume 2, in its order of memory
//! accesses. An operation first computes and reads, then makes its only write, and changes
//! registers last: a fault leaves everything as it was.

use super::op::{ADDRESS_32, BASE_RIP, NO_REGISTER, Op, kind, loops};
use super::regs::{Condition, Regs, flags, gpr};
use crate::{Fault, Memory, Segment, Width};

/// Flags that `popfq` loads at privilege level 0; it leaves VM, VIF and VIP and clears RF (SDM
/// volume 2, POPF).
const POPPED_FLAGS: u64 = flags::CF
    | flags::PF
    | flags::AF
    | flags::ZF
    | flags::SF
    | flags::TF
    | flags::IF
    | flags::DF
    | flags::OF
    | flags::IOPL
    | flags::NT
    | flags::AC
    | flags::ID;

impl Op {
    /// Has the effect of the instruction on `regs` and `mem`. `regs.rip` is the instruction's
    /// address on entry.
    ///
    /// # Errors
    ///
    /// The instruction would fault, or the operation's bytes mean nothing. Nothing was changed; the
    /// processor shall execute the instruction's image and decide.
    ///
    /// ```
    /// use isa::x86::{Op, Regs};
    /// use isa::{Fault, Memory, Segment, Width};
    ///
    /// /// No address can be accessed.
    /// struct NoMemory;
    ///
    /// impl Memory for NoMemory {
    ///     fn read(&mut self, addr: u64, _: Width) -> Result<u64, Fault> {
    ///         Err(Fault { addr, write: false })
    ///     }
    ///     fn write(&mut self, addr: u64, _: Width, _: u64) -> Result<(), Fault> {
    ///         Err(Fault { addr, write: true })
    ///     }
    ///     fn segment_base(&self, _: Segment) -> u64 {
    ///         0
    ///     }
    /// }
    ///
    /// let mut regs = Regs { rip: 0x1000, ..Regs::default() };
    /// regs.set(4, 0x8000); // rsp
    /// let before = regs;
    /// assert_eq!(Op::call(5, 0x100).execute(&mut regs, &mut NoMemory), Err(Fault { addr: 0x7FF8, write: true }));
    /// assert_eq!(regs, before);
    /// // A jump needs no memory.
    /// assert_eq!(Op::jump(5, 0x100).execute(&mut regs, &mut NoMemory), Ok(()));
    /// assert_eq!(regs.rip, 0x1105);
    /// ```
    pub fn execute<M: Memory>(&self, regs: &mut Regs, mem: &mut M) -> Result<(), Fault> {
        let next = regs.rip.wrapping_add(u64::from(self.len));
        let target = next.wrapping_add(self.value.cast_unsigned());
        match self.kind {
            kind::NOP => regs.rip = next,
            kind::JUMP => regs.rip = reachable(target)?,
            kind::CALL => call(regs, mem, next, target)?,
            kind::BRANCH if regs.holds(Condition::new(self.arg)) => regs.rip = reachable(target)?,
            kind::BRANCH => regs.rip = next,
            kind::LOOP => self.count(regs, next, target)?,
            kind::RETURN => self.leave(regs, mem)?,
            kind::JUMP_REGISTER => regs.rip = reachable(regs.get(self.arg))?,
            kind::CALL_REGISTER => call(regs, mem, next, regs.get(self.arg))?,
            kind::JUMP_MEMORY => regs.rip = reachable(mem.read(self.address(regs, mem), Width::B8)?)?,
            kind::CALL_MEMORY => {
                let target = mem.read(self.address(regs, mem), Width::B8)?;
                call(regs, mem, next, target)?;
            }
            kind::PUSH => {
                push(regs, mem, regs.get(self.arg))?;
                regs.rip = next;
            }
            kind::POP => {
                let value = pop(regs, mem)?;
                // Last, so that `pop rsp` keeps what it loads.
                regs.set(self.arg, value);
                regs.rip = next;
            }
            kind::PUSH_FLAGS => {
                push(regs, mem, regs.flags & !(flags::RF | flags::VM))?;
                regs.rip = next;
            }
            kind::POP_FLAGS => {
                let value = pop(regs, mem)?;
                regs.flags = (regs.flags & !(POPPED_FLAGS | flags::RF)) | (value & POPPED_FLAGS);
                regs.rip = next;
            }
            kind::CLEAR_INTERRUPTS => {
                regs.flags &= !flags::IF;
                regs.rip = next;
            }
            kind::SET_INTERRUPTS => {
                regs.flags |= flags::IF;
                regs.rip = next;
            }
            _ => return Err(Fault { addr: regs.rip, write: false }),
        }
        Ok(())
    }

    /// The loop family: counts first, tests afterwards, touches no flag.
    fn count(&self, regs: &mut Regs, next: u64, target: u64) -> Result<(), Fault> {
        let mask = if self.scale & ADDRESS_32 != 0 { u64::from(u32::MAX) } else { u64::MAX };
        let rcx = regs.gpr[gpr::RCX];
        let zero = regs.flags & flags::ZF != 0;
        let counted = rcx.wrapping_sub(1) & mask;
        let taken = match self.arg {
            loops::RCX_ZERO => rcx & mask == 0,
            loops::LOOPNE => counted != 0 && !zero,
            loops::LOOPE => counted != 0 && zero,
            _ => counted != 0,
        };
        let to = if taken { reachable(target)? } else { next };
        if self.arg != loops::RCX_ZERO {
            // A 32-bit counter clears the upper half, as every 32-bit result does.
            regs.gpr[gpr::RCX] = counted;
        }
        regs.rip = to;
        Ok(())
    }

    fn leave<M: Memory>(&self, regs: &mut Regs, mem: &mut M) -> Result<(), Fault> {
        let target = reachable(mem.read(regs.rsp(), Width::B8)?)?;
        regs.gpr[gpr::RSP] = regs.rsp().wrapping_add(8).wrapping_add(self.value.cast_unsigned());
        regs.rip = target;
        Ok(())
    }

    /// The linear address of the memory operand.
    fn address<M: Memory>(&self, regs: &Regs, mem: &M) -> u64 {
        let base = match self.base {
            BASE_RIP => regs.rip.wrapping_add(u64::from(self.len)),
            NO_REGISTER => 0,
            register => regs.get(register),
        };
        let index = if self.index == NO_REGISTER { 0 } else { regs.get(self.index) << (self.scale & 3) };
        let offset = base.wrapping_add(index).wrapping_add(self.value.cast_unsigned());
        let offset = if self.scale & ADDRESS_32 != 0 { offset & u64::from(u32::MAX) } else { offset };
        match self.segment {
            1 => offset.wrapping_add(mem.segment_base(Segment::Fs)),
            2 => offset.wrapping_add(mem.segment_base(Segment::Gs)),
            _ => offset,
        }
    }
}

/// `target`, if the processor can go there: a branch to a non-canonical address raises `#GP` (SDM
/// volume 2, JMP).
///
/// Bits 63 to 47 must agree. Where five-level paging widens this, an address between the two bounds
/// is left to the processor.
const fn reachable(target: u64) -> Result<u64, Fault> {
    let top = target.cast_signed() >> 47;
    if top == 0 || top == -1 { Ok(target) } else { Err(Fault { addr: target, write: false }) }
}

fn call<M: Memory>(regs: &mut Regs, mem: &mut M, next: u64, target: u64) -> Result<(), Fault> {
    let target = reachable(target)?;
    push(regs, mem, next)?;
    regs.rip = target;
    Ok(())
}

fn push<M: Memory>(regs: &mut Regs, mem: &mut M, value: u64) -> Result<(), Fault> {
    let top = regs.rsp().wrapping_sub(8);
    mem.write(top, Width::B8, value)?;
    regs.gpr[gpr::RSP] = top;
    Ok(())
}

fn pop<M: Memory>(regs: &mut Regs, mem: &mut M) -> Result<u64, Fault> {
    let value = mem.read(regs.rsp(), Width::B8)?;
    regs.gpr[gpr::RSP] = regs.rsp().wrapping_add(8);
    Ok(value)
}
