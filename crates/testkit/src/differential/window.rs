//! Several instructions in place against the copy that a detour executes.

use isa::x86::{Analysis, Flow, NoWindow, Privilege, Repair, Verdict, Window, analyse, window};

use super::{Case, Difference, Oracle, check_operation};
use crate::processor::{End, FAR_SLOT, Outcome, SLOT, State, Watch};

/// What was compared of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckedWindow {
    /// Nothing: there can be no jump.
    None(NoWindow),
    /// Nothing: what the trap flag shows in cannot be stepped, and a call that pushes onto its own target has no image (the
    /// documented limit).
    Unwatched,
    /// The window, from its beginning and from each boundary that was reached.
    Equal {
        /// How many runs were compared.
        compared: u32,
        /// An instruction has faulted.
        faulted: bool,
    },
}

/// A thread in the window: where it stands, and what it has.
struct Standing {
    addr: u64,
    state: State,
    memory: Vec<u8>,
}

impl Oracle {
    /// Compares the window at the beginning of the case's code, which is several instructions, with these instructions in
    /// place: from the beginning, and as a thread that comes back to each boundary goes on.
    ///
    /// # Errors
    ///
    /// They differ.
    ///
    /// ```
    /// use testkit::differential::{Case, CheckedWindow, Oracle};
    /// use testkit::corpus;
    ///
    /// let mut oracle = Oracle::new();
    /// // push rbp; mov rbp, rsp; sub rsp, 16
    /// let code = vec![0x55, 0x48, 0x89, 0xE5, 0x48, 0x83, 0xEC, 0x10];
    /// let case = Case { code, ..corpus::case(&oracle, &[0x55]) };
    /// let checked = oracle.check_window(&case).expect("no difference");
    /// // From three places, near the code and far from it.
    /// assert_eq!(checked, CheckedWindow::Equal { compared: 6, faulted: false });
    /// ```
    pub fn check_window(&mut self, case: &Case) -> Result<CheckedWindow, Difference> {
        let window = match window(&case.code, case.addr, case.addr, Privilege::User) {
            Ok(window) => window,
            Err(none) => return Ok(CheckedWindow::None(none)),
        };
        // Behind it there is nothing: that is where runs end.
        let case = &Case { code: case.code[..window.len()].to_vec(), ..case.clone() };
        let instructions = analyses(case, &window);
        let Some(watch) = watch(&instructions) else { return Ok(CheckedWindow::Unwatched) };
        let (stood, expected) = self.in_place_each(case, &instructions);
        if overwrites_its_target(case, stood.last(), &expected, &instructions)? {
            return Ok(CheckedWindow::Unwatched);
        }
        let mut compared = 0;
        for at in [SLOT.addr + 0x123, FAR_SLOT.addr + 0x40] {
            let Ok(body) = window.body(at) else { continue };
            for Standing { addr, state, memory } in &stood {
                let offset = body.offset(*addr).expect("it is a boundary");
                let from = Case { state: state.clone(), memory: memory.clone(), ..case.clone() };
                let origin = |within: usize| {
                    let within = within + offset;
                    let mark = body.marks.iter().rev().find(|mark| mark.0 <= within);
                    mark.map_or((case.addr, 0), |mark| (mark.1, mark.2))
                };
                let code = (at + offset as u64, &body.code[offset..]);
                self.check_code_as(&from, &expected, code, watch, origin)?;
                compared += 1;
            }
        }
        Ok(CheckedWindow::Equal { compared, faulted: expected.end != End::Completed })
    }

    /// Where a thread stands on its way through the instructions in place, and how that ends.
    fn in_place_each(&mut self, case: &Case, instructions: &[Analysis]) -> (Vec<Standing>, Outcome) {
        let mut stood = Vec::new();
        let (mut state, mut memory) = (case.state.clone(), case.memory.clone());
        for (index, instruction) in instructions.iter().enumerate() {
            let addr = instruction.addr;
            let from = (addr - case.addr) as usize;
            let code = case.code[from..from + usize::from(instruction.len)].to_vec();
            let one = Case { code, addr, state: state.clone(), memory: memory.clone() };
            stood.push(Standing { addr, state, memory });
            // One that sees the trap flag runs to a breakpoint, with none of the others there.
            let outcome = if sees_steps(instruction) {
                self.execute_within(&one, (addr, &one.code), (addr, &one.code), Watch::Run)
            } else {
                self.execute_within(&one, (case.addr, &case.code), (addr, &one.code), Watch::Step)
            };
            let goes_on = matches!(instruction.flow, Flow::Next | Flow::Branch(_))
                && outcome.state.regs.rip == instruction.next()
                && outcome.end == End::Completed;
            if !goes_on || index + 1 == instructions.len() {
                return (stood, outcome);
            }
            (state, memory) = (outcome.state, outcome.memory);
        }
        unreachable!("a window has an instruction")
    }
}

/// Whether the instructions end in a call that reads its target from where it pushes.
fn overwrites_its_target(
    window: &Case,
    last: Option<&Standing>,
    expected: &Outcome,
    instructions: &[Analysis],
) -> Result<bool, Difference> {
    let here = |i: &&Analysis| last.is_some_and(|last| last.addr == i.addr);
    let Some((last, Verdict::Emulate(op))) = last.zip(instructions.iter().find(here).map(|i| i.verdict)) else {
        return Ok(false);
    };
    // It may read its own bytes.
    let code = window.code.get((last.addr - window.addr) as usize..).unwrap_or_default().to_vec();
    let case = Case { code, addr: last.addr, state: last.state.clone(), memory: last.memory.clone() };
    Ok(op.is_call() && check_operation(&case, expected, &op)?)
}

fn analyses(case: &Case, window: &Window) -> Vec<Analysis> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < window.len() {
        let analysis = analyse(&case.code[at..], case.addr + at as u64, Privilege::User).expect("it is in a window");
        at += usize::from(analysis.len);
        found.push(analysis);
    }
    found
}

/// How a run of these is watched: transfers are stepped. `None` if something else would see the trap flag.
fn watch(instructions: &[Analysis]) -> Option<Watch> {
    if instructions.iter().all(|i| i.flow == Flow::Next) {
        return Some(Watch::Run);
    }
    (!instructions.iter().any(sees_steps)).then_some(Watch::Step)
}

/// Whether the trap flag shows in what it does, or holds the trap back.
fn sees_steps(instruction: &Analysis) -> bool {
    match &instruction.verdict {
        Verdict::Emulate(op) => op.uses_flags(),
        Verdict::Slot(plan) => !plan.steppable() || plan.repair() != Repair::Nothing,
    }
}
