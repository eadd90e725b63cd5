//! Return probes on the model machine: entries = returns + unwound + active, whatever the program does, and the
//! program does what it did without them.
#![cfg(all(target_arch = "x86_64", feature = "kretprobes"))]

mod model;
#[path = "model/stage.rs"]
mod stage;

use kprobes::Registry;
use model::{entry, registry, returns};
use stage::{SIGNAL_ABOVE, SIGNAL_BELOW, STACKS, Stage, hook, name, step_to};
use sync::primitive::Ordering::Relaxed;
use testkit::model::script::Deed::{
    self, Backtrace, Call, Jump, JumpTo, Resume, Return, Signal, Switch, Tail, ThreadExit, Throw,
};
use testkit::model::{Control, Cpu, End, Event, Machine};

/// All four functions.
const ALL: stage::Probes<'static> = &[(0, 100), (1, 100), (2, 100), (3, 100)];

/// Plays a script that begins in `f0` with all functions probed.
fn play(deeds: &[Deed]) -> Stage {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    stage.play(0, deeds.iter().cloned());
    stage
}

/// What was counted for a function: hits, returns, unwound, missed.
fn counts(machine: &Machine, id: u32) -> [u64; 4] {
    let [hits, returns, unwound, missed, _] = machine.tables.counts(id);
    [hits, returns, unwound, missed]
}

#[test]
fn a_script_runs_unprobed() {
    let mut stage = Stage::new(&[], 1);
    stage.play(0, [Call(1), Call(2), Throw(0, vec![1]), Resume, Call(3), Backtrace, Jump(0), Return]);
}

#[test]
fn without_hooks_an_exception_ends_the_program_at_the_stub() {
    let mut stage = Stage::new(&[(1, 10)], 4);
    let (mut r, mut c) = (registry(), Control::new(&stage.machine));
    model::register(&mut r, &mut c, returns(stage.machine.address("f1"), 1, 10));
    drop(c);
    stage.script([Call(1), Throw(0, vec![])]);
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.machine.run(&mut cpu, &mut stage.world, stage::LIMIT);
    assert_eq!(cpu.end, Some(End::Terminated(testkit::model::STUBS)), "the control of the other tests");
}

#[test]
fn plain_calls_return() {
    let stage = play(&[Call(1), Return, Call(1), Call(2), Return, Return]);
    assert_eq!(counts(&stage.machine, 2), [2, 2, 0, 0]);
}

#[test]
fn a_record_of_a_return_says_where_to_and_with_what() {
    let (machine, top) = model::machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let (leaf, main) = (machine.address("leaf"), machine.address("main"));
    model::register(&mut r, &mut c, returns(leaf, 1, 4));
    let mut cpu = machine.start(1, main, top);
    cpu.regs.gpr[7] = 41;
    machine.run(&mut cpu, &mut (), 100);
    assert_eq!(machine.log(), [Event::Return { id: 1, to: main + 6, value: 7, argument: 41 }]);
}

#[test]
fn recursion_has_an_instance_for_each_activation() {
    let stage = play(&[Call(1), Call(1), Call(1), Call(1), Return, Call(1), Return, Return, Return, Return]);
    assert_eq!(counts(&stage.machine, 2), [5, 5, 0, 0]);
    assert_eq!(stage.machine.tables.returns().high_water(), 5, "four deep, and f0");
}

#[test]
fn nested_functions_return_in_their_order() {
    let stage = play(&[Call(1), Call(2), Call(3), Return, Return, Call(3), Return, Return]);
    let ids: Vec<u32> = stage.machine.log().iter().map(Event::id).collect();
    assert_eq!(ids, [4, 3, 4, 2, 1]);
}

#[test]
fn a_tail_call_ends_both_activations_at_once() {
    let stage = play(&[Call(1), Tail(2), Tail(3), Return]);
    let ids: Vec<u32> = stage.machine.log().iter().map(Event::id).collect();
    assert_eq!(ids, [4, 3, 2, 1], "the last one that was entered returns first");
    assert_eq!(counts(&stage.machine, 2), [1, 1, 0, 0]);
}

