//! What the runtime of a language does: unwinding, `longjmp`, the return from a signal handler.

use super::{Cpu, DATA, End, FunctionInfo, Machine};
use isa::x86::gpr;

/// Offset of the frame address in an unwinder's context: the stack pointer of the frame that is chosen.
pub const CONTEXT_CFA: u64 = 0;
/// Offset of the program counter there.
pub const CONTEXT_PC: u64 = 8;
/// Offset of the stack pointer in a `jmp_buf`.
pub const JUMP_BUFFER_SP: u64 = 0;
/// Offset of the program counter there.
pub const JUMP_BUFFER_PC: u64 = 8;

/// Where a signal's frame begins, below the upper end of the signal stack: a return address, the interrupted program
/// counter, the interrupted stack pointer.
pub(crate) const SIGNAL_FRAME: u64 = 64;
/// Where the interrupted stack pointer is, below that end.
pub(crate) const SIGNAL_FRAME_SP: u64 = SIGNAL_FRAME - 16;

/// The function that a signal handler returns to.
const RESTORER: &str = "restorer";

/// What a `hlt` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The test decides: [`Runtime::choose`], with this number.
    Choose(u32),
    /// First part of `raise` and `resume`: looks for the frame to land in, and fills the thread's context.
    Search,
    /// Second part: goes there.
    Install,
    /// Walks the whole stack.
    Walk,
    /// `longjmp`.
    Jump,
    /// Ends a signal handler: two words on the stack say where to go on, the program counter and the stack pointer.
    SignalReturn,
}

/// The test's part in running a program.
pub trait Runtime {
    /// The program asks what to do: sets `cpu`'s registers.
    fn choose(&mut self, machine: &Machine, cpu: &mut Cpu, number: u32);
    /// Whether the exception that `cpu` has raised lands in the frame whose function is `function`, and whose stack
    /// pointer is `sp`.
    fn lands(&mut self, cpu: &Cpu, function: u64, sp: u64) -> bool;
    /// A walk has met these return addresses.
    fn walked(&mut self, cpu: &Cpu, callers: &[u64]);
}

/// A program that neither asks nor throws. A landing pad is always taken.
impl Runtime for () {
    fn choose(&mut self, _: &Machine, _: &mut Cpu, _: u32) {}

    fn lands(&mut self, _: &Cpu, _: u64, _: u64) -> bool {
        true
    }

    fn walked(&mut self, _: &Cpu, _: &[u64]) {}
}

/// A frame on the stack: the function that is called, the address to which its callee returns, its stack pointer.
struct Frame {
    pc: u64,
    sp: u64,
    function: u64,
    words: u64,
    landing_pad: Option<u64>,
    /// What is outside of it was interrupted by a signal.
    signal: bool,
}

/// Where the unwinder's context of a thread is.
fn context(cpu: &Cpu) -> u64 {
    DATA + 0x3000 + (cpu.id % 32) * 32
}

pub(crate) fn builtin(machine: &Machine, cpu: &mut Cpu, service: Service, runtime: &mut dyn Runtime) {
    let done = match service {
        Service::Search => search(machine, cpu, runtime),
        Service::Walk => walk(machine, cpu, runtime),
        Service::Install => go(machine, cpu, context(cpu), CONTEXT_CFA, CONTEXT_PC),
        Service::Jump => go(machine, cpu, cpu.regs.gpr[gpr::RDI], JUMP_BUFFER_SP, JUMP_BUFFER_PC),
        Service::SignalReturn => go(machine, cpu, cpu.sp(), 8, 0),
        Service::Choose(_) => Ok(()),
    };
    if let Err(end) = done {
        cpu.end = Some(end);
    }
}

/// Loads stack pointer and program counter.
fn go(machine: &Machine, cpu: &mut Cpu, from: u64, sp: u64, pc: u64) -> Result<(), End> {
    let word = |offset: u64| machine.memory.word(from.wrapping_add(offset)).ok_or(End::Faulted(cpu.regs.rip));
    let (sp, pc) = (word(sp)?, word(pc)?);
    cpu.regs.gpr[gpr::RSP] = sp;
    cpu.regs.rip = pc;
    Ok(())
}

fn search(machine: &Machine, cpu: &mut Cpu, runtime: &mut dyn Runtime) -> Result<(), End> {
    let mut next = caller(machine, cpu.sp())?;
    while let Some(frame) = next {
        if let Some(pad) = frame.landing_pad.filter(|_| runtime.lands(cpu, frame.function, frame.sp)) {
            let at = context(cpu);
            let stored =
                machine.memory.set_word(at + CONTEXT_CFA, frame.sp) && machine.memory.set_word(at + CONTEXT_PC, pad);
            cpu.regs.gpr[gpr::RDI] = at;
            return if stored { Ok(()) } else { Err(End::Faulted(at)) };
        }
        next = outer(machine, &frame)?;
    }
    // Nobody catches it.
    Err(End::Terminated(super::EXIT))
}

fn walk(machine: &Machine, cpu: &mut Cpu, runtime: &mut dyn Runtime) -> Result<(), End> {
    let mut callers = Vec::new();
    let mut next = caller(machine, cpu.sp())?;
    while let Some(frame) = next {
        callers.push(frame.pc);
        next = outer(machine, &frame)?;
    }
    runtime.walked(cpu, &callers);
    Ok(())
}

/// The frame to which the return address in `slot` leads; `None` behind the outermost one.
fn caller(machine: &Machine, slot: u64) -> Result<Option<Frame>, End> {
    let pc = machine.memory.word(slot).ok_or(End::Faulted(slot))?;
    if pc == super::EXIT {
        return Ok(None);
    }
    // A return address is behind its call, which may be the function's last instruction; a signal frame's is not.
    let found = machine.function_at(pc).filter(|f| f.name == RESTORER).or_else(|| machine.function_at(pc - 1));
    Ok(Some(frame(found.ok_or(End::Terminated(pc))?, pc, slot + 8)))
}

fn frame(function: &FunctionInfo, pc: u64, sp: u64) -> Frame {
    let signal = function.name == RESTORER;
    Frame { pc, sp, function: function.start, words: function.frame_words, landing_pad: function.landing_pad, signal }
}

/// The frame outside of `inner`: its caller's, or the one that a signal has interrupted.
fn outer(machine: &Machine, inner: &Frame) -> Result<Option<Frame>, End> {
    if !inner.signal {
        return caller(machine, inner.sp + 8 * inner.words);
    }
    let word = |offset| machine.memory.word(inner.sp + offset).ok_or(End::Faulted(inner.sp));
    let (pc, sp) = (word(0)?, word(8)?);
    Ok(Some(frame(machine.function_at(pc).ok_or(End::Terminated(pc))?, pc, sp)))
}
