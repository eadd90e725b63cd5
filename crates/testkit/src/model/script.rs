//! Programs that are decided while they run, and a reference of what became of each activation.
//!
//! The functions of [`functions`] all have one body: ask, do what was told, ask again. What they are told is a
//! [`Deed`]: call, return, leave by a jump, throw, go on throwing after a clean-up, `longjmp`, look at the stack,
//! switch to a coroutine, get a signal. The [`World`] tells them, and keeps beside it what a correct machine must come
//! to: the frames of each stack, and for each return probe how often it was hit and how its activations ended.
//!
//! At each question the world compares: the function that asks, its stack pointer, the callers that a walk has met. A
//! probe that changes the true flow of control is seen at the next question, a wrong count at the end.

use super::{Cpu, EXIT, JUMP_BUFFER_PC, JUMP_BUFFER_SP, Machine, Program, Runtime, SIGNAL_FRAME, Service};
use isa::x86::gpr;
use std::collections::{BTreeMap, VecDeque};

/// How many functions there are.
pub const FUNCTIONS: usize = 4;
const NAMES: [&str; FUNCTIONS] = ["f0", "f1", "f2", "f3"];
/// The question of `swap`, which switches stacks.
const SWAP: u32 = 100;
/// Where jump buffers are, 64 bytes for each thread.
const BUFFERS: u64 = super::DATA + 0x100;

/// The program: [`FUNCTIONS`] functions that ask, `swap`, `thread_exit`, and the runtime.
#[must_use]
pub fn functions() -> Program {
    let mut p = Program::new();
    for (number, name) in (0u32..).zip(NAMES) {
        p.function(name, 1);
        p.push_rbp();
        let ask = p.service(Service::Choose(number)); // + 0
        p.call_rax(); // + 1
        p.jmp(ask); // + 3
        p.pop_rbp(); // + 8
        p.ret(); // + 9
        p.pop_rbp(); // + 10
        p.jmp_rax(); // + 11
        p.landing_pad();
        p.jmp(ask); // + 13
    }
    p.function("swap", 0);
    p.service(Service::Choose(SWAP));
    p.ret();
    p.function("thread_exit", 0);
    p.nop();
    p.ret();
    p.with_runtime()
}

/// Whether `cpu` is about to ask: it stands between two deeds.
#[must_use]
pub fn asks(machine: &Machine, cpu: &Cpu) -> bool {
    let here =
        |&(at, service): &(u64, Service)| at == cpu.regs.rip && matches!(service, Service::Choose(n) if n != SWAP);
    cpu.trapped.is_none() && machine.services.iter().any(here)
}

/// Where a function's body continues, from its question on.
mod part {
    pub(super) const CALL: u64 = 1;
    pub(super) const RETURN: u64 = 8;
    pub(super) const TAIL: u64 = 10;
}

/// What a function is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Call a function.
    Call(usize),
    /// Leave by a jump to a function.
    Tail(usize),
    /// Return.
    Return,
    /// Throw: caught in the frame with this number (from 0, outermost), cleaned up in these.
    Throw(usize, Vec<usize>),
    /// The clean-up is done: throw on.
    Resume,
    /// `longjmp` to the frame with this number.
    Jump(usize),
    /// Switch to a suspended coroutine by `longjmp`, as some coroutine libraries do.
    JumpTo(usize),
    /// Walk the stack.
    Backtrace,
    /// Switch to the coroutine with this number; a new one begins with this function.
    Switch(usize, usize),
    /// A signal arrives, and is handled by a function on the signal stack.
    Signal(usize),
    /// Call `thread_exit`, which tells that what the thread has out never returns.
    ThreadExit,
}

/// How a return probe is set.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Which function.
    pub function: usize,
    /// Its counters.
    pub id: u32,
    /// How many activations it watches at once.
    pub maxactive: u64,
    /// Reference: hits, returns, unwound, missed.
    pub counts: [u64; 4],
    /// Reference: how many are out.
    pub active: u64,
}

/// One activation of a function: which watches watch it.
#[derive(Clone, Debug)]
struct Activation {
    function: usize,
    watched: Vec<usize>,
}

/// A frame. Functions that left by a jump are still active in the frame of the last one.
#[derive(Clone, Debug)]
struct Frame {
    activations: Vec<Activation>,
    sp: u64,
    /// What [`Deed::Signal`] has interrupted is below.
    signal: bool,
    cleanup: bool,
}

/// An exception in flight: where it goes, next one last.
#[derive(Clone, Debug)]
struct Exception {
    landings: Vec<usize>,
}

