//! Return probes.

use super::super::samples::ERROR;
use super::super::steps::{
    Outcome, call, counts, expect, expect_hits, expect_records, expect_returns, offset_of, take, with,
};
use super::super::{Counts, World};
use alloc::format;
use alloc::vec::Vec;

pub(super) fn return_values_are_recorded(world: &mut dyn World) -> Outcome {
    with(world, &["r:leaf suite_leaf $retval", "r:max suite_max value=$retval:u64"], |world| {
        call(world, "suite_leaf", [41, 0], 42)?;
        call(world, "suite_max", [3, 8], 8)?;
        expect_records(world, &[("leaf", &[42]), ("max", &[8])])?;
        expect_returns(world, "leaf", 1)?;
        expect_returns(world, "max", 1)
    })
}

pub(super) fn an_error_is_recorded_as_it_is_returned(world: &mut dyn World) -> Outcome {
    with(world, &["r:error suite_error $retval:s64 low=$retval:u32"], |world| {
        call(world, "suite_error", [7, 0], ERROR)?;
        call(world, "suite_error", [8, 0], 8)?;
        expect_records(world, &[("error", &[ERROR, 0xffff_fffe]), ("error", &[8, 8])])
    })
}

pub(super) fn a_recursion_returns_from_the_innermost_outwards(world: &mut dyn World) -> Outcome {
    with(world, &["r64:sum suite_recurse $retval $arg1"], |world| {
        call(world, "suite_recurse", [4, 0], 10)?;
        let expected: [(&str, &[u64]); 5] =
            [("sum", &[0, 0]), ("sum", &[1, 1]), ("sum", &[3, 2]), ("sum", &[6, 3]), ("sum", &[10, 4])];
        expect_records(world, &expected)?;
        expect_returns(world, "sum", 5)
    })
}

pub(super) fn a_return_knows_the_arguments_of_its_own_entry(world: &mut dyn World) -> Outcome {
    // The function itself overwrites `rdi`.
    with(world, &["r:nested suite_nested $arg1 $retval", "r:loop suite_loop $arg1 $retval"], |world| {
        call(world, "suite_nested", [1, 2], 5)?;
        call(world, "suite_loop", [3, 0], 6)?;
        expect_records(world, &[("nested", &[1, 5]), ("loop", &[3, 6])])
    })
}

pub(super) fn a_tail_call_returns_for_both_functions(world: &mut dyn World) -> Outcome {
    with(world, &["r:tail suite_tail $retval $arg1", "r:leaf suite_leaf $retval $arg1"], |world| {
        call(world, "suite_tail", [4, 0], 7)?;
        expect_records(world, &[("leaf", &[7, 6]), ("tail", &[7, 4])])?;
        expect_returns(world, "tail", 1)?;
        expect_returns(world, "leaf", 1)
    })
}

pub(super) fn functions_that_tail_call_each_other_return_once_for_each_activation(world: &mut dyn World) -> Outcome {
    // All of them share one return address on the stack.
    with(world, &["r:even suite_even $retval $arg1", "r:odd suite_odd $retval $arg1"], |world| {
        call(world, "suite_even", [3, 0], 0)?;
        expect_records(world, &[("odd", &[0, 0]), ("even", &[0, 1]), ("odd", &[0, 2]), ("even", &[0, 3])])?;
        expect_returns(world, "even", 2)?;
        expect_returns(world, "odd", 2)
    })
}

pub(super) fn activations_beyond_maxactive_are_missed(world: &mut dyn World) -> Outcome {
    with(world, &["r1:one suite_recurse $retval", "r3:three suite_recurse $retval"], |world| {
        call(world, "suite_recurse", [4, 0], 10)?;
        let expected = |hits| Counts { hits, missed: 5 - hits, returned: hits, ..Counts::default() };
        let (one, three) = (counts(world, "one")?, counts(world, "three")?);
        expect("counts with room for 1", one, expected(1))?;
        expect("counts with room for 3", three, expected(3))?;
        let records = take(world)?;
        let values =
            |event| records.iter().filter(|(e, _)| e == event).flat_map(|(_, v)| v.clone()).collect::<Vec<_>>();
        // Those that came first are the outermost.
        expect("values with room for 1", values("one"), [10].to_vec())?;
        expect("values with room for 3", values("three"), [3, 6, 10].to_vec())
    })
}

pub(super) fn a_return_probe_that_missed_watches_as_many_again_afterwards(world: &mut dyn World) -> Outcome {
    with(world, &["r2:two suite_recurse"], |world| {
        for round in 1..=5 {
            call(world, "suite_recurse", [4, 0], 10)?;
            let expected = Counts { hits: 2 * round, missed: 3 * round, returned: 2 * round, ..Counts::default() };
            expect("counts", counts(world, "two")?, expected)?;
        }
        take(world).map(drop)
    })
}

