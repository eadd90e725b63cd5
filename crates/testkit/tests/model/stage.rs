//! A machine with the scripted program, return probes and hooks on the runtime.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part")]

use crate::model::{internal, registry, returns};
use kprobes::{Handle, Registry};
use std::collections::VecDeque;
use sync::primitive::Ordering::Relaxed;
use testkit::model::script::{Deed, Watch, World, asks, functions};
use testkit::model::{Action, Control, Cpu, End, Machine};

pub(crate) const LIMIT: usize = 20_000;

/// Where the stacks begin: three near each other with guard pages between, as coroutines' are, and places above and
/// below for signal stacks.
pub(crate) const STACKS: [u64; 3] = [0x7000_0000, 0x7000_3000, 0x7000_6000];
/// Stacks side by side, without guard pages.
pub(crate) const ADJACENT: [u64; 3] = [0x7100_0000, 0x7100_2000, 0x7100_4000];
pub(crate) const SIGNAL_BELOW: u64 = 0x6000_0000;
pub(crate) const SIGNAL_ABOVE: u64 = 0x7800_0000;

/// Return probes: the function, and `maxactive`.
pub(crate) type Probes<'a> = &'a [(usize, u32)];

pub(crate) struct Stage {
    pub(crate) machine: Machine,
    pub(crate) world: World,
}

pub(crate) fn machine(instances: usize) -> (Machine, Vec<u64>) {
    let mut machine = Machine::new(functions(), instances);
    let tops = STACKS.map(|s| machine.add_stack(s)).to_vec();
    machine.add_stack(SIGNAL_BELOW);
    machine.add_stack(SIGNAL_ABOVE);
    (machine, tops)
}

impl Stage {
    pub(crate) fn new(probes: Probes<'_>, instances: usize) -> Self {
        let (machine, tops) = machine(instances);
        Self::on(machine, &tops, probes)
    }

    /// With stacks that no guard pages separate.
    pub(crate) fn adjacent(probes: Probes<'_>, instances: usize) -> Self {
        let (mut machine, _) = machine(instances);
        let tops = ADJACENT.map(|s| machine.add_stack(s));
        Self::on(machine, &tops, probes)
    }

    fn on(machine: Machine, tops: &[u64], probes: Probes<'_>) -> Self {
        let instances = machine.tables.instances.len() as u64;
        let watch = |(id, &(function, maxactive)): (u32, &(usize, u32))| Watch {
            function,
            id,
            maxactive: u64::from(maxactive),
            ..Watch::default()
        };
        let watches = (1u32..).zip(probes).map(watch).collect();
        Self { machine, world: World::new(tops, watches, instances) }
    }

    /// Plants the hooks and the return probes.
    pub(crate) fn plant(&self) -> (Registry, Control<'_>, Vec<Handle>) {
        let (mut r, mut c) = (registry(), Control::new(&self.machine));
        hook(&mut r, &mut c);
        let requests: Vec<_> = self
            .world
            .watches
            .iter()
            .map(|w| returns(self.machine.address(name(w.function)), w.id, w.maxactive as u32))
            .collect();
        let handles = r.register(&mut c, &requests).expect("functions can be probed");
        (r, c, handles)
    }

    pub(crate) fn script(&mut self, deeds: impl IntoIterator<Item = Deed>) {
        self.world.script = deeds.into_iter().collect::<VecDeque<_>>();
    }

    /// Runs a thread until it has done so many more deeds, or has ended.
    pub(crate) fn ask(&mut self, cpu: &mut Cpu, deeds: u64) {
        ask(&self.machine, &mut self.world, cpu, deeds);
    }

    /// Runs a thread to its end, and all coroutines with it.
    pub(crate) fn finish(&mut self, cpu: &mut Cpu) {
        loop {
            assert_eq!(self.machine.run(cpu, &mut self.world, LIMIT), Some(End::Exited), "{:x?}", cpu.regs);
            if !self.world.next_coroutine(cpu) {
                return;
            }
        }
    }

    /// Counters are as the reference says, and entries = returned + unwound + active.
    pub(crate) fn check(&self) {
        let counted = self.world.counted(&self.machine);
        assert_eq!(counted, self.world.expected(), "hits, returns, unwound, missed");
        for ([hits, returns, unwound, _], active) in counted.into_iter().zip(self.world.active()) {
            assert_eq!(hits, returns + unwound + active);
        }
    }

    /// What holds also where single counts are off: entries = returned + unwound + active.
    pub(crate) fn check_sums(&self) {
        let active = |id: u32| -> u32 {
            let probes = self.machine.tables.probes.iter().filter(|p| p.id.load(Relaxed) == id);
            probes.map(|p| p.active.load(Relaxed)).sum()
        };
        for watch in &self.world.watches {
            let [hits, returns, unwound, ..] = self.machine.tables.counts(watch.id);
            assert_eq!(hits, returns + unwound + u64::from(active(watch.id)), "probe {}", watch.id);
        }
    }

    /// Runs a script on one thread to its end, and compares.
    pub(crate) fn play(&mut self, function: usize, deeds: impl IntoIterator<Item = Deed>) {
        self.script(deeds);
        let mut cpu = self.world.start(&self.machine, 1, 0, function);
        self.finish(&mut cpu);
        assert!(self.world.script.is_empty(), "not all was done: {:?}", self.world.script);
        self.check();
    }
}

pub(crate) fn ask(machine: &Machine, world: &mut World, cpu: &mut Cpu, deeds: u64) {
    let until = world.questions + deeds;
    for _ in 0..LIMIT {
        if cpu.end.is_some() || (world.questions >= until && asks(machine, cpu)) {
            return;
        }
        machine.step(cpu, world);
    }
    panic!("it does not end");
}

/// Steps until the thread is about to execute the instruction `offset` bytes into a function.
pub(crate) fn step_to(stage: &mut Stage, cpu: &mut Cpu, function: &str, offset: u64) {
    let at = stage.machine.address(function) + offset;
    for _ in 0..LIMIT {
        if cpu.regs.rip == at && cpu.trapped.is_none() {
            return;
        }
        assert_eq!(cpu.end, None);
        stage.machine.step(cpu, &mut stage.world);
    }
    panic!("it never comes to {function}+{offset}");
}

pub(crate) fn name(function: usize) -> &'static str {
    ["f0", "f1", "f2", "f3"][function]
}

pub(crate) fn hook(r: &mut Registry, c: &mut Control<'_>) {
    let at = |name: &str| c.machine.address(name);
    let hooks = [
        internal(at("raise"), Action::Unwind),
        internal(at("resume"), Action::Unwind),
        internal(at("set_ip"), Action::Land),
        internal(at("backtrace"), Action::Unwind),
        internal(at("backtrace") + 2, Action::Walked),
        internal(at("longjmp"), Action::Jump),
        internal(at("thread_exit"), Action::Exit),
    ];
    r.register(c, &hooks).expect("each hook is a nop or a ret");
}
