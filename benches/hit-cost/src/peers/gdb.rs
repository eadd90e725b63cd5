//! `gdb`: a breakpoint that is ignored a billion times, which it counts.

use anyhow::{Context, Result};

use super::Lab;
use crate::answer;
use crate::case::Case;
use crate::command::{self, limited};
use crate::samples::Samples;

pub(super) fn measure(case: &Case, lab: &Lab<'_>) -> Result<Samples> {
    let probe = format!("break *{}", case.function.symbol);
    // A program that has ended takes no breakpoint's count along.
    let script = ["set pagination off", "starti", &probe, "ignore 1 1000000000", "continue", "info breakpoints"];
    let mut command = limited("gdb");
    command.args(["-nx", "-batch"]);
    for line in script {
        command.args(["-ex", line]);
    }
    command.arg("--args").arg(lab.hot.path()).args(lab.hot.arguments(case));
    let output = command::output(&mut command)?;
    let mut samples = answer::of(&output)?;
    samples.hits = Some(hits(&String::from_utf8_lossy(&output.stdout)).context("gdb printed no count")?);
    Ok(samples)
}

/// `breakpoint already hit N times`
fn hits(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("breakpoint already hit ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_an_ignored_breakpoint_is_read() {
        let text = "1       breakpoint     keep y   0x0000555555555e80 <t_push>\n\tbreakpoint already hit 2420 times\n";
        assert_eq!(hits(text), Some(2420));
        assert_eq!(hits("No breakpoints or watchpoints.\n"), None);
    }
}
