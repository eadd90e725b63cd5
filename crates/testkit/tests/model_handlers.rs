//! Probes with handlers, and control that switches and removes them meanwhile, in every order.
#![cfg(all(target_arch = "x86_64", feature = "suite"))]

mod model;

use hit::{Next, Watch};
use isa::x86::{Regs, gpr};
use kprobes::{Handle, HandlerData, Hit, ProbeKind, Registry, Request, Stepping};
use model::{ADD, LIMIT, MOV, NOP, machine, registry};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use testkit::model::{Call, Control, Cpu, End, SLOTS, SLOTS_BYTES, interleave};

/// How often the handlers of a probe have run.
#[derive(Debug, Default)]
struct Log {
    pre: AtomicU64,
    post: AtomicU64,
    entry: AtomicU64,
    returns: AtomicU64,
    /// What should not be.
    wrong: AtomicU64,
}

impl Log {
    /// The word of a probe whose handlers write here.
    fn word(&self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }

    fn all(&self) -> [u64; 4] {
        [&self.pre, &self.post, &self.entry, &self.returns].map(|count| count.load(Relaxed))
    }
}

fn log<'a>(hit: &Hit<'_, Regs>) -> &'a Log {
    // SAFETY: the probes here bear the address of a `Log` that lives longer than any run.
    unsafe { &*core::ptr::with_exposed_provenance(hit.user() as usize) }
}

extern "C" fn pre(hit: &mut Hit<'_, Regs>) -> Next {
    log(hit).pre.fetch_add(1, Relaxed);
    interleave::pause();
    Next::Step
}

extern "C" fn post(hit: &mut Hit<'_, Regs>) {
    let log = log(hit);
    interleave::pause();
    let post = log.post.fetch_add(1, Relaxed) + 1;
    log.wrong.fetch_add(u64::from(post > log.pre.load(Relaxed)), Relaxed);
}

extern "C" fn entry(hit: &mut Hit<'_, Regs>, data: &mut u64) -> Watch {
    let log = log(hit);
    log.wrong.fetch_add(u64::from(*data != 0), Relaxed);
    *data = log.entry.fetch_add(1, Relaxed) + 1;
    interleave::pause();
    Watch::Yes
}

extern "C" fn returns(hit: &mut Hit<'_, Regs>, data: &mut u64) {
    let log = log(hit);
    interleave::pause();
    // One thread calls one function after the other: the last entry's return is the next.
    log.wrong.fetch_add(u64::from(*data != log.entry.load(Relaxed)), Relaxed);
    log.returns.fetch_add(1, Relaxed);
}

fn followed(address: u64, id: u32, log: &Log) -> Request {
    let (before, after) = (pre as *const () as u64, post as *const () as u64);
    let handlers = HandlerData { before, after, user: log.word(), ..HandlerData::NONE };
    Request { handlers, ..Request::counting(address, ProbeKind::Handler, id) }
}

/// A word that nobody writes into an area.
const POISON: u64 = 0x5555_5555_5555_5555;
const MAXACTIVE: u32 = 2;

/// The data of activations.
fn area() -> Box<[AtomicU64]> {
    (0..HandlerData::area_words(8, MAXACTIVE)).map(|_| AtomicU64::new(0)).collect()
}

fn watched(address: u64, id: u32, log: &Log, area: &[AtomicU64]) -> Request {
    let (before, after) = (entry as *const () as u64, returns as *const () as u64);
    let area = area.as_ptr().expose_provenance() as u64;
    let handlers = HandlerData { before, after, user: log.word(), area, entry_bytes: 8, ..HandlerData::NONE };
    Request { handlers, ..Request::counting(address, ProbeKind::Return { maxactive: MAXACTIVE }, id) }
}

/// A thread that has run to its end must have done what it does without probes.
fn is_well(cpu: &Cpu) -> bool {
    (cpu.end, cpu.regs.gpr[gpr::RAX]) == (Some(End::Exited), 8)
}

