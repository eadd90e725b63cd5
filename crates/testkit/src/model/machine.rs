//! The machine: memory, table, and one step of a thread.

use super::fetch::{self, Fetch};
use super::handlers::within;
use super::interleave::pause;
use super::runtime::{Runtime, builtin};
use super::{
    Cpu, DATA, DATA_BYTES, EXIT, End, FunctionInfo, Memory, Program, SLOTS, SLOTS_BYTES, STUB_STRIDE, STUBS, Service,
    TEXT, TEXT_BYTES, Tables, Trap, X86,
};
use hit::Outcome;
use isa::x86::{self, Privilege, Verdict};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the hit path has recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A probe was hit.
    Hit {
        /// The probe's id.
        id: u32,
        /// Where.
        address: u64,
        /// By whom.
        thread: u64,
    },
    /// A probed function has returned.
    Return {
        /// The probe's id.
        id: u32,
        /// Where to.
        to: u64,
        /// What: `rax`.
        value: u64,
        /// The first argument that it was called with.
        argument: u64,
    },
    /// An instruction that leaves a probed function was hit.
    ReturnSite {
        /// The probe's id.
        id: u32,
        /// What is returned: `rax`.
        value: u64,
    },
}

impl Event {
    /// The probe's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        match *self {
            Self::Hit { id, .. } | Self::Return { id, .. } | Self::ReturnSite { id, .. } => id,
        }
    }
}

/// A program in memory, with its probe table. Threads are kept by the test.
///
/// ```
/// use kprobes::{ProbeKind, Registry, Request};
/// use testkit::model::{Control, End, Event, Machine, Program};
///
/// # fn main() -> Result<(), kprobes::Error> {
/// let mut p = Program::new();
/// p.function("seven", 0);
/// p.mov_eax(7);
/// p.ret();
/// let mut machine = Machine::new(p, 0);
/// let top = machine.add_stack(0x7000_0000);
/// let seven = machine.address("seven");
/// assert_eq!(machine.function_at(seven + 5).map(|f| f.name), Some("seven"));
///
/// let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
/// let request = Request { record: true, ..Request::counting(seven, ProbeKind::Entry, 1) };
/// let handles = registry.register(&mut control, &[request]).map_err(|(_, error)| error)?;
/// assert_ne!(machine.text(), machine.pristine(), "a breakpoint stands there");
///
/// let mut cpu = machine.start(1, seven, top);
/// machine.step(&mut cpu, &mut ());
/// assert_eq!((cpu.trapped, machine.log().len()), (Some(seven), 0), "fetched, and not handled yet");
/// assert_eq!(machine.run(&mut cpu, &mut (), 100), Some(End::Exited));
/// assert_eq!(machine.log(), [Event::Hit { id: 1, address: seven, thread: 1 }]);
/// assert_eq!(machine.log()[0].id(), 1);
///
/// registry.unregister(&mut control, &handles)?;
/// assert_eq!(machine.text(), machine.pristine());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Machine {
    /// All memory.
    pub memory: Memory,
    /// The probe table.
    pub tables: Tables,
    /// The program's functions.
    pub functions: Vec<FunctionInfo>,
    pub(crate) services: Vec<(u64, Service)>,
    /// The text as it is without any probe.
    pristine: Mutex<Vec<u8>>,
    log: Mutex<Vec<(Event, Vec<u8>)>>,
    /// Fetch programs, by the id of their probe.
    programs: Mutex<BTreeMap<u32, Vec<u8>>>,
    /// The function that every handler which records calls: how a handler hits a probe.
    pub(crate) handler_calls: Mutex<Option<u64>>,
    /// How many records there is room for.
    pub(crate) room: Mutex<usize>,
    /// Whether the hit path can find out what a signal has interrupted.
    pub(crate) knows_interrupted: Mutex<bool>,
    /// Whether it keeps what it steps.
    pub(crate) keeps_steps: Mutex<bool>,
}

