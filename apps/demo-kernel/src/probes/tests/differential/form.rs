//! An instruction's form: its bytes, what in them depends on the place, and what it asks of the state before it.

use core::fmt;

/// The most bytes of an instruction.
const MOST: usize = 15;

/// What a form asks of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs(u16);

impl Needs {
    /// Nothing: all but pointers is random.
    pub(super) const NOTHING: Self = Self(0);
    /// Every word of memory is an address to arrive at.
    pub(super) const TARGETS: Self = Self(1);
    /// `rcx` is small: an index or a count.
    pub(super) const SMALL_RCX: Self = Self(2);
    /// The word at `rsp` points into the stack.
    pub(super) const POINTER_TOP: Self = Self(4);
    /// The word at `rsp` are flags.
    pub(super) const FLAGS_TOP: Self = Self(8);
    /// `ax` is a selector of data, or none; the segment registers are compared, and interrupts stay off.
    pub(super) const SELECTOR: Self = Self(16);
    /// Memory holds far pointers.
    pub(super) const FAR: Self = Self(32);
    /// Memory often equals `rax`.
    pub(super) const EQUAL: Self = Self(64);
    /// A quotient often fits.
    pub(super) const DIVIDES: Self = Self(128);
    /// Memory is accessed at a multiple of the operand's size.
    pub(super) const ALIGNED: Self = Self(256);
    /// The stack grows by more than is written to it: what lies there is anybody's, and not compared.
    pub(super) const ALLOCATES: Self = Self(512);

    /// Whether all of `other` is asked for.
    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A displacement that is known only where the form is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fix {
    /// None.
    None,
    /// The four bytes from here lead to data.
    Data(usize),
    /// The four bytes from here lead to a place to arrive at.
    Landing(usize),
}

/// A register that holds an address to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// None.
    None,
    /// Where execution can arrive.
    Good(u8),
    /// No canonical address.
    Bad(u8),
}

/// An instruction to be tested.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// What it is about.
    pub(super) class: &'static str,
    bytes: [u8; MOST],
    length: usize,
    /// What depends on the place.
    pub(super) fix: Fix,
    /// What it asks of the state.
    pub(super) needs: Needs,
    /// What it asks of a register.
    pub(super) target: Target,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:02x?}", self.class, self.bytes())
    }
}

impl Form {
    /// These bytes, as they are. There is room for 15.
    pub(super) fn new(class: &'static str, code: &[u8]) -> Self {
        let mut form =
            Self { class, bytes: [0; MOST], length: 0, fix: Fix::None, needs: Needs::NOTHING, target: Target::None };
        form.push(code);
        form
    }

    /// Asks for more.
    pub(super) fn needing(mut self, needs: Needs) -> Self {
        self.needs = self.needs.and(needs);
        self
    }

    /// Wants an address in a register.
    pub(super) fn to(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// With a displacement to be filled in.
    pub(super) fn fixed(mut self, fix: Fix) -> Self {
        self.fix = fix;
        self
    }

    /// The bytes; the displacement is not filled in.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The bytes at `address`.
    pub(super) fn placed(&self, address: u64, data: u64, landing: u64) -> ([u8; MOST], usize) {
        let mut bytes = self.bytes;
        let (at, target) = match self.fix {
            Fix::None => return (bytes, self.length),
            Fix::Data(at) => (at, data),
            Fix::Landing(at) => (at, landing),
        };
        // The kernel and all its text lie within 2 GiB.
        let displacement = target.wrapping_sub(address + self.length as u64) as u32;
        bytes[at..at + 4].copy_from_slice(&displacement.to_le_bytes());
        (bytes, self.length)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

/// An operand that is a register or memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// A register.
    Register(u8),
    /// A register and a displacement.
    Base(u8, i32),
    /// A register, another one times 1, 2, 4 or 8 (its logarithm), and a displacement.
    Indexed(u8, u8, u8, i32),
    /// Data, relative to `rip`.
    Data,
}

/// An instruction with a ModRM byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coded<'a> {
    /// What it is about.
    pub(super) class: &'static str,
    /// Prefixes.
    pub(super) prefix: &'a [u8],
    /// REX.W.
    pub(super) wide: bool,
    /// The opcode, escapes included.
    pub(super) opcode: &'a [u8],
    /// The register operand or the opcode's extension.
    pub(super) register: u8,
    /// The other operand.
    pub(super) place: Place,
    /// An immediate value.
    pub(super) value: &'a [u8],
}

impl Coded<'_> {
    /// The form (SDM volume 2, section 2.1).
    pub(super) fn form(&self) -> Form {
        const SIB: u8 = 4;
        const RIP: u8 = 5;
        let mut form = Form::new(self.class, self.prefix);
        let (base, index) = match self.place {
            Place::Register(base) | Place::Base(base, _) => (base, 0),
            Place::Indexed(base, index, ..) => (base, index),
            Place::Data => (0, 0),
        };
        let rex = 0x40 | u8::from(self.wide) << 3 | (self.register >> 3) << 2 | (index >> 3) << 1 | base >> 3;
        if rex != 0x40 {
            form.push(&[rex]);
        }
        form.push(self.opcode);
        let register = (self.register & 7) << 3;
        match self.place {
            Place::Register(base) => form.push(&[0xC0 | register | base & 7]),
            Place::Base(base, displacement) if base & 7 == SIB => {
                form.push(&[0x80 | register | SIB, SIB << 3 | base & 7]);
                form.push(&displacement.to_le_bytes());
            }
            Place::Base(base, displacement) if i8::try_from(displacement).is_ok() => {
                form.push(&[0x40 | register | base & 7, displacement as u8]);
            }
            Place::Base(base, displacement) => {
                form.push(&[0x80 | register | base & 7]);
                form.push(&displacement.to_le_bytes());
            }
            Place::Indexed(base, index, scale, displacement) => {
                form.push(&[0x80 | register | SIB, scale << 6 | (index & 7) << 3 | base & 7]);
                form.push(&displacement.to_le_bytes());
            }
            Place::Data => {
                form.push(&[register | RIP]);
                form.fix = Fix::Data(form.length);
                form.push(&[0; 4]);
            }
        }
        form.push(self.value);
        const RCX: u8 = 1;
        if matches!(self.place, Place::Indexed(_, RCX, ..)) { form.needing(Needs::SMALL_RCX) } else { form }
    }
}
