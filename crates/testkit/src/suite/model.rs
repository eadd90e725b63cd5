//! The suite's world on the model machine: definition lines, fetch programs and all.

use super::world::{Ability, Counts, Record, Refusal, World};
use super::{Program as Code, program};
use crate::model::{Control, Cpu, End, Event, Machine, Program, STACK_BYTES, zeroed};
use events::{Definition, Kind, Place, Resolve, Schema, Value, compile, decode, parse};
use hit::Counters;
use isa::x86::gpr;
use kprobes::{Handle, ProbeKind, Registry, Request, Stepping};
use std::collections::BTreeMap;
use sync::primitive::{AtomicU64, Ordering};

/// Instances of return probes.
pub(super) const INSTANCES: usize = 256;
/// How many activations a return probe watches whose line does not say.
pub(super) const DEFAULT_MAXACTIVE: u32 = 128;
/// Counters. An event that is defined gets fresh ones; they are used again as late as can be.
const COUNTERS: usize = 1 << 12;
/// Probed instructions, one for each of the program's at least.
const SITES: usize = 256;
/// Stacks, and so threads.
const STACKS: u64 = 8;
/// Where the first stack is, and how far the next.
const STACK: u64 = 0x7000_0000;
const STACK_DISTANCE: u64 = 0x1_0000;
/// More steps than any call here takes.
pub(super) const STEPS: usize = 1_000_000;
/// What a function must keep: `rbx` and `rbp`.
const KEPT: [(usize, u64); 2] = [(gpr::RBX, 0x1357_9bdf), (gpr::RBP, 0x2468_ace0)];

/// The suite's program on the model machine, with control of it.
///
/// ```
/// use kprobes::Stepping;
/// use testkit::suite::{ModelWorld, Record, World};
///
/// # fn main() -> Result<(), String> {
/// let machine = ModelWorld::machine();
/// let mut world = ModelWorld::new(&machine);
/// world.define(&["p:leaf suite_leaf $arg1"]).map_err(|refusal| refusal.why)?;
/// assert_eq!(world.call("suite_leaf", [5, 0]), 6);
/// assert_eq!(world.counts("leaf").map(|counts| counts.hits), Some(1));
/// let record = Record { event: "leaf".into(), address: world.address("suite_leaf"), values: vec![Some(5)] };
/// assert_eq!(world.records(), [record]);
/// world.remove(&["leaf"])?;
///
/// // Another world has another machine. In this one every probed instruction is stepped.
/// let machine = ModelWorld::machine();
/// let mut world = ModelWorld::stepping(&machine, Stepping::SingleStep);
/// world.define(&["r:leaf suite_leaf"]).map_err(|refusal| refusal.why)?;
/// assert_eq!(world.call("suite_nested", [1, 2]), 5);
/// assert_eq!(world.counts("leaf").map(|counts| counts.returned), Some(2));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ModelWorld<'m> {
    pub(super) machine: &'m Machine,
    pub(super) control: Control<'m>,
    pub(super) registry: Registry,
    /// What is defined, in the order of definition.
    defined: Vec<(u32, Handle)>,
    /// What each id stands for, or has stood for.
    known: BTreeMap<u32, Known>,
    next: u32,
    /// So many records have been given.
    given: usize,
    /// What is registered with handlers: the probe's id and which registration it is, and the words that its
    /// activations' data is in.
    pub(super) handled: Vec<(u32, u64, Handle, Box<[AtomicU64]>)>,
    /// How many such registrations there were.
    pub(super) serial: u64,
}

/// An event.
#[derive(Debug)]
struct Known {
    name: String,
    address: u64,
    schema: Schema,
}

/// A line that can be placed.
struct Planned {
    known: Known,
    request: Request,
}

impl<'m> ModelWorld<'m> {
    /// A machine with the suite's program, and tables that hold a probe on each of its instructions.
    #[must_use]
    pub fn machine() -> Machine {
        let Code { code, functions } = program();
        let mut program = Program::new();
        for function in &functions {
            program.function(function.name, 0);
            let start = function.offset as usize;
            program.raw(code.get(start..start + function.size as usize).unwrap_or_default());
        }
        let mut machine = Machine::new(program, INSTANCES);
        machine.tables.counters = (0..COUNTERS).map(|_| Counters::new()).collect();
        machine.tables.sites = zeroed(SITES);
        machine.tables.marks = zeroed(SITES);
        machine.tables.buckets = zeroed(1024);
        for stack in 0..STACKS {
            machine.add_stack(STACK + stack * STACK_DISTANCE);
        }
        machine
    }

