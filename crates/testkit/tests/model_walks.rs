//! Walks and returns in several threads at once, and what walks cannot know: the program runs on as without probes, and
//! entries = returned + unwound + active.
//!
//! `KPROBES_PROGRAMS=5000 cargo test --release -p testkit --test model_walks` tries more orders.
#![cfg(all(target_arch = "x86_64", feature = "kretprobes"))]

mod model;
#[path = "model/stage.rs"]
mod stage;

use stage::{ADJACENT, STACKS, Stage, step_to};
use sync::primitive::Ordering::Relaxed;
use testkit::model::script::Deed::{Backtrace, Call, JumpTo, Return, Switch, Tail, Throw};
use testkit::model::{Cpu, End, Machine, Runtime, interleave};

const ALL: stage::Probes<'static> = &[(0, 100), (1, 100), (2, 100), (3, 100)];

/// Two threads on stacks side by side; the higher one is two calls deep.
fn neighbours() -> (Stage, Cpu, Cpu) {
    let mut stage = Stage::adjacent(ALL, 64);
    drop(stage.plant());
    let mut low = stage.world.start(&stage.machine, 1, 0, 0);
    let mut high = stage.world.start(&stage.machine, 2, 1, 0);
    stage.script([Call(1), Call(2)]);
    stage.ask(&mut high, 2);
    stage.script([Call(1)]);
    stage.ask(&mut low, 1);
    (stage, low, high)
}

#[test]
fn without_guard_pages_a_neighbours_unwinder_is_left_alone() {
    let (mut stage, mut low, mut high) = neighbours();
    stage.script([Throw(0, vec![])]);
    step_to(&mut stage, &mut high, "raise", 1);
    stage.script([Backtrace, Throw(0, vec![])]);
    stage.ask(&mut low, 2);
    stage.script([]);
    stage.finish(&mut high);
    stage.finish(&mut low);
    stage.check();
}

#[test]
fn without_guard_pages_a_thread_takes_back_what_its_neighbour_has_restored() {
    let (mut stage, mut low, mut high) = neighbours();
    stage.script([Backtrace]);
    step_to(&mut stage, &mut low, "backtrace", 1);
    stage.script([Throw(0, vec![])]);
    step_to(&mut stage, &mut high, "raise", 1);
    // The neighbour ends its walk while this thread's search has not begun.
    stage.script([]);
    stage.finish(&mut low);
    stage.finish(&mut high);
    stage.check();
}

#[test]
fn without_guard_pages_a_return_during_a_neighbours_walk_is_unseen_and_harmless() {
    let (mut stage, mut low, mut high) = neighbours();
    stage.script([Backtrace]);
    step_to(&mut stage, &mut low, "backtrace", 1);
    stage.script([Return, Return]);
    stage.ask(&mut high, 2);
    stage.script([]);
    stage.finish(&mut low);
    stage.finish(&mut high);
    stage.check_sums();
}

#[test]
fn without_guard_pages_a_switch_by_longjmp_is_counted_as_an_unwinding_and_harmless() {
    let mut stage = Stage::adjacent(ALL, 64);
    drop(stage.plant());
    stage.script([Call(1), Switch(1, 2), Call(3), Switch(0, 0), Call(2), JumpTo(1), Return, JumpTo(0), Return, Return]);
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.finish(&mut cpu);
    stage.check_sums();
    let unwound: u64 = (1..5).map(|id| stage.machine.tables.counts(id)[2]).sum();
    assert!(unwound > 0, "the limit is still one");
}

#[test]
fn a_coroutine_that_runs_elsewhere_returns_while_its_first_thread_unwinds() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut one = stage.world.start(&stage.machine, 1, 0, 0);
    stage.script([Switch(2, 3), Call(2), Switch(0, 0)]);
    stage.ask(&mut one, 3);
    let mut two = stage.world.start(&stage.machine, 2, 1, 0);
    stage.script([Switch(2, 0)]);
    stage.ask(&mut two, 1);
    stage.script([Backtrace]);
    step_to(&mut stage, &mut one, "backtrace", 1);
    stage.script([Return]);
    stage.ask(&mut two, 1);
    stage.script([]);
    stage.finish(&mut one);
    stage.finish(&mut two);
    stage.check();
}

#[test]
fn the_true_return_address_is_behind_all_functions_that_share_a_slot() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.script([Call(1), Tail(2), Tail(3)]);
    stage.ask(&mut cpu, 3);
    let returns = stage.machine.tables.returns();
    let stub = stage.machine.memory.word(cpu.sp() + 8).expect("its frame is one word");
    assert!(stub >= testkit::model::STUBS);
    let call = stage.machine.address("f0") + 4;
    assert_eq!([stub, call, stub + 1].map(|a| returns.true_return_address(a)), [call, call, stub + 1]);
    // A ring ends.
    returns.instances[1].return_address.store(testkit::model::STUBS + testkit::model::STUB_STRIDE, Relaxed);
    let _ = returns.true_return_address(stub);
}

