//! Linux's own expectations: `lib/tests/test_kprobes.c`, case by case.

use super::super::super::steps::{Outcome, expect};
use super::super::Handlers;
use super::super::notes::What::{Entry, Post, Pre, Return};
use super::super::notes::{set_calling, take, word};
use super::super::steps::{
    address, call, expect_counts, expect_order, hits, observed, returned, returning, with, words_of,
};
use alloc::vec;

/// Linux: one kprobe on a function; its pre- and its post-handler run once, and the function's result is right.
pub(super) fn kunit_test_kprobe(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![observed("suite_first_copied", 0, 1)?], |world, probes| {
        call(world, "suite_first_copied", [1000, 7], 1007)?;
        expect_order(&[(Pre, 1), (Post, 1)])?;
        expect_counts(world, probes, 0, hits(1, 0))
    })
}

/// Linux: a batch of two kprobes on two functions; the handlers of each run when its function is called, and only then.
pub(super) fn kunit_test_kprobes(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![observed("suite_first_copied", 0, 1)?, observed("suite_max", 0, 2)?], |world, _| {
        call(world, "suite_first_copied", [1000, 7], 1007)?;
        expect_order(&[(Pre, 1), (Post, 1)])?;
        call(world, "suite_max", [1000, 7], 1000)?;
        expect_order(&[(Pre, 2), (Post, 2)])
    })
}

/// Linux: the pre- and the post-handler of a kprobe call another probed function; that one's `nmissed` is 2.
pub(super) fn kunit_test_kprobe_missed(world: &mut dyn Handlers) -> Outcome {
    let recursed = world.address("suite_leaf");
    set_calling(Pre, recursed);
    set_calling(Post, recursed);
    with(world, vec![observed("suite_first_copied", 0, 1)?, observed("suite_leaf", 0, 2)?], |world, probes| {
        call(world, "suite_first_copied", [1000, 7], 1007)?;
        expect_order(&[(Pre, 1), (Post, 1)])?;
        expect_counts(world, probes, 0, hits(1, 0))?;
        expect_counts(world, probes, 1, hits(0, 2))
    })
}

/// Linux: a kretprobe; its entry handler runs, then its handler, which sees the return value.
pub(super) fn kunit_test_kretprobe(world: &mut dyn Handlers) -> Outcome {
    with(world, vec![returning("suite_first_copied", 1).into()], |world, _| {
        call(world, "suite_first_copied", [1000, 7], 1007)?;
        let notes = take();
        expect("handlers", [notes[0].what, notes[1].what], [Entry, Return])?;
        expect("the return value", words_of(&notes, Return, word::RAX), vec![1007])
    })
}

/// Linux: a batch of two kretprobes on two functions.
pub(super) fn kunit_test_kretprobes(world: &mut dyn Handlers) -> Outcome {
    let probes = vec![returning("suite_first_copied", 1).into(), returning("suite_max", 2).into()];
    with(world, probes, |world, probes| {
        for (user, function, result) in [(1, "suite_first_copied", 1007), (2, "suite_max", 1000)] {
            call(world, function, [1000, 7], result)?;
            let notes = take();
            expect("probes", notes.iter().map(|n| n.user).collect(), vec![user; 2])?;
            expect("the return value", words_of(&notes, Return, word::RAX), vec![result])?;
        }
        expect_counts(world, probes, 0, returned(1, 0))?;
        expect_counts(world, probes, 1, returned(1, 0))
    })
}

/// Linux: a stack trace that is taken in a kretprobe's handler has the function's true caller, and one from the handler's
/// registers begins with it. Here: [`Hit::caller`](kprobes::Hit::caller), and the program counter.
pub(super) fn kunit_test_stacktrace_on_kretprobe(world: &mut dyn Handlers) -> Outcome {
    let behind = address(world, "suite_first_call", 1)?;
    with(world, vec![returning("suite_leaf", 1).into()], |world, _| {
        call(world, "suite_first_call", [1, 0], 12)?;
        let notes = take();
        let seen = [word::CALLER, word::PC].map(|at| words_of(&notes, Return, at));
        expect("the caller", seen, [vec![behind], vec![behind]])
    })
}

/// Linux: the same with a kretprobe on the caller too: each handler sees its own function's true caller.
pub(super) fn kunit_test_stacktrace_on_nested_kretprobe(world: &mut dyn Handlers) -> Outcome {
    let places = [("suite_nested", 3), ("suite_nested", 6), ("suite_deep", 2)];
    let mut expected = vec![];
    for (function, number) in places {
        expected.push(address(world, function, number)?);
    }
    let probes = vec![returning("suite_leaf", 1).into(), returning("suite_nested", 2).into()];
    with(world, probes, |world, _| {
        call(world, "suite_deep", [1, 2], 5)?;
        let notes = take();
        expect("callers", words_of(&notes, Return, word::CALLER), expected.clone())?;
        expect("program counters", words_of(&notes, Return, word::PC), expected)
    })
}
