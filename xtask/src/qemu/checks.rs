//! `cargo xtask kernel-tests`: everything that is checked by booting the demo kernel.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Kernel, Modules, Options, Run, closure};
use crate::setup;

/// The documents' example: a return probe on `sys_open` sees a failure.
const EXAMPLE: &str = include_str!("../../../apps/demo-kernel/scripts/open-failures");
/// What its trace must contain.
const SEEN: &str = "<- sys_open) arg1=-2";
/// The same by a probe module.
const MODULE: &str = include_str!("../../../apps/demo-kernel/scripts/module-open-failures");
/// What that must print.
const SAID: &str = "sys_open returns -2: /etc/missing";
/// On how many processors the tests run.
const PROCESSORS: [u32; 3] = [1, 2, 4];
/// How long all tests may take on one machine, which may be busy with others.
const PATIENCE: Duration = Duration::from_secs(400);

/// Builds the kernel, checks what a trap runs, and runs the example, all tests and some seconds of stress in it.
///
/// # Errors
///
/// At the first thing that is wrong. Without QEMU, nothing is checked and that is said.
pub(crate) fn run() -> Result<()> {
    if let Err(skipped) = setup::for_kernel() {
        println!("{skipped}");
        return Ok(());
    }
    let kernel = Kernel::build(&Modules::Built)?;
    closure::run(&kernel)?;
    let example = script(&kernel, EXAMPLE, 2)?;
    ensure!(example.output.contains(SEEN), "the example's trace does not show the failure: no `{SEEN}`");
    // The negative control of that: without the probe there is no such line.
    let silent = script(&kernel, "expect-error cat /etc/missing\ntrace\nhalt\n", 2)?;
    ensure!(!silent.output.contains(SEEN), "a failure was traced without a probe");
    let module = script(&kernel, MODULE, 2)?;
    // Once: it is tried again when the module has gone.
    ensure!(module.output.matches(SAID).count() == 1, "the module does not tell of the failure, or not once: `{SAID}`");
    for processors in PROCESSORS {
        script(&kernel, "test\nstress 2\nhalt\n", processors)?;
    }
    Ok(())
}

fn script(kernel: &Kernel, script: &str, processors: u32) -> Result<Run> {
    let run = kernel.run(script, &Options { processors, timeout: PATIENCE, ..Options::default() })?;
    ensure!(run.status == 0, "the kernel says that something went wrong, on {processors} processors");
    Ok(run)
}
