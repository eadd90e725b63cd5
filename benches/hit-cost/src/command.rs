//! Commands that cannot hang.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The longest that one round of a row may take, in seconds.
const LIMIT: &str = "60";
/// What coreutils' `timeout` exits with when it had to end the command.
const ENDED: i32 = 124;
/// What ends `timeout` itself when it had to kill the command.
const KILL: i32 = 9;

/// A command that is ended, with all that it has started, if it takes too long.
pub(crate) fn limited(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", LIMIT]).arg(program).stdin(Stdio::null());
    command
}

/// Runs a command.
///
/// # Errors
///
/// If it cannot be started, or had to be ended. A command that fails is no error here.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    let output = command.output().context("cannot start a command")?;
    check_ended(output.status)?;
    Ok(output)
}

fn check_ended(status: ExitStatus) -> Result<()> {
    if status.code() == Some(ENDED) || status.signal() == Some(KILL) {
        bail!("it did not end within {LIMIT} s");
    }
    Ok(())
}

/// What a command prints.
///
/// # Errors
///
/// If it cannot be started, had to be ended, or fails: then with the last line that it has said.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{}: {}", output.status, said.trim().lines().last().unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first line that a command prints, if it succeeds: a program's version.
pub(crate) fn first_line(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let text = text(limited(program).args(arguments)).ok()?;
    text.lines().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_says_when_it_fails_is_told() {
        let error = text(limited("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().ends_with("two"), "{error}");
    }

    #[test]
    fn a_command_that_is_not_there_has_no_version() {
        assert_eq!(first_line("no-such-command", &["--version"]), None);
    }
}
