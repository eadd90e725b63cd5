//! The instructions that enter the kernel for given system calls.
//!
//! A program that takes over or blocks a signal does so with a system call. Whoever must know puts
//! a breakpoint on the `syscall` instructions that do it. The number is in `eax`, nearly always put
//! there as a constant a few instructions before, so it is found by looking backwards from each
//! `syscall`: through moves between registers, over branches (each way in), until a constant is
//! found or something that cannot be followed.
//!
//! The answer errs on the side of too many: a number that is possible on one way in counts. It must
//! not name an address inside an instruction, so code is decoded from the beginning of the function
//! that holds it. Where neither a symbol nor the unwind table tells one, decoding begins where the
//! function before ends, or, in a long stretch without any, [`LEAD`] bytes before: x86 code that is
//! decoded from a wrong place falls into step after a few instructions.

use crate::object::Object;
use crate::runtime::find_all;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic,
    OpAccess, OpKind, Register,
};
use std::collections::{BTreeMap, HashMap, HashSet};

const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Longest stretch that is decoded as one function.
const LONGEST: u64 = 1 << 20;
/// How much is decoded before a place in a longer stretch.
const LEAD: u64 = 4 << 10;
/// How much is decoded behind it, for branches back to before it.
const TAIL: u64 = 256;
/// Most instructions that are looked at backwards from one `syscall`.
const MOST_STEPS: usize = 2000;

