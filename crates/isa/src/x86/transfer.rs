//! Images of operations: control transfers that the processor itself executes out of line.
//!
//! A host uses them when emulation declined, so that a fault comes with the processor's semantics,
//! and in detours, where nothing traps. None uses a register or the flags.
//!
//! A call is `push` of the original return address and a jump. One through memory must read its
//! target before it pushes, and must not have pushed if the read faults, so it begins with `push
//! [operand]; lea rsp, [rsp+8]`: this makes the same accesses in the same order as the call and
//! leaves no trace but in the eight bytes that the call overwrites anyway. If the operand is in
//! those bytes the target is lost; for an operand relative to `rsp` that is refused, for one
//! relative to another register it is not known: the operation has no such limit.

use super::image::{Image, reach};
use super::op::{ADDRESS_32, BASE_RIP, NO_REGISTER, Op, kind, loops};
use super::{Condition, Refusal, gpr};

/// `/n` of opcode FF.
const CALL_GROUP_JUMP: u8 = 4;
const CALL_GROUP_PUSH: u8 = 6;
/// Register fields that mean something else in a memory operand: a SIB byte follows, and no base.
const RM_SIB: u8 = 4;
const NO_BASE: u8 = 5;
const RSP: u8 = gpr::RSP as u8;

impl Op {
    /// The same transfer of the instruction at `addr`, for the processor to execute at `at`. `len`
    /// is the instruction's length.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unreachable`] or [`Refusal::NoImage`].
    ///
    /// ```
    /// use isa::x86::{Op, Refusal};
    ///
    /// // je 0x1012 at 0x1000: jne over the jump to the target, and the jump to the next instruction.
    /// let branch = Op::branch(2, 4, 0x10);
    /// let image = branch.image(0x1000, 2, 0x2000)?;
    /// assert_eq!((image.as_slice()[0], image.as_slice()[2], image.as_slice()[7]), (0x75, 0xE9, 0xE9));
    /// assert_eq!((image.original(2), image.original(7)), (0x1012, 0x1002));
    /// // Without the last of these, it falls off the end.
    /// assert_eq!(branch.body(0x1000, 2, 0x2000)?.as_slice(), &image.as_slice()[..7]);
    ///
    /// // call rsp
    /// assert_eq!(Op::call_register(2, 4).image(0x1000, 2, 0x2000), Err(Refusal::NoImage { addr: 0x1000 }));
    /// # Ok::<(), Refusal>(())
    /// ```
    pub fn image(&self, addr: u64, len: u8, at: u64) -> Result<Image, Refusal> {
        let mut image = self.body(addr, len, at)?;
        if self.falls_through() {
            image.jump(addr.wrapping_add(u64::from(len)));
        }
        Ok(image)
    }

    /// The same without the jump to the next instruction: where the original falls through,
    /// execution falls off the image's end. For detours, which displace several instructions.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unreachable`] or [`Refusal::NoImage`].
    pub fn body(&self, addr: u64, len: u8, at: u64) -> Result<Image, Refusal> {
        let mut image = Image::new(at, addr);
        let next = addr.wrapping_add(u64::from(len));
        let target = next.wrapping_add(self.value.cast_unsigned());
        match self.kind {
            kind::NOP => {}
            kind::JUMP => image.jump(target),
            kind::CALL => call(&mut image, next, |image| {
                // The call is complete: a thread here stands at its target.
                image.stands_for(target, 0);
                image.jump(target);
                Ok(())
            })?,
            kind::BRANCH => {
                let unless = Condition::new(self.arg).negated();
                image.skip(&[], 0x70 | unless.code(), |image| image.jump_taken(target));
            }
            kind::LOOP => self.counted_image(&mut image, next, target),
            kind::RETURN if self.value == 0 => image.code(&[0xC3]),
            kind::RETURN => {
                image.code(&[0xC2]);
                image.code(&(self.value as u16).to_le_bytes());
            }
            kind::JUMP_REGISTER => image.register(&[0xFF], 0xE0, self.arg),
            kind::CALL_REGISTER if self.arg == RSP => return Err(Refusal::NoImage { addr }),
            kind::CALL_REGISTER => call(&mut image, next, |image| {
                image.stands_for(addr, 8);
                image.register(&[0xFF], 0xE0, self.arg);
                Ok(())
            })?,
            kind::JUMP_MEMORY => self.group(&mut image, addr, len, CALL_GROUP_JUMP, 0)?,
            kind::CALL_MEMORY => self.call_memory_image(&mut image, addr, len)?,
            kind::PUSH => image.register(&[], 0x50, self.arg),
            kind::POP => image.register(&[], 0x58, self.arg),
            kind::PUSH_FLAGS => image.code(&[0x9C]),
            kind::POP_FLAGS => image.code(&[0x9D]),
            kind::CLEAR_INTERRUPTS => image.code(&[0xFA]),
            kind::SET_INTERRUPTS => image.code(&[0xFB]),
            _ => return Err(Refusal::NoImage { addr }),
        }
        image.stands_for(next, 0);
        Ok(image)
    }

