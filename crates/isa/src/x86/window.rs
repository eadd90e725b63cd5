//! Windows: the instructions that a jump to a detour displaces.
//!
//! A breakpoint is one byte and replaces the beginning of one instruction. A jump has five bytes ([`JUMP_LEN`]), and
//! five bytes are often several instructions. A thread may have been interrupted between them, possibly long ago, and
//! comes back to the middle of the jump. Nobody can find all such threads: where one goes on may be written in a signal
//! frame, in an interrupt's frame, or in a return address.
//!
//! So nobody looks for them. The displacement of the jump is chosen such that at every instruction boundary inside it
//! there stands a breakpoint (a *punned* jump). Whoever comes back to a boundary traps, and goes on in the copy of its
//! instruction. What is left is a choice among fewer addresses of the detour: each boundary takes a byte of the
//! displacement away.
//!
//! ```text
//! 55           push rbp            e9 cc xx xx cc    jmp  ...
//! 48 89 e5     mov  rbp, rsp
//! 41 57        push r15            57                (the rest of an instruction, never executed)
//! ```
//!
//! A branch into the window is right for the same reason. But it would trap each time, so a function in which one is
//! seen gets no jump there; neither does a window in which a call is not the last instruction, because it returns into
//! it. (An indirect branch into the window is not known, and merely slow.)
//!
//! A detour works on the interrupted stack. So a function that sets the stack pointer to something that is not its own
//! frame, as those do that switch stacks, gets a jump at its beginning only, where the stack is still its caller's: a
//! trap can have a stack of its own, and a stack that somebody has made for a few words is found there.
//!
//! Source of the rules: Linux, `arch/x86/kernel/kprobes/opt.c` (`can_optimize`), which has no punned jumps: it needs
//! proof that nobody can be inside, and so refuses functions with indirect jumps. The idea of punning is from Chamith
//! et al., "Instruction Punning: Lightweight Instrumentation for x86-64", PLDI 2017.

use alloc::vec::Vec;
use core::fmt;

use iced_x86::{Instruction, Mnemonic, OpKind};

use super::decode::{Analysis, Flow, analyse, flow};
use super::function::instructions;
use super::image::displacement;
use super::{BREAKPOINT, JUMP, JUMP_LEN, Privilege, Refusal};

/// `call rel32`, `push imm32` (SDM volume 2, CALL and PUSH).
const CALL: u8 = 0xE8;
const PUSH_IMMEDIATE: u8 = 0x68;
const NOP: u8 = 0x90;
/// Bytes of what enters a detour.
const ENTER_LEN: usize = 15;
/// The most bytes of code that stand for a window: what fits into a slot of a host's.
const CAPACITY: usize = 64;

/// Why there can be no jump at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoWindow {
    /// The function ends before the jump would.
    Short {
        /// Bytes from the address to the function's end.
        left: u64,
    },
    /// An instruction of the window cannot be displaced.
    Refused(Refusal),
    /// The function cannot be decoded to its end, so branches may be unknown.
    Lost {
        /// Where decoding stopped.
        at: u64,
    },
    /// A branch leads into the window.
    Target {
        /// The branch.
        from: u64,
        /// Where it leads.
        to: u64,
    },
    /// A call that is not the last instruction returns into the window.
    Call {
        /// The call.
        at: u64,
    },
    /// The function sets the stack pointer to something that is not its own frame.
    Stack {
        /// The instruction.
        at: u64,
    },
    /// The copy would have more bytes, or more meanings, than there is room for.
    Large,
}

impl From<Refusal> for NoWindow {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for NoWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { left } => write!(f, "only {left} bytes of the function are left, a jump has {JUMP_LEN}"),
            Self::Refused(refusal) => write!(f, "an instruction in the way cannot be displaced: {refusal}"),
            Self::Lost { at } => write!(f, "the function cannot be decoded from {at:#x} on"),
            Self::Target { from, to } => write!(f, "the branch at {from:#x} leads to {to:#x}, into the jump"),
            Self::Call { at } => write!(f, "the call at {at:#x} returns into the jump"),
            Self::Stack { at } => {
                write!(f, "the function switches stacks at {at:#x}, and there may be no room for a detour")
            }
            Self::Large => write!(f, "the displaced instructions need more than {CAPACITY} bytes"),
        }
    }
}