    /// A world on such a machine, which nobody else has control of.
    #[must_use]
    pub fn new(machine: &'m Machine) -> Self {
        Self {
            machine,
            control: Control::new(machine),
            registry: Registry::new(0, 0),
            defined: Vec::new(),
            known: BTreeMap::new(),
            next: 0,
            given: 0,
            handled: Vec::new(),
            serial: 0,
        }
    }

    /// The same, where instructions take their effect in this way as far as they can.
    #[must_use]
    pub fn stepping(machine: &'m Machine, stepping: Stepping) -> Self {
        let mut world = Self::new(machine);
        world.control.stepping = stepping;
        world
    }

    /// The event of that name: where it is among those defined, and its id.
    fn find(&self, event: &str) -> Option<(usize, u32)> {
        let ids = self.defined.iter().map(|(id, _)| *id).enumerate();
        ids.into_iter().find(|(_, id)| self.known.get(id).is_some_and(|k| k.name == event))
    }

    pub(super) fn resolve(&self, place: &Place) -> Result<u64, String> {
        match place {
            Place::Symbol { object: None, symbol, offset } => {
                let function = self.machine.functions.iter().find(|f| f.name == symbol);
                let function = function.ok_or_else(|| format!("no function `{symbol}`"))?;
                let inside = *offset < function.length;
                inside.then(|| function.start + offset).ok_or_else(|| format!("{symbol} ends before +{offset}"))
            }
            Place::Address { object: None, addr } => Ok(*addr),
            other => Err(format!("the machine has no objects and no files: {other:?}")),
        }
    }

    fn plan(&mut self, line: &str, before: &[Planned]) -> Result<Planned, String> {
        let definition = parse(line).map_err(|e| e.to_string())?;
        let kind = match definition.kind {
            Kind::Entry => ProbeKind::Entry,
            Kind::Return { maxactive } => ProbeKind::Return { maxactive: maxactive.unwrap_or(DEFAULT_MAXACTIVE) },
            Kind::Remove => return Err("the line removes and does not define".into()),
        };
        let name = definition.event_name();
        if self.find(&name).is_some() || before.iter().any(|p| p.known.name == name) {
            return Err(format!("there is an event {name}"));
        }
        let address = self.resolve(&definition.place)?;
        let (program, schema) = compiled(&definition)?;
        let id = self.fresh();
        Ok(Planned {
            known: Known { name, address, schema },
            request: Request { record: true, program, ..Request::counting(address, kind, id) },
        })
    }

    /// An id that no event has, with counters at zero.
    pub(super) fn fresh(&mut self) -> u32 {
        loop {
            let id = self.next;
            self.next = (self.next + 1) % COUNTERS as u32;
            let handled = self.handled.iter().map(|(other, ..)| other);
            if self.defined.iter().map(|(other, _)| other).chain(handled).all(|other| *other != id) {
                if let Some(c) = self.machine.tables.counters.get(id as usize) {
                    [&c.hits, &c.missed, &c.lost, &c.returns, &c.unwound, &c.faults, &c.declined]
                        .iter()
                        .for_each(|counter| counter.store(0, Ordering::Relaxed));
                }
                return id;
            }
        }
    }

    pub(super) fn start(&self, stack: u64, function: &str, arguments: [u64; 2]) -> Cpu {
        let top = STACK + stack * STACK_DISTANCE + STACK_BYTES as u64;
        let mut cpu = self.machine.start(stack + 1, self.machine.address(function), top);
        [cpu.regs.gpr[gpr::RDI], cpu.regs.gpr[gpr::RSI]] = arguments;
        for (register, value) in KEPT {
            cpu.regs.gpr[register] = value;
        }
        cpu
    }
}

fn compiled(definition: &Definition) -> Result<(Vec<u8>, Schema), String> {
    /// The program has no data.
    struct NoSymbols;
    impl Resolve for NoSymbols {
        fn symbol(&self, _: Option<&str>, _: &str) -> Option<u64> {
            None
        }
        fn file_offset(&self, _: u64) -> Option<u64> {
            None
        }
    }
    compile(definition, &NoSymbols).map(|p| (p.code, p.schema)).map_err(|e| e.to_string())
}