/// What an instruction raises that cannot be executed, whatever is wrong with it.
pub(super) const PAGE_FAULT: u64 = 14;
/// Bytes of a stack.
pub const STACK_BYTES: usize = 0x2000;

impl Machine {
    /// `program` in memory, with `instances` instances of return probes. Memory for stacks is added by
    /// [`add_stack`](Self::add_stack).
    ///
    /// # Panics
    ///
    /// When the program is too long, or calls a function that it has not.
    #[must_use]
    pub fn new(program: Program, instances: usize) -> Self {
        let program = program.finish();
        let mut memory = Memory::default();
        memory.map(TEXT, TEXT_BYTES);
        memory.map(SLOTS, SLOTS_BYTES);
        memory.map(STUBS, instances * STUB_STRIDE as usize);
        memory.map(DATA, DATA_BYTES);
        assert!(memory.write(TEXT, &program.code), "the program is too long");
        let stubs = vec![x86::BREAKPOINT; instances * STUB_STRIDE as usize];
        assert!(memory.write(STUBS, &stubs), "just mapped");
        let pristine = Mutex::new(memory.copy(TEXT, TEXT_BYTES));
        Self {
            memory,
            tables: Tables::new(instances),
            functions: program.functions,
            services: program.services,
            pristine,
            log: Mutex::default(),
            programs: Mutex::default(),
            handler_calls: Mutex::default(),
            room: Mutex::new(usize::MAX),
            knows_interrupted: Mutex::new(true),
            keeps_steps: Mutex::new(true),
        }
    }

    /// Maps a stack at `base`, and gives its upper end.
    pub fn add_stack(&mut self, base: u64) -> u64 {
        self.memory.map(base, STACK_BYTES);
        base + STACK_BYTES as u64
    }

    /// The address of a function.
    ///
    /// # Panics
    ///
    /// When there is no function of this name.
    #[must_use]
    pub fn address(&self, name: &str) -> u64 {
        self.functions.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no function {name}")).start
    }

    /// A thread that calls the function at `function` on the stack that ends at `stack_top`.
    ///
    /// # Panics
    ///
    /// When there is no stack there.
    #[must_use]
    pub fn start(&self, id: u64, function: u64, stack_top: u64) -> Cpu {
        assert!(self.memory.set_word(stack_top - 8, EXIT), "no stack ends at {stack_top:#x}");
        Cpu::new(id, function, stack_top)
    }

    /// What was recorded so far.
    #[must_use]
    pub fn log(&self) -> Vec<Event> {
        lock(&self.log).iter().map(|(event, _)| *event).collect()
    }

