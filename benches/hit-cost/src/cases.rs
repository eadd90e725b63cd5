//! The rows of the table.
//!
//! Ours come with everything that the tool can do at a hit, on an ordinary function; then the circumstances that must
//! not matter (other instructions, depth, other probes, another thread); then the same placed as told. Floors say what
//! the machine takes, peers what others take; each peer's row has the same work as one of ours, which it is divided by.

use crate::case::{
    ARITHMETIC, At, Beside, CALL, COUNTER, Case, EMPTY, Function, GETPPID, JMP, LEA, MOV, NEST, NOP5, OTHER, PUSH,
    Placement, REGISTERS, TRAP, Who, Work,
};
use crate::peers;

const PAIR: Work = Work::Record("a=%di b=%si");
const STRING: Work = Work::Record("s=+0(%si):string");
const RETVAL: Work = Work::Record("v=$retval");
const BARE: Work = Work::Record("");

/// How many calls are nested in the rows about depth.
const DEPTHS: [u32; 4] = [1, 16, 32, 128];
/// How many other probes are armed in the rows about that.
const CROWDS: [u32; 3] = [1_000, 60_000, 100_000];

pub(crate) const EMPTY_TRAP: &str = "an empty SIGTRAP round trip";
pub(crate) const EMPTY_JUMP: &str = "a jump to what it displaced";
pub(crate) const SAVED: &str = "a jump, all registers and flags saved, a handler";

/// All rows, in the order of the table; those of peers only if `peers`.
pub(crate) fn all(peers: bool) -> Vec<Case> {
    let mut cases = floors();
    cases.extend(ours());
    cases.extend(kernel());
    if peers {
        cases.extend(peers::cases());
    }
    cases
}

fn floors() -> Vec<Case> {
    let floor = |what, function| Case::new(Who::Nobody, At::Entry, Work::Floor(what), function);
    let mut floors = vec![
        floor("a call", PUSH),
        floor(EMPTY_JUMP, EMPTY),
        floor("a jump, a counter", COUNTER),
        floor("a jump, all registers saved, flags but by popfq, a handler", ARITHMETIC),
        floor(SAVED, REGISTERS),
        floor("a system call", GETPPID),
        floor(EMPTY_TRAP, TRAP),
        floor("a call", PUSH).beside(Beside::Thread),
    ];
    floors.extend(DEPTHS.map(|depth| floor("a call", NEST).deep(depth)));
    floors
}

fn ours() -> Vec<Case> {
    let on = |at, work, function: &'static Function| Case::new(Who::Ours, at, work, function);
    let ours = |at, work| on(at, work, PUSH);
    let counted = || ours(At::Entry, Work::Count);
    let mut cases = vec![
        counted(),
        ours(At::Entry, Work::Handler),
        ours(At::Entry, BARE),
        ours(At::Entry, PAIR),
        ours(At::Entry, STRING),
        ours(At::Return, Work::Count),
        ours(At::Return, Work::Handler),
        ours(At::Return, RETVAL),
        ours(At::Both, Work::Count),
        ours(At::Both, Work::Handler),
        ours(At::Both, BARE),
    ];
    cases.extend([MOV, LEA, CALL, NOP5, JMP].map(|function| on(At::Entry, Work::Count, function)));
    cases.extend(DEPTHS.map(|depth| ours(At::Both, Work::Count).deep(depth)));
    cases.extend(CROWDS.map(|number| counted().beside(Beside::Probes(number))));
    cases.push(counted().beside(Beside::Thread));
    for placement in [Placement::Breakpoint, Placement::Jump] {
        let told = [
            counted(),
            ours(At::Entry, Work::Handler),
            ours(At::Entry, PAIR),
            ours(At::Return, Work::Count),
            ours(At::Both, Work::Count),
        ];
        cases.extend(told.map(|case| case.placed(placement)));
    }
    cases
}

fn kernel() -> Vec<Case> {
    let uprobe = |at, work, function| Case::new(Who::Kernel, at, work, function);
    let mut cases = vec![
        uprobe(At::Entry, Work::Count, PUSH),
        uprobe(At::Entry, BARE, PUSH),
        uprobe(At::Entry, PAIR, PUSH),
        uprobe(At::Entry, STRING, PUSH),
        uprobe(At::Return, Work::Count, PUSH),
        uprobe(At::Return, RETVAL, PUSH),
    ];
    cases.extend([MOV, LEA, CALL, NOP5, JMP].map(|function| uprobe(At::Entry, Work::Count, function)));
    cases
}

/// The function of a second thread.
pub(crate) const SECOND: &Function = OTHER;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_described_once() {
        let mut names: Vec<_> = all(true).iter().map(|case| (case.to_string(), case.function.symbol)).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn each_row_of_others_has_one_of_ours_to_compare_with() {
        let cases = all(true);
        for theirs in cases.iter().filter(|case| !matches!(case.who, Who::Nobody | Who::Ours)) {
            let free = |ours: &&Case| ours.who == Who::Ours && ours.placement.is_none();
            assert_eq!(cases.iter().filter(free).filter(|ours| ours.is_comparable(theirs)).count(), 1, "{theirs}");
        }
    }

    #[test]
    fn floors_that_others_are_divided_by_are_there_once() {
        let cases = all(false);
        for floor in [EMPTY_TRAP, EMPTY_JUMP, SAVED] {
            assert_eq!(cases.iter().filter(|case| case.work == Work::Floor(floor)).count(), 1, "{floor}");
        }
    }
}
