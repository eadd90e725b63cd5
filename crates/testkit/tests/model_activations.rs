//! Data of activations that end in other ways than by a return, and hits that interrupt the step of another one.
#![cfg(all(target_arch = "x86_64", feature = "suite"))]

mod model;
#[path = "model/stage.rs"]
mod stage;

use hit::{Next, Watch};
use isa::x86::Regs;
use kprobes::{HandlerData, Hit, ProbeKind, Request, Stepping};
use model::{MOV, machine, registry};
use stage::Stage;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use testkit::model::script::Deed;
use testkit::model::{Control, Cpu, EXIT, End, SLOTS, SLOTS_BYTES};

/// How often handlers have run: before and behind, or at entries and returns.
#[derive(Debug, Default)]
struct Log([AtomicU64; 2]);

impl Log {
    fn word(&self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }

    fn counts(&self) -> [u64; 2] {
        self.0.each_ref().map(|count| count.load(Relaxed))
    }
}

fn count(hit: &Hit<'_, Regs>, which: usize) {
    // SAFETY: the probes here bear the address of a `Log` that lives longer than any run.
    let log: &Log = unsafe { &*core::ptr::with_exposed_provenance(hit.user() as usize) };
    log.0[which].fetch_add(1, Relaxed);
}

extern "C" fn pre(hit: &mut Hit<'_, Regs>) -> Next {
    count(hit, 0);
    Next::Step
}

extern "C" fn post(hit: &mut Hit<'_, Regs>) {
    count(hit, 1);
}

extern "C" fn entry(hit: &mut Hit<'_, Regs>, data: &mut u64) -> Watch {
    count(hit, 0);
    assert_eq!(*data, 0);
    *data = 1;
    Watch::Yes
}

extern "C" fn returns(hit: &mut Hit<'_, Regs>, data: &mut u64) {
    count(hit, 1);
    assert_eq!(*data, 1);
}

const MAXACTIVE: u32 = 2;

/// Does deeds in a program whose function `f1` has a return probe with data; gives what its handlers have seen, and what was
/// counted. All data is given back in the end.
fn play(deeds: Vec<Deed>) -> ([u64; 2], [u64; 5]) {
    let mut stage = Stage::new(&[], 16);
    let log = Log::default();
    let area: Vec<AtomicU64> = (0..HandlerData::area_words(8, MAXACTIVE)).map(|_| AtomicU64::new(0)).collect();
    {
        let (mut r, mut c, _) = stage.plant();
        let handlers = HandlerData {
            before: entry as *const () as u64,
            after: returns as *const () as u64,
            user: log.word(),
            area: area.as_ptr().expose_provenance() as u64,
            entry_bytes: 8,
            ..HandlerData::NONE
        };
        let kind = ProbeKind::Return { maxactive: MAXACTIVE };
        let request = Request { handlers, ..Request::counting(c.machine.address("f1"), kind, 7) };
        model::register(&mut r, &mut c, request);
    }
    stage.play(0, deeds);
    let claims: Vec<u64> = area[..MAXACTIVE as usize].iter().map(|word| word.load(Relaxed)).collect();
    assert_eq!(claims, [0; MAXACTIVE as usize], "data is not given back");
    (log.counts(), stage.machine.tables.counts(7))
}

#[test]
fn an_activation_that_an_exception_ends_gives_its_data_back() {
    // Four times: more than there is room for at once.
    let round = || [Deed::Call(1), Deed::Call(1), Deed::Throw(0, Vec::new())];
    let (handled, counted) = play((0..4).flat_map(|_| round()).collect());
    assert_eq!((handled, counted), ([8, 0], [8, 0, 8, 0, 0]));
}

#[test]
fn an_activation_that_a_jump_ends_gives_its_data_back() {
    let round = || [Deed::Call(1), Deed::Call(1), Deed::Jump(0)];
    let (handled, counted) = play((0..4).flat_map(|_| round()).collect());
    assert_eq!((handled, counted), ([8, 0], [8, 0, 8, 0, 0]));
}