#[test]
fn a_function_that_tail_calls_itself_has_several_instances_on_one_slot() {
    let stage = play(&[Call(1), Tail(1), Tail(1), Tail(1), Return]);
    assert_eq!(counts(&stage.machine, 2), [4, 4, 0, 0]);
}

#[test]
fn beyond_maxactive_activations_are_missed_exactly() {
    let mut stage = Stage::new(&[(1, 2)], 64);
    drop(stage.plant());
    stage.play(0, [Call(1), Call(1), Call(1), Call(1), Return, Return, Return, Return, Call(1), Return]);
    assert_eq!(counts(&stage.machine, 1), [3, 3, 0, 2]);
}

#[test]
fn an_empty_pool_misses_exactly_and_recovers() {
    let mut stage = Stage::new(&[(1, 100), (2, 100)], 2);
    drop(stage.plant());
    stage.play(0, [Call(1), Call(2), Call(1), Call(2), Return, Return, Return, Call(2), Return, Return]);
    assert_eq!(counts(&stage.machine, 1), [1, 1, 0, 1]);
    assert_eq!(counts(&stage.machine, 2), [2, 2, 0, 1]);
}

#[test]
fn an_unwound_instance_is_used_again_when_no_other_is_left() {
    let mut stage = Stage::new(&[(1, 100)], 1);
    drop(stage.plant());
    stage.play(0, [Call(1), Jump(0), Call(1), Jump(0), Call(1), Return]);
    assert_eq!(counts(&stage.machine, 1), [3, 1, 2, 0]);
}

#[test]
fn longjmp_over_frames_unwinds_them_and_no_others() {
    let stage = play(&[Call(1), Call(2), Call(3), Call(2), Jump(1), Call(3), Return, Return]);
    assert_eq!(counts(&stage.machine, 3), [2, 0, 2, 0]);
    assert_eq!(counts(&stage.machine, 4), [2, 1, 1, 0]);
    assert_eq!(counts(&stage.machine, 2), [1, 1, 0, 0]);
}

#[test]
fn longjmp_over_tail_called_frames_unwinds_all_of_them() {
    let stage = play(&[Call(1), Tail(2), Tail(3), Jump(0), Call(1), Return]);
    assert_eq!((counts(&stage.machine, 3), counts(&stage.machine, 2)), ([1, 0, 1, 0], [2, 1, 1, 0]));
}

#[test]
fn a_caught_exception_unwinds_the_frames_below_its_catch() {
    let stage = play(&[Call(1), Call(2), Call(3), Throw(1, vec![]), Call(3), Return, Return]);
    assert_eq!(counts(&stage.machine, 3), [1, 0, 1, 0]);
    assert_eq!(counts(&stage.machine, 4), [2, 1, 1, 0]);
}

#[test]
fn an_exception_caught_where_it_was_thrown_unwinds_nothing() {
    let stage = play(&[Call(1), Throw(1, vec![]), Return]);
    assert_eq!(counts(&stage.machine, 2), [1, 1, 0, 0]);
}

#[test]
fn each_cleanup_of_an_exception_may_call_and_goes_on() {
    let deeds = [Call(1), Call(2), Call(3), Throw(0, vec![1, 2]), Call(3), Return, Resume, Call(2), Return, Resume];
    let stage = play(&deeds);
    assert_eq!(counts(&stage.machine, 2), [1, 0, 1, 0]);
    assert_eq!(counts(&stage.machine, 3), [2, 1, 1, 0]);
    assert_eq!(counts(&stage.machine, 4), [2, 1, 1, 0]);
}

#[test]
fn a_cleanup_may_throw_and_catch_within_itself() {
    play(&[
        Call(1),
        Call(2),
        Throw(0, vec![1]),
        Call(3),
        Call(2),
        Throw(1, vec![2]),
        Resume,
        Backtrace,
        Resume,
        Return,
    ]);
}