/// Control registers, switches off, on, and unregisters, while a thread runs. Gives the pauses of each.
fn race(stepping: Stepping, keeps_steps: bool, plan: &[(usize, usize)]) -> Vec<usize> {
    let (machine, top) = machine();
    machine.set_keeps_steps(keeps_steps);
    let leaf = machine.address("leaf");
    let (emulated, copied, call) = (Log::default(), Log::default(), Log::default());
    let area = area();
    let ran = |log: &[&Log; 3]| log.map(Log::all);
    let logs = [&emulated, &copied, &call];
    let last = std::sync::Mutex::new(None);
    let pauses = {
        let (machine, area, last) = (&machine, &area, &last);
        let requests =
            [followed(leaf + NOP, 1, &emulated), followed(leaf + MOV, 2, &copied), watched(leaf, 3, &call, area)];
        let control = move || {
            let (mut r, mut c) = (registry(), Control::new(machine));
            c.stepping = stepping;
            let handles = r.register(&mut c, &requests).expect("the host does not fail");
            for on in [false, true] {
                r.enable(&mut c, &handles, on).expect("the host does not fail");
            }
            r.unregister(&mut c, &handles).expect("the host does not fail");
            area.iter().for_each(|word| word.store(POISON, Relaxed));
            *last.lock().expect("no actor has panicked") = Some(ran(&logs));
        };
        let thread = move || {
            let mut cpu = machine.start(1, machine.address("main_twice"), top);
            machine.run(&mut cpu, &mut (), 2000);
            assert!(is_well(&cpu), "the program was harmed: {cpu:x?}");
        };
        interleave::run(plan, vec![Box::new(control), Box::new(thread)])
    };
    let what = format!("{stepping:?}, {plan:?}");
    assert_eq!(machine.text(), machine.pristine(), "{what}");
    assert_eq!(
        Some(ran(&logs)),
        *last.lock().expect("no actor has panicked"),
        "a handler has run after its probe was removed: {what}"
    );
    assert!(area.iter().all(|word| word.load(Relaxed) == POISON), "data was used after it was given back: {what}");
    assert!(logs.iter().all(|log| log.wrong.load(Relaxed) == 0), "{what}: {logs:?}");
    for (id, log) in [(1, &emulated), (2, &copied)] {
        assert_eq!(machine.tables.counts(id)[0], log.pre.load(Relaxed), "{what}");
    }
    let [hits, returned, unwound, missed, _] = machine.tables.counts(3);
    assert_eq!((hits, unwound, missed), (call.entry.load(Relaxed), 0, 0), "{what}");
    assert_eq!(returned, call.returns.load(Relaxed), "{what}");
    assert!(machine.tables.active.iter().all(|word| word.load(Relaxed) == 0), "{what}");
    pauses
}

/// Control is preempted at each of its pauses, and the thread behind it at each `apart`th of its own.
fn preempt(stepping: Stepping, keeps_steps: bool, apart: usize) -> usize {
    let run = |control| race(stepping, keeps_steps, &[(0, control), (1, usize::MAX)]);
    let of_control = run(usize::MAX)[0];
    // The thread pauses most where the breakpoints stand while it runs.
    let of_thread = (0..of_control).map(|control| run(control)[1]).max().unwrap_or(0);
    let mut races = 0;
    for control in 0..of_control {
        // At others for the next pause of control's.
        for thread in (control % apart..of_thread).step_by(apart) {
            race(stepping, keeps_steps, &[(0, control), (1, thread)]);
            races += 1;
        }
    }
    races
}

fn every_single_preemption(stepping: Stepping, keeps_steps: bool) {
    assert!(preempt(stepping, keeps_steps, 7) > 500);
}

#[test]
#[ignore = "takes minutes: the full form of the three below"]
fn every_pair_of_preemptions_leaves_handlers_and_their_data_whole() {
    let ways = Stepping::ALL.map(|stepping| (stepping, true)).into_iter().chain([(Stepping::Best, false)]);
    for (stepping, keeps_steps) in ways {
        println!("{stepping:?}: {} orders", preempt(stepping, keeps_steps, 1));
    }
}

#[test]
fn every_preemption_of_control_leaves_handlers_and_their_data_whole() {
    every_single_preemption(Stepping::Best, true);
}

#[test]
fn every_preemption_of_control_leaves_handlers_whole_where_nothing_is_kept_of_a_step() {
    every_single_preemption(Stepping::Best, false);
}

#[test]
fn every_preemption_of_control_leaves_handlers_whole_that_are_single_stepped_to() {
    every_single_preemption(Stepping::SingleStep, true);
}

#[test]
fn random_plans_of_many_preemptions_leave_handlers_and_their_data_whole() {
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n) as usize
    };
    for round in 0..300 {
        let plan: Vec<(usize, usize)> = (0..60).map(|i| (i % 2, next(9))).collect();
        race(Stepping::ALL[round % 4], true, &plan);
    }
}