impl core::error::Error for NoWindow {}

impl NoWindow {
    /// The rule, in one word.
    ///
    /// ```
    /// use isa::x86::{Privilege, window};
    ///
    /// let none = window(&[0x90, 0xC3], 0x1000, 0x1000, Privilege::User).expect_err("two bytes");
    /// assert_eq!(none.rule(), "short");
    /// assert_eq!(none.to_string(), "only 2 bytes of the function are left, a jump has 5");
    /// ```
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Short { .. } => "short",
            Self::Refused(refusal) => refusal.rule(),
            Self::Lost { .. } => "lost",
            Self::Target { .. } => "target",
            Self::Call { .. } => "call",
            Self::Stack { .. } => "stack",
            Self::Large => "large",
        }
    }
}

/// The instructions that a jump displaces.
///
/// ```
/// use isa::x86::{Privilege, window};
///
/// // push rbp; mov rbp, rsp; push r15; ret
/// let code = [0x55, 0x48, 0x89, 0xE5, 0x41, 0x57, 0xC3];
/// let window = window(&code, 0x1_0000_0000, 0x1_0000_0000, Privilege::User)?;
/// assert_eq!((window.addr(), window.len()), (0x1_0000_0000, 6));
/// assert_eq!(window.interior().collect::<Vec<_>>(), [0x1_0000_0001, 0x1_0000_0004]);
///
/// // The jump has breakpoints at both, so the detour can be at few addresses.
/// let detour = window.target(0..0x2_0000_0000).expect("there is one");
/// let jump = window.jump(detour).expect("it reaches");
/// assert_eq!((jump[0], jump[1], jump[4]), (0xE9, 0xCC, 0xCC));
/// assert_eq!(window.jump(detour + 1), None);
///
/// // What is executed instead: the same instructions, and a jump to the ret.
/// let body = window.body(0x1_4000_0000)?;
/// assert_eq!(body.code[..6], code[..6]);
/// assert_eq!(body.offset(0x1_0000_0004), Some(4));
/// assert_eq!(body.code[6], 0xE9);
/// # Ok::<(), isa::x86::NoWindow>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    addr: u64,
    len: u8,
    instructions: Vec<Analysis>,
}

/// What is executed instead of a [`Window`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The code, for the address that it was made for.
    pub code: Vec<u8>,
    /// From each offset on, the original address that it stands for, and the bytes that were pushed: see
    /// [`Image::original`](super::Image::original) and [`Image::pushed`](super::Image::pushed).
    pub marks: Vec<(usize, u64, u64)>,
    /// The offset of each instruction's copy, and the instruction's address.
    starts: Vec<(usize, u64)>,
}

impl Body {
    /// From `within` behind the code so far, it stands for `original`.
    fn mark(&mut self, within: usize, original: u64, pushed: u64) {
        let mark = (self.code.len() + within, original, pushed);
        // The end of one instruction is the beginning of the next.
        self.marks.pop_if(|last| last.0 == mark.0);
        self.marks.push(mark);
    }

    /// Where in the code the copy of the instruction at `addr` begins.
    #[must_use]
    pub fn offset(&self, addr: u64) -> Option<usize> {
        self.starts.iter().find(|(_, start)| *start == addr).map(|(offset, _)| *offset)
    }
}

/// The window at `addr` in the function whose `code` begins at `start`.
///
/// # Errors
///
/// Why there can be no jump.
pub fn window(code: &[u8], start: u64, addr: u64, privilege: Privilege) -> Result<Window, NoWindow> {
    let mut window = Window { addr, len: 0, instructions: Vec::new() };
    let rest = addr.checked_sub(start).and_then(|offset| code.get(offset as usize..)).unwrap_or_default();
    while usize::from(window.len) < JUMP_LEN {
        let left = rest.get(usize::from(window.len)..).filter(|left| !left.is_empty());
        let left = left.ok_or(NoWindow::Short { left: rest.len() as u64 })?;
        let analysis = analyse(left, window.end(), privilege)?;
        window.len += analysis.len;
        window.instructions.push(analysis);
    }
    window.check_calls()?;
    window.check_branches(code, start)?;
    // Large or refused at every address alike, but for what it reaches.
    window.body(addr)?;
    Ok(window)
}