#[test]
fn exceptions_pass_through_tail_called_frames() {
    play(&[Call(1), Tail(2), Call(3), Tail(1), Throw(1, vec![]), Tail(3), Call(2), Throw(0, vec![1]), Resume, Return]);
}

#[test]
fn a_walk_sees_the_true_callers_and_the_returns_are_kept() {
    let stage = play(&[Call(1), Call(2), Tail(3), Backtrace, Call(1), Backtrace, Return, Return, Return]);
    assert_eq!(counts(&stage.machine, 2), [2, 2, 0, 0]);
}

#[test]
fn coroutines_return_in_any_order() {
    let deeds =
        [Call(1), Switch(1, 2), Call(3), Switch(2, 1), Call(2), Switch(0, 0), Call(3), Return, Return, Switch(2, 0)];
    play(&deeds);
}

#[test]
fn exceptions_walks_and_jumps_in_one_coroutine_leave_the_others_armed() {
    let deeds = [
        Call(1),
        Call(2),
        Switch(1, 2),
        Call(3),
        Call(1),
        Throw(0, vec![1]),
        Resume,
        Backtrace,
        Call(1),
        Jump(0),
        Switch(0, 0),
        Backtrace,
        Throw(1, vec![]),
        Switch(1, 0),
        Return,
    ];
    play(&deeds);
}

#[test]
fn coroutines_that_switch_by_longjmp_keep_their_activations() {
    // From the lower stack to the higher one, and back.
    play(&[Call(1), Switch(1, 2), Call(3), Switch(0, 0), Call(2), JumpTo(1), Return, JumpTo(0), Return, Return]);
}

#[test]
fn a_coroutine_that_has_moved_to_another_thread_throws_there() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut one = stage.world.start(&stage.machine, 1, 0, 0);
    let mut two = stage.world.start(&stage.machine, 2, 1, 0);
    stage.script([Call(1), Call(2), Switch(2, 3)]);
    stage.ask(&mut one, 3);
    stage.script([Switch(0, 0), Backtrace, Throw(1, vec![]), Call(3), Jump(0), Call(1), Return, Return]);
    stage.ask(&mut two, 8);
    stage.finish(&mut two);
    stage.finish(&mut one);
    stage.check();
}

#[test]
fn a_signal_handler_below_the_main_stack_may_throw_across_its_frame() {
    signal_throws(SIGNAL_BELOW);
}

#[test]
fn a_signal_handler_above_the_main_stack_may_throw_across_its_frame() {
    signal_throws(SIGNAL_ABOVE);
}

fn signal_throws(base: u64) {
    for known in [true, false] {
        signals(base, known);
    }
}

/// The host knows the stack pointer that the signal has interrupted, or does not.
fn signals(base: u64, known: bool) {
    for deeds in [
        vec![Call(1), Call(2), Signal(3), Call(1), Return, Return, Return, Return],
        vec![Call(1), Call(2), Signal(3), Call(1), Throw(1, vec![2, 3]), Resume, Call(2), Return, Resume, Return],
        vec![Call(1), Call(2), Signal(3), Call(1), Throw(3, vec![]), Backtrace, Return, Return, Return],
        vec![Call(1), Call(2), Signal(3), Call(1), Backtrace, Jump(1), Call(3), Return, Return],
        vec![Call(1), Call(2), Signal(3), Call(1), Call(2), Jump(4), Return, Return, Return],
    ] {
        let mut stage = Stage::new(ALL, 64);
        stage.machine.set_knows_interrupted(known);
        drop(stage.plant());
        stage.script(deeds.iter().cloned());
        let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
        stage.world.set_signal_stack(&mut cpu, base, base + 0x2000);
        stage.finish(&mut cpu);
        stage.check();
    }
}

#[test]
fn a_throw_from_a_signal_handler_leaves_suspended_coroutines_alone() {
    for (base, known) in [(SIGNAL_BELOW, true), (SIGNAL_BELOW, false), (SIGNAL_ABOVE, true), (SIGNAL_ABOVE, false)] {
        let mut stage = Stage::new(ALL, 64);
        stage.machine.set_knows_interrupted(known);
        drop(stage.plant());
        // The coroutine with the lower stack waits while the one with the higher stack gets the signal.
        stage.script([Call(1), Switch(1, 2), Call(3), Signal(1), Throw(0, vec![]), Switch(0, 0), Return, Return]);
        let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
        stage.world.set_signal_stack(&mut cpu, base, base + 0x2000);
        stage.finish(&mut cpu);
        stage.check();
    }
}

