//! From bytes to a verdict.

use iced_x86::{Code, ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::slot::Relocation;
use super::{Image, MAX_LEN, Op, Operand, Plan, Privilege, Refusal, Repair, Site, rules};
use crate::{Segment, Width};

/// What is known of one instruction.
///
/// ```
/// use isa::x86::{Privilege, Refusal, analyse};
///
/// // mov rax, rbx
/// let analysis = analyse(&[0x48, 0x89, 0xD8], 0x1000, Privilege::User)?;
/// assert_eq!(analysis.next(), 0x1003);
/// // The copy, with and without the jump to the next instruction.
/// assert_eq!(analysis.body(0x2000)?.as_slice(), [0x48, 0x89, 0xD8]);
/// assert_eq!(analysis.image(0x2000)?.as_slice(), [0x48, 0x89, 0xD8, 0xE9, 0xFB, 0xEF, 0xFF, 0xFF]);
/// # Ok::<(), Refusal>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Analysis {
    /// Its address.
    pub addr: u64,
    /// Its length.
    pub len: u8,
    /// Where execution goes after it.
    pub flow: Flow,
    /// How it can be probed.
    pub verdict: Verdict,
}

impl Analysis {
    /// The address of the next instruction.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.addr.wrapping_add(self.len as u64)
    }

    /// The code to execute at `at` instead of the instruction, whichever the verdict.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unreachable`] or [`Refusal::NoImage`].
    pub fn image(&self, at: u64) -> Result<Image, Refusal> {
        match &self.verdict {
            Verdict::Emulate(op) => op.image(self.addr, self.len, at),
            Verdict::Slot(plan) => plan.image(at),
        }
    }

    /// The same without the jump to the next instruction: execution falls off its end. For detours,
    /// which displace several instructions.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unreachable`] or [`Refusal::NoImage`].
    pub fn body(&self, at: u64) -> Result<Image, Refusal> {
        match &self.verdict {
            Verdict::Emulate(op) => op.body(self.addr, self.len, at),
            Verdict::Slot(plan) => plan.body(at),
        }
    }
}

/// How an instruction can be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By executing the operation.
    Emulate(Op),
    /// By executing a copy.
    Slot(Plan),
}

/// Where execution goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To this address.
    Jump(u64),
    /// To this address or to the next instruction.
    Branch(u64),
    /// To this address, which returns to the next instruction.
    Call(u64),
    /// To an address that is computed, which returns to the next instruction.
    IndirectCall,
    /// To an address that is computed.
    IndirectJump,
    /// To the return address on the stack.
    Return,
    /// Into a kernel, a handler or another segment.
    Leave,
}

