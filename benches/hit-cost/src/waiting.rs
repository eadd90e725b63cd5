//! The measured program, held before its first call and after its last, for those who attach to a running process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};

use crate::answer;
use crate::case::Case;
use crate::command::limited;
use crate::hot::Hot;
use crate::samples::Samples;

/// A program that waits. Dropped, it is let go, and ends.
#[derive(Debug)]
pub(crate) struct Waiting {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Its process.
    pub(crate) pid: u32,
    /// Where the function is that will be called.
    pub(crate) address: u64,
}

impl Waiting {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// If it does not come to wait.
    pub(crate) fn start(hot: &Hot, case: &Case) -> Result<Self> {
        let mut command = limited(hot.path());
        command.args(hot.arguments(case)).arg("wait").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().context("cannot start the measured program")?;
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().context("the measured program has no output")?);
        let mut line = String::new();
        output.read_line(&mut line).context("the measured program")?;
        let (pid, address) = ready(&line).with_context(|| format!("the measured program says `{}`", line.trim()))?;
        Ok(Self { child, input, output, pid, address })
    }

    /// Lets it make its calls; it waits again then.
    ///
    /// # Errors
    ///
    /// If it ends instead, as one does that has been harmed.
    pub(crate) fn go(&mut self) -> Result<Samples> {
        let input = self.input.as_mut().context("the measured program's input")?;
        input.write_all(b"\n").and_then(|()| input.flush()).context("the measured program's input")?;
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).context("the measured program's output")? == 0 {
                bail!("the measured program has died: {}", self.child.wait().context("its status")?);
            }
            if line == "done\n" {
                return answer::parse(&text);
            }
            text += &line;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// `ready PID 0xADDRESS`
fn ready(line: &str) -> Option<(u32, u64)> {
    let (pid, address) = line.trim().strip_prefix("ready ")?.split_once(' ')?;
    Some((pid.parse().ok()?, u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_program_that_waits_is_read() {
        assert_eq!(ready("ready 12 0x5f10\n"), Some((12, 0x5f10)));
        assert_eq!(ready("burst 12\n"), None);
    }
}
