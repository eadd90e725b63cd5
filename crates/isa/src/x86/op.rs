//! Operations: the effect of an instruction as plain data.
//!
//! An operation is made by the decoder, wherever that runs, and executed in trap context, possibly
//! in another process. It is sixteen bytes without padding, of integers only, so every bit pattern
//! is a value: a number that means nothing makes [`Op::execute`] decline, nothing else. Addresses
//! are relative to the instruction, so an operation stays valid when its code is mapped elsewhere.

use crate::Segment;

/// What an [`Op`] does: the values of its first byte.
pub(super) mod kind {
    pub(crate) const NOP: u8 = 0;
    pub(crate) const JUMP: u8 = 1;
    pub(crate) const CALL: u8 = 2;
    pub(crate) const BRANCH: u8 = 3;
    pub(crate) const LOOP: u8 = 4;
    pub(crate) const RETURN: u8 = 5;
    pub(crate) const JUMP_REGISTER: u8 = 6;
    pub(crate) const CALL_REGISTER: u8 = 7;
    pub(crate) const JUMP_MEMORY: u8 = 8;
    pub(crate) const CALL_MEMORY: u8 = 9;
    pub(crate) const PUSH: u8 = 10;
    pub(crate) const POP: u8 = 11;
    pub(crate) const PUSH_FLAGS: u8 = 12;
    pub(crate) const POP_FLAGS: u8 = 13;
    pub(crate) const CLEAR_INTERRUPTS: u8 = 14;
    pub(crate) const SET_INTERRUPTS: u8 = 15;
}

/// The low two opcode bits of the loop family, as `kind::LOOP` carries them in `arg`; what is left
/// is `loop`.
pub(super) mod loops {
    pub(crate) const LOOPNE: u8 = 0;
    pub(crate) const LOOPE: u8 = 1;
    pub(crate) const RCX_ZERO: u8 = 3;
}

/// `Op::base` that names the instruction pointer, and the value of `base` and `index` that names
/// nothing.
pub(super) const BASE_RIP: u8 = 16;
pub(super) const NO_REGISTER: u8 = 0xFF;

/// `Op::scale` of an operand with 32-bit addressing (prefix 67) has this bit set.
pub(super) const ADDRESS_32: u8 = 0x80;

/// The effect of one instruction, executed by [`Op::execute`]. The default is `nop` of no length.
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
/// use isa::x86::{Op, Regs, gpr};
///
/// # let mut ram = Ram(Default::default());
/// let mut regs = Regs { rip: 0x1000, ..Regs::default() };
/// regs.gpr[gpr::RSP] = 0x8000;
/// regs.gpr[gpr::RAX] = 0x3000;
/// regs.gpr[gpr::RCX] = 2;
/// let mut goes_to = |op: Op| op.execute(&mut regs, &mut ram).map(|()| regs.rip);
///
/// assert_eq!(goes_to(Op::nop(4)), Ok(0x1004));
/// assert_eq!(goes_to(Op::call(5, 0x100)), Ok(0x1109));
/// assert_eq!(goes_to(Op::ret(1, 0)), Ok(0x1009)); // behind the call
/// assert_eq!(goes_to(Op::jump(2, -0xB)), Ok(0x1000));
/// assert_eq!(goes_to(Op::branch(2, 4, 0x10)), Ok(0x1002)); // je: the zero flag is clear
/// assert_eq!(goes_to(Op::branch(2, 5, 0x10)), Ok(0x1014)); // jne
/// assert_eq!(goes_to(Op::counted(2, 0xE2, false, -0x16)), Ok(0x1000)); // loop: rcx was 2
/// assert_eq!(goes_to(Op::counted(2, 0xE2, false, -0x16)), Ok(0x1002)); // and is 0 now
/// assert_eq!(goes_to(Op::call_register(2, 0)), Ok(0x3000)); // call rax
/// assert_eq!(goes_to(Op::ret(3, 0x10)), Ok(0x1004));
/// assert_eq!(goes_to(Op::jump_register(2, 0)), Ok(0x3000)); // jmp rax
/// assert_eq!(regs.rsp(), 0x8010); // as at first, but for what the last return has released
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Op {
    pub(super) kind: u8,
    /// Length of the instruction.
    pub(super) len: u8,
    /// Condition code, loop kind or register.
    pub(super) arg: u8,
    pub(super) base: u8,
    pub(super) index: u8,
    /// Logarithm of the scale, and [`ADDRESS_32`].
    pub(super) scale: u8,
    /// 0 none, 1 fs, 2 gs.
    pub(super) segment: u8,
    pub(super) reserved: u8,
    /// Displacement of a branch or of the memory operand, or the stack bytes that a return
    /// releases.
    pub(super) value: i64,
}

