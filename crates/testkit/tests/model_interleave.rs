//! Control and a running program, in every order: no trap is ever foreign, nothing is seen after its removal.
#![cfg(all(target_arch = "x86_64", feature = "kretprobes"))]

mod model;

use model::{ADD, MOV, NOP, RET, entry, hits, machine, registry, returns};
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::model::{Call, Control, End, Event, Machine, interleave};

/// Steps of `main_twice` without probes.
fn steps(machine: &Machine, top: u64) -> usize {
    let mut cpu = machine.start(1, machine.address("main_twice"), top);
    let mut steps = 0;
    while cpu.end.is_none() {
        machine.step(&mut cpu, &mut ());
        steps += 1;
    }
    steps
}

#[test]
fn a_thread_at_any_instruction_survives_a_registration_and_a_removal() {
    let total = {
        let (machine, top) = machine();
        steps(&machine, top)
    };
    for before in 0..=total {
        for each in 0..4 {
            let (machine, top) = machine();
            let leaf = machine.address("leaf");
            let requests = [entry(leaf + NOP, 1), entry(leaf + ADD, 2), returns(leaf, 3, 4), entry(leaf + RET, 4)];
            let mut cpu = machine.start(1, machine.address("main_twice"), top);
            for _ in 0..before {
                machine.step(&mut cpu, &mut ());
            }
            let cpu = std::sync::Mutex::new(cpu);
            let (mut r, mut c) = (registry(), Control::new(&machine));
            c.meanwhile(|machine, _| {
                for _ in 0..each {
                    machine.step(&mut cpu.lock().unwrap(), &mut ());
                }
            });
            let handles = r.register(&mut c, &requests).unwrap();
            r.unregister(&mut c, &handles).unwrap();
            drop(c);
            let mut cpu = cpu.into_inner().unwrap();
            assert_eq!(machine.run(&mut cpu, &mut (), 1000), Some(End::Exited), "{before} steps before, {each} each");
            assert_eq!(cpu.regs.gpr[0], 8);
            assert_eq!(machine.text(), machine.pristine());
        }
    }
}

#[test]
fn a_breakpoint_that_was_fetched_before_its_removal_and_is_handled_after_it_is_stepped_over() {
    let (machine, top) = machine();
    let leaf = machine.address("leaf");
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let handle = model::register(&mut r, &mut c, entry(leaf + ADD, 1));
    let mut cpu = machine.start(1, machine.address("main"), top);
    while cpu.trapped.is_none() {
        machine.step(&mut cpu, &mut ());
    }
    r.unregister(&mut c, &[handle]).unwrap();
    assert_eq!(machine.run(&mut cpu, &mut (), 100), Some(End::Exited));
    assert_eq!((cpu.regs.gpr[0], cpu.regs.gpr[7], hits(&machine, 1)), (8, 1, 0));
}

/// One run of control (registration, removal) against a thread. Gives the pauses of each.
fn race(plan: &[(usize, usize)]) -> Vec<usize> {
    let (machine, top) = machine();
    let leaf = machine.address("leaf");
    let off = AtomicUsize::new(usize::MAX);
    let pauses = {
        let machine = &machine;
        let off = &off;
        let control = move || {
            let (mut r, mut c) = (registry(), Control::new(machine));
            let requests = [entry(leaf + ADD, 1), entry(leaf + MOV, 2), returns(leaf, 3, 4)];
            let handles = r.register(&mut c, &requests).expect("the host does not fail");
            r.unregister(&mut c, &handles).expect("the host does not fail");
            off.store(machine.log().iter().filter(|e| matches!(e, Event::Hit { .. })).count(), Ordering::Relaxed);
        };
        let thread = move || {
            let mut cpu = machine.start(1, machine.address("main_twice"), top);
            assert_eq!(machine.run(&mut cpu, &mut (), 1000), Some(End::Exited), "the program was harmed");
            assert_eq!(cpu.regs.gpr[0], 8);
        };
        interleave::run(plan, vec![Box::new(control), Box::new(thread)])
    };
    assert_eq!(machine.text(), machine.pristine());
    let hits_seen = machine.log().iter().filter(|e| matches!(e, Event::Hit { .. })).count();
    assert_eq!(hits_seen, off.load(Ordering::Relaxed), "a handler saw a probe after its removal: {plan:?}");
    let [hits, returned, unwound, missed, _] = machine.tables.counts(3);
    assert!(returned <= hits && unwound == 0 && missed == 0, "{plan:?}");
    pauses
}