/// A stack with what runs on it.
#[derive(Clone, Debug, Default)]
struct Coroutine {
    top: u64,
    frames: Vec<Frame>,
    exceptions: Vec<Exception>,
    /// Registers while it is not running.
    saved: Option<(u64, u64)>,
}

/// All stacks of a program, and the reference.
///
/// ```
/// use kprobes::{ProbeKind, Registry, Request};
/// use testkit::model::script::{Deed, Watch, World, asks, functions};
/// use testkit::model::{Control, End, Machine};
///
/// # fn main() -> Result<(), kprobes::Error> {
/// # if cfg!(not(feature = "kretprobes")) { return Ok(()) }
/// let mut machine = Machine::new(functions(), 8);
/// let tops = [0x7000_0000, 0x7000_3000].map(|base| machine.add_stack(base));
/// let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
/// let request = Request::counting(machine.address("f1"), ProbeKind::Return { maxactive: 8 }, 1);
/// registry.register(&mut control, &[request]).map_err(|(_, error)| error)?;
/// let mut world = World::new(&tops, vec![Watch { function: 1, id: 1, maxactive: 8, ..Watch::default() }], 8);
/// assert_eq!(world.coroutines(), 2);
///
/// // `f0` calls `f1`, and that switches to a coroutine which begins with `f2`.
/// let mut cpu = world.start(&machine, 1, 0, 0);
/// world.script = [Deed::Call(1), Deed::Switch(1, 2)].into();
/// while world.questions < 2 || !asks(&machine, &cpu) {
///     machine.step(&mut cpu, &mut world);
/// }
/// assert!(world.is_suspended(0) && !world.is_fresh(1));
/// assert_eq!((world.position(1), world.active()), ((1, 0, false, false), vec![1]));
///
/// // Told nothing more, all return: first `f2`, then what waits on the other stack.
/// assert_eq!(machine.run(&mut cpu, &mut world, 1000), Some(End::Exited));
/// assert!(world.next_coroutine(&mut cpu));
/// assert_eq!(machine.run(&mut cpu, &mut world, 1000), Some(End::Exited));
/// assert!(!world.next_coroutine(&mut cpu), "nothing is left");
/// assert_eq!(world.expected(), [[1, 1, 0, 0]], "hit, returned");
/// assert_eq!(world.counted(&machine), world.expected());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct World {
    /// The return probes.
    pub watches: Vec<Watch>,
    /// How many instances there are, and how many are out.
    pub pool: (u64, u64),
    /// What is done next; when it is empty, functions return.
    pub script: VecDeque<Deed>,
    /// How many questions were asked.
    pub questions: u64,
    coroutines: Vec<Coroutine>,
    /// Which coroutine a thread runs.
    running: BTreeMap<u64, usize>,
    signal_top: BTreeMap<u64, u64>,
}

impl World {
    /// A world in which each of `tops` is the upper end of a stack for a coroutine.
    #[must_use]
    pub fn new(tops: &[u64], watches: Vec<Watch>, instances: u64) -> Self {
        let coroutines = tops.iter().map(|&top| Coroutine { top, ..Coroutine::default() }).collect();
        Self {
            watches,
            pool: (instances, 0),
            script: VecDeque::new(),
            questions: 0,
            coroutines,
            running: BTreeMap::new(),
            signal_top: BTreeMap::new(),
        }
    }

    /// A thread that begins with `function` on an unused coroutine's stack.
    ///
    /// # Panics
    ///
    /// When the coroutine is in use.
    #[must_use]
    pub fn start(&mut self, machine: &Machine, id: u64, coroutine: usize, function: usize) -> Cpu {
        assert!(self.is_fresh(coroutine), "coroutine {coroutine} is in use");
        self.running.insert(id, coroutine);
        let top = self.coroutines[coroutine].top;
        self.enter(id, function, top - 8);
        machine.start(id, machine.address(NAMES[function]), top)
    }

    /// Gives a thread a stack for signals, `[low, high)`.
    ///
    /// ```
    /// # use testkit::model::script::{Deed, World, asks, functions};
    /// # use testkit::model::{End, Machine};
    /// let mut machine = Machine::new(functions(), 0);
    /// let (top, high) = (machine.add_stack(0x7000_0000), machine.add_stack(0x6000_0000));
    /// let mut world = World::new(&[top], Vec::new(), 0);
    /// let mut cpu = world.start(&machine, 1, 0, 0);
    /// world.set_signal_stack(&mut cpu, 0x6000_0000, high);
    /// world.script = [Deed::Signal(3)].into();
    /// while world.questions < 1 || !asks(&machine, &cpu) {
    ///     machine.step(&mut cpu, &mut world);
    /// }
    /// // `f3` handles the signal, on its own stack.
    /// assert!(cpu.sp() > 0x6000_0000 && cpu.sp() < high);
    /// assert_eq!(world.position(1), (2, 0, false, true));
    /// assert_eq!(machine.run(&mut cpu, &mut world, 1000), Some(End::Exited));
    /// ```
    pub fn set_signal_stack(&mut self, cpu: &mut Cpu, low: u64, high: u64) {
        cpu.signal = hit::returns::SideStack { low, high };
        self.signal_top.insert(cpu.id, high);
    }