/// A memory operand of an indirect jump or call.
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
/// use isa::x86::{Op, Operand, Regs, gpr};
///
/// // [rbx+rcx*8-0x10], a table of functions whose third is at 0x2000.
/// let third = Operand { base: Some(3), index: Some((1, 3)), displacement: -0x10, ..Operand::default() };
/// let mut ram = Ram([(0x5000, 0x2000)].into());
/// let mut regs = Regs { rip: 0x1000, ..Regs::default() };
/// regs.gpr[gpr::RSP] = 0x8000;
/// (regs.gpr[gpr::RBX], regs.gpr[gpr::RCX]) = (0x5000, 2);
///
/// Op::jump_memory(4, third).execute(&mut regs, &mut ram)?;
/// assert_eq!((regs.rip, regs.rsp()), (0x2000, 0x8000));
///
/// regs.rip = 0x1000;
/// Op::call_memory(4, third).execute(&mut regs, &mut ram)?;
/// assert_eq!((regs.rip, regs.rsp()), (0x2000, 0x7FF8));
/// assert_eq!(ram.read(0x7FF8, Width::B8), Ok(0x1004));
/// # Ok::<(), Fault>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Operand {
    /// The base register.
    pub base: Option<u8>,
    /// The base is the address of the next instruction.
    pub rip_relative: bool,
    /// The index register and the logarithm of its scale.
    pub index: Option<(u8, u8)>,
    /// Added to the rest; for a RIP-relative operand, relative to the next instruction.
    pub displacement: i32,
    /// The segment, where it has a base.
    pub segment: Option<Segment>,
    /// Addresses are computed modulo 2³² (prefix 67).
    pub address_32: bool,
}

impl Op {
    /// The size of [`Op::to_bytes`].
    pub const SIZE: usize = 16;

    const fn new(kind: u8, len: u8, arg: u8, value: i64) -> Self {
        Self { kind, len, arg, base: 0, index: 0, scale: 0, segment: 0, reserved: 0, value }
    }

    /// No effect: `nop`, `endbr64`.
    #[must_use]
    pub const fn nop(len: u8) -> Self {
        Self::new(kind::NOP, len, 0, 0)
    }

    /// `jmp` to the next instruction's address plus `displacement`.
    #[must_use]
    pub const fn jump(len: u8, displacement: i64) -> Self {
        Self::new(kind::JUMP, len, 0, displacement)
    }

    /// `call` of the next instruction's address plus `displacement`.
    #[must_use]
    pub const fn call(len: u8, displacement: i64) -> Self {
        Self::new(kind::CALL, len, 0, displacement)
    }

    /// `jcc`; `condition` is the low nibble of its opcode.
    #[must_use]
    pub const fn branch(len: u8, condition: u8, displacement: i64) -> Self {
        Self::new(kind::BRANCH, len, condition & 15, displacement)
    }

    /// `loopne`, `loope`, `loop`, `jrcxz`: opcodes E0 to E3. With `address_32` the counter is
    /// `ecx`.
    #[must_use]
    pub const fn counted(len: u8, opcode: u8, address_32: bool, displacement: i64) -> Self {
        let mut op = Self::new(kind::LOOP, len, opcode & 3, displacement);
        op.scale = if address_32 { ADDRESS_32 } else { 0 };
        op
    }

    /// `ret`, releasing `release` more bytes of the stack.
    #[must_use]
    pub const fn ret(len: u8, release: u16) -> Self {
        Self::new(kind::RETURN, len, 0, release as i64)
    }

