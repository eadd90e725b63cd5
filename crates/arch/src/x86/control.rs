//! What control asks of an instruction's bytes.

use super::{Space, X86};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use hit::SLOT_BYTES;
use hit::{BOOSTED_COPY, MARKS, Marks, OP_WORDS, Site};
use isa::x86::{self, Analysis, Op, Plan, Privilege, Repair, Verdict, Window};
use kprobes::{Detour, Image, Stepping};

impl<S: Space> kprobes::Isa for X86<S> {
    type Plan = Analysis;
    type Window = Window;

    const BREAKPOINT: u8 = x86::BREAKPOINT;
    const MAX_LENGTH: usize = x86::MAX_LEN;
    const JUMP_LENGTH: usize = x86::JUMP_LEN;

    fn plan(bytes: &[u8], address: u64) -> Result<Analysis, String> {
        x86::analyse(bytes, address, S::PRIVILEGE).map_err(|r| r.to_string())
    }

    fn length(plan: &Analysis) -> u8 {
        plan.len
    }

    fn operation(plan: &Analysis) -> Option<[u64; OP_WORDS]> {
        let Verdict::Emulate(op) = plan.verdict else { return None };
        Some(op.to_words())
    }

    fn how(plan: &Analysis, stepping: Stepping) -> u32 {
        match (&plan.verdict, stepping) {
            // Between an emulated change of the flags and its image there is nothing to choose: the image would show
            // or lose what the step has done to them.
            (Verdict::Emulate(op), _) if op.uses_flags() && is_emulated::<S>(op) => Site::EMULATE,
            (Verdict::Emulate(op), Stepping::SingleStep) if !op.uses_flags() => Site::SINGLE_STEP,
            (Verdict::Emulate(op), Stepping::Best | Stepping::Jump | Stepping::SecondBreakpoint)
                if is_emulated::<S>(op) =>
            {
                Site::EMULATE
            }
            (Verdict::Emulate(_), _) => Site::EMULATE | Site::WHEN_WATCHED,
            (Verdict::Slot(plan), Stepping::SecondBreakpoint) if can_be_stepped(plan) => Site::SECOND_BREAKPOINT,
            (Verdict::Slot(plan), Stepping::SingleStep) if can_be_stepped(plan) => Site::SINGLE_STEP,
            (Verdict::Slot(plan), _) if can_be_followed::<S>(plan) => Site::SECOND_BREAKPOINT | Site::WHEN_WATCHED,
            _ => 0,
        }
    }

    fn check_followed(plan: &Analysis) -> Result<(), String> {
        let can = match &plan.verdict {
            // In trap context without room on the interrupted stack nothing can be pushed.
            Verdict::Emulate(op) => is_emulated::<S>(op) || S::PRIVILEGE == Privilege::User,
            Verdict::Slot(plan) => can_be_followed::<S>(plan),
        };
        let why = "no handler can run after it: it leaves for an address that only it knows, or holds traps back";
        if can { Ok(()) } else { Err(why.to_string()) }
    }

    fn image(plan: &Analysis, _: u64, slot: u64, how: u32) -> Result<Image, String> {
        let second = how & Site::SECOND_BREAKPOINT != 0;
        let made = if second { plan.body(slot) } else { plan.image(slot) }.map_err(|r| r.to_string())?;
        let mut code = made.as_slice().to_vec();
        let mut marks = marks(plan.addr, made.marks());
        let complete = match plan.verdict {
            _ if second => made.len(),
            Verdict::Slot(plan) if can_be_stepped(&plan) => plan.bytes().len(),
            _ => 0,
        };
        if second {
            let offset = BOOSTED_COPY as usize;
            let boosted = plan.image(slot + BOOSTED_COPY).map_err(|r| r.to_string())?;
            let moved = boosted.marks().map(|(at, original, pushed)| (at + offset, original, pushed));
            marks = self::marks(plan.addr, made.marks().chain(moved));
            code.resize(offset, x86::BREAKPOINT);
            code.extend(boosted.as_slice());
        }
        Ok(Image { code, complete, marks })
    }

    fn boundaries(code: &[u8], start: u64) -> Vec<u64> {
        x86::boundaries(code, start).starts().collect()
    }

    fn window(code: &[u8], start: u64, address: u64) -> Result<(Window, usize), String> {
        let window = x86::window(code, start, address, S::PRIVILEGE).map_err(|why| why.to_string())?;
        let length = window.len();
        Ok((window, length))
    }

    fn target(window: &Window, range: Range<u64>) -> Option<u64> {
        window.target(range)
    }

    fn jump(window: &Window, target: u64) -> Option<Vec<u8>> {
        window.jump(target).map(Vec::from)
    }

    fn onward(at: u64, target: u64) -> Result<Vec<u8>, String> {
        x86::jump(at, target).map(Vec::from).ok_or_else(|| OUT_OF_REACH.to_string())
    }

    fn detour(window: &Window, site: u32, at: u64, entry: u64) -> Result<Detour, String> {
        let copy = at + SLOT_BYTES;
        let enter = x86::enter_detour(copy, super::detour_gap(S::PRIVILEGE), site, entry).ok_or(OUT_OF_REACH)?;
        let start = SLOT_BYTES as usize - enter.len();
        let body = window.body(copy).map_err(|why| why.to_string())?;
        if body.marks.len() > MARKS {
            return Err("what its copy stands for changes too often".to_string());
        }
        let mut code = vec![x86::BREAKPOINT; start];
        code.extend(enter);
        code.extend(&body.code);
        let marks = marks(window.addr(), body.marks.iter().copied());
        let inside = window.interior().filter_map(|at| Some((at, body.offset(at)?))).collect();
        Ok(Detour { code, start, marks, inside })
    }
}

const OUT_OF_REACH: &str = "its detour is out of a jump's reach";

/// Whether neither the trap flag nor a cleared interrupt flag shows in what the instruction does, and the next
/// instruction comes directly behind it.
fn can_be_stepped(plan: &Plan) -> bool {
    plan.steppable() && plan.boostable() && plan.repair() == Repair::Nothing
}

/// Whether the processor can be trapped behind the instruction without a trace of that in what it does. A program's flags
/// are never changed for a step, a kernel's are.
fn can_be_followed<S: Space>(plan: &Plan) -> bool {
    plan.boostable()
        && match plan.repair() {
            Repair::Nothing => plan.steppable(),
            Repair::Rcx => true,
            Repair::PushedTrapFlag(_) | Repair::LoadedFlags => S::PRIVILEGE == Privilege::User,
        }
}

/// Whether an operation is always executed in the handler.
fn is_emulated<S: Space>(op: &Op) -> bool {
    S::MEMORY || !op.touches_memory()
}

/// What an image's offsets stand for, in the hit path's form. A target out of a mark's reach does not come before
/// the jump to it, which cannot fault.
fn marks(address: u64, of: impl Iterator<Item = (usize, u64, u64)>) -> [u64; MARKS] {
    let mut marks = [0; MARKS];
    let distance = |original: u64| original.wrapping_sub(address).cast_signed();
    let known = of.filter_map(|(offset, original, pushed)| Marks::mark(offset, pushed, distance(original)));
    marks.iter_mut().zip(known).for_each(|(to, mark)| *to = mark);
    marks
}