    /// The loop family has no negation and a short displacement: jump over the jump over the jump.
    fn counted_image(&self, image: &mut Image, next: u64, target: u64) {
        let prefixes: &[u8] = if self.scale & ADDRESS_32 != 0 { &[0x67] } else { &[] };
        let opcode = 0xE0 | (self.arg & loops::RCX_ZERO);
        image.skip(prefixes, opcode, |image| {
            image.stands_for(next, 0);
            image.code(&[0xEB, 0]);
        });
        let from = image.len();
        image.jump_taken(target);
        image.patch(from - 1, (image.len() - from) as u8);
    }

    fn call_memory_image(&self, image: &mut Image, addr: u64, len: u8) -> Result<(), Refusal> {
        // Relative to `rsp`, the operand moves by what is pushed before it is read again.
        let shift = if self.base == RSP { 8 } else { 0 };
        let overwritten = self.base == RSP && self.index == NO_REGISTER && self.segment == 0;
        if overwritten && (-15..=-1).contains(&self.value) {
            return Err(Refusal::NoImage { addr });
        }
        self.group(image, addr, len, CALL_GROUP_PUSH, 0)?;
        image.stands_for(addr, 8);
        image.code(&[0x48, 0x8D, 0x64, 0x24, 0x08]); // lea rsp, [rsp+8]
        image.stands_for(addr, 0);
        call(image, addr.wrapping_add(u64::from(len)), |image| {
            image.stands_for(addr, 8);
            self.group(image, addr, len, CALL_GROUP_JUMP, shift)
        })
    }

    /// An instruction of the group FF with this memory operand, displaced by `shift`.
    fn group(&self, image: &mut Image, addr: u64, len: u8, digit: u8, shift: i64) -> Result<(), Refusal> {
        let at = image.at();
        let address_32 = self.scale & ADDRESS_32 != 0;
        match self.segment {
            1 => image.code(&[0x64]),
            2 => image.code(&[0x65]),
            _ => {}
        }
        if address_32 {
            image.code(&[0x67]);
        }
        let modrm = digit << 3;
        if self.base == BASE_RIP {
            let target = addr.wrapping_add(u64::from(len)).wrapping_add(self.value.cast_unsigned());
            image.code(&[0xFF, modrm | NO_BASE]);
            let end = image.here().wrapping_add(4);
            let displacement = if address_32 { target.wrapping_sub(end) as i32 } else { reach(addr, at, end, target)? };
            image.code(&displacement.to_le_bytes());
            return Ok(());
        }
        let displacement = i32::try_from(self.value + shift).map_err(|_| Refusal::NoImage { addr })?;
        let (base, index) = (self.base, self.index);
        let rex = 0x40 | u8::from(base != NO_REGISTER && base > 7) | u8::from(index != NO_REGISTER && index > 7) << 1;
        if rex != 0x40 {
            image.code(&[rex]);
        }
        // mod 2: a base and a 32-bit displacement; mod 0 with base 5: the displacement alone.
        let (mode, base) = if base == NO_REGISTER { (0, NO_BASE) } else { (0x80, base & 7) };
        let index = if index == NO_REGISTER { RSP } else { index & 7 };
        image.code(&[0xFF, mode | modrm | RM_SIB, (self.scale & 3) << 6 | index << 3 | base]);
        image.code(&displacement.to_le_bytes());
        Ok(())
    }
}

impl Image {
    /// The jump of a taken branch; what comes behind it is reached when the branch was not taken.
    fn jump_taken(&mut self, target: u64) {
        self.stands_for(target, 0);
        self.jump(target);
    }

    /// An instruction that names the register in the low bits of its last byte, behind `first`.
    fn register(&mut self, first: &[u8], last: u8, register: u8) {
        if register > 7 {
            self.code(&[0x41]);
        }
        self.code(first);
        self.code(&[last | (register & 7)]);
    }
}

/// `push [rip+literal]`, what `jump` appends, and the literal: the return address.
fn call(
    image: &mut Image,
    returns_to: u64,
    jump: impl FnOnce(&mut Image) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    image.code(&[0xFF, 0x35, 0, 0, 0, 0]);
    let end = image.len();
    jump(image)?;
    image.patch(end - 4, (image.len() - end) as u8);
    image.code(&returns_to.to_le_bytes());
    Ok(())
}
