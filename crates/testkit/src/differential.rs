//! An instruction in place against what stands for it.

mod window;

use std::fmt;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use isa::x86::{Flow, Image, Op, Privilege, Refusal, Regs, Verdict, analyse, disassemble};
use isa::{Fault, Memory, Segment, Width};

use crate::processor::{
    Bytes, CODE, End, FAR_SLOT, MEMORY_LEN, Outcome, Processor, SLOT, State, Watch, memory_addr, memory_offset,
};

pub use window::CheckedWindow;

/// An instruction and everything that it depends on.
///
/// ```
/// use iced_x86::Mnemonic;
/// use testkit::differential::{Case, Oracle};
/// use testkit::{corpus, processor::Watch};
///
/// let oracle = Oracle::new();
/// let add = corpus::case(&oracle, &[0x48, 0x01, 0xC8]);
/// assert_eq!((add.instruction().mnemonic(), add.watch()), (Mnemonic::Add, Watch::Run));
/// // A jump is stepped, since nothing need be where it goes.
/// let jump = Case { code: vec![0xEB, 0x10], ..add };
/// assert_eq!((jump.instruction().mnemonic(), jump.watch()), (Mnemonic::Jmp, Watch::Step));
/// ```
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
///
/// ```
/// use isa::x86::gpr;
/// use testkit::differential::{Checked, Oracle, changes, general_registers};
/// use testkit::{corpus, processor::STACK};
///
/// let mut oracle = Oracle::new();
/// let case = corpus::case(&oracle, &[0x50]); // push rax
/// let outcome = oracle.in_place(&case);
///
/// // Of the registers but `rip` it changes one, of memory the word below the stack pointer.
/// let (before, after) = (&case.state.regs, &outcome.state.regs);
/// let registers = general_registers(before).zip(general_registers(after)).filter(|(before, after)| before != after);
/// assert_eq!(registers.map(|(_, after)| after).collect::<Vec<_>>(), [("rsp", STACK.addr + 0xFF8)]);
/// let word = STACK.addr + 0xFF8..STACK.addr + 0x1000;
/// assert!(changes(&case.memory, &outcome.memory).all(|(at, _)| word.contains(&at)));
/// assert_eq!(before.gpr[gpr::RAX], after.gpr[gpr::RAX]);
///
/// // The emulation, the image near and the image far do the same.
/// assert_eq!(oracle.check(&case).unwrap(), Checked::Equal { compared: 3, faulted: false });
/// ```
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
        self.execute(case, (case.addr, &case.code), case.watch())
    }

    fn execute(&mut self, case: &Case, code: (u64, &[u8]), watch: Watch) -> Outcome {
        self.execute_within(case, (case.addr, &case.code), code, watch)
    }

    /// Executes `code` from the case's state, while `original` is in place.
    fn execute_within(&mut self, case: &Case, original: (u64, &[u8]), code: (u64, &[u8]), watch: Watch) -> Outcome {
        let run = self.processor.execute(code, original, &case.state, &case.memory, watch);
        run.unwrap_or_else(|error| panic!("{:02x?} at {:#x} for {:02x?}: {error}", code.1, code.0, case.code))
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
    ///
    /// ```
    /// # use isa::x86::{Privilege, analyse};
    /// # use testkit::{corpus, differential::Oracle, processor::SLOT};
    /// let mut oracle = Oracle::new();
    /// let case = corpus::case(&oracle, &[0x48, 0x01, 0xC8]); // add rax, rcx
    /// let expected = oracle.in_place(&case);
    /// let image = analyse(&case.code, case.addr, Privilege::User).unwrap().image(SLOT.addr).unwrap();
    /// assert!(oracle.check_image(&case, &expected, &image).is_ok());
    ///
    /// // The same with `sub` is found out.
    /// let mut wrong = image.as_slice().to_vec();
    /// wrong[1] = 0x29;
    /// let difference = oracle.check_code(&case, &expected, (SLOT.addr, &wrong), |_| (case.addr, 0)).unwrap_err();
    /// assert!(difference.to_string().contains("add rax, rcx"));
    /// ```
    pub fn check_code(
        &mut self,
        case: &Case,
        expected: &Outcome,
        code: (u64, &[u8]),
        origin: impl Fn(usize) -> (u64, u64),
    ) -> Result<(), Difference> {
        self.check_code_as(case, expected, code, case.watch(), origin)
    }

    fn check_code_as(
        &mut self,
        case: &Case,
        expected: &Outcome,
        (at, code): (u64, &[u8]),
        watch: Watch,
        origin: impl Fn(usize) -> (u64, u64),
    ) -> Result<(), Difference> {
        let mut found = self.execute(case, (at, code), watch);
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
///
/// ```
/// use isa::x86::Op;
/// use testkit::corpus;
/// use testkit::differential::{Oracle, check_operation};
///
/// let mut oracle = Oracle::new();
/// let case = corpus::case(&oracle, &[0xC2, 0x08, 0x00]); // ret 8
/// let expected = oracle.in_place(&case);
/// assert!(!check_operation(&case, &expected, &Op::ret(3, 8)).unwrap(), "it is no call");
/// assert!(check_operation(&case, &expected, &Op::ret(3, 0)).is_err(), "it releases eight bytes more");
/// ```
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
///
/// ```
/// use isa::{Memory, Width, x86::gpr};
/// use testkit::corpus;
/// use testkit::differential::{Oracle, check_emulation};
///
/// let mut oracle = Oracle::new();
/// let case = corpus::case(&oracle, &[0x48, 0x89, 0x03]); // mov [rbx], rax
/// let expected = oracle.in_place(&case);
/// let emulate = |value: u64| {
///     check_emulation("mov".into(), &case, &expected, |regs, memory| {
///         regs.rip += 3;
///         memory.write(regs.gpr[gpr::RBX], Width::B8, value)
///     })
/// };
/// assert!(emulate(case.state.regs.gpr[gpr::RAX]).is_ok());
/// assert!(emulate(0).is_err());
/// ```
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
///
/// ```
/// use isa::{Memory, Width};
/// use testkit::corpus;
/// use testkit::differential::{Model, Oracle};
/// use testkit::processor::{DATA, MEMORY_LEN};
///
/// let oracle = Oracle::new();
/// let case = corpus::case(&oracle, &[0x90]);
/// let mut memory = Model::new(&case);
/// assert!(memory.write(DATA.addr, Width::B8, 7).is_ok());
/// assert_eq!(memory.bytes()[..8], 7_u64.to_le_bytes());
/// assert_eq!(memory.read(case.addr, Width::B2), Ok(0xCC90), "the instruction, and a breakpoint behind it");
/// assert!(memory.read(0, Width::B1).is_err());
///
/// memory.set_bytes(&[1; MEMORY_LEN]);
/// assert_eq!(memory.read(DATA.addr, Width::B2), Ok(0x0101));
/// ```
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
