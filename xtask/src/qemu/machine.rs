//! QEMU: its command line and what its end means.

use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use super::session::{self, Session};
use super::{Kernel, Options, Run};
use crate::shell::succeeds;

const QEMU: &str = "qemu-system-x86_64";
const MEMORY_MIB: &str = "256";
/// The port that ends QEMU with the exit status `2 * value + 1`.
const DEBUG_EXIT: &str = "isa-debug-exit,iobase=0xf4,iosize=4";
/// What the kernel writes there when all is well: QEMU then exits with 33, which no failure of its own does.
const SUCCESS: u8 = 0x10;
/// What it writes there when it panics.
const PANIC: u8 = 0x11;

impl Kernel {
    /// Boots and runs a script.
    ///
    /// # Errors
    ///
    /// As [`super::run_script`].
    pub(crate) fn run(&self, script: &str, options: &Options) -> Result<Run> {
        let mut command = qemu(self, options);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let child = child.with_context(|| format!("cannot start {QEMU}"))?;
        let Session { output, status, first_prompt } = session::run(child, script, options.timeout, options.show)?;
        Ok(Run { output, status: outcome(status)?, boot_time: first_prompt })
    }
}

/// Boots with the terminal as console, until the kernel halts.
///
/// # Errors
///
/// If QEMU cannot be started or ends otherwise than by the kernel's will.
pub(super) fn interactive(kernel: &Kernel, options: &Options) -> Result<u8> {
    outcome(qemu(kernel, options).status().with_context(|| format!("cannot start {QEMU}"))?)
}

/// The command. The machine must not outlive us, whoever ends us.
fn qemu(kernel: &Kernel, options: &Options) -> Command {
    let mut command = if succeeds("setpriv", &["--pdeathsig", "KILL", "true"]) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", QEMU]);
        command
    } else {
        Command::new(QEMU)
    };
    command.args(arguments(options)).arg("-kernel").arg(kernel.image()).arg("-initrd").arg(kernel.disk());
    command
}

fn arguments(options: &Options) -> Vec<String> {
    let processors = if options.icount { 1 } else { options.processors }.to_string();
    // With a counted clock there can be but one thread; without it the processors race as real ones do.
    let timing: &[&str] = if options.icount {
        &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]
    } else {
        &["-accel", "tcg,thread=multi"]
    };
    let machine = ["-cpu", "max,la57=off", "-m", MEMORY_MIB, "-smp", &processors, "-display", "none", "-no-reboot"];
    let devices = ["-nodefaults", "-monitor", "none", "-serial", "stdio", "-device", DEBUG_EXIT];
    let append = ["-append", &options.append];
    [timing, &machine, &devices, &append].concat().into_iter().map(str::to_owned).collect()
}

/// What the kernel left with.
fn outcome(status: ExitStatus) -> Result<u8> {
    let code = status.code().with_context(|| format!("QEMU was killed: {status}"))?;
    match u8::try_from(code) {
        Ok(0) => bail!("the machine was reset: the kernel did not halt it"),
        // QEMU's own failures end with 1, as would the value 0, which the kernel never writes.
        Ok(code) if code % 2 == 1 && code > 1 => match code / 2 {
            SUCCESS => Ok(0),
            PANIC => bail!("the kernel panicked"),
            value => Ok(value),
        },
        _ => bail!("QEMU failed: {status}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn exit(code: i32) -> Result<u8> {
        outcome(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn success_is_zero() {
        assert_eq!(exit(33).unwrap(), 0);
    }

    #[test]
    fn a_failure_is_the_value_that_the_kernel_wrote() {
        assert_eq!(exit(3).unwrap(), 1);
        assert_eq!(exit(255).unwrap(), 127);
    }

    #[test]
    fn other_ends_are_errors() {
        assert!(exit(0).unwrap_err().to_string().contains("reset"));
        assert!(exit(1).unwrap_err().to_string().contains("QEMU failed"));
        assert!(exit(2).is_err());
        assert!(exit(35).unwrap_err().to_string().contains("panicked"));
        assert!(outcome(ExitStatus::from_raw(9)).unwrap_err().to_string().contains("killed"));
    }

    #[test]
    fn a_counted_clock_has_one_processor() {
        let options = Options { icount: true, processors: 4, ..Options::default() };
        let line = arguments(&options).join(" ");
        assert!(line.contains("-smp 1 ") && line.contains("-icount shift=0,sleep=off") && !line.contains("multi"));
    }
}
