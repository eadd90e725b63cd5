//! What the hit path asks of the registers.

use super::{Space, X86};
use hit::OP_WORDS;
use hit::returns::SAVED_ARGUMENTS;
use isa::x86::{Op, Regs, flags, gpr};

/// The argument registers in their order (System V psABI, 3.2.3), as indices into [`Regs::gpr`].
pub const ARGUMENTS: [usize; SAVED_ARGUMENTS] = [gpr::RDI, gpr::RSI, gpr::RDX, gpr::RCX, 8, 9];

/// What a step changes in the flags.
const STEP_FLAGS: u64 = flags::TF | flags::IF;

impl<S: Space> hit::Isa for X86<S> {
    type Regs = Regs;

    fn breakpoint_address(regs: &Regs) -> u64 {
        regs.rip.wrapping_sub(1)
    }

    fn pc(regs: &Regs) -> u64 {
        regs.rip
    }

    fn set_pc(regs: &mut Regs, pc: u64) {
        regs.rip = pc;
    }

    fn sp(regs: &Regs) -> u64 {
        regs.rsp()
    }

    fn set_sp(regs: &mut Regs, sp: u64) {
        regs.gpr[gpr::RSP] = sp;
    }

    fn begin_step(regs: &mut Regs, single: bool) -> u64 {
        let saved = regs.flags & STEP_FLAGS;
        regs.flags = (regs.flags & !STEP_FLAGS) | if single { flags::TF } else { 0 };
        saved
    }

    fn is_single_stepping(regs: &Regs) -> bool {
        regs.flags & flags::TF != 0
    }

    fn end_step(regs: &mut Regs, saved: u64) {
        regs.flags = (regs.flags & !STEP_FLAGS) | (saved & STEP_FLAGS);
    }

    fn execute(op: [u64; OP_WORDS], regs: &mut Regs) -> bool {
        S::execute(&Op::from_words(op), regs)
    }

    fn return_slot(regs: &Regs) -> u64 {
        regs.rsp()
    }

    fn arguments(regs: &Regs) -> [u64; SAVED_ARGUMENTS] {
        ARGUMENTS.map(|r| regs.gpr[r])
    }
}
