//! `uftrace -P`: patches the function when the program is loaded, and records entry and return with their times.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Lab;
use crate::answer;
use crate::case::Case;
use crate::command::{self, limited};
use crate::hot;
use crate::samples::Samples;

pub(super) fn measure(case: &Case, lab: &Lab<'_>) -> Result<Samples> {
    let symbol = case.function.symbol;
    let data = lab.hot.folder().join("uftrace");
    let _ = std::fs::remove_dir_all(&data);
    let program = program(lab)?;
    let mut command = limited("uftrace");
    command.args(["record", "--no-libcall", "-P", symbol, "-d"]).arg(&data).arg(program);
    let mut samples = answer::of(&command::output(command.args(lab.hot.arguments(case)))?)?;
    let text = command::text(limited("uftrace").args(["report", "-f", "call", "-d"]).arg(&data))?;
    samples.hits = Some(calls(&text, symbol).context("uftrace has recorded no call of the function")?);
    Ok(samples)
}

/// The measured program without a function that begins with a 5-byte nop: seeing one, uftrace takes the program for one
/// that was compiled for it, and patches nothing else.
fn program(lab: &Lab<'_>) -> Result<PathBuf> {
    let path = lab.hot.folder().join("for-uftrace");
    if !path.exists() {
        hot::link(lab.hot.folder(), "for-uftrace", &["-Wa,--defsym,for_uftrace=1"])?;
    }
    Ok(path)
}

/// A line of the report: `      N  FUNCTION`.
fn calls(report: &str, symbol: &str) -> Option<u64> {
    let mut lines = report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find_map(|words| match words[..] {
        [calls, name] if name == symbol => calls.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_tells_the_calls() {
        let report = "        Call  Function\n  ==========  ====================\n        3640  t_push\n";
        assert_eq!(calls(report, "t_push"), Some(3640));
        assert_eq!(calls(report, "t_mov"), None);
    }
}
