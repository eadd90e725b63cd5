//! Random programs of calls, returns, tail calls, exceptions, jumps, walks, signals, and coroutines that move between
//! two threads: each does what it does without probes, and what is counted is exact after every deed.
//!
//! `KPROBES_PROGRAMS=20000 cargo test --release -p testkit --test model_random` runs more of them, `KPROBES_SEED=7`
//! others.
#![cfg(all(target_arch = "x86_64", feature = "kretprobes"))]

mod model;
#[path = "model/stage.rs"]
mod stage;

use stage::{SIGNAL_ABOVE, SIGNAL_BELOW, Stage};
use testkit::model::script::{Deed, FUNCTIONS, World};
use testkit::model::{Cpu, End, Machine, Runtime};

/// How many programs a test runs by default.
const PROGRAMS: u64 = 150;
const DEEDS: usize = 40;
const DEPTH: usize = 9;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// What programs may do besides calls, exceptions, jumps and walks.
#[derive(Clone, Copy)]
struct Kind {
    coroutines: bool,
    signals: bool,
    probed: bool,
}

fn deed(random: &mut Random, world: &World, cpu: &Cpu, kind: Kind) -> Deed {
    let (depth, lowest, cleanup, signal) = world.position(cpu.id);
    let frame = |random: &mut Random| lowest + random.below(depth - lowest);
    loop {
        let function = random.below(FUNCTIONS);
        return match random.below(16) {
            0..=5 if depth < DEPTH => Deed::Call(function),
            6..=8 if !cleanup => Deed::Return,
            9 if !cleanup => Deed::Tail(function),
            6..=9 if cleanup => Deed::Resume,
            10 | 11 => {
                let catch = frame(random);
                Deed::Throw(catch, (catch + 1..depth).filter(|_| random.below(3) == 0).collect())
            }
            12 => Deed::Jump(frame(random)),
            13 => Deed::Backtrace,
            14 if kind.coroutines && !signal => {
                let to = random.below(world.coroutines());
                if !world.is_fresh(to) && !world.is_suspended(to) {
                    continue;
                }
                Deed::Switch(to, function)
            }
            15 if kind.signals && !signal => Deed::Signal(function),
            _ => continue,
        };
    }
}

fn program(seed: u64, kind: Kind) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let watches: Vec<(usize, u32)> =
        (0..1 + random.below(6)).map(|_| (random.below(FUNCTIONS), random.pick(&[1, 2, 3, 100, 100]))).collect();
    let mut stage = Stage::new(if kind.probed { &watches } else { &[] }, random.pick(&[1, 2, 3, 5, 64]));
    if kind.probed {
        drop(stage.plant());
    }
    let mut threads = Vec::new();
    for (id, coroutine) in [(1, 0), (2, 1)].into_iter().take(1 + usize::from(kind.coroutines)) {
        threads.push(stage.world.start(&stage.machine, id, coroutine, random.below(FUNCTIONS)));
    }
    if kind.signals {
        let first = random.below(2);
        for (i, cpu) in threads.iter_mut().enumerate() {
            let low = [SIGNAL_BELOW, SIGNAL_ABOVE][(first + i) % 2];
            stage.world.set_signal_stack(cpu, low, low + 0x2000);
        }
    }
    threads.iter_mut().for_each(|cpu| stage.ask(cpu, 0));
    for _ in 0..DEEDS {
        let which = random.below(threads.len());
        let cpu = &mut threads[which];
        if cpu.end.is_some() {
            continue;
        }
        let next = deed(&mut random, &stage.world, cpu, kind);
        stage.script([next]);
        stage.ask(cpu, 1);
        if cpu.end == Some(End::Exited) && stage.world.next_coroutine(cpu) {
            stage.ask(cpu, 0);
        }
        assert!(matches!(cpu.end, None | Some(End::Exited)), "{:?}", cpu.end);
        stage.check();
    }
    stage.script([]);
    threads.iter_mut().for_each(|cpu| stage.finish(cpu));
    stage.check();
    assert!(stage.world.active().iter().all(|&a| a == 0), "all have ended");
}

/// Two threads, one instruction at a time in random order, each with a stack of its own.
fn interleaved(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let watches: Vec<(usize, u32)> = (0..4).map(|_| (random.below(FUNCTIONS), 1000)).collect();
    let Stage { machine, world } = {
        let stage = Stage::new(&watches, 256);
        drop(stage.plant());
        stage
    };
    let mut fine = Fine { world, random, deeds: DEEDS };
    let mut threads = [1, 2].map(|id| fine.world.start(&machine, id, id as usize - 1, 0));
    while threads.iter().any(|cpu| cpu.end.is_none()) {
        let which = fine.random.below(2);
        machine.step(&mut threads[which], &mut fine);
    }
    assert!(threads.iter().all(|cpu| cpu.end == Some(End::Exited)), "{:?}", threads.map(|cpu| cpu.end));
    Stage { machine, world: fine.world }.check();
}

/// A world in which each question is answered when it is asked.
struct Fine {
    world: World,
    random: Random,
    deeds: usize,
}

impl Runtime for Fine {
    fn choose(&mut self, machine: &Machine, cpu: &mut Cpu, number: u32) {
        let kind = Kind { coroutines: false, signals: false, probed: true };
        self.world.script.clear();
        if self.deeds > 0 {
            self.deeds -= 1;
            self.world.script.push_back(deed(&mut self.random, &self.world, cpu, kind));
        }
        self.world.choose(machine, cpu, number);
    }

    fn lands(&mut self, cpu: &Cpu, function: u64, sp: u64) -> bool {
        self.world.lands(cpu, function, sp)
    }

    fn walked(&mut self, cpu: &Cpu, callers: &[u64]) {
        self.world.walked(cpu, callers);
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn programs(kind: Kind) {
    seeds(|seed| program(seed, kind));
}

fn seeds(one: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let first = number("KPROBES_SEED", 1);
    for seed in first..first + number("KPROBES_PROGRAMS", PROGRAMS) {
        if let Err(why) = std::panic::catch_unwind(|| one(seed)) {
            panic!("program {seed} (KPROBES_SEED={seed} KPROBES_PROGRAMS=1): {:?}", why.downcast_ref::<String>());
        }
    }
}

#[test]
fn random_programs_without_probes_are_what_the_reference_says() {
    programs(Kind { coroutines: true, signals: true, probed: false });
}

#[test]
fn random_programs_on_one_stack() {
    programs(Kind { coroutines: false, signals: false, probed: true });
}

#[test]
fn random_programs_with_signals_on_one_stack() {
    programs(Kind { coroutines: false, signals: true, probed: true });
}

#[test]
fn random_programs_with_coroutines_on_two_threads() {
    programs(Kind { coroutines: true, signals: false, probed: true });
}

#[test]
fn random_programs_on_two_threads_one_instruction_at_a_time() {
    seeds(interleaved);
}

#[test]
fn random_programs_with_signals_and_coroutines() {
    programs(Kind { coroutines: true, signals: true, probed: true });
}

#[test]
#[should_panic(expected = "hits, returns, unwound, missed")]
fn the_reference_disagrees_when_longjmp_is_not_hooked() {
    let mut stage = Stage::new(&[(1, 100)], 64);
    let (mut r, mut c) = (model::registry(), testkit::model::Control::new(&stage.machine));
    model::register(&mut r, &mut c, model::returns(stage.machine.address("f1"), 1, 100));
    drop(c);
    stage.play(0, [Deed::Call(1), Deed::Jump(0), Deed::Return]);
}