/// The result of a call that has ended as it must.
pub(super) fn result(function: &str, cpu: &Cpu, stack_pointer: u64) -> u64 {
    assert_eq!(cpu.end, Some(End::Exited), "{function} must return");
    assert_eq!(cpu.sp(), stack_pointer + 8, "{function} must take its return address off, and nothing else");
    for (register, value) in KEPT {
        assert_eq!(cpu.regs.gpr[register], value, "{function} must keep register {register}");
    }
    cpu.regs.gpr[gpr::RAX]
}

impl World for ModelWorld<'_> {
    fn address(&self, function: &str) -> u64 {
        self.machine.address(function)
    }

    fn text(&mut self, address: u64, out: &mut [u8]) {
        // What is not mapped reads as zeros.
        let _ = self.machine.memory.read(address, out);
    }

    /// # Panics
    ///
    /// When the function does not return as it must.
    fn call(&mut self, function: &str, arguments: [u64; 2]) -> u64 {
        let mut cpu = self.start(0, function, arguments);
        let stack_pointer = cpu.sp();
        self.machine.run(&mut cpu, &mut (), STEPS);
        result(function, &cpu, stack_pointer)
    }

    fn define(&mut self, lines: &[&str]) -> Result<(), Refusal> {
        let mut planned = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            planned.push(self.plan(line, &planned).map_err(|why| Refusal { line: number, why })?);
        }
        let requests: Vec<Request> = planned.iter().map(|p| p.request.clone()).collect();
        // Whoever hits a probe must find its program.
        for request in &requests {
            self.machine.set_program(request.id, request.program.clone());
        }
        let handles = self.registry.register(&mut self.control, &requests);
        let handles = handles.map_err(|(line, error)| Refusal { line, why: error.to_string() })?;
        for (Planned { known, request }, handle) in planned.into_iter().zip(handles) {
            self.known.insert(request.id, known);
            self.defined.push((request.id, handle));
        }
        Ok(())
    }

    fn remove(&mut self, events: &[&str]) -> Result<(), String> {
        let found = events.iter().map(|event| self.find(event).ok_or_else(|| format!("no event {event}")));
        let ids = found.map(|found| found.map(|(_, id)| id)).collect::<Result<Vec<u32>, String>>()?;
        let leaving = self.defined.extract_if(.., |(id, _)| ids.contains(id));
        let handles: Vec<Handle> = leaving.map(|(_, handle)| handle).collect();
        self.registry.unregister(&mut self.control, &handles).map_err(|e| e.to_string())
    }

    fn events(&self) -> Vec<String> {
        self.defined.iter().filter_map(|(id, _)| Some(self.known.get(id)?.name.clone())).collect()
    }

    fn counts(&mut self, event: &str) -> Option<Counts> {
        let (_, id) = self.find(event)?;
        let [hits, returned, unwound, missed, lost] = self.machine.tables.counts(id);
        Some(Counts { hits, missed, lost, returned, unwound, ..Counts::default() })
    }

    fn records(&mut self) -> Vec<Record> {
        let records = self.machine.records_from(self.given);
        self.given += records.len();
        let decoded = records.into_iter().filter_map(|(event, payload)| {
            let known = self.known.get(&event.id())?;
            let address = if let Event::Hit { address, .. } = event { address } else { known.address };
            let values = decode(&known.schema, &payload).iter().map(Value::number).collect();
            Some(Record { event: known.name.clone(), address, values })
        });
        decoded.collect()
    }

    fn can(&self, ability: Ability) -> bool {
        match ability {
            Ability::Threads => true,
        }
    }

    /// # Panics
    ///
    /// When there are more calls than stacks, or a function does not return as it must.
    fn call_together(&mut self, calls: &[(&str, [u64; 2])]) -> Vec<u64> {
        assert!(calls.len() as u64 <= STACKS, "there are {STACKS} stacks");
        let start = |(stack, &(function, arguments)): (u64, &(&str, [u64; 2]))| self.start(stack, function, arguments);
        let mut cpus: Vec<Cpu> = (0..).zip(calls).map(start).collect();
        let stack_pointers: Vec<u64> = cpus.iter().map(Cpu::sp).collect();
        for _ in 0..STEPS {
            cpus.iter_mut().for_each(|cpu| self.machine.step(cpu, &mut ()));
            if cpus.iter().all(|cpu| cpu.end.is_some()) {
                break;
            }
        }
        let ended = calls.iter().zip(&cpus).zip(stack_pointers);
        ended.map(|(((function, _), cpu), stack_pointer)| result(function, cpu, stack_pointer)).collect()
    }
}
