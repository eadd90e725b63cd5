//! Commands that are heard of only if they fail.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// How much of what a failed command said is repeated.
const LAST_LINES: usize = 12;

/// Runs a command to its end and gives its standard output.
///
/// # Errors
///
/// If it cannot be started or fails; with the last it said.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Messages are parsed, and compared with others' reports.
    let output = command.env("LC_ALL", "C").output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}: {}", output.status, last_lines(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(output.stdout)
}

/// The end of a text that may be long.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_reported_with_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh: exit status: 3: why");
    }

    #[test]
    fn a_command_that_does_not_exist_is_an_error() {
        let error = output(&mut Command::new("no-such-program")).unwrap_err();
        assert_eq!(error.to_string(), "cannot start no-such-program");
    }

    #[test]
    fn of_a_long_text_the_end_is_given() {
        let text: String = (0..20).map(|n| format!("{n}\r\n\n")).collect();
        assert_eq!(last_lines(&text).lines().collect::<Vec<_>>(), (8..20).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}