    /// What was recorded from this number on, with what the probes' fetch programs have fetched.
    ///
    /// ```
    /// # use kprobes::{ProbeKind, Registry, Request};
    /// # use testkit::model::{Control, Cpu, End, Machine, Program};
    /// # fn main() -> Result<(), kprobes::Error> {
    /// # let mut p = Program::new();
    /// # p.function("leaf", 0);
    /// # p.add_rdi(1);
    /// # p.mov_eax(7);
    /// # p.ret();
    /// # p.function("main", 0);
    /// # p.call("leaf");
    /// # p.ret();
    /// # let mut machine = Machine::new(p, 4);
    /// # let top = machine.add_stack(0x7000_0000);
    /// # let (leaf, main) = (machine.address("leaf"), machine.address("main"));
    /// # let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
    /// # use events::{Resolve, compile, decode, parse};
    /// # struct Nothing;
    /// # impl Resolve for Nothing {
    /// #     fn symbol(&self, _: Option<&str>, _: &str) -> Option<u64> { None }
    /// #     fn file_offset(&self, _: u64) -> Option<u64> { None }
    /// # }
    /// let line = parse("p:leaf leaf argument=$arg1:u16").expect("it is a definition");
    /// let events::Program { code, schema, .. } = compile(&line, &Nothing).expect("it has no symbols");
    /// machine.set_program(1, code.clone());
    /// let request = Request { record: true, program: code, ..Request::counting(leaf, ProbeKind::Entry, 1) };
    /// registry.register(&mut control, &[request]).map_err(|(_, error)| error)?;
    ///
    /// for argument in [5, 6] {
    ///     let mut cpu = machine.start(1, leaf, top);
    ///     cpu.regs.gpr[isa::x86::gpr::RDI] = argument;
    ///     machine.run(&mut cpu, &mut (), 100);
    /// }
    /// let [(event, fetched)] = &machine.records_from(1)[..] else { panic!("two calls, two records") };
    /// assert_eq!((event.id(), decode(&schema, fetched)[0].number()), (1, Some(6)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn records_from(&self, number: usize) -> Vec<(Event, Vec<u8>)> {
        lock(&self.log).get(number..).unwrap_or_default().to_vec()
    }

    /// Probes with this id run a fetch program when they record.
    pub fn set_program(&self, id: u32, code: Vec<u8>) {
        lock(&self.programs).insert(id, code);
    }

    /// Every handler that records calls this function, with the rest of its thread's stack.
    ///
    /// ```
    /// # use kprobes::{ProbeKind, Registry, Request};
    /// # use testkit::model::{Control, Cpu, End, Machine, Program};
    /// # fn main() -> Result<(), kprobes::Error> {
    /// # let mut p = Program::new();
    /// # p.function("leaf", 0);
    /// # p.add_rdi(1);
    /// # p.mov_eax(7);
    /// # p.ret();
    /// # p.function("main", 0);
    /// # p.call("leaf");
    /// # p.ret();
    /// # let mut machine = Machine::new(p, 4);
    /// # let top = machine.add_stack(0x7000_0000);
    /// # let (leaf, main) = (machine.address("leaf"), machine.address("main"));
    /// # let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
    /// let request = |at, id| Request { record: true, ..Request::counting(at, ProbeKind::Entry, id) };
    /// registry.register(&mut control, &[request(main, 1), request(leaf, 2)]).map_err(|(_, error)| error)?;
    /// machine.set_handler_calls(Some(leaf));
    /// machine.run(&mut machine.start(1, main, top), &mut (), 1000);
    /// // Of `leaf` the call from `main` is a hit. Those from the two handlers are missed: one is running already.
    /// let [hits, _, _, missed, _] = machine.tables.counts(2);
    /// assert_eq!((hits, missed), (1, 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_handler_calls(&self, function: Option<u64>) {
        *lock(&self.handler_calls) = function;
    }

    /// There is room for this many records from now on.
    ///
    /// ```
    /// # use kprobes::{ProbeKind, Registry, Request};
    /// # use testkit::model::{Control, Cpu, End, Machine, Program};
    /// # fn main() -> Result<(), kprobes::Error> {
    /// # let mut p = Program::new();
    /// # p.function("leaf", 0);
    /// # p.add_rdi(1);
    /// # p.mov_eax(7);
    /// # p.ret();
    /// # p.function("main", 0);
    /// # p.call("leaf");
    /// # p.ret();
    /// # let mut machine = Machine::new(p, 4);
    /// # let top = machine.add_stack(0x7000_0000);
    /// # let (leaf, main) = (machine.address("leaf"), machine.address("main"));
    /// # let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
    /// let request = |at, id| Request { record: true, ..Request::counting(at, ProbeKind::Entry, id) };
    /// registry.register(&mut control, &[request(main, 1), request(leaf, 2)]).map_err(|(_, error)| error)?;
    /// machine.set_room(1);
    /// machine.run(&mut machine.start(1, main, top), &mut (), 1000);
    /// assert_eq!(machine.log().len(), 1);
    /// let [hits, _, _, _, lost] = machine.tables.counts(2);
    /// assert_eq!((hits, lost), (1, 1), "`leaf` was hit, and there was no room for its record");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_room(&self, records: usize) {
        *lock(&self.room) = records;
    }

    /// From now on the hit path knows the stack pointer that a signal has interrupted, or does not.
    ///
    /// A process that cannot tell finds it out by the stacks alone, and counts the same:
    ///
    /// ```
    /// # use kprobes::{ProbeKind, Registry, Request};
    /// # use testkit::model::script::{Deed, Watch, World, functions};
    /// # use testkit::model::{Control, Machine};
    /// # fn main() -> Result<(), kprobes::Error> {
    /// # if cfg!(not(feature = "kretprobes")) { return Ok(()) }
    /// for known in [true, false] {
    ///     let mut machine = Machine::new(functions(), 8);
    ///     let (top, high) = (machine.add_stack(0x7000_0000), machine.add_stack(0x6000_0000));
    ///     machine.set_knows_interrupted(known);
    ///     // Return probes on a function that is interrupted, and on the signal's handler.
    ///     let watch = |function| Watch { function, id: function as u32, maxactive: 4, ..Watch::default() };
    ///     let mut world = World::new(&[top], vec![watch(1), watch(2)], 8);
    ///     let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
    ///     let kind = ProbeKind::Return { maxactive: 4 };
    ///     let requests = [("f1", 1), ("f2", 2)].map(|(f, id)| Request::counting(machine.address(f), kind, id));
    ///     registry.register(&mut control, &requests).map_err(|(_, error)| error)?;
    ///
    ///     world.script = [Deed::Call(1), Deed::Signal(2)].into();
    ///     let mut cpu = world.start(&machine, 1, 0, 0);
    ///     world.set_signal_stack(&mut cpu, 0x6000_0000, high);
    ///     machine.run(&mut cpu, &mut world, 1000);
    ///     assert_eq!(world.counted(&machine), [[1, 1, 0, 0], [1, 1, 0, 0]]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_knows_interrupted(&self, known: bool) {
        *lock(&self.knows_interrupted) = known;
    }

    /// From now on the hit path keeps what it steps, as a kernel does for each processor, or not, as a process. The other
    /// way is for sites that are made afterwards with [`kprobes::Stepping::Best`].
    ///
    /// ```
    /// # use kprobes::{ProbeKind, Registry, Request};
    /// # use testkit::model::{Control, Cpu, End, Machine, Program};
    /// # fn main() -> Result<(), kprobes::Error> {
    /// # let mut p = Program::new();
    /// # p.function("leaf", 0);
    /// # p.add_rdi(1);
    /// # p.mov_eax(7);
    /// # p.ret();
    /// # p.function("main", 0);
    /// # p.call("leaf");
    /// # p.ret();
    /// # let mut machine = Machine::new(p, 4);
    /// # let top = machine.add_stack(0x7000_0000);
    /// # let (leaf, main) = (machine.address("leaf"), machine.address("main"));
    /// # let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
    /// # use kprobes::Stepping;
    /// machine.set_keeps_steps(false);
    /// let request = Request::counting(leaf, ProbeKind::Entry, 1);
    /// let handles = registry.register(&mut control, &[request]).map_err(|(_, error)| error)?;
    /// let mut cpu = machine.start(1, main, top);
    /// assert_eq!(machine.run(&mut cpu, &mut (), 100), Some(End::Exited));
    /// assert_eq!((cpu.regs.gpr[0], machine.tables.counts(1)[0]), (7, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_keeps_steps(&self, kept: bool) {
        *lock(&self.keeps_steps) = kept;
    }

    pub(crate) fn record(&self, event: Event) -> bool {
        let mut room = lock(&self.room);
        let fits = *room > 0;
        if fits {
            *room -= 1;
            let program = lock(&self.programs).get(&event.id()).cloned().unwrap_or_default();
            let payload = Fetch::new(&self.memory, event).run(&program);
            lock(&self.log).push((event, payload));
        }
        fits
    }

    /// The text without any probe.
    #[must_use]
    pub fn pristine(&self) -> Vec<u8> {
        lock(&self.pristine).clone()
    }

    /// The program's own text.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        self.memory.copy(TEXT, TEXT_BYTES)
    }

    /// The program changes its own text, as a just-in-time compiler does, or another object that is mapped here.
    ///
    /// # Panics
    ///
    /// When `address` is not in the text.
    ///
    /// ```
    /// # use kprobes::{ProbeKind, Registry, Request};
    /// # use testkit::model::{Control, Cpu, End, Machine, Program};
    /// # fn main() -> Result<(), kprobes::Error> {
    /// # let mut p = Program::new();
    /// # p.function("leaf", 0);
    /// # p.add_rdi(1);
    /// # p.mov_eax(7);
    /// # p.ret();
    /// # p.function("main", 0);
    /// # p.call("leaf");
    /// # p.ret();
    /// # let mut machine = Machine::new(p, 4);
    /// # let top = machine.add_stack(0x7000_0000);
    /// # let (leaf, main) = (machine.address("leaf"), machine.address("main"));
    /// # let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
    /// let mov = leaf + 4;
    /// machine.rewrite(mov + 1, &[42]); // mov eax, 42
    /// let mut cpu = machine.start(1, main, top);
    /// machine.run(&mut cpu, &mut (), 100);
    /// assert_eq!(cpu.regs.gpr[0], 42);
    /// assert_eq!(machine.text(), machine.pristine(), "it is the program's own text, and no probe");
    /// # Ok(())
    /// # }
    /// ```
    pub fn rewrite(&self, address: u64, bytes: &[u8]) {
        assert!(self.memory.write(address, bytes), "{address:#x} is not mapped");
        let at = (address - TEXT) as usize;
        if let Some(place) = lock(&self.pristine).get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// The function that holds `address`.
    #[must_use]
    pub fn function_at(&self, address: u64) -> Option<&FunctionInfo> {
        self.functions.iter().find(|f| (f.start..f.start + f.length).contains(&address))
    }

    /// Runs a thread to its end, or for `limit` steps.
    pub fn run(&self, cpu: &mut Cpu, runtime: &mut dyn Runtime, limit: usize) -> Option<End> {
        for _ in 0..limit {
            if cpu.end.is_some() {
                break;
            }
            self.step(cpu, runtime);
        }
        cpu.end
    }

    /// One step: an instruction, the fetch of a breakpoint, or the handling of its trap.
    pub fn step(&self, cpu: &mut Cpu, runtime: &mut dyn Runtime) {
        pause();
        if cpu.end.is_some() {
            return;
        }
        if let Some(address) = cpu.trapped.take() {
            return self.trap(cpu, address);
        }
        if cpu.is_at_exit() {
            cpu.end = Some(End::Exited);
            return;
        }
        let at = cpu.regs.rip;
        let mut byte = [0];
        if !self.memory.read(at, &mut byte) {
            cpu.end = Some(End::Faulted(at));
        } else if byte == [x86::BREAKPOINT] {
            cpu.trapped = Some(at);
            cpu.regs.rip = at + 1;
        } else if let Some(&(_, service)) = self.services.iter().find(|&&(s, _)| s == at) {
            cpu.regs.rip = at + 1;
            match service {
                Service::Choose(number) => runtime.choose(self, cpu, number),
                builtin_service => builtin(self, cpu, builtin_service, runtime),
            }
        } else {
            let single = cpu.regs.flags & x86::flags::TF != 0;
            if self.execute(cpu).is_none() {
                return self.fault(cpu);
            }
            if single {
                self.debug(cpu);
            }
        }
    }

    /// An instruction cannot be executed. Where it is displaced, its probes' fault handlers are asked; whoever is told
    /// else sees where it is in truth.
    fn fault(&self, cpu: &mut Cpu) {
        let trap = Trap::new(self, cpu.id, cpu.signal);
        let sp = cpu.sp();
        let cured = within(&trap, sp, || {
            let displaced = hit::displaced(&trap, &mut cpu.regs)?;
            let cured = hit::offer(&trap, &displaced, &mut cpu.regs, PAGE_FAULT);
            cured.then(|| hit::resume::<X86>(displaced, &mut cpu.regs))
        });
        if cured.is_none() {
            cpu.end = Some(End::Faulted(cpu.regs.rip));
        }
    }

    /// The trap that comes after an instruction with the trap flag.
    fn debug(&self, cpu: &mut Cpu) {
        let trap = Trap::new(self, cpu.id, cpu.signal);
        let sp = cpu.sp();
        if within(&trap, sp, || hit::single_step(&trap, &mut cpu.regs)) == Outcome::Foreign {
            cpu.end = Some(End::Killed(cpu.regs.rip));
        }
    }

    fn trap(&self, cpu: &mut Cpu, address: u64) {
        let trap = Trap::new(self, cpu.id, cpu.signal);
        let (registers, sp) = (cpu.regs, cpu.sp());
        let handle = || hit::breakpoint(&trap, &mut cpu.regs);
        match within(&trap, sp, || fetch::with_registers(registers, handle)) {
            Outcome::Handled => {}
            Outcome::Stale => cpu.stale += 1,
            Outcome::Foreign => cpu.end = Some(End::Killed(address)),
        }
    }

    /// Executes the instruction at the program counter. `None`: it is none that the machine has, or it faults.
    fn execute(&self, cpu: &mut Cpu) -> Option<()> {
        let at = cpu.regs.rip;
        let mut bytes = [0u8; x86::MAX_LEN];
        let length = (1..=bytes.len()).rev().find(|&n| self.memory.holds(at, n))?;
        let code = bytes.get_mut(..length)?;
        if !self.memory.read(at, code) {
            return None;
        }
        let analysis = x86::analyse(code, at, Privilege::User).ok()?;
        if let Verdict::Emulate(op) = analysis.verdict {
            return op.execute(&mut cpu.regs, &mut &self.memory).ok();
        }
        let next = analysis.next();
        super::ordinary::execute(code, next, &mut cpu.regs, &self.memory)?;
        cpu.regs.rip = next;
        Some(())
    }

    /// The machine as a forked child has it: a copy of everything, and of its threads only the one that forked, under
    /// a new identity.
    ///
    /// # Panics
    ///
    /// When `make` gives a machine of another shape.
    ///
    /// ```
    /// # use kprobes::{ProbeKind, Registry, Request};
    /// # use testkit::model::{Control, End, Machine, Program};
    /// # fn main() -> Result<(), kprobes::Error> {
    /// # if cfg!(not(feature = "kretprobes")) { return Ok(()) }
    /// let make = || {
    ///     let mut p = Program::new();
    ///     p.function("seven", 0);
    ///     p.mov_eax(7);
    ///     p.ret();
    ///     let mut machine = Machine::new(p, 4);
    ///     machine.add_stack(0x7000_0000);
    ///     machine
    /// };
    /// let machine = make();
    /// let seven = machine.address("seven");
    /// let request = Request::counting(seven, ProbeKind::Return { maxactive: 1 }, 1);
    /// let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
    /// registry.register(&mut control, &[request]).map_err(|(_, error)| error)?;
    ///
    /// // The parent forks in the middle of the function: the child returns from it too, and counts for itself.
    /// let mut parent = machine.start(1, seven, 0x7000_2000);
    /// while parent.regs.gpr[0] != 7 {
    ///     machine.step(&mut parent, &mut ());
    /// }
    /// let (child, mut forked) = machine.fork(make, &[0x7000_0000], &parent, 2);
    /// assert_eq!(child.run(&mut forked, &mut (), 100), Some(End::Exited));
    /// assert_eq!([&child, &machine].map(|m| m.tables.counts(1)[1]), [1, 0]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fork(&self, make: impl FnOnce() -> Self, stacks: &[u64], parent: &Cpu, id: u64) -> (Self, Cpu) {
        let child = make();
        for &(base, size) in [(TEXT, TEXT_BYTES), (SLOTS, SLOTS_BYTES), (DATA, DATA_BYTES)]
            .iter()
            .chain(&stacks.iter().map(|&s| (s, STACK_BYTES)).collect::<Vec<_>>())
        {
            assert!(child.memory.write(base, &self.memory.copy(base, size)), "the child has the same memory");
        }
        child.tables.inherit(&self.tables);
        child.tables.returns().adopt();
        (child, Cpu { id, ..parent.clone() })
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