#[test]
fn every_single_preemption_inside_a_handler_or_inside_control_is_harmless() {
    let planned = race(&[(0, 14), (1, 20)]);
    for control in 0..planned[0] {
        for thread in 0..planned[1] {
            race(&[(0, control), (1, thread)]);
        }
    }
}

#[test]
fn random_plans_of_many_preemptions_are_harmless() {
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n) as usize
    };
    for _ in 0..200 {
        let plan: Vec<(usize, usize)> = (0..60).map(|i| (i % 2, next(5))).collect();
        race(&plan);
    }
}

#[test]
fn removal_waits_for_a_handler_that_is_preempted() {
    let (machine, top) = machine();
    let leaf = machine.address("leaf");
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let handle = model::register(&mut r, &mut c, entry(leaf + ADD, 1));
    let finished = AtomicUsize::new(0);
    {
        let (machine, finished) = (&machine, &finished);
        let (mut r, mut c) = (r, c);
        let control = move || {
            r.unregister(&mut c, &[handle]).unwrap();
            assert!(c.calls.contains(&Call::Grace));
            finished.store(machine.log().len(), Ordering::Relaxed);
        };
        let thread = move || {
            let mut cpu = machine.start(1, leaf, top);
            machine.run(&mut cpu, &mut (), 100);
        };
        // The thread is stopped just before it records: it has looked at the probe already.
        let to_record = 8;
        let _ = interleave::run(&[(1, to_record), (0, usize::MAX)], vec![Box::new(control), Box::new(thread)]);
    }
    assert_eq!(hits(&machine, 1), 1);
    assert_eq!(finished.load(Ordering::Relaxed), 1, "the removal ended after the handler");
}

/// A probe is taken off while a thread is at its breakpoint, and its place is used for a probe elsewhere, which the
/// thread never comes to. Another probe stays at the address.
fn reuse(plan: &[(usize, usize)]) -> (u64, u64) {
    let (machine, top) = machine();
    let leaf = machine.address("leaf");
    {
        let machine = &machine;
        let control = move || {
            let (mut r, mut c) = (registry(), Control::new(machine));
            let handles =
                r.register(&mut c, &[entry(leaf + ADD, 1), entry(leaf + ADD, 2)]).expect("the host does not fail");
            interleave::pause();
            r.unregister(&mut c, &handles[..1]).expect("the host does not fail");
            let elsewhere = r.register(&mut c, &[entry(machine.address("main"), 9)]).expect("the host does not fail");
            assert_eq!(r.used().1, 2, "the place is used again");
            drop(elsewhere);
        };
        let thread = move || {
            let mut cpu = machine.start(1, leaf, top);
            assert_eq!(machine.run(&mut cpu, &mut (), 1000), Some(End::Exited));
        };
        let _ = interleave::run(plan, vec![Box::new(control), Box::new(thread)]);
    }
    (hits(&machine, 2), hits(&machine, 9))
}

#[test]
fn a_place_is_not_used_again_while_a_handler_may_still_come_to_it_through_the_chain() {
    let registered = {
        let (machine, _) = machine();
        let (mut r, mut c) = (registry(), Control::new(&machine));
        let leaf = machine.address("leaf");
        r.register(&mut c, &[entry(leaf + ADD, 1), entry(leaf + ADD, 2)]).unwrap();
        c.calls.len()
    };
    let mut wrong = Vec::new();
    for before in 0..12 {
        for removing in 0..16 {
            for inside in 0..8 {
                // Registered; the thread comes to its breakpoint; control begins to remove; the thread goes on a
                // little; control ends; the thread ends.
                let plan = [(0, registered), (1, before), (0, removing), (1, inside), (0, usize::MAX)];
                let (stays, elsewhere) = reuse(&plan);
                if (stays, elsewhere) != (1, 0) {
                    wrong.push((plan, stays, elsewhere));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} plans: the probe that stays is missed, or one elsewhere hit: {:?}",
        wrong.len(),
        wrong[0]
    );
}
