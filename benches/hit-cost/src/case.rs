//! What a row of the table is: who probes what, where, and what a hit does.

use std::fmt;

use crate::peers::Peer;

/// A function of the measured program, known by its first instruction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its symbol.
    pub(crate) symbol: &'static str,
    /// The instruction that a probe is placed on.
    pub(crate) instruction: &'static str,
}

const fn function(symbol: &'static str, instruction: &'static str) -> Function {
    Function { symbol, instruction }
}

pub(crate) const PUSH: &Function = &function("t_push", "push rbp");
/// The same once more, for a second thread.
pub(crate) const OTHER: &Function = &function("t_other", "push rbp");
/// The same, calling itself.
pub(crate) const NEST: &Function = &function("t_nest", "push rbp");
pub(crate) const MOV: &Function = &function("t_mov", "mov rax, rdi");
pub(crate) const LEA: &Function = &function("t_lea", "lea rax, [rip+n]");
pub(crate) const NOP5: &Function = &function("t_nop5", "nop (5 bytes)");
pub(crate) const JMP: &Function = &function("t_jmp", "jmp");
pub(crate) const CALL: &Function = &function("t_call", "call");
pub(crate) const GETPPID: &Function = &function("t_getppid", "syscall");
pub(crate) const TRAP: &Function = &function("t_trap", "int3");
pub(crate) const EMPTY: &Function = &function("t_empty", "jmp to a detour");
pub(crate) const COUNTER: &Function = &function("t_counter", "jmp to a detour");
pub(crate) const REGISTERS: &Function = &function("t_registers", "jmp to a detour");
pub(crate) const ARITHMETIC: &Function = &function("t_arithmetic", "jmp to a detour");
/// Compiled with `-finstrument-functions`.
pub(crate) const INSTRUMENTED: &Function = &function("t_instrumented", "the compiler's calls");

/// Who probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Nobody: a floor.
    Nobody,
    /// `kprobe`.
    Ours,
    /// The kernel's uprobes, through tracefs.
    Kernel,
    /// Another tool or library.
    Peer(Peer),
}

impl Who {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "floor",
            Self::Ours => "kprobe",
            Self::Kernel => "uprobe",
            Self::Peer(peer) => peer.name(),
        }
    }
}

/// What a hit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing: what the function itself does is what is measured.
    Floor(&'static str),
    /// It is counted.
    Count,
    /// A handler is called, with the registers or the arguments.
    Handler,
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
    /// On both, one probe each.
    Both,
}

/// How our tool is told to place a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Placement {
    /// By a breakpoint, whether or not a jump is possible.
    Breakpoint,
    /// By a jump, or not at all.
    Jump,
}

impl Placement {
    /// As the tool's option and its summary name it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Breakpoint => "breakpoint",
            Self::Jump => "jump",
        }
    }
}

/// What else goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nothing.
    Nothing,
    /// So many other probes are armed, which these calls do not hit.
    Probes(u32),
    /// A second thread calls a second function, with a probe of its own, on another processor.
    Thread,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) who: Who,
    pub(crate) at: At,
    pub(crate) work: Work,
    pub(crate) function: &'static Function,
    /// How many calls are on the stack at once; only [`NEST`] has more than one.
    pub(crate) depth: u32,
    pub(crate) beside: Beside,
    /// What our tool is told; none: it chooses.
    pub(crate) placement: Option<Placement>,
}

impl Case {
    pub(crate) const fn new(who: Who, at: At, work: Work, function: &'static Function) -> Self {
        Self { who, at, work, function, depth: 1, beside: Beside::Nothing, placement: None }
    }

    pub(crate) const fn beside(self, beside: Beside) -> Self {
        Self { beside, ..self }
    }

    pub(crate) const fn deep(self, depth: u32) -> Self {
        Self { depth, function: NEST, ..self }
    }

    pub(crate) const fn placed(self, placement: Placement) -> Self {
        Self { placement: Some(placement), ..self }
    }

    /// Fetch arguments.
    pub(crate) fn arguments(&self) -> &'static str {
        match self.work {
            Work::Record(arguments) => arguments,
            Work::Floor(_) | Work::Count | Work::Handler => "",
        }
    }

    /// What the measured program calls: its first argument.
    pub(crate) fn target(&self) -> String {
        let symbol = self.function.symbol;
        if self.function == NEST { format!("{symbol}={}", self.depth) } else { symbol.to_owned() }
    }

    /// Whether `self` and `other` do the same work in the same circumstances, whoever does it. An empty function is one
    /// like another, but for the instructions that the kernel must emulate or step.
    pub(crate) fn is_comparable(&self, other: &Self) -> bool {
        let on = |case: &Self| if case.function == INSTRUMENTED { PUSH } else { case.function };
        (self.at, self.work, on(self), self.depth, self.beside)
            == (other.at, other.work, on(other), other.depth, other.beside)
    }

    fn probes(&self) -> &'static str {
        match self.at {
            At::Entry => "entry",
            At::Return => "return",
            At::Both => "entry and return",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.who.name())?;
        match self.work {
            Work::Floor(what) => write!(f, "{what}")?,
            Work::Count => write!(f, "{}, counted", self.probes())?,
            Work::Handler => write!(f, "{}, a handler", self.probes())?,
            Work::Record("") => write!(f, "{}, recorded", self.probes())?,
            Work::Record(arguments) => write!(f, "{}, recorded, {arguments}", self.probes())?,
        }
        if self.function == NEST {
            write!(f, ", {} deep", self.depth)?;
        }
        match self.beside {
            Beside::Nothing => {}
            Beside::Probes(number) => write!(f, ", beside {number} others")?,
            Beside::Thread => write!(f, ", 2 threads")?,
        }
        self.placement.map_or(Ok(()), |placement| write!(f, ", by {} as told", placement.word()))
    }
}