#[test]
fn what_a_thread_has_out_when_it_exits_is_unwound() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut one = stage.world.start(&stage.machine, 1, 0, 0);
    let mut two = stage.world.start(&stage.machine, 2, 1, 0);
    stage.script([Call(1), Call(2)]);
    stage.ask(&mut two, 2);
    stage.script([Call(1), Tail(3), Call(2), ThreadExit]);
    stage.ask(&mut one, 4);
    stage.world.abandon(1);
    stage.check();
    stage.script([]);
    stage.finish(&mut two);
    stage.check();
}

#[test]
fn a_coroutine_that_outlives_its_first_thread_is_counted_right_in_the_end() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut one = stage.world.start(&stage.machine, 1, 0, 0);
    let mut two = stage.world.start(&stage.machine, 2, 1, 0);
    stage.script([Call(1), Call(2), Switch(2, 3), ThreadExit]);
    stage.ask(&mut one, 4);
    stage.world.abandon(1);
    // Thread 2 takes over what waits on the first stack.
    stage.script([Switch(0, 0)]);
    stage.finish(&mut two);
    stage.check();
}

#[test]
fn a_forked_child_returns_from_what_its_parent_has_entered() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.script([Call(1), Call(2), Call(3)]);
    stage.ask(&mut cpu, 3);
    // The child: own memory, own counters, one thread with a new identity.
    let (child, mut forked) = stage.machine.fork(|| stage::machine(64).0, &STACKS, &cpu, 77);
    run_out(&child, &mut forked);
    assert_eq!((1..5).map(|id| child.tables.counts(id)[1]).collect::<Vec<_>>(), [1; 4]);
    // The parent does not notice.
    stage.finish(&mut cpu);
    stage.check();
}

/// Every function that asks returns.
fn run_out(machine: &Machine, cpu: &mut Cpu) {
    struct Leave;
    impl testkit::model::Runtime for Leave {
        fn choose(&mut self, _: &Machine, cpu: &mut Cpu, _: u32) {
            cpu.regs.rip += 7;
        }
        fn lands(&mut self, _: &Cpu, _: u64, _: u64) -> bool {
            false
        }
        fn walked(&mut self, _: &Cpu, _: &[u64]) {}
    }
    assert_eq!(machine.run(cpu, &mut Leave, 1000), Some(End::Exited));
}

#[test]
fn a_forked_child_may_unwind_what_its_parent_has_entered() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.script([Call(1), Call(2), Call(3)]);
    stage.ask(&mut cpu, 3);
    let (child, mut forked) = stage.machine.fork(|| stage::machine(64).0, &STACKS, &cpu, 77);
    // In the child, the stage goes on with the parent's frames and the child's counters.
    stage.machine = child;
    stage.world.take_over(1, &mut forked);
    stage.script([Backtrace, Throw(1, vec![]), Call(2), Return, Return]);
    stage.finish(&mut forked);
    let ended: Vec<_> = (1..5).map(|id| counts(&stage.machine, id)).collect();
    assert_eq!(ended, [[0, 1, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0]]);
}

#[test]
fn a_thread_that_a_forked_child_starts_and_ends_leaves_what_was_inherited_alone() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.script([Call(1), Call(2)]);
    stage.ask(&mut cpu, 2);
    let (child, mut forked) = stage.machine.fork(|| stage::machine(64).0, &STACKS, &cpu, 77);
    let mut short = child.start(78, child.address("thread_exit"), STACKS[1] + 0x2000);
    assert_eq!(child.run(&mut short, &mut (), 100), Some(End::Exited));
    assert_eq!((1..4).map(|id| child.tables.counts(id)[2]).collect::<Vec<_>>(), [0; 3], "nothing was unwound");
    run_out(&child, &mut forked);
    assert_eq!((1..4).map(|id| child.tables.counts(id)[1]).collect::<Vec<_>>(), [1; 3]);
}

