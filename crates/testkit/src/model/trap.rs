//! The hit path's host.

use super::interleave::{pause, wait_for_others};
use super::machine::lock;
use super::{CONTEXT_CFA, Cpu, EXIT, Event, JUMP_BUFFER_SP, Machine, SIGNAL_FRAME_SP, X86};
use arch::x86::handlers;
use hit::returns::{Instance, Returns, SideStack};
use hit::{Cause, Counters, Host, Marks, Next, Probe, Site, Stepping, Watch};
use isa::x86::{BREAKPOINT, Regs, gpr};
use sync::primitive::{AtomicU64, Ordering};
use sync::{ActiveSet, Table};

/// A handler's own stack begins this far below the interrupted one (beyond the red zone).
const HANDLER_GAP: u64 = 0x100;
/// How many steps a handler's call may take.
const HANDLER_STEPS: usize = 10_000;

/// What an internal probe does ([`hit::Probe::data`]).
///
/// ```
/// use kprobes::ProbeKind;
/// use testkit::model::Action;
///
/// // How a request asks for it, and how the trap finds it in the probe.
/// let action = Action::Call(0x40_0010);
/// let kind = ProbeKind::Internal { data: action.data() };
/// assert_eq!(Action::from_data(action.data()), Some(action));
/// assert_eq!(Action::from_data(0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An unwinder starts.
    Unwind,
    /// It has chosen a frame: the context at `rdi` says which.
    Land,
    /// It has only walked.
    Walked,
    /// `longjmp`: the buffer at `rdi` says where to.
    Jump,
    /// The running thread ends.
    Exit,
    /// The handler calls the function at this address (an address below 2³²).
    Call(u64),
    /// The handler sets the program counter to this address (below 2³²) instead of stepping.
    Redirect(u64),
}

impl Action {
    /// As it stands in the probe.
    #[must_use]
    pub fn data(self) -> u64 {
        match self {
            Self::Unwind => 1,
            Self::Land => 2,
            Self::Walked => 3,
            Self::Jump => 4,
            Self::Exit => 5,
            Self::Call(address) => 6 | address << 32,
            Self::Redirect(address) => 7 | address << 32,
        }
    }

    /// What `data` stands for.
    #[must_use]
    pub fn from_data(data: u64) -> Option<Self> {
        Some(match data & 0xFF {
            1 => Self::Unwind,
            2 => Self::Land,
            3 => Self::Walked,
            4 => Self::Jump,
            5 => Self::Exit,
            6 => Self::Call(data >> 32),
            7 => Self::Redirect(data >> 32),
            _ => return None,
        })
    }
}

/// One trap of one thread.
///
/// ```
/// use hit::{Outcome, returns::SideStack};
/// use isa::x86::Regs;
/// use testkit::model::{Machine, Program, TEXT, Trap};
///
/// // A breakpoint that is not kprobes': its address is in no table, and the byte is still there.
/// let mut p = Program::new();
/// p.function("breaks", 0);
/// p.raw(&[0xCC]);
/// let machine = Machine::new(p, 0);
/// let trap = Trap::new(&machine, 1, SideStack::default());
/// let mut regs = Regs { rip: TEXT + 1, ..Regs::default() };
/// assert_eq!(hit::breakpoint(&trap, &mut regs), Outcome::Foreign);
/// assert_eq!(regs.rip, TEXT + 1, "the registers are as they were");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Trap<'m> {
    pub(super) machine: &'m Machine,
    pub(super) thread: u64,
    pub(super) signal: SideStack,
}

impl<'m> Trap<'m> {
    /// A trap of `thread`, which has this stack for signal handlers.
    #[must_use]
    pub fn new(machine: &'m Machine, thread: u64, signal: SideStack) -> Self {
        Self { machine, thread, signal }
    }

    /// The handler calls a function of the program's, which may well be probed.
    pub(super) fn call(&self, function: u64, sp: u64, arguments: [u64; 2]) -> u64 {
        let top = (sp - HANDLER_GAP) & !15;
        if !self.machine.memory.set_word(top - 8, EXIT) {
            return 0;
        }
        let mut nested = Cpu { signal: self.signal, ..Cpu::new(self.thread, function, top) };
        [nested.regs.gpr[gpr::RDI], nested.regs.gpr[gpr::RSI]] = arguments;
        let end = self.machine.run(&mut nested, &mut (), HANDLER_STEPS);
        assert_eq!(end, Some(super::End::Exited), "what a handler calls must return");
        nested.regs.gpr[gpr::RAX]
    }

    fn act(&self, action: Action, regs: &mut Regs) -> Next {
        let returns = self.returns();
        let (sp, argument) = (regs.rsp(), regs.gpr[gpr::RDI]);
        let word = |offset: u64| self.machine.memory.word(argument.wrapping_add(offset));
        match action {
            Action::Unwind => returns.restore(self, sp, self.signal),
            Action::Land => {
                if let Some(cfa) = word(CONTEXT_CFA) {
                    returns.land(self, sp, cfa, self.signal);
                }
            }
            Action::Walked => returns.walked(self, sp, self.signal),
            Action::Jump => {
                if let Some(target) = word(JUMP_BUFFER_SP) {
                    returns.jump(self, sp, target, self.signal);
                }
            }
            Action::Exit => returns.exit(self),
            Action::Call(function) => drop(self.call(function, sp, [0; 2])),
            Action::Redirect(address) => {
                regs.rip = address;
                return Next::Redirected;
            }
        }
        Next::Step
    }
}

