//! `ltrace -x`: prints a line for each call, with its value.

use anyhow::{Context, Result};

use super::Lab;
use crate::answer;
use crate::case::Case;
use crate::command::{self, limited};
use crate::samples::Samples;

pub(super) fn measure(case: &Case, lab: &Lab<'_>) -> Result<Samples> {
    let symbol = case.function.symbol;
    let trace = lab.hot.folder().join("ltrace");
    let mut command = limited("ltrace");
    command.args(["-e", "", "-x", symbol, "-o"]).arg(&trace).arg("--").arg(lab.hot.path());
    let mut samples = answer::of(&command::output(command.args(lab.hot.arguments(case)))?)?;
    samples.hits = Some(calls(&std::fs::read_to_string(&trace).context("ltrace's output")?, symbol));
    Ok(samples)
}

/// Lines like `t_push(0, 0x5581, 1, 2) = 1`, or `t_push@hot(…`.
fn calls(text: &str, symbol: &str) -> u64 {
    let is_call = |line: &&str| line.strip_prefix(symbol).is_some_and(|rest| rest.starts_with(['(', '@']));
    text.lines().filter(is_call).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_function_are_counted() {
        let text = "t_push(0, 0x5581, 1, 2) = 1\nt_push@hot(1, 0x5581, 1, 2) = 2\n+++ exited (status 0) +++\n";
        assert_eq!(calls(text, "t_push"), 2);
    }
}
