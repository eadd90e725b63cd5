//! `cargo xtask torture`: builds the tool and the torture suite, optimised, and runs it.

use std::process::Command;

use anyhow::Result;

use crate::bench::target_directory;
use crate::shell::{run, run_cargo};

/// The suite, with its own options.
///
/// # Errors
///
/// If something cannot be built, or the suite has found something wrong.
pub(crate) fn run_with(options: &[&str]) -> Result<()> {
    run_cargo(&["build", "--release", "-p", "kprobe", "-p", "torture"], &[])?;
    let built = target_directory()?.join("release");
    // With core dumps, which say how somebody died; where there can be none, without.
    let mut suite = Command::new("sh");
    suite.args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\""]);
    run(suite.arg(built.join("torture")).arg("--kprobe").arg(built.join("kprobe")).args(options))
}