fn event(probe: &Probe, regs: &Regs, thread: u64, cause: Cause<'_>) -> Event {
    let id = probe.id.load(Ordering::Relaxed);
    let value = regs.gpr[gpr::RAX];
    let first = |i: &Instance| i.arguments[0].load(Ordering::Relaxed);
    match cause {
        Cause::Hit => Event::Hit { id, address: regs.rip, thread },
        Cause::ReturnSite => Event::ReturnSite { id, value },
        Cause::Return(instance) => {
            Event::Return { id, to: instance.return_address.load(Ordering::Relaxed), value, argument: first(instance) }
        }
    }
}

impl Host for Trap<'_> {
    type Isa = X86;

    fn find(&self, address: u64) -> Option<u64> {
        pause();
        Table::new(&self.machine.tables.buckets).find(address)
    }

    fn site(&self, index: u64) -> Option<&Site> {
        pause();
        self.machine.tables.sites.get(usize::try_from(index).ok()?)
    }

    fn probe(&self, index: u32) -> Option<&Probe> {
        pause();
        self.machine.tables.probes.get(index as usize)
    }

    fn counters(&self, id: u32) -> Option<&Counters> {
        pause();
        self.machine.tables.counters.get(id as usize)
    }

    fn is_breakpoint(&self, address: u64) -> bool {
        pause();
        let mut byte = [0];
        self.machine.memory.read(address, &mut byte) && byte == [BREAKPOINT]
    }

    fn thread(&self) -> u64 {
        self.thread
    }

    fn enter(&self) -> Option<&AtomicU64> {
        pause();
        ActiveSet::new(&self.machine.tables.active).enter(self.thread)
    }

    fn returns(&self) -> Returns<'_> {
        pause();
        self.machine.tables.returns()
    }

    fn record(&self, probe: &Probe, regs: &Regs, cause: Cause<'_>) -> bool {
        pause();
        let calls = *lock(&self.machine.handler_calls);
        if let Some(function) = calls {
            self.call(function, regs.rsp(), [0; 2]);
        }
        self.machine.record(event(probe, regs, self.thread, cause))
    }

    fn handle(&self, probe: &Probe, regs: &mut Regs) -> Next {
        pause();
        handlers::handle(self, probe, regs)
    }

    fn followed(&self, probe: &Probe, regs: &mut Regs) {
        pause();
        handlers::followed(self, probe, regs);
    }

    fn faulted(&self, probe: &Probe, regs: &mut Regs, trap: u64) -> bool {
        pause();
        handlers::faulted(self, probe, regs, trap)
    }

    fn entered(&self, probe: &Probe, id: u32, regs: &mut Regs) -> Watch {
        pause();
        handlers::entered(self, probe, id, regs)
    }

    fn returned(&self, probe: &Probe, id: u32, caller: u64, regs: &mut Regs) {
        pause();
        handlers::returned(self, probe, id, caller, regs);
    }

    fn released(&self, probe: &Probe, id: u32) {
        pause();
        handlers::released(probe, id);
    }

    fn stepping(&self) -> Option<&Stepping> {
        pause();
        if !*lock(&self.machine.keeps_steps) {
            return None;
        }
        self.machine.tables.steppings.get(usize::try_from(self.thread).ok()? % self.machine.tables.steppings.len())
    }

    fn marks(&self, index: u64) -> Option<&Marks> {
        self.machine.tables.marks.get(usize::try_from(index).ok()?)
    }

    fn internal(&self, probe: &Probe, _: u64, regs: &mut Regs) -> Next {
        pause();
        Action::from_data(probe.data.load(Ordering::Relaxed)).map_or(Next::Step, |a| self.act(a, regs))
    }

    fn load(&self, address: u64) -> u64 {
        pause();
        self.machine.memory.word(address).unwrap_or(0)
    }

    fn exchange(&self, address: u64, old: u64, new: u64) -> bool {
        pause();
        let aligned = address.is_multiple_of(8);
        aligned && self.machine.memory.word(address) == Some(old) && self.machine.memory.set_word(address, new)
    }

    fn exchange_guarded(&self, address: u64, old: u64, new: u64) -> bool {
        self.exchange(address, old, new)
    }

    fn contiguous(&self, low: u64, high: u64) -> bool {
        pause();
        self.machine.memory.is_whole(low, high)
    }

    fn relax(&self) {
        let _ = wait_for_others();
    }

    fn interrupted(&self, _: u64, signal: SideStack) -> Option<u64> {
        let known = *lock(&self.machine.knows_interrupted);
        known.then(|| self.machine.memory.word(signal.high.wrapping_sub(SIGNAL_FRAME_SP))).flatten()
    }
}