    /// `jmp register`.
    #[must_use]
    pub const fn jump_register(len: u8, register: u8) -> Self {
        Self::new(kind::JUMP_REGISTER, len, register & 15, 0)
    }

    /// `call register`.
    #[must_use]
    pub const fn call_register(len: u8, register: u8) -> Self {
        Self::new(kind::CALL_REGISTER, len, register & 15, 0)
    }

    /// `jmp [operand]`.
    #[must_use]
    pub const fn jump_memory(len: u8, operand: Operand) -> Self {
        Self::new(kind::JUMP_MEMORY, len, 0, 0).with(operand)
    }

    /// `call [operand]`.
    #[must_use]
    pub const fn call_memory(len: u8, operand: Operand) -> Self {
        Self::new(kind::CALL_MEMORY, len, 0, 0).with(operand)
    }

    /// `push register`, 64 bits.
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
    /// use isa::x86::{Op, Regs, flags, gpr};
    ///
    /// let mut ram = Ram(Default::default());
    /// let mut regs = Regs { rip: 0x1000, flags: flags::IF, ..Regs::default() };
    /// (regs.gpr[gpr::RSP], regs.gpr[gpr::RAX]) = (0x8000, 7);
    ///
    /// Op::push(1, 0).execute(&mut regs, &mut ram)?; // push rax
    /// assert_eq!((regs.rsp(), ram.read(0x7FF8, Width::B8)), (0x7FF8, Ok(7)));
    /// Op::pop(1, 3).execute(&mut regs, &mut ram)?; // pop rbx
    /// assert_eq!((regs.rsp(), regs.gpr[gpr::RBX]), (0x8000, 7));
    ///
    /// Op::push_flags(1).execute(&mut regs, &mut ram)?;
    /// Op::clear_interrupts(1).execute(&mut regs, &mut ram)?;
    /// assert_eq!(regs.flags, 0);
    /// Op::pop_flags(1).execute(&mut regs, &mut ram)?;
    /// assert_eq!(regs.flags, flags::IF);
    ///
    /// regs.flags = flags::ZF;
    /// Op::set_interrupts(1).execute(&mut regs, &mut ram)?;
    /// assert_eq!(regs.flags, flags::ZF | flags::IF);
    /// # Ok::<(), Fault>(())
    /// ```
    #[must_use]
    pub const fn push(len: u8, register: u8) -> Self {
        Self::new(kind::PUSH, len, register & 15, 0)
    }

    /// `pop register`, 64 bits.
    #[must_use]
    pub const fn pop(len: u8, register: u8) -> Self {
        Self::new(kind::POP, len, register & 15, 0)
    }

    /// `pushfq`.
    #[must_use]
    pub const fn push_flags(len: u8) -> Self {
        Self::new(kind::PUSH_FLAGS, len, 0, 0)
    }

    /// `popfq` at privilege level 0.
    #[must_use]
    pub const fn pop_flags(len: u8) -> Self {
        Self::new(kind::POP_FLAGS, len, 0, 0)
    }

    /// `cli` at privilege level 0.
    #[must_use]
    pub const fn clear_interrupts(len: u8) -> Self {
        Self::new(kind::CLEAR_INTERRUPTS, len, 0, 0)
    }

    /// `sti` at privilege level 0. The interrupts that it allows may come before the next
    /// instruction, not after it.
    #[must_use]
    pub const fn set_interrupts(len: u8) -> Self {
        Self::new(kind::SET_INTERRUPTS, len, 0, 0)
    }

    const fn with(mut self, operand: Operand) -> Self {
        self.base = match operand.base {
            _ if operand.rip_relative => BASE_RIP,
            Some(register) => register & 15,
            None => NO_REGISTER,
        };
        (self.index, self.scale) = match operand.index {
            Some((register, scale)) => (register & 15, scale & 3),
            None => (NO_REGISTER, 0),
        };
        if operand.address_32 {
            self.scale |= ADDRESS_32;
        }
        self.segment = match operand.segment {
            None => 0,
            Some(Segment::Fs) => 1,
            Some(Segment::Gs) => 2,
        };
        self.value = operand.displacement as i64;
        self
    }