/// One instruction at `addr`.
pub(super) fn decode(bytes: &[u8], addr: u64) -> (Instruction, Decoder<'_>) {
    let bytes = bytes.get(..MAX_LEN).unwrap_or(bytes);
    let mut decoder = Decoder::with_ip(64, bytes, addr, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (instruction, decoder)
}

/// What the instruction at `addr`, whose bytes `bytes` begin with, means to a probe.
///
/// `bytes` may go on beyond the instruction; fifteen are always enough.
///
/// # Errors
///
/// The instruction cannot be probed.
///
/// ```
/// use isa::x86::{Flow, Op, Privilege, Refusal, Verdict, analyse};
///
/// let call = analyse(&[0xE8, 0, 1, 0, 0], 0x1000, Privilege::User)?;
/// assert_eq!((call.len, call.flow), (5, Flow::Call(0x1105)));
/// assert_eq!(call.verdict, Verdict::Emulate(Op::call(5, 0x100)));
///
/// // mov rax, rbx
/// let mov = analyse(&[0x48, 0x89, 0xD8], 0x1000, Privilege::User)?;
/// assert!(matches!(mov.verdict, Verdict::Slot(_)));
///
/// // hlt
/// assert!(matches!(analyse(&[0xF4], 0x1000, Privilege::User), Err(Refusal::Privileged(_))));
/// assert!(analyse(&[0xF4], 0x1000, Privilege::Kernel).is_ok());
/// # Ok::<(), Refusal>(())
/// ```
pub fn analyse(bytes: &[u8], addr: u64, privilege: Privilege) -> Result<Analysis, Refusal> {
    let (instruction, decoder) = decode(bytes, addr);
    if instruction.is_invalid() {
        let site = Site::new(addr, bytes);
        return Err(if truncated(bytes, addr) { Refusal::Truncated(site) } else { Refusal::Undecodable(site) });
    }
    let bytes = bytes.get(..instruction.len()).unwrap_or(bytes);
    let site = Site::new(addr, bytes);
    if let Some(refusal) = rules::refusal(&instruction, site, privilege) {
        return Err(refusal);
    }
    if near_branch(&instruction) && rules::short_operand(bytes) {
        return Err(Refusal::OperandSize(site));
    }
    let verdict = match operation(&instruction, privilege) {
        Some(op) => Verdict::Emulate(op),
        None => Verdict::Slot(plan(bytes, &instruction, &decoder)),
    };
    Ok(Analysis { addr, len: instruction.len() as u8, flow: flow(&instruction), verdict })
}

/// Whether more bytes could make it an instruction. Zeros are as good as any: what decides whether
/// an instruction exists is in front.
fn truncated(bytes: &[u8], addr: u64) -> bool {
    let mut longer = [0; MAX_LEN];
    longer.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    bytes.len() < MAX_LEN && !decode(&longer, addr).0.is_invalid()
}

/// The instruction in Intel's syntax, or nothing if the bytes are none.
///
/// ```
/// use isa::x86::disassemble;
///
/// assert_eq!(disassemble(&[0x48, 0x89, 0xD8], 0x1000).as_deref(), Some("mov rax, rbx"));
/// assert_eq!(disassemble(&[0xE8, 0, 1, 0, 0], 0x1000).as_deref(), Some("call 0x1105"));
/// assert_eq!(disassemble(&[0x06], 0x1000), None);
/// ```
#[cfg(feature = "text")]
#[must_use]
pub fn disassemble(bytes: &[u8], addr: u64) -> Option<alloc::string::String> {
    use iced_x86::{Formatter, IntelFormatter};

    let (instruction, _) = decode(bytes, addr);
    if instruction.is_invalid() {
        return None;
    }
    let mut text = alloc::string::String::new();
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_space_after_operand_separator(true);
    options.set_uppercase_hex(false);
    options.set_rip_relative_addresses(true);
    options.set_branch_leading_zeros(false);
    formatter.format(&instruction, &mut text);
    Some(text)
}

/// Whether the operand size of the instruction is that of the instruction pointer.
fn near_branch(instruction: &Instruction) -> bool {
    let op = instruction.op0_kind();
    match instruction.flow_control() {
        FlowControl::ConditionalBranch => true,
        FlowControl::UnconditionalBranch | FlowControl::Call => {
            matches!(op, OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
        }
        FlowControl::IndirectBranch | FlowControl::IndirectCall => !far_jump(instruction.code()),
        FlowControl::Return => instruction.mnemonic() == Mnemonic::Ret,
        _ => false,
    }
}

pub(super) fn far_jump(code: Code) -> bool {
    matches!(code, Code::Jmp_m1616 | Code::Jmp_m1632 | Code::Jmp_m1664)
}

/// Where `instruction` goes.
pub(super) fn flow(instruction: &Instruction) -> Flow {
    let target = instruction.near_branch_target();
    match instruction.flow_control() {
        FlowControl::Next | FlowControl::XbeginXabortXend => Flow::Next,
        FlowControl::UnconditionalBranch => Flow::Jump(target),
        FlowControl::ConditionalBranch => Flow::Branch(target),
        FlowControl::IndirectBranch if far_jump(instruction.code()) => Flow::Leave,
        FlowControl::IndirectBranch => Flow::IndirectJump,
        FlowControl::IndirectCall => Flow::IndirectCall,
        FlowControl::Return if instruction.mnemonic() == Mnemonic::Ret => Flow::Return,
        // `syscall` and its like are calls to iced.
        FlowControl::Call if instruction.op0_kind() == OpKind::NearBranch64 => Flow::Call(target),
        FlowControl::Call if system_call(instruction.mnemonic()) => Flow::Next,
        FlowControl::Interrupt if instruction.mnemonic() == Mnemonic::Int => Flow::Next,
        _ => Flow::Leave,
    }
}

/// Calls of another privilege level that come back to the next instruction.
fn system_call(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Syscall, Tdcall, Vmcall, Vmgexit, Vmmcall};
    matches!(mnemonic, Syscall | Vmcall | Vmmcall | Vmgexit | Tdcall)
}

/// The operation of an instruction that is emulated.
fn operation(instruction: &Instruction, privilege: Privilege) -> Option<Op> {
    let len = instruction.len() as u8;
    let relative = instruction.near_branch_target().wrapping_sub(instruction.next_ip()).cast_signed();
    let code = instruction.code();
    let op = match code {
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => Op::jump(len, relative),
        Code::Call_rel32_64 => Op::call(len, relative),
        Code::Retnq => Op::ret(len, 0),
        Code::Retnq_imm16 => Op::ret(len, instruction.immediate16()),
        Code::Loopne_rel8_64_RCX => Op::counted(len, 0, false, relative),
        Code::Loopne_rel8_64_ECX => Op::counted(len, 0, true, relative),
        Code::Loope_rel8_64_RCX => Op::counted(len, 1, false, relative),
        Code::Loope_rel8_64_ECX => Op::counted(len, 1, true, relative),
        Code::Loop_rel8_64_RCX => Op::counted(len, 2, false, relative),
        Code::Loop_rel8_64_ECX => Op::counted(len, 2, true, relative),
        Code::Jrcxz_rel8_64 => Op::counted(len, 3, false, relative),
        Code::Jecxz_rel8_64 => Op::counted(len, 3, true, relative),
        Code::Jmp_rm64 if instruction.op0_kind() == OpKind::Register => Op::jump_register(len, first(instruction)),
        Code::Call_rm64 if instruction.op0_kind() == OpKind::Register => Op::call_register(len, first(instruction)),
        Code::Jmp_rm64 => Op::jump_memory(len, operand(instruction)),
        Code::Call_rm64 => Op::call_memory(len, operand(instruction)),
        Code::Push_r64 => Op::push(len, first(instruction)),
        Code::Pop_r64 => Op::pop(len, first(instruction)),
        Code::Push_rm64 if instruction.op0_kind() == OpKind::Register => Op::push(len, first(instruction)),
        Code::Pop_rm64 if instruction.op0_kind() == OpKind::Register => Op::pop(len, first(instruction)),
        Code::Pushfq => Op::push_flags(len),
        Code::Popfq if privilege == Privilege::Kernel => Op::pop_flags(len),
        Code::Cli if privilege == Privilege::Kernel => Op::clear_interrupts(len),
        Code::Sti if privilege == Privilege::Kernel => Op::set_interrupts(len),
        _ if code.is_jcc_short_or_near() => Op::branch(len, condition(instruction.condition_code()), relative),
        _ if does_nothing(instruction) => Op::nop(len),
        _ => return None,
    };
    Some(op)
}

fn does_nothing(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Endbr32 | Mnemonic::Endbr64)
}