    /// Whether nothing runs on a coroutine's stack.
    #[must_use]
    pub fn is_fresh(&self, coroutine: usize) -> bool {
        self.coroutines[coroutine].frames.is_empty()
    }

    /// Whether a coroutine waits to be switched to.
    #[must_use]
    pub fn is_suspended(&self, coroutine: usize) -> bool {
        self.coroutines[coroutine].saved.is_some()
    }

    /// How many coroutines there are.
    #[must_use]
    pub fn coroutines(&self) -> usize {
        self.coroutines.len()
    }

    /// The running stack of a thread: its depth, the lowest frame that may be left at once (a clean-up below is not
    /// done yet), whether the top frame is a clean-up, whether a signal handler runs.
    #[must_use]
    pub fn position(&self, thread: u64) -> (usize, usize, bool, bool) {
        let frames = &self.coroutines[self.running[&thread]].frames;
        let lowest = frames.iter().rposition(|f| f.cleanup).unwrap_or(0);
        (frames.len(), lowest, frames.last().is_some_and(|f| f.cleanup), frames.iter().any(|f| f.signal))
    }

    /// The thread has left its last function: it goes on with a suspended coroutine, if there is one.
    pub fn next_coroutine(&mut self, cpu: &mut Cpu) -> bool {
        if let Some(current) = self.running.remove(&cpu.id) {
            assert!(self.coroutines[current].frames.is_empty(), "a thread has ended with frames on its stack");
        }
        let Some(next) = self.coroutines.iter().position(|c| c.saved.is_some()) else { return false };
        cpu.end = None;
        self.load(cpu, next);
        true
    }

    /// The thread is gone, and with it what runs on its stack: none of it returns.
    ///
    /// ```
    /// # use testkit::model::script::{World, functions};
    /// # use testkit::model::Machine;
    /// # let mut machine = Machine::new(functions(), 0);
    /// # let top = machine.add_stack(0x7000_0000);
    /// let mut world = World::new(&[top], Vec::new(), 0);
    /// let cpu = world.start(&machine, 1, 0, 0);
    /// assert!(!world.is_fresh(0));
    /// world.abandon(cpu.id);
    /// assert!(world.is_fresh(0), "the next thread may have its stack");
    /// ```
    pub fn abandon(&mut self, thread: u64) {
        if let Some(coroutine) = self.running.remove(&thread) {
            self.cut(coroutine, 0);
        }
    }

    /// `cpu` runs on with what the thread `from` had: it is that thread, in a forked child.
    ///
    /// ```
    /// # use testkit::model::script::{World, functions};
    /// # use testkit::model::{End, Machine};
    /// let make = || {
    ///     let mut machine = Machine::new(functions(), 0);
    ///     machine.add_stack(0x7000_0000);
    ///     machine
    /// };
    /// let machine = make();
    /// let mut world = World::new(&[0x7000_2000], Vec::new(), 0);
    /// let parent = world.start(&machine, 1, 0, 0);
    /// let (child, mut forked) = machine.fork(make, &[0x7000_0000], &parent, 2);
    /// world.take_over(1, &mut forked);
    /// assert_eq!(child.run(&mut forked, &mut world, 100), Some(End::Exited));
    /// ```
    pub fn take_over(&mut self, from: u64, cpu: &mut Cpu) {
        if let Some(coroutine) = self.running.remove(&from) {
            self.running.insert(cpu.id, coroutine);
        }
    }

    /// What the counters must say: hits, returns, unwound, missed, of each watch.
    #[must_use]
    pub fn expected(&self) -> Vec<[u64; 4]> {
        self.watches.iter().map(|w| w.counts).collect()
    }

    /// What the machine's counters do say.
    #[must_use]
    pub fn counted(&self, machine: &Machine) -> Vec<[u64; 4]> {
        let of = |w: &Watch| {
            let [hits, returns, unwound, missed, _] = machine.tables.counts(w.id);
            [hits, returns, unwound, missed]
        };
        self.watches.iter().map(of).collect()
    }

