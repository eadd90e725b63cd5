//! Calls of the program's functions, and all that must come of them.

/// A call, its result, and how often each instruction of the program runs in it.
///
/// ```
/// use testkit::suite::SAMPLES;
///
/// // 1 + 2 + 3, by a loop: its fourth instruction runs three times.
/// let sample = SAMPLES.iter().find(|s| (s.function, s.arguments[0]) == ("suite_loop", 3)).unwrap();
/// assert_eq!(sample.result, Some(6));
/// assert_eq!((sample.entries_of("suite_loop"), sample.runs_of("suite_loop", 3)), (1, 3));
/// assert_eq!(sample.entries_of("suite_leaf"), 0, "it is not called");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The function that is called.
    pub function: &'static str,
    /// Its arguments.
    pub arguments: [u64; 2],
    /// Its result; `None` for a function that has none.
    pub result: Option<u64>,
    /// How often each instruction of these functions runs; those of all others do not.
    pub runs: &'static [(&'static str, &'static [u64])],
}

impl Sample {
    /// How often an instruction runs: the function it is in, and its number there.
    #[must_use]
    pub fn runs_of(&self, function: &str, instruction: usize) -> u64 {
        let found = self.runs.iter().find(|(name, _)| *name == function);
        found.and_then(|(_, runs)| runs.get(instruction)).copied().unwrap_or(0)
    }

    /// How often a function is entered. None of the program's functions jumps to its own first instruction.
    #[must_use]
    pub fn entries_of(&self, function: &str) -> u64 {
        self.runs_of(function, 0)
    }
}

/// One call of `suite_leaf`.
const LEAF: (&str, &[u64]) = ("suite_leaf", &[1, 1, 1, 1]);

const fn sample(
    function: &'static str,
    arguments: [u64; 2],
    result: u64,
    runs: &'static [(&'static str, &'static [u64])],
) -> Sample {
    Sample { function, arguments, result: Some(result), runs }
}