#[test]
fn a_thread_of_a_forked_child_that_walks_owns_what_it_meets() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.script([Call(1), Call(2)]);
    stage.ask(&mut cpu, 2);
    let (child, mut forked) = stage.machine.fork(|| stage::machine(64).0, &STACKS, &cpu, 77);
    stage.machine = child;
    stage.world.take_over(1, &mut forked);
    let ends = |stage: &mut Stage, forked: &mut Cpu| {
        let mut other = forked.clone();
        other.regs.rip = stage.machine.address("thread_exit");
        stage.machine.step(&mut other, &mut ());
        stage.machine.step(&mut other, &mut ());
        (1..4).map(|id| stage.machine.tables.counts(id)[2]).collect::<Vec<_>>()
    };
    assert_eq!(ends(&mut stage, &mut forked), [0; 3], "nobody owns it");
    stage.script([Backtrace]);
    stage.ask(&mut forked, 1);
    assert_eq!(ends(&mut stage, &mut forked), [1; 3]);
}

/// Calls as many functions inside each other as `deep` says, over and over, and then returns; `walks` look at the stack
/// in between.
struct Busy {
    deep: u32,
    calls: u32,
    walks: u32,
    depth: u32,
}

impl Runtime for Busy {
    fn choose(&mut self, machine: &Machine, cpu: &mut Cpu, number: u32) {
        let target = if self.walks > 0 {
            self.walks -= 1;
            "backtrace"
        } else if self.calls > 0 && self.depth < self.deep {
            self.calls -= 1;
            self.depth += 1;
            stage::name((number as usize + 1) % 4)
        } else {
            self.depth = self.depth.saturating_sub(1);
            cpu.regs.rip += 7;
            return;
        };
        cpu.regs.gpr[0] = machine.address(target);
    }

    fn lands(&mut self, _: &Cpu, _: u64, _: u64) -> bool {
        false
    }

    fn walked(&mut self, _: &Cpu, _: &[u64]) {}
}

/// One thread walks, its neighbour calls and returns, in the order of the plan. Gives how often each has paused.
fn race(plan: &[(usize, usize)], both_walk: bool) -> Vec<usize> {
    const INSTANCES: u32 = 8;
    let stage = Stage::adjacent(ALL, INSTANCES as usize);
    drop(stage.plant());
    let machine = &stage.machine;
    let actor = |id: u64, mut busy: Busy| {
        move || {
            let top = ADJACENT[id as usize - 1] + 0x2000;
            let mut cpu = machine.start(id, machine.address("f0"), top);
            let end = machine.run(&mut cpu, &mut busy, 2000);
            assert_eq!(end, Some(End::Exited), "the program was harmed: {id}, {:x?}", cpu.regs);
        }
    };
    let low = actor(1, Busy { deep: 0, calls: 0, walks: 2, depth: 0 });
    let high = actor(2, Busy { deep: 2, calls: 4, walks: u32::from(both_walk), depth: 0 });
    let pauses = interleave::run(plan, vec![Box::new(low), Box::new(high)]);
    stage.check_sums();
    // No instance is in a free list twice: all of them can be out at once.
    let before: u64 = (1..5).map(|id| machine.tables.counts(id)[0]).sum();
    let mut deep = machine.start(3, machine.address("f0"), STACKS[0] + 0x2000);
    let mut busy = Busy { deep: INSTANCES, calls: INSTANCES, walks: 0, depth: 0 };
    assert_eq!(machine.run(&mut deep, &mut busy, 2000), Some(End::Exited), "{plan:?}");
    let after: u64 = (1..5).map(|id| machine.tables.counts(id)[0]).sum();
    let out: u32 = machine.tables.probes.iter().map(|p| p.active.load(Relaxed)).sum();
    // An instance may be left over that leads home and is nobody's.
    assert!(after - before + u64::from(out) <= u64::from(INSTANCES), "{plan:?}");
    stage.check_sums();
    pauses
}

#[test]
fn every_preemption_of_a_walk_by_a_neighbours_returns_is_harmless() {
    let pauses = race(&[(0, usize::MAX)], false);
    for low in 0..pauses[0] {
        for high in (0..pauses[1]).step_by(11) {
            race(&[(1, high), (0, low), (1, usize::MAX)], false);
        }
    }
}

#[test]
fn random_preemptions_of_two_neighbours_are_harmless() {
    let rounds: u64 = std::env::var("KPROBES_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(80);
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n) as usize
    };
    for round in 0..rounds {
        let plan: Vec<(usize, usize)> = (0..80).map(|i| (i % 2, next(12))).collect();
        race(&plan, round % 2 == 0);
    }
}