#[test]
fn activations_of_an_earlier_epoch_go_home_uncounted() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.script([Call(1), Call(2), Call(3)]);
    stage.ask(&mut cpu, 3);
    stage.machine.tables.returns().pool.epoch.fetch_add(1, Relaxed);
    stage.script([Backtrace, Throw(1, vec![])]);
    stage.finish(&mut cpu);
    for id in 1..4 {
        assert_eq!(counts(&stage.machine, id), [1, 0, 0, 0]);
    }
}

#[test]
fn a_probe_that_is_unregistered_while_it_has_activations_out_lets_them_go_home() {
    let mut stage = Stage::new(ALL, 64);
    let machine = std::mem::replace(&mut stage.machine, stage::machine(64).0);
    let (mut r, mut c) = (registry(), Control::new(&machine));
    hook(&mut r, &mut c);
    let handles = r.register(&mut c, &[1, 2].map(|f| returns(machine.address(name(f)), f as u32, 10))).unwrap();
    stage.script([Call(1), Call(2), Call(1)]);
    let mut cpu = stage.world.start(&machine, 1, 0, 0);
    stage::ask(&machine, &mut stage.world, &mut cpu, 3);
    r.unregister(&mut c, &handles).unwrap();
    // Others take the places of the probes that are gone, at the same and at other addresses.
    let again = [returns(machine.address("f1"), 5, 10), returns(machine.address("f3"), 6, 10)];
    let again = r.register(&mut c, &again).unwrap();
    stage.script([Throw(2, vec![]), Call(3), Call(1), Return, Return]);
    assert_eq!(machine.run(&mut cpu, &mut stage.world, stage::LIMIT), Some(End::Exited));
    assert_eq!(counts(&machine, 5), [1, 1, 0, 0]);
    assert_eq!(counts(&machine, 6), [1, 1, 0, 0]);
    assert!(machine.tables.probes.iter().all(|p| p.active.load(Relaxed) == 0));
    r.unregister(&mut c, &again).unwrap();
    hooks_stay(&r, &machine);
}

fn hooks_stay(r: &Registry, machine: &Machine) {
    assert_eq!(r.armed().filter(|&a| a < machine.address("raise")).count(), 1, "thread_exit's");
}

#[test]
fn a_return_through_a_copied_stack_counts_and_ends_the_reuse_of_unwound_instances() {
    let mut stage = Stage::new(&[(1, 100), (2, 100)], 2);
    drop(stage.plant());
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.script([Call(1)]);
    stage.ask(&mut cpu, 1);
    // The program copies its stack away, leaves the frame by a jump, and later puts the copy back and returns.
    let copy = stage.machine.memory.copy(STACKS[0], 0x2000);
    let (sp, pc) = (cpu.sp(), cpu.regs.rip);
    let mut greenlet = Cpu { end: None, ..cpu.clone() };
    stage.script([Jump(0), Return]);
    stage.finish(&mut cpu);
    assert_eq!(counts(&stage.machine, 1), [1, 0, 1, 0]);
    // And once more.
    for _ in 0..2 {
        assert!(stage.machine.memory.write(STACKS[0], &copy));
        greenlet.regs.gpr[4] = sp;
        greenlet.regs.rip = pc;
        greenlet.end = None;
        run_out(&stage.machine, &mut greenlet);
        assert_eq!(counts(&stage.machine, 1), [1, 1, 0, 0], "it has returned after all, and is counted once");
    }
    // One instance was never used; the unwound one is not taken.
    let mut nested = stage.machine.start(1, stage.machine.address("f0"), STACKS[1] + 0x2000);
    assert_eq!(stage.machine.run(&mut nested, &mut Nested(2), 1000), Some(End::Exited));
    assert_eq!(counts(&stage.machine, 2), [1, 1, 0, 1]);
}