impl Window {
    /// Its address.
    #[must_use]
    pub const fn addr(&self) -> u64 {
        self.addr
    }

    /// Its length in bytes: at least [`JUMP_LEN`].
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Addresses where a thread may stand that has executed a part of the window: where instructions begin inside the
    /// jump.
    pub fn interior(&self) -> impl Iterator<Item = u64> + '_ {
        self.instructions.iter().skip(1).map(|instruction| instruction.addr)
    }

    const fn end(&self) -> u64 {
        self.addr.wrapping_add(self.len as u64)
    }

    fn check_calls(&self) -> Result<(), NoWindow> {
        let calls = |i: &&Analysis| matches!(i.flow, Flow::Call(_) | Flow::IndirectCall);
        let call = self.instructions.iter().rev().skip(1).find(calls);
        call.map_or(Ok(()), |call| Err(NoWindow::Call { at: call.addr }))
    }

    fn check_branches(&self, code: &[u8], start: u64) -> Result<(), NoWindow> {
        let mut at = start;
        for instruction in instructions(code, start) {
            at = instruction.next_ip();
            if self.addr != start && switches_stack(&instruction) {
                return Err(NoWindow::Stack { at: instruction.ip() });
            }
            if let Flow::Jump(to) | Flow::Branch(to) | Flow::Call(to) = flow(&instruction)
                && to > self.addr
                && to < self.end()
            {
                return Err(NoWindow::Target { from: instruction.ip(), to });
            }
        }
        let end = start.wrapping_add(code.len() as u64);
        if at < end { Err(NoWindow::Lost { at }) } else { Ok(()) }
    }

    /// The code to execute at `at` instead of the window.
    ///
    /// # Errors
    ///
    /// What is refused at this address; [`NoWindow::Large`].
    pub fn body(&self, at: u64) -> Result<Body, NoWindow> {
        let mut body = Body { code: Vec::new(), marks: Vec::new(), starts: Vec::new() };
        for (index, instruction) in self.instructions.iter().enumerate() {
            body.starts.push((body.code.len(), instruction.addr));
            let mut here = at.wrapping_add(body.code.len() as u64);
            if instruction.body(here)?.is_empty() {
                // So that a place stands for each instruction, for whoever steps.
                body.mark(0, instruction.addr, 0);
                body.code.push(NOP);
                here = here.wrapping_add(1);
            }
            let is_last = index + 1 == self.instructions.len();
            let image = if is_last { instruction.image(here) } else { instruction.body(here) }?;
            image.marks().for_each(|(within, original, pushed)| body.mark(within, original, pushed));
            body.code.extend_from_slice(image.as_slice());
        }
        body.marks.dedup_by(|later, earlier| (later.1, later.2) == (earlier.1, earlier.2));
        if body.code.len() > CAPACITY { Err(NoWindow::Large) } else { Ok(body) }
    }

    /// The jump to `target`, if it reaches and has a breakpoint at every boundary.
    #[must_use]
    pub fn jump(&self, target: u64) -> Option<[u8; JUMP_LEN]> {
        let jump = jump(self.addr, target)?;
        let (fixed, bytes) = self.pun();
        let [_, a, b, c, d] = jump;
        (u32::from_le_bytes([a, b, c, d]) & fixed == bytes).then_some(jump)
    }

    /// The lowest address in `range` to which [`jump`](Self::jump) leads.
    #[must_use]
    pub fn target(&self, range: core::ops::Range<u64>) -> Option<u64> {
        let next = i128::from(self.addr) + JUMP_LEN as i128;
        let lowest = (i128::from(range.start) - next).max(i128::from(i32::MIN)) as i64;
        let rel = self.displacement_from(lowest)?;
        let target = u64::try_from(next + i128::from(rel)).ok()?;
        range.contains(&target).then_some(target)
    }

    /// The lowest displacement from `lowest` on that has a breakpoint at every boundary.
    fn displacement_from(&self, lowest: i64) -> Option<i32> {
        let (fixed, bytes) = self.pun();
        let mut rel = lowest;
        // A round makes one byte right, from the top, and may carry into one that was: then there is none at all.
        for _ in 0..2 * JUMP_LEN {
            let wrong = (rel as u32 & fixed) ^ bytes;
            if wrong == 0 {
                return i32::try_from(rel).ok();
            }
            let byte = 3 - wrong.leading_zeros() / 8;
            let (unit, shift) = (1_i64 << (8 * byte), 8 * byte);
            let below = (rel >> shift & 0xFF) < i64::from(BREAKPOINT);
            // The byte itself becomes right; if it was above, there is a carry into the next one.
            let higher = (rel >> (shift + 8)) + i64::from(!below);
            rel = (higher << (shift + 8)) + i64::from(BREAKPOINT) * unit;
            rel |= i64::from(bytes) & (unit - 1);
        }
        None
    }

    /// Which bits of the displacement are given, and what they are.
    fn pun(&self) -> (u32, u32) {
        let bytes = self.interior().map(|addr| addr.wrapping_sub(self.addr) as u32 - 1);
        bytes.fold((0, 0), |(fixed, is), byte| (fixed | 0xFF << (8 * byte), is | u32::from(BREAKPOINT) << (8 * byte)))
    }
}