/// Iced counts conditions in the order of their encodings, from 1.
fn condition(code: ConditionCode) -> u8 {
    (code as u8).wrapping_sub(1)
}

fn first(instruction: &Instruction) -> u8 {
    number(instruction.op0_register())
}

fn number(register: Register) -> u8 {
    register.number() as u8
}

/// The memory operand of an indirect branch.
fn operand(instruction: &Instruction) -> Operand {
    let base = instruction.memory_base();
    let index = instruction.memory_index();
    let rip_relative = instruction.is_ip_rel_memory_operand();
    let displacement = if rip_relative {
        instruction.memory_displacement64().wrapping_sub(instruction.next_ip()) as i32
    } else {
        instruction.memory_displacement64() as i32
    };
    Operand {
        base: (base != Register::None && !rip_relative).then(|| number(base)),
        rip_relative,
        index: (index != Register::None)
            .then(|| (number(index), instruction.memory_index_scale().trailing_zeros() as u8)),
        displacement,
        segment: match instruction.memory_segment() {
            Register::FS => Some(Segment::Fs),
            Register::GS => Some(Segment::Gs),
            _ => None,
        },
        address_32: narrow(instruction),
    }
}

/// Whether the operand's address is computed with 32 bits (prefix 67).
fn narrow(instruction: &Instruction) -> bool {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    base.is_gpr32() || index.is_gpr32() || base == Register::EIP
        // Neither base nor index: iced says so only by the size of the displacement.
        || (base == Register::None && index == Register::None && instruction.memory_displ_size() == 4)
}

/// How to copy an instruction that is not emulated.
fn plan(bytes: &[u8], instruction: &Instruction, decoder: &Decoder<'_>) -> Plan {
    let mut kept = [0; MAX_LEN];
    kept.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let offsets = decoder.get_constant_offsets(instruction);
    let xbegin = matches!(instruction.code(), Code::Xbegin_rel32);
    let relocation = if xbegin {
        let offset = offsets.immediate_offset() as u8;
        Relocation::Displacement { offset, target: instruction.near_branch_target() }
    } else if instruction.is_ip_rel_memory_operand() {
        let offset = offsets.displacement_offset() as u8;
        let target = instruction.ip_rel_memory_address();
        match instruction.memory_base() {
            Register::EIP => Relocation::Displacement32 { offset, target },
            _ => Relocation::Displacement { offset, target },
        }
    } else {
        Relocation::None
    };
    Plan {
        addr: instruction.ip(),
        bytes: kept,
        len: instruction.len() as u8,
        relocation,
        repair: repair(instruction.code()),
        boostable: flow(instruction) == Flow::Next,
        steppable: steppable(instruction),
    }
}

fn repair(code: Code) -> Repair {
    match code {
        Code::Syscall => Repair::Rcx,
        Code::Pushfw => Repair::PushedTrapFlag(Width::B2),
        Code::Popfw | Code::Popfq => Repair::LoadedFlags,
        _ => Repair::Nothing,
    }
}

/// Whether a trap flag that is set before the instruction traps directly behind it, and only has
/// that effect, and so has holding back interrupts.
fn steppable(instruction: &Instruction) -> bool {
    let loads_ss = instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::SS
        && matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Pop);
    // These wait for an interrupt, which does not come while a step holds interrupts back.
    let waits = matches!(instruction.mnemonic(), Mnemonic::Hlt | Mnemonic::Mwait | Mnemonic::Mwaitx);
    // What a kernel's trap relies on when it comes in.
    let trap_state = matches!(instruction.mnemonic(), Mnemonic::Swapgs | Mnemonic::Wrgsbase | Mnemonic::Wrmsr);
    !loads_ss && !waits && !trap_state && instruction.flow_control() == FlowControl::Next
}
