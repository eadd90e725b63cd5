//! `cargo xtask torture`: builds the tool and the torture suite, optimised, and runs it.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::bench::target_directory;
use crate::qemu;
use crate::shell::{run, run_cargo};

/// What the demo kernel is told: the same in a kernel.
const SCRIPT: [&str; 4] = ["--timeout", "900", "--script", "apps/demo-kernel/scripts/torture"];

/// The suite, with its own options; in its long form also what the demo kernel has of it.
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
    let suite = run(suite.arg(built.join("torture")).arg("--kprobe").arg(built.join("kprobe")).args(options));
    // Alone among the parts it is not the suite's own. In CI the kernel's tests have it already.
    if options.iter().all(|option| !["--short", "--help", "-h"].contains(option) && !option.starts_with("--only"))
        && qemu::main(&SCRIPT) != ExitCode::SUCCESS
    {
        bail!("the demo kernel: probes and jumps under fire");
    }
    suite
}