/// What control does while a thread is in the copy of an instruction with a post-handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    Disable,
    DisableAndEnable,
    Unregister,
    UnregisterAndRegisterElsewhere,
}

impl Meanwhile {
    const ALL: [Self; 5] =
        [Self::Nothing, Self::Disable, Self::DisableAndEnable, Self::Unregister, Self::UnregisterAndRegisterElsewhere];

    fn act(self, r: &mut Registry, c: &mut Control<'_>, handle: &Handle, elsewhere: Request) {
        let handles = core::slice::from_ref(handle);
        match self {
            Self::Nothing => Ok(()),
            Self::Disable => r.enable(c, handles, false),
            Self::DisableAndEnable => r.enable(c, handles, false).and_then(|()| r.enable(c, handles, true)),
            Self::Unregister => r.unregister(c, handles),
            Self::UnregisterAndRegisterElsewhere => {
                r.unregister(c, handles).and_then(|()| r.register(c, &[elsewhere]).map(drop).map_err(|(_, e)| e))
            }
        }
        .expect("the host does not fail");
    }
}

/// A thread is preempted in the copy after so many steps there, or with the trap behind it fetched, and control does
/// something. Gives how often the handlers have run, and those of a probe elsewhere that the thread never comes to; `None`
/// when the thread is not there any more.
fn preempted(stepping: Stepping, keeps_steps: bool, steps: usize, meanwhile: Meanwhile) -> Option<[u64; 4]> {
    let (machine, top) = machine();
    machine.set_keeps_steps(keeps_steps);
    let (mut r, mut c) = (registry(), Control::new(&machine));
    c.stepping = stepping;
    let leaf = machine.address("leaf");
    let (here, there) = (Log::default(), Log::default());
    let handle = model::register(&mut r, &mut c, followed(leaf + MOV, 1, &here));
    let mut cpu = machine.start(1, machine.address("main"), top);
    let in_slot = |cpu: &Cpu| (SLOTS..SLOTS + SLOTS_BYTES as u64).contains(&cpu.trapped.unwrap_or(cpu.regs.rip));
    while !in_slot(&cpu) {
        machine.step(&mut cpu, &mut ());
    }
    (0..steps).for_each(|_| machine.step(&mut cpu, &mut ()));
    if !in_slot(&cpu) {
        return None;
    }
    meanwhile.act(&mut r, &mut c, &handle, followed(machine.address("main_twice"), 2, &there));
    machine.run(&mut cpu, &mut (), LIMIT);
    assert!(is_well(&cpu), "{stepping:?}, {steps} steps, {meanwhile:?}: {cpu:x?}");
    assert!(machine.tables.steppings.iter().all(|s| s.site().is_none()), "a step is open");
    assert!(machine.tables.active.iter().all(|word| word.load(Relaxed) == 0), "somebody is in a handler");
    Some([here.pre.load(Relaxed), here.post.load(Relaxed), there.pre.load(Relaxed), there.post.load(Relaxed)])
}

#[test]
fn a_thread_that_is_preempted_in_a_copy_finds_its_way_whatever_becomes_of_the_probe() {
    let ways = Stepping::ALL.map(|stepping| (stepping, true)).into_iter().chain([(Stepping::Best, false)]);
    for (stepping, keeps_steps) in ways {
        for meanwhile in Meanwhile::ALL {
            let seen: Vec<_> = (0..4).map_while(|n| preempted(stepping, keeps_steps, n, meanwhile)).collect();
            assert!(seen.len() >= 2 || stepping == Stepping::SingleStep, "{stepping:?}: {seen:?}");
            let ends = matches!(meanwhile, Meanwhile::Nothing | Meanwhile::DisableAndEnable);
            for seen in seen {
                assert_eq!(seen, [1, u64::from(ends), 0, 0], "{stepping:?}, {meanwhile:?}");
            }
        }
    }
}

/// Something that is done to one of three probes on one instruction.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Register(bool),
    Unregister,
    Enable,
    Disable,
}

const DEEDS: [Deed; 5] = [Deed::Register(true), Deed::Register(false), Deed::Unregister, Deed::Enable, Deed::Disable];
const PROBES: usize = 3;