impl Object {
    /// The `syscall` instructions that may run with one of the `wanted` numbers, each with the
    /// number, by address.
    ///
    /// Not found: numbers that come from memory or from the caller (the function `syscall`; see
    /// [`raw_syscall_sites`](Self::raw_syscall_sites)).
    ///
    /// ```
    /// use std::path::Path;
    /// use symbols::Object;
    ///
    /// # let maps = std::fs::read_to_string("/proc/self/maps")?;
    /// # let mut mapped = maps.lines().filter_map(|line| line.split(' ').next_back());
    /// # let libc = mapped.find(|path| path.ends_with("/libc.so.6")).ok_or("this is not linked to glibc")?;
    /// let object = Object::read(Path::new(libc))?;
    /// let rt_sigaction = 13;
    /// let sites = object.signal_syscall_sites(&[rt_sigaction]);
    /// assert!(!sites.is_empty());
    /// for (site, number) in sites {
    ///     assert_eq!((object.code(site, 2), number), (Some([0x0f, 0x05].as_slice()), rt_sigaction));
    /// }
    ///
    /// // The function `syscall` can do it too.
    /// let site = *object.raw_syscall_sites().first().ok_or("no such function")?;
    /// assert_eq!(object.function_at(site).map(|function| function.name()), Some("syscall"));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[must_use]
    pub fn signal_syscall_sites(&self, wanted: &[u32]) -> Vec<(u64, u32)> {
        let mut found = Vec::new();
        for ((start, end), sites) in self.syscalls_by_function() {
            let Some(body) = Body::decode(self, start, end) else { continue };
            for site in sites {
                let Some(&index) = body.index.get(&site) else { continue };
                let numbers = body.constants(index);
                found.extend(wanted.iter().filter(|n| numbers.contains(n)).map(|&n| (site, n)));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The `syscall` instructions of functions that pass any number on: Go's `syscall.*`,
    /// `internal/runtime/syscall.*` and `runtime/internal/syscall.*`, elsewhere `syscall`.
    #[must_use]
    pub fn raw_syscall_sites(&self) -> Vec<u64> {
        let go = self.is_go();
        let passes_on = |name: &str| {
            let packages = ["syscall.", "runtime/internal/syscall.", "internal/runtime/syscall."];
            if go {
                packages.iter().any(|p| name.starts_with(p))
            } else {
                name == "syscall" || name == "__syscall_cp_asm"
            }
        };
        let mut found = Vec::new();
        for ((start, end), sites) in self.syscalls_by_function() {
            if !self.table().at(start).iter().any(|f| passes_on(f.name())) {
                continue;
            }
            let Some(body) = Body::decode(self, start, end) else { continue };
            found.extend(sites.into_iter().filter(|site| body.index.contains_key(site)));
        }
        found.sort_unstable();
        found
    }

    /// All places that look like a `syscall`, under the bounds of the function that holds them.
    fn syscalls_by_function(&self) -> BTreeMap<(u64, u64), Vec<u64>> {
        let mut functions: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for range in self.image.code_ranges(false) {
            let Some(bytes) = self.image.mapped(range.start, range.end - range.start) else { continue };
            for at in find_all(bytes, &SYSCALL) {
                let site = range.start + at as u64;
                let bounds = self.function_bounds(site).unwrap_or_else(|| self.gap(site, range));
                let bounds = window(bounds, site);
                functions.entry(bounds).or_default().push(site);
            }
        }
        functions
    }

    /// The stretch around `site` that belongs to no function that is known: assembly without size
    /// or unwind information.
    fn gap(&self, site: u64, range: &core::ops::Range<u64>) -> (u64, u64) {
        let (functions, frames) = (self.functions(), &self.frames().entries);
        let (f, e) = (functions.partition_point(|f| f.addr <= site), frames.partition_point(|e| e.start <= site));
        let before = [functions[..f].last().map(|f| f.end()), frames[..e].last().map(|e| e.end)];
        let after = [functions.get(f).map(|f| f.addr), frames.get(e).map(|e| e.start)];
        let start = before.into_iter().flatten().filter(|&end| end <= site).fold(range.start, u64::max);
        let end = after.into_iter().flatten().fold(range.end, u64::min);
        (start, end)
    }
}

/// What of a function is decoded for `site`: all of it, unless it is too long to be one.
fn window((start, end): (u64, u64), site: u64) -> (u64, u64) {
    if end.saturating_sub(start) <= LONGEST {
        return (start, end);
    }
    (site.saturating_sub(LEAD).max(start), site.saturating_add(TAIL).min(end))
}

/// A function's instructions.
struct Body {
    instructions: Vec<Instruction>,
    /// Address to index.
    index: HashMap<u64, usize>,
    /// Direct branches by the index of their target.
    branches: HashMap<usize, Vec<usize>>,
}

impl Body {
    fn decode(object: &Object, start: u64, end: u64) -> Option<Self> {
        let bytes = object.image.mapped(start, end.checked_sub(start)?)?;
        let instructions: Vec<_> = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE).into_iter().collect();
        let index: HashMap<u64, usize> = instructions.iter().enumerate().map(|(i, n)| (n.ip(), i)).collect();
        let mut branches: HashMap<usize, Vec<usize>> = HashMap::new();
        for (i, instruction) in instructions.iter().enumerate() {
            let is_branch =
                matches!(instruction.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch);
            if let Some(&target) = index.get(&instruction.near_branch_target()).filter(|_| is_branch) {
                branches.entry(target).or_default().push(i);
            }
        }
        Some(Self { instructions, index, branches })
    }

    /// The constants that `eax` may hold before the instruction at `site`.
    fn constants(&self, site: usize) -> HashSet<u32> {
        let mut found = HashSet::new();
        let mut info = InstructionInfoFactory::new();
        let mut seen = HashSet::new();
        let mut work: Vec<(usize, Wanted)> = self.before(site).map(|i| (i, Wanted::Register(Register::RAX))).collect();
        while let Some((at, wanted)) = work.pop() {
            if seen.len() > MOST_STEPS || !seen.insert((at, wanted)) {
                continue;
            }
            match step(&self.instructions[at], wanted, &mut info) {
                Step::Constant(value) => {
                    found.insert(value);
                }
                Step::Unknown => {}
                Step::Before(next) => work.extend(next.into_iter().flat_map(|w| self.before(at).map(move |i| (i, w)))),
            }
        }
        found
    }

    /// What may run right before the instruction at `at`.
    fn before(&self, at: usize) -> impl Iterator<Item = usize> {
        let falls_through = |&i: &usize| {
            !matches!(
                self.instructions[i].flow_control(),
                FlowControl::UnconditionalBranch
                    | FlowControl::IndirectBranch
                    | FlowControl::Return
                    | FlowControl::Exception
            )
        };
        let linear = at.checked_sub(1).filter(falls_through);
        linear.into_iter().chain(self.branches.get(&at).into_iter().flatten().copied())
    }
}

/// What a backward search looks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted {
    /// What a (64-bit) register holds.
    Register(Register),
    /// What was pushed last, with so many other words on top.
    Pushed(u8),
}

enum Step {
    Constant(u32),
    Unknown,
    /// Go on before this instruction, for each of these.
    Before(Vec<Wanted>),
}

fn step(instruction: &Instruction, wanted: Wanted, info: &mut InstructionInfoFactory) -> Step {
    match wanted {
        Wanted::Pushed(depth) => step_stack(instruction, depth),
        Wanted::Register(register) => step_register(instruction, register, info),
    }
}

/// `push $imm; pop %rax`: what compilers write for size. Only pushes and pops may stand between.
fn step_stack(instruction: &Instruction, depth: u8) -> Step {
    match (instruction.mnemonic(), depth) {
        (Mnemonic::Push, 0) => match instruction.op0_kind() {
            OpKind::Register => Step::Before(vec![Wanted::Register(instruction.op0_register().full_register())]),
            _ => immediate(instruction, 0).map_or(Step::Unknown, Step::Constant),
        },
        (Mnemonic::Push, _) => Step::Before(vec![Wanted::Pushed(depth - 1)]),
        (Mnemonic::Pop, _) if depth < 8 => Step::Before(vec![Wanted::Pushed(depth + 1)]),
        (Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Xor, _) if instruction.op0_kind() == OpKind::Register => {
            Step::Before(vec![Wanted::Pushed(depth)])
        }
        _ => Step::Unknown,
    }
}

fn step_register(instruction: &Instruction, register: Register, info: &mut InstructionInfoFactory) -> Step {
    if let Some(clobbered) = clobbers(instruction, register) {
        return if clobbered { Step::Unknown } else { Step::Before(vec![Wanted::Register(register)]) };
    }
    let writes = |access: OpAccess| {
        matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
    };
    let used = info.info_options(instruction, InstructionInfoOptions::NO_MEMORY_USAGE).used_registers();
    if !used.iter().any(|u| u.register().full_register() == register && writes(u.access())) {
        return Step::Before(vec![Wanted::Register(register)]);
    }
    defined(instruction, register)
}

/// Calls and system calls destroy what the calling convention says (psABI 3.2.1, A.2.1); none for
/// other instructions.
fn clobbers(instruction: &Instruction, register: Register) -> Option<bool> {
    match instruction.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall if instruction.mnemonic() == Mnemonic::Syscall => {
            Some(matches!(register, Register::RAX | Register::RCX | Register::R11))
        }
        FlowControl::Call | FlowControl::IndirectCall => Some(!matches!(
            register,
            Register::RBX | Register::RBP | Register::R12 | Register::R13 | Register::R14 | Register::R15
        )),
        _ => None,
    }
}

