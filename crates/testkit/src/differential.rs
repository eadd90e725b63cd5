//! An instruction in place against what stands for it.

use std::fmt;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use isa::x86::{Flow, Image, Op, Privilege, Refusal, Regs, Verdict, analyse, disassemble};
use isa::{Fault, Memory, Segment, Width};

use crate::processor::{
    Bytes, CODE, End, FAR_SLOT, MEMORY_LEN, Outcome, Processor, SLOT, State, Watch, memory_addr, memory_offset,
};

/// An instruction and everything that it depends on.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its bytes.
    pub code: Vec<u8>,
    /// Its address, in [`CODE`].
    pub addr: u64,
    /// The state before it.
    pub state: State,
    /// Memory before it.
    pub memory: Bytes,
}

impl Case {
    /// How a run of it is watched.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let steps = analyse(&self.code, self.addr, Privilege::User).is_ok_and(|a| a.flow != Flow::Next);
        if steps { Watch::Step } else { Watch::Run }
    }

    /// The instruction, decoded.
    #[must_use]
    pub fn instruction(&self) -> Instruction {
        Decoder::with_ip(64, &self.code, self.addr, DecoderOptions::NONE).decode()
    }
}

/// What was compared and found equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Nothing: the instruction is refused.
    Refused(Refusal),
    /// The instruction in place and all that stands for it.
    Equal {
        /// How many stand-ins were compared: the operation, the image near, the image far.
        compared: u32,
        /// The instruction faulted, and so did they.
        faulted: bool,
    },
}

/// A disagreement between the processor and what stands for an instruction.
#[derive(Debug)]
pub struct Difference {
    what: String,
    case: Box<Case>,
    expected: Box<Outcome>,
    found: Box<Outcome>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = disassemble(&self.case.code, self.case.addr).unwrap_or_default();
        writeln!(f, "{}: {:02x?} {text} at {:#x}", self.what, self.case.code, self.case.addr)?;
        writeln!(f, "  from     {:x?}", self.case.state.regs)?;
        writeln!(f, "  in place {:x?} {:x?}", self.expected.end, self.expected.state.regs)?;
        writeln!(f, "  instead  {:x?} {:x?}", self.found.end, self.found.state.regs)?;
        for (name, outcome) in [("in place", &self.expected), ("instead ", &self.found)] {
            for (addr, byte) in changes(&self.case.memory, &outcome.memory).take(16) {
                writeln!(f, "  {name} [{addr:#x}] = {byte:#04x}")?;
            }
        }
        if self.expected.state.vectors != self.found.state.vectors {
            writeln!(f, "  the vector states differ")?;
        }
        Ok(())
    }
}

/// The bytes that differ.
pub fn changes<'a>(before: &'a [u8], after: &'a [u8]) -> impl Iterator<Item = (u64, u8)> + 'a {
    let changed = before.iter().zip(after).enumerate().filter(|(_, (b, a))| b != a);
    changed.map(|(offset, (_, byte))| (memory_addr(offset), *byte))
}

/// Compares on one [`Processor`].
#[derive(Debug)]
pub struct Oracle {
    /// The processor.
    pub processor: Processor,
}

impl Oracle {
    /// Starts a processor.
    ///
    /// # Panics
    ///
    /// The system does not allow it, which no test can do without.
    #[must_use]
    pub fn new() -> Self {
        Self { processor: Processor::new().expect("fork, memfd and ptrace are available") }
    }

    /// The instruction in place.
    ///
    /// # Panics
    ///
    /// The processor is gone.
    pub fn in_place(&mut self, case: &Case) -> Outcome {
        self.execute(case, case.addr, &case.code)
    }

    fn execute(&mut self, case: &Case, at: u64, code: &[u8]) -> Outcome {
        let original = (case.addr, case.code.as_slice());
        let run = self.processor.execute((at, code), original, &case.state, &case.memory, case.watch());
        run.unwrap_or_else(|error| panic!("{:02x?} at {at:#x} for {:02x?}: {error}", code, case.code))
    }

    /// Compares everything that can stand for the instruction of `case` with the instruction in
    /// place.
    ///
    /// # Errors
    ///
    /// They differ.
    pub fn check(&mut self, case: &Case) -> Result<Checked, Difference> {
        let analysis = match analyse(&case.code, case.addr, Privilege::User) {
            Ok(analysis) => analysis,
            Err(refusal) => return Ok(Checked::Refused(refusal)),
        };
        let expected = self.in_place(case);
        let mut compared = 0;
        let mut images = true;
        if let Verdict::Emulate(op) = &analysis.verdict {
            compared += 1;
            // The documented limit of images of calls.
            images = !check_operation(case, &expected, op)?;
        }
        for at in [SLOT.addr + 0x123, FAR_SLOT.addr + 0x40] {
            if let Some(image) = analysis.image(at).ok().filter(|_| images) {
                compared += 1;
                self.check_image(case, &expected, &image)?;
            }
        }
        Ok(Checked::Equal { compared, faulted: expected.end != End::Completed })
    }

    /// Compares an image with the instruction in place.
    ///
    /// # Errors
    ///
    /// They differ.
    pub fn check_image(&mut self, case: &Case, expected: &Outcome, image: &Image) -> Result<(), Difference> {
        let origin = |offset| (image.original(offset), image.pushed(offset));
        self.check_code(case, expected, (image.at(), image.as_slice()), origin)
    }

