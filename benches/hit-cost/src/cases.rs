//! The rows of the table: who probes what, and how.

use std::fmt;

/// A function of the measured program, known by its first instruction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its symbol.
    pub(crate) symbol: &'static str,
    /// The instruction that a probe is placed on.
    pub(crate) instruction: &'static str,
    /// How many times the usual number of calls a burst takes when nothing probes it.
    pub(crate) cheap: u32,
}

const fn function(symbol: &'static str, instruction: &'static str, cheap: u32) -> Function {
    Function { symbol, instruction, cheap }
}

const PUSH: &Function = &function("t_push", "push rbp", 100);
const MOV: &Function = &function("t_mov", "mov rax, rdi", 100);
const LEA: &Function = &function("t_lea", "lea rax, [rip+n]", 100);
const NOP5: &Function = &function("t_nop5", "nop (5 bytes)", 100);
const JMP: &Function = &function("t_jmp", "jmp", 100);
const CALL: &Function = &function("t_call", "call", 100);
const GETPPID: &Function = &function("t_getppid", "syscall", 10);
const TRAP: &Function = &function("t_trap", "int3", 1);

/// Who probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Nobody: a floor.
    Nobody,
    /// `kprobe`.
    Ours,
    /// The kernel's uprobes, through tracefs.
    Kernel,
}

/// What a hit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing: what the function itself does is what is measured.
    Floor(&'static str),
    /// It is counted.
    Count,
    /// It is recorded, with what these fetch arguments fetch.
    Record(&'static str),
}

/// Where in the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// On its first instruction.
    Entry,
    /// On its return; that includes a hit on its entry.
    Return,
}

/// A row.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) who: Who,
    pub(crate) at: At,
    pub(crate) work: Work,
    pub(crate) function: &'static Function,
    /// Whether [`OTHERS`] more probes are registered that these calls do not hit.
    pub(crate) others: bool,
}

/// How many other probes there are in the rows that have them.
pub(crate) const OTHERS: usize = 1000;

const REGISTERS: Work = Work::Record("a=%di b=%si");
const STRING: Work = Work::Record("s=+0(%si):string");
const RETVAL: Work = Work::Record("v=$retval");

const fn floor(what: &'static str, function: &'static Function) -> Case {
    Case { who: Who::Nobody, at: At::Entry, work: Work::Floor(what), function, others: false }
}

const fn ours(at: At, work: Work, function: &'static Function) -> Case {
    Case { who: Who::Ours, at, work, function, others: false }
}

const fn crowded(at: At, work: Work, function: &'static Function) -> Case {
    Case { who: Who::Ours, at, work, function, others: true }
}

const fn kernel(at: At, work: Work, function: &'static Function) -> Case {
    Case { who: Who::Kernel, at, work, function, others: false }
}

/// All rows, in the order of the table.
pub(crate) const CASES: &[Case] = &[
    floor("a call", PUSH),
    floor("a system call", GETPPID),
    floor(EMPTY_TRAP, TRAP),
    ours(At::Entry, Work::Count, PUSH),
    ours(At::Entry, Work::Count, MOV),
    ours(At::Entry, Work::Count, LEA),
    ours(At::Entry, Work::Count, CALL),
    ours(At::Entry, Work::Count, NOP5),
    ours(At::Entry, Work::Count, JMP),
    crowded(At::Entry, Work::Count, PUSH),
    ours(At::Entry, Work::Record(""), PUSH),
    ours(At::Entry, REGISTERS, PUSH),
    crowded(At::Entry, REGISTERS, PUSH),
    ours(At::Entry, STRING, PUSH),
    ours(At::Return, Work::Count, PUSH),
    crowded(At::Return, Work::Count, PUSH),
    ours(At::Return, RETVAL, PUSH),
    kernel(At::Entry, Work::Count, PUSH),
    kernel(At::Entry, Work::Count, MOV),
    kernel(At::Entry, Work::Count, LEA),
    kernel(At::Entry, Work::Count, CALL),
    kernel(At::Entry, Work::Count, NOP5),
    kernel(At::Entry, Work::Count, JMP),
    kernel(At::Entry, Work::Record(""), PUSH),
    kernel(At::Entry, REGISTERS, PUSH),
    kernel(At::Entry, STRING, PUSH),
    kernel(At::Return, Work::Count, PUSH),
    kernel(At::Return, RETVAL, PUSH),
];

const EMPTY_TRAP: &str = "an empty SIGTRAP round trip";

impl Case {
    /// Whether this is the floor of a probe that is a breakpoint.
    pub(crate) fn is_empty_trap(&self) -> bool {
        self.work == Work::Floor(EMPTY_TRAP)
    }

    /// Whether `self` is what the kernel has to offer for `other`.
    pub(crate) fn is_uprobe_for(&self, other: &Self) -> bool {
        let same = (self.at, self.work, self.function) == (other.at, other.work, other.function);
        self.who == Who::Kernel && other.who == Who::Ours && same
    }

    /// Fetch arguments.
    pub(crate) fn arguments(&self) -> &'static str {
        match self.work {
            Work::Record(arguments) => arguments,
            Work::Floor(_) | Work::Count => "",
        }
    }

    /// The definition's first letter.
    pub(crate) fn letter(&self) -> char {
        match self.at {
            At::Entry => 'p',
            At::Return => 'r',
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.who {
            Who::Nobody => "no probe",
            Who::Ours => "kprobe",
            Who::Kernel => "uprobe",
        };
        write!(f, "{who}: ")?;
        match self.work {
            Work::Floor(what) => write!(f, "{what}")?,
            Work::Count => write!(f, "{}, counted", self.letter())?,
            Work::Record("") => write!(f, "{}, recorded", self.letter())?,
            Work::Record(arguments) => write!(f, "{}, recorded, {arguments}", self.letter())?,
        }
        if self.others { write!(f, ", beside {OTHERS} others") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_described_once() {
        let mut names: Vec<_> = CASES.iter().map(|case| (case.to_string(), case.function.symbol)).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn each_of_our_rows_has_one_uprobe_to_compare_with() {
        for ours in CASES.iter().filter(|case| case.who == Who::Ours) {
            assert_eq!(CASES.iter().filter(|case| case.is_uprobe_for(ours)).count(), 1, "{ours}");
        }
    }

    #[test]
    fn there_is_one_floor_for_breakpoints() {
        assert_eq!(CASES.iter().filter(|case| case.is_empty_trap()).count(), 1);
    }
}