/// Does deeds, and compares after each with what must be live, in which order.
fn play(deeds: &[(usize, Deed)]) {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let at = machine.address("leaf") + ADD;
    let logs: [Log; PROBES] = core::array::from_fn(|_| Log::default());
    // Who is registered, in order: number, handle, whether it is on.
    let mut live: Vec<(usize, Handle, bool)> = Vec::new();
    let mut expected = [0; PROBES];
    for &(number, deed) in deeds {
        let found = live.iter().position(|(n, ..)| *n == number);
        match (deed, found) {
            (Deed::Register(on), None) => {
                let request = Request { disabled: !on, ..followed(at, number as u32, &logs[number]) };
                live.push((number, model::register(&mut r, &mut c, request), on));
                expected[number] = logs[number].pre.load(Relaxed);
            }
            (Deed::Unregister, Some(index)) => {
                let (_, handle, _) = live.remove(index);
                r.unregister(&mut c, &[handle]).expect("the host does not fail");
            }
            (Deed::Enable | Deed::Disable, Some(index)) => {
                let on = matches!(deed, Deed::Enable);
                r.enable(&mut c, &[live[index].1.clone()], on).expect("the host does not fail");
                live[index].2 = on;
            }
            _ => continue,
        }
        assert_eq!(model::value(&machine, "main", top), 8, "{deeds:?}");
        live.iter().filter(|(.., on)| *on).for_each(|(number, ..)| expected[*number] += 1);
        let ran: Vec<u64> = logs.iter().map(|log| log.pre.load(Relaxed)).collect();
        let after: Vec<u64> = logs.iter().map(|log| log.post.load(Relaxed)).collect();
        assert_eq!((ran.as_slice(), after.as_slice()), (&expected[..], &expected[..]), "{deeds:?}");
        let planted = machine.text() != machine.pristine();
        assert_eq!(planted, live.iter().any(|(.., on)| *on), "{deeds:?}");
    }
    let handles: Vec<_> = live.into_iter().map(|(_, handle, _)| handle).collect();
    r.unregister(&mut c, &handles).expect("the host does not fail");
    assert_eq!(machine.text(), machine.pristine(), "{deeds:?}");
}

#[test]
fn every_sequence_of_three_deeds_has_the_effect_of_its_deeds() {
    let all: Vec<_> = (0..PROBES).flat_map(|number| DEEDS.map(|deed| (number, deed))).collect();
    for &first in &all {
        for &second in &all {
            for &third in &all {
                play(&[(0, Deed::Register(true)), first, second, third]);
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn any_long_sequence_has_the_effect_of_its_deeds(
        deeds in proptest::collection::vec((0..PROBES, 0..DEEDS.len()), 1..40),
    ) {
        play(&deeds.into_iter().map(|(number, deed)| (number, DEEDS[deed])).collect::<Vec<_>>());
    }
}

/// Fails call `n` of switching two probes on or off, and does it again.
fn fail_switch(on: bool, n: usize, patched: usize) -> bool {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let (first, second) = (Log::default(), Log::default());
    let requests = [followed(leaf + ADD, 1, &first), followed(leaf + MOV, 2, &second)]
        .map(|request| Request { disabled: on, ..request });
    let handles = r.register(&mut c, &requests).expect("nothing fails now");
    c.calls.clear();
    c.fail = n..n + 1;
    c.patched_before_failure = patched;
    let result = r.enable(&mut c, &handles, on);
    let call = c.calls.get(n).copied();
    c.calm();
    let what = format!("switching {}, call {n}, {call:?}, {patched} bytes patched", if on { "on" } else { "off" });
    if call == Some(Call::Read) && result.is_ok() {
        // A byte that cannot be read is not there any more: nobody comes to it.
        return true;
    }
    assert!(is_well(&model::call(&machine, "main", top)), "{what}: {result:?}");
    r.enable(&mut c, &handles, on).unwrap_or_else(|e| panic!("{what}: again: {e:?}"));
    let before = [&first, &second].map(|log| log.pre.load(Relaxed));
    assert_eq!(model::value(&machine, "main", top), 8, "{what}");
    let after = [&first, &second].map(|log| log.pre.load(Relaxed));
    assert_eq!(after, before.map(|count| count + u64::from(on)), "{what}: switched again");
    assert_eq!(machine.text() != machine.pristine(), on, "{what}");
    r.unregister(&mut c, &handles).unwrap_or_else(|e| panic!("{what}: unregister: {e:?}"));
    assert_eq!(machine.text(), machine.pristine(), "{what}");
    call.is_some()
}

#[test]
fn switching_that_fails_can_be_repeated() {
    for on in [false, true] {
        for patched in [0, 1] {
            let mut calls = 0;
            while fail_switch(on, calls, patched) {
                calls += 1;
            }
            assert!(calls > 2);
        }
    }
}
