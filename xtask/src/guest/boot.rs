//! The guest under QEMU, counted by instructions.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use super::command::last_lines;

/// Several times what a run takes on two busy processors.
const SECONDS: &str = "240";
/// `timeout` says so when time was over: that it ended the command, or had to kill it.
const OUT_OF_TIME: [Option<i32>; 2] = [Some(124), Some(137)];
/// What every processor of today has; but not five-level page tables, which would lengthen walks for nothing.
const PROCESSOR: &str = "max,la57=off";
/// Without `nokaslr` addresses, and so hash chains, would differ; with `panic` a guest that dies ends at once.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=t nokaslr rdinit=/init";

/// Boots, waits for the end, and gives what the guest wrote on its serial line, which `log` keeps.
///
/// # Errors
///
/// If QEMU cannot be started, fails, or does not end in time.
pub(super) fn run(vmlinux: &Path, initrd: &Path, log: &Path) -> Result<String> {
    let file = fs::File::create(log).with_context(|| log.display().to_string())?;
    let errors = file.try_clone().with_context(|| log.display().to_string())?;
    eprintln!("guest: booting, for about 40 seconds");
    let status = command(vmlinux, initrd)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .status()
        .context("cannot start timeout, to start QEMU")?;
    let serial = fs::read(log).with_context(|| log.display().to_string())?;
    let serial = String::from_utf8_lossy(&serial).replace('\r', "");
    check(status, &serial)?;
    Ok(serial)
}

/// One processor and one thread; all clocks follow the count of instructions and randomness has a seed, so that nothing
/// from outside gets in.
fn command(vmlinux: &Path, initrd: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "-k", "2", SECONDS, "qemu-system-x86_64"]);
    command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-smp", "1"]);
    command.args(["-rtc", "base=2024-01-01,clock=vm", "-seed", "1"]);
    command.args(["-M", "q35", "-cpu", PROCESSOR, "-m", "512", "-nodefaults", "-no-user-config"]);
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(vmlinux).arg("-initrd").arg(initrd).args(["-append", COMMAND_LINE]);
    command
}

fn check(status: ExitStatus, serial: &str) -> Result<()> {
    if OUT_OF_TIME.contains(&status.code()) {
        bail!("the guest did not end within {SECONDS} s; it last said:\n{}", last_lines(serial));
    }
    if !status.success() {
        bail!("QEMU: {status}; the guest last said:\n{}", last_lines(serial));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn message(code: i32) -> String {
        check(ExitStatus::from_raw(code << 8), "first\nlast\n").unwrap_err().to_string()
    }

    #[test]
    fn a_guest_that_hangs_is_told_from_one_that_fails() {
        assert!(message(124).contains("did not end"), "{}", message(124));
        assert!(message(1).contains("exit status: 1"), "{}", message(1));
    }

    #[test]
    fn a_guest_that_ends_is_no_error() {
        assert!(check(ExitStatus::from_raw(0), "").is_ok());
    }
}