#[test]
fn an_activation_that_was_only_looked_at_keeps_its_data() {
    let (handled, counted) = play(vec![Deed::Call(1), Deed::Backtrace, Deed::Call(1), Deed::Backtrace]);
    assert_eq!((handled, counted), ([2, 2], [2, 2, 0, 0, 0]));
}

#[test]
fn an_activation_whose_thread_has_ended_gives_its_data_back() {
    // It returns all the same: that is counted, and its handler is not called, for its data is gone.
    let (handled, counted) = play(vec![Deed::Call(1), Deed::ThreadExit]);
    assert_eq!((handled, counted), ([1, 0], [1, 1, 0, 0, 0]));
}

extern "C" fn declines(_: &mut Hit<'_, Regs>, (): &mut ()) -> Watch {
    Watch::No
}

#[test]
fn a_call_that_nobody_wants_watched_returns_by_itself() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let handlers = HandlerData { before: declines as *const () as u64, ..HandlerData::NONE };
    let leaf = machine.address("leaf");
    let kind = ProbeKind::Return { maxactive: MAXACTIVE };
    model::register(&mut r, &mut c, Request { handlers, ..Request::counting(leaf, kind, 1) });
    let mut cpu = machine.start(1, leaf, top);
    for _ in 0..2 {
        machine.step(&mut cpu, &mut ());
    }
    assert_eq!((cpu.trapped, machine.memory.word(cpu.sp())), (None, Some(EXIT)));
    assert_eq!(machine.run(&mut cpu, &mut (), 100), Some(End::Exited));
    assert_eq!(machine.tables.returns().high_water(), 1, "an instance was taken, to ask for");
    assert_eq!(model::value(&machine, "main_twice", top), 8);
    assert_eq!(machine.tables.returns().high_water(), 1, "and given back each time");
}

/// The thread runs `main`, and where it is in a copy something interrupts it that runs `main` too, which hits the same
/// probe. Gives how often that was, how often the handlers have run, hits, and misses.
fn interrupted(stepping: Stepping, keeps_steps: bool) -> (u64, [u64; 2], [u64; 2]) {
    let (mut machine, top) = machine();
    let other_stack = machine.add_stack(0x7200_0000);
    machine.set_keeps_steps(keeps_steps);
    let log = Log::default();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    c.stepping = stepping;
    let (before, after) = (pre as *const () as u64, post as *const () as u64);
    let handlers = HandlerData { before, after, user: log.word(), ..HandlerData::NONE };
    let at = machine.address("leaf") + MOV;
    model::register(&mut r, &mut c, Request { handlers, ..Request::counting(at, ProbeKind::Handler, 1) });
    let mut cpu = machine.start(1, machine.address("main"), top);
    let mut times = 0;
    while cpu.end.is_none() {
        if (SLOTS..SLOTS + SLOTS_BYTES as u64).contains(&cpu.regs.rip) && cpu.trapped.is_none() {
            let mut nested = Cpu { ..machine.start(1, machine.address("main"), other_stack) };
            assert_eq!(machine.run(&mut nested, &mut (), 10_000), Some(End::Exited));
            assert_eq!(nested.regs.gpr[0], 8);
            times += 1;
        }
        machine.step(&mut cpu, &mut ());
    }
    assert_eq!((cpu.end, cpu.regs.gpr[0]), (Some(End::Exited), 8));
    let [hits, _, _, missed, _] = machine.tables.counts(1);
    (times, log.counts(), [hits, missed])
}

#[test]
fn a_hit_that_interrupts_a_step_is_missed_as_a_whole() {
    for stepping in Stepping::ALL {
        let (times, handled, counted) = interrupted(stepping, true);
        assert!(times > 0, "{stepping:?}");
        assert_eq!((handled, counted), ([1, 1], [1, times]), "{stepping:?}");
    }
}

#[test]
fn where_nothing_is_kept_of_a_step_a_hit_that_interrupts_it_is_one_of_its_own() {
    let (times, handled, counted) = interrupted(Stepping::Best, false);
    assert!(times > 0);
    assert_eq!((handled, counted), ([1 + times, 1 + times], [1 + times, 0]));
}