    /// Compares any code with the instruction in place. `origin` gives the original address of an
    /// offset in the code, and the bytes that were pushed there.
    ///
    /// # Errors
    ///
    /// They differ.
    pub fn check_code(
        &mut self,
        case: &Case,
        expected: &Outcome,
        (at, code): (u64, &[u8]),
        origin: impl Fn(usize) -> (u64, u64),
    ) -> Result<(), Difference> {
        let mut found = self.execute(case, at, code);
        let mut expected = expected.clone();
        let offset = |addr: u64| Some(addr.wrapping_sub(at) as usize).filter(|offset| *offset < code.len());
        if let End::Fault { addr, .. } = &mut found.end {
            if let Some(offset) = offset(*addr) {
                *addr = origin(offset).0;
            }
            if let Some(offset) = offset(found.state.regs.rip) {
                let (original, pushed) = origin(offset);
                found.state.regs.rip = original;
                undo_push(case, &mut expected, &mut found, pushed);
            }
        }
        compare(format!("{code:02x?} at {at:#x}"), case, expected, found)
    }
}

/// Takes back a push of an instruction that has faulted afterwards. What it wrote is below the
/// stack pointer again, and is not compared.
fn undo_push(case: &Case, expected: &mut Outcome, found: &mut Outcome, pushed: u64) {
    let rsp = &mut found.state.regs.gpr[isa::x86::gpr::RSP];
    if let Some(at) = memory_offset(*rsp, pushed).filter(|_| pushed != 0) {
        let written = at..at + pushed as usize;
        let before = &case.memory[written.clone()];
        found.memory[written.clone()].copy_from_slice(before);
        expected.memory[written].copy_from_slice(before);
    }
    *rsp = rsp.wrapping_add(pushed);
}

impl Default for Oracle {
    fn default() -> Self {
        Self::new()
    }
}

/// Compares an emulated operation with the instruction in place; says whether it is a call whose
/// push lands on the target that it reads, of which no image need exist.
///
/// # Errors
///
/// They differ.
pub fn check_operation(case: &Case, expected: &Outcome, op: &Op) -> Result<bool, Difference> {
    let mut read = None;
    check_emulation(format!("{op:x?}"), case, expected, |regs, memory| {
        let result = op.execute(regs, memory);
        read = memory.read;
        result
    })?;
    let pushed = case.state.regs.rsp().wrapping_sub(8);
    Ok(op.is_call() && read.is_some_and(|read| read.wrapping_sub(pushed).wrapping_add(7) < 15))
}

/// Compares any emulation with the instruction in place.
///
/// # Errors
///
/// They differ.
pub fn check_emulation(
    what: String,
    case: &Case,
    expected: &Outcome,
    execute: impl FnOnce(&mut Regs, &mut Model<'_>) -> Result<(), Fault>,
) -> Result<(), Difference> {
    let mut memory = Model::new(case);
    let mut state = case.state.clone();
    let end = match execute(&mut state.regs, &mut memory) {
        Ok(()) => End::Completed,
        // Which exception it would be is the processor's knowledge.
        Err(_) if expected.end != End::Completed => expected.end,
        Err(fault) => End::Fault { signal: 0, addr: fault.addr },
    };
    // No operation touches vectors.
    let mut expected = expected.clone();
    expected.state.vectors = case.state.vectors.clone();
    let found = Outcome { end, state, memory: memory.bytes };
    compare(what, case, expected, found)
}

fn compare(what: String, case: &Case, expected: Outcome, found: Outcome) -> Result<(), Difference> {
    if expected == found {
        return Ok(());
    }
    Err(Difference { what, case: Box::new(case.clone()), expected: Box::new(expected), found: Box::new(found) })
}

/// The windows' memory, without a processor.
#[derive(Debug)]
pub struct Model<'a> {
    case: &'a Case,
    bytes: Bytes,
    /// The address of the last read.
    read: Option<u64>,
}

impl<'a> Model<'a> {
    /// The memory before `case`.
    #[must_use]
    pub fn new(case: &'a Case) -> Self {
        assert_eq!(case.memory.len(), MEMORY_LEN, "a case has all memory");
        Self { case, bytes: case.memory.clone(), read: None }
    }

    /// The contents.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Replaces the contents.
    pub fn set_bytes(&mut self, bytes: &[u8]) {
        self.bytes.copy_from_slice(bytes);
    }

    fn code(&self, addr: u64) -> u8 {
        let offset = addr.wrapping_sub(self.case.addr) as usize;
        self.case.code.get(offset).copied().unwrap_or(isa::x86::BREAKPOINT)
    }
}

impl Memory for Model<'_> {
    fn read(&mut self, addr: u64, width: Width) -> Result<u64, Fault> {
        self.read = Some(addr);
        let mut value = [0; 8];
        if let Some(at) = memory_offset(addr, width.bytes() as u64) {
            value[..width.bytes()].copy_from_slice(&self.bytes[at..at + width.bytes()]);
        } else if CODE.contains(addr) && CODE.contains(addr + width.bytes() as u64 - 1) {
            (addr..).zip(&mut value[..width.bytes()]).for_each(|(addr, to)| *to = self.code(addr));
        } else {
            return Err(Fault { addr, write: false });
        }
        Ok(u64::from_le_bytes(value))
    }

    fn write(&mut self, addr: u64, width: Width, value: u64) -> Result<(), Fault> {
        let at = memory_offset(addr, width.bytes() as u64).ok_or(Fault { addr, write: true })?;
        self.bytes[at..at + width.bytes()].copy_from_slice(&value.to_le_bytes()[..width.bytes()]);
        Ok(())
    }

    fn segment_base(&self, segment: Segment) -> u64 {
        match segment {
            Segment::Fs => self.case.state.fs_base,
            Segment::Gs => self.case.state.gs_base,
        }
    }
}

/// The general registers with their names.
pub fn general_registers(regs: &Regs) -> impl Iterator<Item = (&'static str, u64)> {
    const NAMES: [&str; 16] =
        ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    NAMES.into_iter().zip(regs.gpr)
}
