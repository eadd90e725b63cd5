//! The interpreter. It runs in trap context: no allocation, no panic, no loop that the code's length or an array's size
//! does not bound, and memory only through [`Source::read`], which may fail.

use super::{
    ARGUMENT, DEREF, IMMEDIATE, REGISTER, RETURN_VALUE, STORE_COMM, STORE_MEMORY, STORE_NUMBER, STORE_STRING,
    STORE_STRINGS, STORE_TEXT,
};
use crate::record::{self, Writer};

/// Register number of the stack pointer.
const SP: u8 = 4;
/// Register numbers of the first six arguments (System V ABI for x86-64, 3.2.3).
const ARGUMENT_REGISTERS: [u8; 6] = [7, 6, 2, 1, 8, 9];
/// The longest string in a record (`MAX_STRING_SIZE`).
const MAX_STRING: usize = 4096;

/// The state of the probed thread, as the interpreter sees it.
pub trait Source {
    /// A register: 0 to 15 in the hardware's numbering (rax rcx rdx rbx rsp rbp rsi rdi r8…r15), 16 the instruction
    /// pointer, 17 the flags.
    fn register(&self, index: u8) -> u64;

    /// The function's `n`th argument, from 1, and as it was on entry: a return probe gives what it kept.
    ///
    /// Six are in registers, the others on the stack above the return address. An argument that cannot be read is 0, as in
    /// Linux, and so is `$arg0`, which there is not.
    fn argument(&self, n: u8) -> u64 {
        let Some(index) = n.checked_sub(1) else { return 0 };
        if let Some(register) = ARGUMENT_REGISTERS.get(usize::from(index)) {
            return self.register(*register);
        }
        let above = u64::from(n.saturating_sub(6)).wrapping_mul(8);
        let mut word = [0; 8];
        if self.read(self.register(SP).wrapping_add(above), &mut word) { u64::from_le_bytes(word) } else { 0 }
    }

    /// The function's return value, in a return probe.
    fn return_value(&self) -> u64;

    /// The thread's name, NUL-padded.
    fn comm(&self, out: &mut [u8; 16]);

    /// Reads memory, all or nothing; false if it cannot be read.
    fn read(&self, addr: u64, out: &mut [u8]) -> bool;

    /// Copies the bytes up to but without the NUL, as many as `out` has room for, and says how many; none if they cannot be
    /// read.
    fn read_string(&self, addr: u64, out: &mut [u8]) -> Option<usize>;
}

/// Executes `code` on `source` and writes a record's payload to `out`; says how many bytes it has.
///
/// An argument that does not fit ends the payload with a mark, and so does code that makes no sense.
///
/// ```
/// use events::fetch::{REGISTER, STORE_NUMBER};
/// use events::record::{TRUNCATED, VALUE};
/// use events::{Source, run};
///
/// struct Thread;
/// impl Source for Thread {
///     fn register(&self, index: u8) -> u64 { if index == 7 { 0x1234 } else { 0 } }
/// #     fn return_value(&self) -> u64 { 0 }
/// #     fn comm(&self, _out: &mut [u8; 16]) {}
/// #     fn read(&self, _addr: u64, _out: &mut [u8]) -> bool { false }
/// #     fn read_string(&self, _addr: u64, _out: &mut [u8]) -> Option<usize> { None }
///     // …
/// }
///
/// // What `%di:u16` compiles to: register 7, cut to two bytes.
/// let code = [REGISTER, 7, STORE_NUMBER, 2, 0, 0];
/// let mut payload = [0; 8];
/// assert_eq!(run(&code, &Thread, &mut payload), 3);
/// assert_eq!(payload[..3], [VALUE, 0x34, 0x12]);
///
/// assert_eq!(run(&code, &Thread, &mut payload[..2]), 1);
/// assert_eq!(payload[0], TRUNCATED);
/// ```
#[inline]
pub fn run(code: &[u8], source: &impl Source, out: &mut [u8]) -> usize {
    let mut machine = Machine { code: Code(code), source, record: Writer::new(out), value: Some(0) };
    while !machine.code.0.is_empty() {
        let start = machine.record.len();
        if machine.step().is_none() {
            machine.record.truncate_at(start);
            break;
        }
    }
    machine.record.len()
}

/// The code that is still to be executed.
struct Code<'a>(&'a [u8]);

impl<'a> Code<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (operand, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*operand)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn word(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn half(&mut self) -> Option<usize> {
        self.take().map(u16::from_le_bytes).map(usize::from)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}

struct Machine<'a, S> {
    code: Code<'a>,
    source: &'a S,
    record: Writer<'a>,
    /// The accumulator; none after a fault.
    value: Option<u64>,
}

/// How a number is cut from its container.
#[derive(Clone, Copy)]
struct Cut {
    size: u8,
    left: u8,
    right: u8,
}

impl Cut {
    fn read(code: &mut Code<'_>) -> Option<Self> {
        let [size, left, right] = code.take()?;
        matches!(size, 1 | 2 | 4 | 8).then_some(Self { size, left, right })
    }

    fn size(self) -> usize {
        usize::from(self.size)
    }