    /// How many activations of each watch are out.
    #[must_use]
    pub fn active(&self) -> Vec<u64> {
        self.watches.iter().map(|w| w.active).collect()
    }

    fn load(&mut self, cpu: &mut Cpu, coroutine: usize) {
        self.running.insert(cpu.id, coroutine);
        if let Some((sp, pc)) = self.coroutines[coroutine].saved.take() {
            cpu.regs.gpr[gpr::RSP] = sp;
            cpu.regs.rip = pc;
        }
    }

    /// An activation begins: who watches it.
    fn activation(&mut self, function: usize) -> Activation {
        let mut watched = Vec::new();
        for (i, watch) in self.watches.iter_mut().enumerate().filter(|(_, w)| w.function == function) {
            let admitted = watch.active < watch.maxactive;
            if admitted {
                watched.push(i);
            } else {
                watch.counts[3] += 1;
            }
        }
        let instance = self.pool.1 < self.pool.0;
        for &i in &watched {
            let watch = &mut self.watches[i];
            watch.counts[if instance { 0 } else { 3 }] += 1;
            watch.active += u64::from(instance);
        }
        if !instance {
            watched.clear();
        }
        self.pool.1 += u64::from(!watched.is_empty());
        Activation { function, watched }
    }

    /// An activation ends; `how`: 1 returned, 2 unwound.
    fn end(&mut self, activation: &Activation, how: usize) {
        for &i in &activation.watched {
            self.watches[i].counts[how] += 1;
            self.watches[i].active -= 1;
        }
        self.pool.1 -= u64::from(!activation.watched.is_empty());
    }

    fn enter(&mut self, thread: u64, function: usize, slot: u64) {
        let activations = vec![self.activation(function)];
        let frame = Frame { activations, sp: slot - 8, signal: false, cleanup: false };
        self.frames(thread).push(frame);
    }

    fn frames(&mut self, thread: u64) -> &mut Vec<Frame> {
        &mut self.coroutines[self.running[&thread]].frames
    }

    /// All frames above the first `depth` are unwound.
    fn cut(&mut self, coroutine: usize, depth: usize) {
        let gone = self.coroutines[coroutine].frames.split_off(depth);
        for activation in gone.iter().flat_map(|f| &f.activations) {
            self.end(activation, 2);
        }
        // An exception whose clean-up was thrown away goes nowhere.
        self.coroutines[coroutine].exceptions.retain(|e| e.landings.iter().all(|&l| l < depth));
    }

    fn told(&mut self, machine: &Machine, cpu: &mut Cpu, deed: Deed) {
        let ask = cpu.regs.rip - 1;
        let coroutine = self.running[&cpu.id];
        let mut call = |target: u64| {
            cpu.regs.gpr[gpr::RAX] = target;
            cpu.regs.rip = ask + part::CALL;
        };
        match deed {
            Deed::Call(function) => {
                call(machine.address(NAMES[function]));
                self.enter(cpu.id, function, cpu.sp() - 8);
            }
            Deed::Tail(function) => {
                cpu.regs.gpr[gpr::RAX] = machine.address(NAMES[function]);
                cpu.regs.rip = ask + part::TAIL;
                let activation = self.activation(function);
                self.frames(cpu.id).last_mut().unwrap_or_else(|| unreachable!("it asks")).activations.push(activation);
            }
            Deed::Return => {
                cpu.regs.rip = ask + part::RETURN;
                let frame = self.frames(cpu.id).pop().unwrap_or_else(|| unreachable!("it asks"));
                frame.activations.iter().for_each(|a| self.end(a, 1));
            }
            Deed::Throw(catch, mut landings) => {
                call(machine.address("raise"));
                landings.retain(|&l| l > catch);
                landings.push(catch);
                landings.sort_unstable();
                landings.dedup();
                self.coroutines[coroutine].exceptions.push(Exception { landings });
            }
            Deed::Resume => call(machine.address("resume")),
            Deed::Backtrace => call(machine.address("backtrace")),
            Deed::ThreadExit => call(machine.address("thread_exit")),
            Deed::Jump(depth) => {
                call(machine.address("longjmp"));
                self.cut(coroutine, depth + 1);
                self.long_jump(machine, cpu, depth);
            }
            Deed::JumpTo(to) => {
                call(machine.address("longjmp"));
                if let Some(place) = self.coroutines[to].saved.take() {
                    self.coroutines[coroutine].saved = Some((cpu.sp(), ask));
                    self.running.insert(cpu.id, to);
                    set_buffer(machine, cpu, place);
                }
            }
            Deed::Switch(to, function) => {
                call(machine.address("swap"));
                self.script.push_front(Deed::Switch(to, function));
            }
            Deed::Signal(function) => self.signal(machine, cpu, function, ask),
        }
    }