    /// Whether execution reads or writes memory, and so may return a fault of it.
    ///
    /// ```
    /// use isa::x86::Op;
    ///
    /// let (call, jump, push_flags) = (Op::call(5, 0x100), Op::jump(2, 8), Op::push_flags(1));
    /// let classes = |op: Op| (op.touches_memory(), op.uses_flags(), op.is_call(), op.falls_through());
    /// assert_eq!(classes(call), (true, false, true, false));
    /// assert_eq!(classes(jump), (false, false, false, false));
    /// assert_eq!(classes(push_flags), (true, true, false, true));
    /// ```
    #[must_use]
    pub const fn touches_memory(&self) -> bool {
        matches!(
            self.kind,
            kind::CALL
                | kind::RETURN
                | kind::CALL_REGISTER
                | kind::JUMP_MEMORY
                | kind::CALL_MEMORY
                | kind::PUSH
                | kind::POP
                | kind::PUSH_FLAGS
                | kind::POP_FLAGS
        )
    }

    /// Whether it reads or changes the flags register as a whole, with the trap flag and the interrupt flag.
    #[must_use]
    pub const fn uses_flags(&self) -> bool {
        matches!(self.kind, kind::PUSH_FLAGS | kind::POP_FLAGS | kind::CLEAR_INTERRUPTS | kind::SET_INTERRUPTS)
    }

    /// Whether it pushes a return address.
    #[must_use]
    pub const fn is_call(&self) -> bool {
        matches!(self.kind, kind::CALL | kind::CALL_REGISTER | kind::CALL_MEMORY)
    }

    /// Whether execution may continue at the next instruction without having been elsewhere.
    #[must_use]
    pub const fn falls_through(&self) -> bool {
        !matches!(
            self.kind,
            kind::JUMP
                | kind::CALL
                | kind::RETURN
                | kind::JUMP_REGISTER
                | kind::CALL_REGISTER
                | kind::JUMP_MEMORY
                | kind::CALL_MEMORY
        )
    }

    /// The bytes to hand to whoever executes it.
    ///
    /// ```
    /// use isa::x86::Op;
    ///
    /// let call = Op::call(5, 0x100);
    /// assert_eq!(Op::from_bytes(call.to_bytes()), call);
    /// assert_eq!(Op::from_words(call.to_words()), call);
    /// // The words are the same bytes.
    /// let [first, second] = call.to_words().map(u64::to_le_bytes);
    /// assert_eq!([first, second].concat(), call.to_bytes());
    /// ```
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; Self::SIZE] {
        let v = self.value.to_le_bytes();
        [
            self.kind,
            self.len,
            self.arg,
            self.base,
            self.index,
            self.scale,
            self.segment,
            self.reserved,
            v[0],
            v[1],
            v[2],
            v[3],
            v[4],
            v[5],
            v[6],
            v[7],
        ]
    }

    /// The bytes as words, eight in each, little endian.
    #[must_use]
    pub const fn to_words(&self) -> [u64; Self::SIZE / 8] {
        let first = [self.kind, self.len, self.arg, self.base, self.index, self.scale, self.segment, self.reserved];
        [u64::from_le_bytes(first), self.value.cast_unsigned()]
    }

    /// The operation that [`Op::to_words`] gave.
    #[must_use]
    #[inline]
    pub const fn from_words([first, value]: [u64; Self::SIZE / 8]) -> Self {
        Self {
            kind: first as u8,
            len: (first >> 8) as u8,
            arg: (first >> 16) as u8,
            base: (first >> 24) as u8,
            index: (first >> 32) as u8,
            scale: (first >> 40) as u8,
            segment: (first >> 48) as u8,
            reserved: (first >> 56) as u8,
            value: value.cast_signed(),
        }
    }

    /// The operation that [`Op::to_bytes`] gave. Any bytes are an operation; most decline to
    /// execute.
    #[must_use]
    pub const fn from_bytes(b: [u8; Self::SIZE]) -> Self {
        Self {
            kind: b[0],
            len: b[1],
            arg: b[2],
            base: b[3],
            index: b[4],
            scale: b[5],
            segment: b[6],
            reserved: b[7],
            value: i64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        }
    }
}