/// Calls of every function that can be called from outside.
pub const SAMPLES: &[Sample] = &[
    sample("suite_leaf", [5, 0], 6, &[LEAF]),
    sample("suite_leaf", [u64::MAX, 0], 0, &[LEAF]),
    sample("suite_nested", [1, 2], 5, &[("suite_nested", &[1; 8]), ("suite_leaf", &[2; 4])]),
    sample("suite_deep", [1, 2], 5, &[("suite_deep", &[1; 4]), ("suite_nested", &[1; 8]), ("suite_leaf", &[2; 4])]),
    sample("suite_recurse", [3, 0], 6, &[("suite_recurse", &[4, 4, 4, 4, 4, 3, 3, 3, 4, 4])]),
    sample("suite_recurse", [0, 0], 0, &[("suite_recurse", &[1, 1, 1, 1, 1, 0, 0, 0, 1, 1])]),
    sample("suite_tail", [4, 0], 7, &[("suite_tail", &[1, 1]), LEAF]),
    sample("suite_even", [4, 0], 1, &[("suite_even", &[3, 3, 2, 2, 1, 1]), ("suite_odd", &[2, 2, 2, 2, 0, 0])]),
    sample("suite_even", [3, 0], 0, &[("suite_even", &[2, 2, 2, 2, 0, 0]), ("suite_odd", &[2, 2, 1, 1, 1, 1])]),
    sample("suite_odd", [5, 0], 1, &[("suite_odd", &[3, 3, 3, 3, 0, 0]), ("suite_even", &[3, 3, 2, 2, 1, 1])]),
    sample("suite_odd", [4, 0], 0, &[("suite_odd", &[3, 3, 2, 2, 1, 1]), ("suite_even", &[2, 2, 2, 2, 0, 0])]),
    sample("suite_loop", [3, 0], 6, &[("suite_loop", &[1, 1, 1, 3, 3, 3, 1])]),
    sample("suite_loop", [0, 0], 0, &[("suite_loop", &[1, 1, 1, 0, 0, 0, 1])]),
    sample("suite_count", [4, 0], 4, &[("suite_count", &[1, 1, 1, 4, 4, 1])]),
    sample("suite_count", [0, 0], 0, &[("suite_count", &[1, 1, 1, 0, 0, 1])]),
    sample("suite_many", [5, 0], 5, &[("suite_many", &[1, 1, 1, 1, 1, 5, 5, 5, 5, 1, 1, 1]), ("suite_leaf", &[5; 4])]),
    sample("suite_many", [0, 0], 0, &[("suite_many", &[1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1])]),
    sample("suite_max", [2, 9], 9, &[("suite_max", &[1, 1, 1, 1, 1])]),
    sample("suite_max", [9, 2], 9, &[("suite_max", &[1, 1, 1, 0, 1])]),
    sample("suite_max", [u64::MAX, 1], u64::MAX, &[("suite_max", &[1, 1, 1, 0, 1])]),
    sample("suite_error", [6, 0], 6, &[("suite_error", &[1, 1, 1, 0, 1])]),
    sample("suite_error", [7, 0], ERROR, &[("suite_error", &[1, 1, 1, 1, 1])]),
    sample("suite_call_register", [1, 0], 2, &[("suite_call_register", &[1; 3]), LEAF]),
    sample("suite_call_memory", [1, 0], 2, &[("suite_call_memory", &[1; 5]), LEAF]),
    sample("suite_jump_register", [1, 0], 2, &[("suite_jump_register", &[1; 2]), LEAF]),
    sample("suite_push_return", [1, 0], 2, &[("suite_push_return", &[1; 3]), LEAF]),
    sample("suite_where", [0, 0], 0, &[("suite_where", &[1; 5])]),
    sample("suite_flags", [0, 0], 0x40, &[("suite_flags", &[1; 5])]),
    sample("suite_pushes", [3, 4], 7, &[("suite_pushes", &[1; 4]), ("suite_pops", &[1; 4])]),
    sample("suite_first_jump", [5, 0], 5, &[("suite_first_jump", &[1, 0, 1, 1])]),
    sample("suite_first_call", [1, 0], 12, &[("suite_first_call", &[1; 3]), LEAF]),
    sample("suite_first_copied", [2, 3], 5, &[("suite_first_copied", &[1; 3])]),
    sample("suite_first_relative", [0, 0], 0, &[("suite_first_relative", &[1; 4])]),
    sample("suite_first_endbr", [5, 0], 5, &[("suite_first_endbr", &[1; 3])]),
    sample("suite_wide_call", [10, 20], 135, &[("suite_wide_call", &[1; 17]), ("suite_wide", &[1; 9])]),
    sample("suite_struct_call", [3, 4], 16, &[("suite_struct_call", &[1; 11]), ("suite_struct", &[1; 5])]),
    sample("suite_variadic_call", [5, 0], 8, &[("suite_variadic_call", &[1; 5]), ("suite_variadic", &[1; 3])]),
    sample("suite_load_call", [41, 0], 42, &[("suite_load_call", &[1; 5]), ("suite_load", &[1; 3])]),
    sample("suite_wait_call", [9, 0], 9, &[("suite_wait_call", &[1; 8]), ("suite_wait", &[1; 5])]),
    Sample { function: "suite_first_return", arguments: [0, 0], result: None, runs: &[("suite_first_return", &[1])] },
];

/// What `suite_error` returns for an odd argument: -2.
pub(super) const ERROR: u64 = -2i64 as u64;

#[cfg(test)]
mod tests {
    use super::super::program;
    use super::super::program::VECTORS;
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn samples_reach_every_function_and_name_each_of_its_instructions() {
        let program = program();
        for function in program.functions.iter().filter(|f| !VECTORS.contains(&f.name)) {
            assert!(SAMPLES.iter().any(|s| s.entries_of(function.name) > 0), "{}", function.name);
        }
        for sample in SAMPLES {
            for (name, runs) in sample.runs {
                assert_eq!(program.find(name).unwrap().instructions.len(), runs.len(), "{name} in {sample:?}");
            }
        }
    }

    #[test]
    fn samples_reach_every_instruction_but_the_one_that_is_jumped_over() {
        let program = program();
        let functions = program.functions.iter().filter(|f| !VECTORS.contains(&f.name));
        let instructions = functions.flat_map(|f| f.instructions.iter().enumerate().map(move |i| (f, i)));
        let unreached: Vec<_> = instructions
            .filter(|(f, (i, _))| SAMPLES.iter().all(|s| s.runs_of(f.name, *i) == 0))
            .map(|(f, (_, i))| (f.name, i.text))
            .collect();
        assert_eq!(unreached, [("suite_first_jump", "inc rdi")]);
    }
}
