//! Several probes on one instruction.

use super::super::World;
use super::super::steps::{
    Outcome, call, define, expect_hits, expect_planted, expect_records, expect_returns, remove, with,
};
use alloc::vec::Vec;

pub(super) fn probes_on_one_instruction_run_in_the_order_of_their_definition(world: &mut dyn World) -> Outcome {
    with(world, &["p:c suite_leaf", "p:a suite_leaf", "p:b suite_leaf"], |world| {
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_records(world, &[("c", &[]), ("a", &[]), ("b", &[])])
    })
}

pub(super) fn removing_one_of_several_leaves_the_others(world: &mut dyn World) -> Outcome {
    for removed in ["a", "b", "c"] {
        define(world, &["p:a suite_leaf", "p:b suite_leaf", "p:c suite_leaf"])?;
        remove(world, removed)?;
        expect_planted(world, "suite_leaf", 0)?;
        call(world, "suite_leaf", [1, 0], 2)?;
        let left = ["a", "b", "c"].into_iter().filter(|&event| event != removed);
        let expected: Vec<(&str, &[u64])> = left.clone().map(|event| (event, &[][..])).collect();
        expect_records(world, &expected)?;
        for event in left {
            expect_hits(world, event, 1)?;
            remove(world, event)?;
        }
    }
    Ok(())
}

pub(super) fn a_probe_that_is_defined_later_runs_last(world: &mut dyn World) -> Outcome {
    with(world, &["p:a suite_leaf", "p:b suite_leaf"], |world| {
        remove(world, "a")?;
        define(world, &["p:a suite_leaf"])?;
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_records(world, &[("b", &[]), ("a", &[])])
    })
}

pub(super) fn a_probe_and_a_return_probe_share_an_entry(world: &mut dyn World) -> Outcome {
    with(world, &["r:returns suite_leaf $retval", "p:entry suite_leaf $arg1"], |world| {
        call(world, "suite_nested", [1, 2], 5)?;
        expect_records(world, &[("entry", &[1]), ("returns", &[2]), ("entry", &[4]), ("returns", &[5])])?;
        expect_hits(world, "entry", 2)?;
        expect_returns(world, "returns", 2)
    })
}

pub(super) fn removing_a_return_probe_leaves_the_probe_at_its_entry(world: &mut dyn World) -> Outcome {
    with(world, &["p:entry suite_leaf"], |world| {
        define(world, &["r:returns suite_leaf"])?;
        call(world, "suite_leaf", [1, 0], 2)?;
        remove(world, "returns")?;
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_records(world, &[("entry", &[]), ("returns", &[]), ("entry", &[])])?;
        expect_hits(world, "entry", 2)
    })
}