/// Whether the stack pointer becomes something else than a place in the frame. What adds to it, or aligns it, does not
/// count; nor does what takes it back from the frame pointer, or from where compilers keep it in a prologue that aligns
/// (`lea rsp, [r10-8]`).
fn switches_stack(instruction: &Instruction) -> bool {
    use iced_x86::Register::{R10, R13, RBP, RSP};
    let is_set =
        |operand: u32| instruction.op_kind(operand) == OpKind::Register && instruction.op_register(operand) == RSP;
    match instruction.mnemonic() {
        Mnemonic::Mov => {
            is_set(0) && !(instruction.op1_kind() == OpKind::Register && instruction.op1_register() == RBP)
        }
        Mnemonic::Lea => is_set(0) && ![RSP, RBP, R10, R13].contains(&instruction.memory_base()),
        Mnemonic::Xchg => is_set(0) || is_set(1),
        Mnemonic::Pop => is_set(0),
        _ => false,
    }
}

/// `jmp target` at `at`; `None` when it does not reach.
///
/// ```
/// use isa::x86::jump;
///
/// assert_eq!(jump(0x1000, 0x1007), Some([0xE9, 2, 0, 0, 0]));
/// assert_eq!(jump(0x1000, 0x1000 + (1 << 32)), None);
/// ```
#[must_use]
pub fn jump(at: u64, target: u64) -> Option<[u8; JUMP_LEN]> {
    relative(JUMP, at, target)
}

/// The end of a detour's first half, which runs up to `end`, where the copy of the displaced instructions begins: leaves
/// `gap` bytes below the stack pointer alone, pushes `site`, and calls `entry`, whose return address so is `end`. `None`
/// when the call does not reach.
///
/// ```
/// use isa::x86::enter_detour;
///
/// let code = enter_detour(0x1040, 128, 7, 0x2040).expect("it reaches");
/// // lea rsp, [rsp-128]; push 7; call 0x2040
/// assert_eq!(code, [0x48, 0x8D, 0x64, 0x24, 0x80, 0x68, 7, 0, 0, 0, 0xE8, 0x00, 0x10, 0, 0]);
/// ```
#[must_use]
pub fn enter_detour(end: u64, gap: u8, site: u32, entry: u64) -> Option<[u8; ENTER_LEN]> {
    let mut code = [0x48, 0x8D, 0x64, 0x24, gap.wrapping_neg(), PUSH_IMMEDIATE, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let call = relative(CALL, end.wrapping_sub(JUMP_LEN as u64), entry)?;
    code.iter_mut().skip(6).zip(site.to_le_bytes()).for_each(|(to, byte)| *to = byte);
    code.iter_mut().skip(ENTER_LEN - JUMP_LEN).zip(call).for_each(|(to, byte)| *to = byte);
    Some(code)
}

/// A jump or a call with a 32-bit displacement.
fn relative(opcode: u8, at: u64, target: u64) -> Option<[u8; JUMP_LEN]> {
    let [a, b, c, d] = displacement(at.wrapping_add(JUMP_LEN as u64), target)?.to_le_bytes();
    Some([opcode, a, b, c, d])
}
