//! `cargo xtask bench`: what one hit of a probe costs, as a table.
//!
//! With `--peers`, other tools and libraries are installed and measured too; with `--keep`, the results stay in the
//! repository, in a folder that is named by the day.

mod peers;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell::{cargo, output, root, run, run_cargo};

const MODULE: &str = "benches/hit-cost/modules/count-calls";
const RUNS: &str = "benches/runs";

/// Builds the tool and the benchmark, optimised, and runs the benchmark with `options`.
///
/// # Errors
///
/// If one of them cannot be built, or a row did not measure what it says. No time is too long.
pub(crate) fn run_with(options: &[&str]) -> Result<()> {
    run_cargo(&["build", "--release", "-p", "kprobe", "-p", "hit-cost"], &[])?;
    let built = target_directory()?;
    let release = built.join("release");
    let mut command = Command::new(release.join("hit-cost"));
    command.arg("--kprobe").arg(release.join("kprobe")).arg("--module").arg(root().join(MODULE));
    for option in options {
        command.arg(option);
        match *option {
            "--peers" => command.arg(peers::install(&built.join("peers"))),
            "--keep" => command.arg(root().join(RUNS)),
            _ => &mut command,
        };
    }
    run(&mut command)
}

/// Where cargo puts what it builds: the environment and the user's configuration may say so.
///
/// # Errors
///
/// If cargo does not tell.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let text = output(Command::new(cargo()).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    metadata["target_directory"].as_str().map(PathBuf::from).context("cargo metadata names no target directory")
}