pub(super) fn an_instance_is_free_again_after_its_return(world: &mut dyn World) -> Outcome {
    with(world, &["r1:leaf suite_leaf $retval"], |world| {
        call(world, "suite_many", [100, 0], 100)?;
        expect_returns(world, "leaf", 100)
    })
}

pub(super) fn a_function_whose_first_instruction_is_of_any_class_returns(world: &mut dyn World) -> Outcome {
    let functions: [(&str, [u64; 2], u64); 8] = [
        ("suite_leaf", [1, 0], 2),
        ("suite_nested", [1, 2], 5),
        ("suite_first_jump", [5, 0], 5),
        ("suite_first_call", [1, 0], 12),
        ("suite_first_copied", [2, 3], 5),
        ("suite_first_relative", [0, 0], 0),
        ("suite_first_endbr", [5, 0], 5),
        ("suite_where", [0, 0], 0),
    ];
    for (function, arguments, result) in functions {
        with(world, &[format!("p:entry {function}"), format!("r:returns {function} $retval")], |world| {
            call(world, function, arguments, result)?;
            expect_records(world, &[("entry", &[]), ("returns", &[result])])?;
            expect_returns(world, "returns", 1)
        })?;
    }
    with(world, &["r:returns suite_first_return"], |world| {
        world.call("suite_first_return", [0, 0]);
        expect_returns(world, "returns", 1)
    })?;
    take(world).map(drop)
}

pub(super) fn a_function_that_pops_its_arguments_returns(world: &mut dyn World) -> Outcome {
    with(world, &["r:pops suite_pops $retval", "r:pushes suite_pushes $retval"], |world| {
        call(world, "suite_pushes", [3, 4], 7)?;
        expect_records(world, &[("pops", &[7]), ("pushes", &[7])])?;
        expect_returns(world, "pops", 1)
    })
}

pub(super) fn a_function_called_through_a_register_or_memory_returns(world: &mut dyn World) -> Outcome {
    let (by_register, by_memory) = (offset_of("suite_call_register", 1)?, offset_of("suite_call_memory", 2)?);
    let lines = [
        format!("p:register suite_call_register+{by_register}"),
        format!("p:memory suite_call_memory+{by_memory}"),
        "r:leaf suite_leaf $retval".into(),
    ];
    with(world, &lines, |world| {
        call(world, "suite_call_register", [1, 0], 2)?;
        call(world, "suite_call_memory", [2, 0], 3)?;
        expect_records(world, &[("register", &[]), ("leaf", &[2]), ("memory", &[]), ("leaf", &[3])])
    })
}

pub(super) fn several_return_probes_on_one_function_each_record(world: &mut dyn World) -> Outcome {
    with(world, &["r:a suite_leaf $retval", "r:b suite_leaf $retval", "r:c suite_leaf $retval"], |world| {
        call(world, "suite_leaf", [1, 0], 2)?;
        let mut records = take(world)?;
        records.sort();
        let expected = ["a", "b", "c"].map(|event| (event.into(), [2].to_vec())).to_vec();
        expect("records", records, expected)?;
        ["a", "b", "c"].iter().try_for_each(|event| expect_returns(world, event, 1))
    })
}

pub(super) fn a_return_probe_bears_the_address_of_its_function(world: &mut dyn World) -> Outcome {
    let leaf = world.address("suite_leaf");
    with(world, &["r:leaf suite_leaf"], |world| {
        call(world, "suite_nested", [1, 2], 5)?;
        let addresses: Vec<u64> = world.records().iter().map(|r| r.address).collect();
        expect("addresses", addresses, [leaf, leaf].to_vec())
    })
}

pub(super) fn a_probe_on_the_return_instruction_comes_before_the_return_probe(world: &mut dyn World) -> Outcome {
    let ret = offset_of("suite_leaf", 3)?;
    with(world, &["r:returns suite_leaf $retval".into(), format!("p:last suite_leaf+{ret} %ax")], |world| {
        call(world, "suite_leaf", [1, 0], 2)?;
        expect_records(world, &[("last", &[2]), ("returns", &[2])])?;
        expect_hits(world, "last", 1)?;
        expect_returns(world, "returns", 1)
    })
}

pub(super) fn threads_return_each_with_its_own_values(world: &mut dyn World) -> Outcome {
    with(world, &["r64:sum suite_recurse $retval $arg1"], |world| {
        let calls: Vec<(&str, [u64; 2])> = (1..=4).map(|n| ("suite_recurse", [n * 3, 0])).collect();
        let sum = |n: u64| n * (n + 1) / 2;
        expect("results", world.call_together(&calls), [sum(3), sum(6), sum(9), sum(12)].to_vec())?;
        let wrong =
            take(world)?.into_iter().find(|(_, values)| values.first() != values.get(1).map(|&n| sum(n)).as_ref());
        expect("a return with another's values", wrong, None)?;
        expect_returns(world, "sum", 4 + 7 + 10 + 13)
    })
}