    fn long_jump(&mut self, machine: &Machine, cpu: &mut Cpu, depth: usize) {
        let frame = &self.frames(cpu.id)[depth];
        let (sp, function) = (frame.sp, frame.activations.last().map_or(0, |a| a.function));
        set_buffer(machine, cpu, (sp, machine.address(NAMES[function]) + 1));
    }

    /// The kernel's part: a frame that `restorer` returns from, and the handler's call.
    fn signal(&mut self, machine: &Machine, cpu: &mut Cpu, function: usize, ask: u64) {
        let top = self.signal_top[&cpu.id];
        let slot = top - SIGNAL_FRAME;
        for (offset, word) in [(0, machine.address("restorer")), (8, ask), (16, cpu.sp())] {
            assert!(machine.memory.set_word(slot + offset, word), "the signal stack is mapped");
        }
        cpu.regs.gpr[gpr::RSP] = slot;
        cpu.regs.rip = machine.address(NAMES[function]);
        self.enter(cpu.id, function, slot);
        if let Some(frame) = self.frames(cpu.id).last_mut() {
            frame.signal = true;
        }
    }

    /// `swap` has been called: the stacks change.
    fn swap(&mut self, machine: &Machine, cpu: &mut Cpu) {
        let Some(Deed::Switch(to, function)) = self.script.pop_front() else { return };
        let from = self.running[&cpu.id];
        if to == from || !(self.is_fresh(to) || self.is_suspended(to)) {
            return;
        }
        self.coroutines[from].saved = Some((cpu.sp(), cpu.regs.rip));
        if self.is_suspended(to) {
            return self.load(cpu, to);
        }
        self.running.insert(cpu.id, to);
        let top = self.coroutines[to].top;
        assert!(machine.memory.set_word(top - 8, EXIT), "its stack is mapped");
        cpu.regs.gpr[gpr::RSP] = top - 8;
        cpu.regs.rip = machine.address(NAMES[function]);
        self.enter(cpu.id, function, top - 8);
    }
}

/// Fills the thread's jump buffer with a stack pointer and a program counter, and `rdi` with its address.
fn set_buffer(machine: &Machine, cpu: &mut Cpu, (sp, pc): (u64, u64)) {
    let buffer = BUFFERS + cpu.id * 64;
    assert!(machine.memory.set_word(buffer + JUMP_BUFFER_SP, sp), "data is mapped");
    assert!(machine.memory.set_word(buffer + JUMP_BUFFER_PC, pc), "data is mapped");
    cpu.regs.gpr[gpr::RDI] = buffer;
}

impl Runtime for World {
    fn choose(&mut self, machine: &Machine, cpu: &mut Cpu, number: u32) {
        if number == SWAP {
            return self.swap(machine, cpu);
        }
        self.questions += 1;
        let sp = cpu.sp();
        let frame = self.frames(cpu.id).last().unwrap_or_else(|| panic!("f{number} runs, but no frame is left"));
        let asks = frame.activations.last().map(|a| a.function);
        assert_eq!((asks, frame.sp), (Some(number as usize), sp), "the flow of control is another one");
        let idle = if frame.cleanup { Deed::Resume } else { Deed::Return };
        let deed = self.script.pop_front().unwrap_or(idle);
        self.told(machine, cpu, deed);
    }

    fn lands(&mut self, cpu: &Cpu, _: u64, sp: u64) -> bool {
        let coroutine = self.running[&cpu.id];
        let current = &mut self.coroutines[coroutine];
        let next = current.exceptions.last().and_then(|e| e.landings.last()).copied();
        let Some(depth) = next.filter(|&n| current.frames.get(n).is_some_and(|f| f.sp == sp)) else { return false };
        if let Some(exception) = current.exceptions.last_mut() {
            exception.landings.pop();
            let caught = exception.landings.is_empty();
            current.frames[depth].cleanup |= !caught;
            if caught {
                current.exceptions.pop();
            }
        }
        let gone = self.coroutines[coroutine].frames.split_off(depth + 1);
        for activation in gone.iter().flat_map(|f| &f.activations) {
            self.end(activation, 2);
        }
        true
    }

    fn walked(&mut self, cpu: &Cpu, callers: &[u64]) {
        let frames = self.frames(cpu.id).len();
        let restorers = self.frames(cpu.id).iter().filter(|f| f.signal).count();
        assert_eq!(callers.len(), frames + restorers, "a walk has met other frames than there are");
    }
}