    fn apply(self, value: u64) -> u64 {
        let mask = match self.size {
            1 => 0xff,
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => u64::MAX,
        };
        (value.wrapping_shl(u32::from(self.left)) & mask).wrapping_shr(u32::from(self.right))
    }

    /// Applies it to a number where it lies.
    fn apply_in_place(self, bytes: &mut [u8]) {
        let mut word = [0; 8];
        word.iter_mut().zip(bytes.iter()).for_each(|(to, from)| *to = *from);
        let cut = self.apply(u64::from_le_bytes(word)).to_le_bytes();
        bytes.iter_mut().zip(cut).for_each(|(to, from)| *to = from);
    }
}

impl<S: Source> Machine<'_, S> {
    /// Executes one operation; none if the record is full or the code makes no sense.
    fn step(&mut self) -> Option<()> {
        match self.code.byte()? {
            REGISTER => self.value = Some(self.source.register(self.code.byte()?)),
            ARGUMENT => self.value = Some(self.source.argument(self.code.byte()?)),
            RETURN_VALUE => self.value = Some(self.source.return_value()),
            IMMEDIATE => self.value = Some(self.code.word()?),
            DEREF => {
                let address = self.address()?;
                self.value = address.and_then(|addr| self.word_at(addr));
            }
            STORE_NUMBER => self.store_number()?,
            STORE_MEMORY => self.store_memory()?,
            STORE_STRING => self.store_string()?,
            STORE_STRINGS => self.store_strings()?,
            STORE_COMM => self.store_comm()?,
            STORE_TEXT => self.store_text()?,
            _ => return None,
        }
        Some(())
    }

    /// Accumulator plus the offset that follows in the code; `Some(None)` after a fault.
    fn address(&mut self) -> Option<Option<u64>> {
        let offset = self.code.word()?;
        Some(self.value.map(|value| value.wrapping_add(offset)))
    }

    fn word_at(&self, addr: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.source.read(addr, &mut word).then_some(u64::from_le_bytes(word))
    }

    fn store_number(&mut self) -> Option<()> {
        let cut = Cut::read(&mut self.code)?;
        match self.value {
            Some(value) => self.record.number(cut.apply(value), cut.size()),
            None => self.record.tag(record::FAULT),
        }
    }

    fn store_memory(&mut self) -> Option<()> {
        let cut = Cut::read(&mut self.code)?;
        let count = self.code.byte()?;
        match (self.address()?, count) {
            (None, _) => self.record.tag(record::FAULT),
            (Some(addr), 0) => self.element(addr, cut),
            (Some(addr), _) => self.array(addr, cut, count),
        }
    }

    /// One number from memory.
    fn element(&mut self, addr: u64, cut: Cut) -> Option<()> {
        let mut word = [0; 8];
        let is_read = self.source.read(addr, word.get_mut(..cut.size())?);
        if !is_read {
            return self.record.tag(record::FAULT);
        }
        self.record.number(cut.apply(u64::from_le_bytes(word)), cut.size())
    }

    /// Reads an array at once; only where that fails each element by itself, to get those that can be read.
    fn array(&mut self, addr: u64, cut: Cut, count: u8) -> Option<()> {
        let start = self.record.len();
        self.record.tag(record::VALUE)?;
        let elements = self.record.claim(usize::from(count).wrapping_mul(cut.size()))?;
        if self.source.read(addr, elements) {
            elements.chunks_mut(cut.size().max(1)).for_each(|element| cut.apply_in_place(element));
            return Some(());
        }
        self.record.rewind(start);
        self.record.tag(record::MIXED)?;
        (0..u64::from(count))
            .try_for_each(|index| self.element(addr.wrapping_add(index.wrapping_mul(u64::from(cut.size))), cut))
    }

    fn store_string(&mut self) -> Option<()> {
        let address = self.address()?;
        let reserve = self.code.half()?;
        self.string(address, reserve)
    }

    fn store_strings(&mut self) -> Option<()> {
        let pointers = self.address()?;
        let reserve = self.code.half()?;
        let count = self.code.byte()?;
        let Some(pointers) = pointers else {
            return self.record.tag(record::FAULT);
        };
        self.record.tag(record::MIXED)?;
        (0..count).try_for_each(|index| {
            let string = self.word_at(pointers.wrapping_add(u64::from(index).wrapping_mul(8)));
            let to_come = usize::from(count.saturating_sub(index).saturating_sub(1));
            self.string(string, reserve.saturating_add(to_come.saturating_mul(record::STRING_HEADER)))
        })
    }

    /// One string, no longer than what leaves `reserve` bytes free.
    fn string(&mut self, addr: Option<u64>, reserve: usize) -> Option<()> {
        let Some(addr) = addr else {
            return self.record.tag(record::FAULT);
        };
        let source = self.source;
        self.record.string(MAX_STRING, reserve, |out| source.read_string(addr, out))
    }

    fn store_comm(&mut self) -> Option<()> {
        let mut comm = [0; 16];
        self.source.comm(&mut comm);
        let len = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        self.record.text(comm.get(..len)?)
    }

    fn store_text(&mut self) -> Option<()> {
        let len = self.code.byte()?;
        let text = self.code.bytes(usize::from(len))?;
        self.record.text(text)
    }
}
