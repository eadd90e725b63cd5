//! What is recorded, and in which order.

use super::super::World;
use super::super::steps::{Outcome, call, expect, expect_records, offset_of, with};
use alloc::format;
use alloc::vec::Vec;

pub(super) fn records_come_in_the_order_of_execution(world: &mut dyn World) -> Outcome {
    let last = offset_of("suite_nested", 7)?;
    let lines = [
        "p:nested suite_nested".into(),
        "p:leaf suite_leaf".into(),
        "r:leaf_returns suite_leaf".into(),
        format!("p:nested_last suite_nested+{last}"),
        "r:nested_returns suite_nested".into(),
    ];
    with(world, &lines, |world| {
        call(world, "suite_nested", [1, 2], 5)?;
        let order = ["nested", "leaf", "leaf_returns", "leaf", "leaf_returns", "nested_last", "nested_returns"];
        expect_records(world, &order.map(|event| (event, &[][..])))
    })
}

pub(super) fn arguments_are_recorded_at_the_entry(world: &mut dyn World) -> Outcome {
    with(world, &["p:max suite_max $arg1 second=$arg2:u64 cut=$arg2:u8"], |world| {
        call(world, "suite_max", [7, 0x1_0003], 0x1_0003)?;
        call(world, "suite_max", [u64::MAX, 0], u64::MAX)?;
        expect_records(world, &[("max", &[7, 0x1_0003, 3]), ("max", &[u64::MAX, 0, 0])])
    })
}

pub(super) fn registers_are_recorded_where_the_probe_is(world: &mut dyn World) -> Outcome {
    let (inc, ret) = (offset_of("suite_leaf", 2)?, offset_of("suite_leaf", 3)?);
    with(world, &[format!("p:before suite_leaf+{inc} %ax %di"), format!("p:after suite_leaf+{ret} %ax %di")], |world| {
        call(world, "suite_leaf", [41, 0], 42)?;
        expect_records(world, &[("before", &[41, 41]), ("after", &[42, 41])])
    })
}

pub(super) fn the_stack_is_recorded_as_the_function_sees_it(world: &mut dyn World) -> Outcome {
    // At its entry the word on top is where the function returns to; above lie what its caller pushed.
    let back = world.address("suite_pushes") + offset_of("suite_pushes", 3)?;
    with(world, &["p:pops suite_pops +0(%sp) $stack1 $stack2"], |world| {
        call(world, "suite_pushes", [3, 4], 7)?;
        expect_records(world, &[("pops", &[back, 4, 3])])
    })
}

pub(super) fn a_record_bears_the_address_of_its_probe(world: &mut dyn World) -> Outcome {
    let ret = offset_of("suite_leaf", 3)?;
    let leaf = world.address("suite_leaf");
    with(world, &["p:entry suite_leaf".into(), format!("p:last suite_leaf+{ret}")], |world| {
        call(world, "suite_leaf", [1, 0], 2)?;
        let addresses: Vec<u64> = world.records().iter().map(|r| r.address).collect();
        expect("addresses", addresses, [leaf, leaf + ret].to_vec())
    })
}

pub(super) fn records_are_given_once(world: &mut dyn World) -> Outcome {
    with(world, &["p:leaf suite_leaf"], |world| {
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_records(world, &[("leaf", &[])])?;
        expect_records(world, &[])?;
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_records(world, &[("leaf", &[])])
    })
}

pub(super) fn every_round_of_a_loop_is_recorded_with_its_values(world: &mut dyn World) -> Outcome {
    let add = offset_of("suite_loop", 3)?;
    with(world, &[format!("p:round suite_loop+{add} sum=%ax left=%di")], |world| {
        call(world, "suite_loop", [4, 0], 10)?;
        expect_records(world, &[("round", &[0, 4]), ("round", &[4, 3]), ("round", &[7, 2]), ("round", &[9, 1])])
    })
}

pub(super) fn immediate_values_are_recorded(world: &mut dyn World) -> Outcome {
    with(world, &["p:leaf suite_leaf \\5 \\0x10"], |world| {
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_records(world, &[("leaf", &[5, 16])])
    })
}