#[test]
fn a_function_that_returns_twice_goes_home_and_ends_all_reuse() {
    let mut stage = Stage::new(&[(1, 100), (2, 100)], 2);
    drop(stage.plant());
    let mut cpu = stage.world.start(&stage.machine, 1, 0, 0);
    stage.script([Call(1)]);
    stage.ask(&mut cpu, 1);
    let copy = stage.machine.memory.copy(STACKS[0], 0x2000);
    let mut again = cpu.clone();
    stage.finish(&mut cpu);
    assert!(stage.machine.memory.write(STACKS[0], &copy));
    run_out(&stage.machine, &mut again);
    assert_eq!(counts(&stage.machine, 1), [1, 1, 0, 0], "its second return is nobody's");
    let mut nested = stage.machine.start(1, stage.machine.address("f0"), STACKS[1] + 0x2000);
    assert_eq!(stage.machine.run(&mut nested, &mut Nested(2), 1000), Some(End::Exited));
    assert_eq!(counts(&stage.machine, 2), [1, 1, 0, 1], "one instance was never used");
}

/// Each function that asks calls `f2`, so many times; then all return.
struct Nested(u32);

impl testkit::model::Runtime for Nested {
    fn choose(&mut self, machine: &Machine, cpu: &mut Cpu, _: u32) {
        if self.0 == 0 {
            cpu.regs.rip += 7;
            return;
        }
        self.0 -= 1;
        cpu.regs.gpr[0] = machine.address("f2");
    }

    fn lands(&mut self, _: &Cpu, _: u64, _: u64) -> bool {
        false
    }

    fn walked(&mut self, _: &Cpu, _: &[u64]) {}
}

#[test]
fn two_return_probes_and_a_kprobe_share_one_function() {
    let mut stage = Stage::new(&[(1, 100), (1, 1)], 64);
    let (mut r, mut c, _) = stage.plant();
    let handle = model::register(&mut r, &mut c, entry(stage.machine.address("f1"), 9));
    assert_eq!(handle.placement, kprobes::Placement::Boosted);
    drop(c);
    stage.play(0, [Call(1), Call(1), Call(1), Jump(2), Return, Return, Call(1), Return]);
    assert_eq!(counts(&stage.machine, 1), [4, 3, 1, 0]);
    assert_eq!(counts(&stage.machine, 2), [2, 2, 0, 2]);
    assert_eq!(counts(&stage.machine, 9), [4, 0, 0, 0]);
}

#[test]
fn a_thread_that_unwinds_leaves_the_returns_of_a_running_neighbour_alone() {
    // Two small stacks next to each other; their threads unwind at the same time.
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut low = stage.world.start(&stage.machine, 1, 0, 0);
    let mut high = stage.world.start(&stage.machine, 2, 1, 0);
    stage.script([Call(1)]);
    stage.ask(&mut low, 1);
    stage.script([Call(1), Call(2)]);
    stage.ask(&mut high, 2);
    stage.script([Throw(0, vec![])]);
    step_to(&mut stage, &mut high, "raise", 1);
    // `high` has been through its hook: its addresses are true, its search has not begun. Now `low` walks.
    stage.script([Backtrace]);
    stage.ask(&mut low, 1);
    stage.script([]);
    stage.finish(&mut high);
    stage.finish(&mut low);
    stage.check();
}

#[test]
fn a_return_on_a_neighbouring_stack_while_a_thread_unwinds_is_a_return() {
    let mut stage = Stage::new(ALL, 64);
    drop(stage.plant());
    let mut low = stage.world.start(&stage.machine, 1, 0, 0);
    let mut high = stage.world.start(&stage.machine, 2, 1, 0);
    stage.script([Call(1), Call(2)]);
    stage.ask(&mut high, 2);
    stage.script([Backtrace]);
    step_to(&mut stage, &mut low, "backtrace", 1);
    stage.script([Return, Return]);
    stage.ask(&mut high, 2);
    stage.script([]);
    stage.finish(&mut low);
    stage.finish(&mut high);
    stage.check();
}
