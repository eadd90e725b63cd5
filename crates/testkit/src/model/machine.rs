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
    #[must_use]
    pub fn records_from(&self, number: usize) -> Vec<(Event, Vec<u8>)> {
        lock(&self.log).get(number..).unwrap_or_default().to_vec()
    }

    /// Probes with this id run a fetch program when they record.
    pub fn set_program(&self, id: u32, code: Vec<u8>) {
        lock(&self.programs).insert(id, code);
    }

    /// Every handler that records calls this function, with the rest of its thread's stack.
    pub fn set_handler_calls(&self, function: Option<u64>) {
        *lock(&self.handler_calls) = function;
    }

    /// There is room for this many records from now on.
    pub fn set_room(&self, records: usize) {
        *lock(&self.room) = records;
    }

    /// From now on the hit path knows the stack pointer that a signal has interrupted, or does not.
    pub fn set_knows_interrupted(&self, known: bool) {
        *lock(&self.knows_interrupted) = known;
    }

    /// From now on the hit path keeps what it steps, as a kernel does for each processor, or not, as a process. The other
    /// way is for sites that are made afterwards with [`kprobes::Stepping::Best`].
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