/// The value of `register` after an instruction that writes it.
fn defined(instruction: &Instruction, register: Register) -> Step {
    let whole =
        matches!(instruction.op0_register().size(), 4 | 8) && instruction.op0_register().full_register() == register;
    let from_register = instruction.op_count() > 1 && instruction.op1_kind() == OpKind::Register;
    let source = || Wanted::Register(instruction.op1_register().full_register());
    match instruction.mnemonic() {
        Mnemonic::Pop => Step::Before(vec![Wanted::Pushed(0)]),
        _ if !whole || instruction.op0_kind() != OpKind::Register => Step::Unknown,
        Mnemonic::Mov if from_register => Step::Before(vec![source()]),
        Mnemonic::Mov => immediate(instruction, 1).map_or(Step::Unknown, Step::Constant),
        Mnemonic::Movsxd if from_register => Step::Before(vec![source()]),
        Mnemonic::Xor | Mnemonic::Sub if from_register && instruction.op0_register() == instruction.op1_register() => {
            Step::Constant(0)
        }
        Mnemonic::Lea
            if instruction.memory_base() == Register::None && instruction.memory_index() == Register::None =>
        {
            u32::try_from(instruction.memory_displacement64()).map_or(Step::Unknown, Step::Constant)
        }
        _ if is_cmov(instruction) && from_register => Step::Before(vec![source(), Wanted::Register(register)]),
        _ => Step::Unknown,
    }
}

fn is_cmov(instruction: &Instruction) -> bool {
    format!("{:?}", instruction.mnemonic()).starts_with("Cmov")
}

/// An immediate operand that a system call number can be.
fn immediate(instruction: &Instruction, operand: u32) -> Option<u32> {
    if !matches!(
        instruction.op_kind(operand),
        OpKind::Immediate8
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    ) || instruction.code() == Code::INVALID
    {
        return None;
    }
    u32::try_from(instruction.immediate(operand)).ok()
}
