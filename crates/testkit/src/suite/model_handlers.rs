//! Probes with handlers in the suite's world on the model machine.

use super::handlers::{Handlers, Skill, Tools};
use super::model::{DEFAULT_MAXACTIVE, ModelWorld, STEPS, result};
use super::world::Refusal;
use crate::model::{DATA, End, SLOTS, call_from_handler, fault_in_handler, jprobe_return};
use events::Place as Line;
use isa::x86::Regs;
use kprobes::raw::Counts;
use kprobes::{Handle, HandlerData, Place, ProbeKind, Registered, Request, Spec, SpecKind};
use sync::primitive::{AtomicU64, Ordering};

/// Two words of the program's data: what `suite_wait` waits for, and where it says that it does.
const WAITED_FOR: u64 = DATA + 0x2000;
const WAITING: u64 = DATA + 0x2008;
/// What it is given in the end.
const ANSWER: u64 = 42;
/// The machine's only fault: that of a page.
const PAGE_FAULT: u64 = 14;

/// A probe that can be registered, and the words of its activations' data.
type Prepared = (Request, Box<[AtomicU64]>);

impl ModelWorld<'_> {
    fn place(&self, place: Place<'_>) -> Result<u64, String> {
        match place {
            Place::Address(address) => Ok(address),
            Place::Symbol { name, offset } => self.resolve(&Line::Symbol { object: None, symbol: name.into(), offset }),
        }
    }

    fn prepare(&mut self, probe: &Spec<'_, Regs>) -> Result<Prepared, String> {
        let address = self.place(probe.place)?;
        let (kind, maxactive) = match probe.kind() {
            SpecKind::Counter => (ProbeKind::Entry, 0),
            SpecKind::Kprobe | SpecKind::Jprobe => (ProbeKind::Handler, 0),
            SpecKind::Kretprobe { maxactive } => {
                let maxactive = maxactive.unwrap_or(DEFAULT_MAXACTIVE);
                (ProbeKind::Return { maxactive }, maxactive)
            }
        };
        let begins = self.machine.function_at(address).is_some_and(|f| f.start == address);
        if probe.kind() == SpecKind::Jprobe && !begins {
            return Err(format!("{address:#x} is not the first instruction of a function: a mirror has its arguments"));
        }
        let words = match probe.handlers().entry_bytes {
            0 => 0,
            bytes => HandlerData::area_words(bytes, maxactive),
        };
        let area: Box<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
        let handlers = HandlerData { area: area.as_ptr().expose_provenance() as u64, ..probe.handlers() };
        let id = self.fresh();
        let request = Request { handlers, disabled: probe.disabled, ..Request::counting(address, kind, id) };
        Ok((request, area))
    }

    fn handle(&self, probe: &Registered) -> Option<&Handle> {
        let mut known = self.handled.iter();
        let (.., handle, _) = known.find(|(id, serial, ..)| (*id, *serial) == (probe.id(), probe.serial()))?;
        Some(handle)
    }
}

impl Handlers for ModelWorld<'_> {
    fn register(&mut self, probes: Vec<Spec<'_, Regs>>) -> Result<Vec<Registered>, Refusal> {
        let mut prepared = Vec::new();
        for (line, probe) in probes.iter().enumerate() {
            prepared.push(self.prepare(probe).map_err(|why| Refusal { line, why })?);
        }
        let requests: Vec<Request> = prepared.iter().map(|(request, _)| request.clone()).collect();
        let handles = self.registry.register(&mut self.control, &requests);
        let handles = handles.map_err(|(line, error)| Refusal { line, why: error.to_string() })?;
        let mut registered = Vec::new();
        for ((request, area), handle) in prepared.into_iter().zip(handles) {
            self.serial += 1;
            registered.push(Registered::new(request.id, self.serial));
            self.handled.push((request.id, self.serial, handle, area));
        }
        Ok(registered)
    }

    fn unregister(&mut self, probes: Vec<Registered>) -> Result<(), String> {
        let leaves = |id: u32, serial: u64| probes.iter().any(|p| (p.id(), p.serial()) == (id, serial));
        let leaving = self.handled.iter().filter(|(id, serial, ..)| leaves(*id, *serial));
        let handles: Vec<Handle> = leaving.map(|(_, _, handle, _)| handle.clone()).collect();
        self.registry.unregister(&mut self.control, &handles).map_err(|e| e.to_string())?;
        // Nobody can see them: the data goes with them.
        self.handled.retain(|(id, serial, ..)| !leaves(*id, *serial));
        Ok(())
    }

    fn enable(&mut self, probe: &Registered, on: bool) -> Result<(), String> {
        let handle = self.handle(probe).ok_or("it is not registered")?.clone();
        self.registry.enable(&mut self.control, &[handle], on).map_err(|e| e.to_string())
    }

    fn counts_of(&mut self, probe: &Registered) -> Option<Counts> {
        self.handle(probe)?;
        let counters = self.machine.tables.counters.get(probe.id() as usize)?;
        let hit::Counters { hits, missed, lost: _, returns, unwound, faults, declined } = counters;
        let [hits, missed, returns, unwound, declined, faults] =
            [hits, missed, returns, unwound, declined, faults].map(|counter| counter.load(Ordering::Relaxed));
        Some(Counts { hits, missed, returns, unwound, declined, faults })
    }

    fn registered(&self) -> usize {
        self.handled.len()
    }

    fn unregister_all(&mut self) {
        let all = self.handled.iter().map(|&(id, serial, ..)| Registered::new(id, serial)).collect();
        // What cannot be removed shows in the cases that follow.
        let _ = self.unregister(all);
    }

    fn tools(&self) -> Tools {
        Tools { jprobe_return, call: call_from_handler, fault: fault_in_handler }
    }

    /// # Panics
    ///
    /// When the function does not return as it must.
    fn call_waiting(
        &mut self,
        meanwhile: &mut dyn FnMut(&mut dyn Handlers) -> Result<(), String>,
    ) -> Result<u64, String> {
        let memory = &self.machine.memory;
        assert!(memory.set_word(WAITED_FOR, 0) && memory.set_word(WAITING, 0), "the data is mapped");
        let mut cpu = self.start(1, "suite_wait", [WAITED_FOR, WAITING]);
        let stack_pointer = cpu.sp();
        for _ in 0..STEPS {
            if memory.word(WAITING) != Some(0) {
                break;
            }
            self.machine.step(&mut cpu, &mut ());
        }
        let done = meanwhile(self);
        assert!(self.machine.memory.set_word(WAITED_FOR, ANSWER), "the data is mapped");
        self.machine.run(&mut cpu, &mut (), STEPS);
        done.map(|()| result("suite_wait", &cpu, stack_pointer))
    }

    fn has(&self, skill: Skill) -> bool {
        match skill {
            Skill::Vectors => false,
            Skill::Faults => true,
        }
    }

    fn call_faulting(&mut self, function: &str, arguments: [u64; 2]) -> Option<u64> {
        let mut cpu = self.start(0, function, arguments);
        match self.machine.run(&mut cpu, &mut (), STEPS) {
            Some(End::Faulted(at)) => Some(at),
            _ => None,
        }
    }

    fn bad_trap(&self) -> u64 {
        PAGE_FAULT
    }

    fn own_code(&self) -> u64 {
        SLOTS
    }
}
