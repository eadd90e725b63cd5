//! Frida, by its Python package: attached to the waiting program, with a handler in C or in JavaScript that counts.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};

use super::Lab;
use crate::case::{At, Case};
use crate::command::limited;
use crate::samples::Samples;
use crate::waiting::Waiting;

const DRIVER: &str = include_str!("../../programs/frida_probe.py");

pub(super) fn measure(language: &str, case: &Case, lab: &Lab<'_>) -> Result<Samples> {
    let python = lab.python();
    if !python.exists() {
        bail!("Frida's Python package was not installed");
    }
    let driver = lab.hot.folder().join("frida_probe.py");
    std::fs::write(&driver, DRIVER).context("Frida's driver")?;
    let mut program = Waiting::start(lab.hot, case)?;
    let at = if case.at == At::Both { "both" } else { "entry" };
    let mut command = limited(python);
    command.arg(driver).args([program.pid.to_string(), format!("{:#x}", program.address)]).args([language, at]);
    // Frida leaves folders behind where temporary files are.
    command.env("TMPDIR", lab.hot.folder());
    let mut frida = Driver(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    let mut output = BufReader::new(frida.0.stdout.take().context("Frida's output")?);
    if frida.line(&mut output)? != "attached" {
        bail!("Frida does not attach: {}", frida.complaint());
    }
    let mut samples = program.go()?;
    let input = frida.0.stdin.as_mut().context("Frida's input")?;
    input.write_all(b"\n").and_then(|()| input.flush()).context("Frida's input")?;
    samples.hits = Some(hits(&frida.line(&mut output)?).context("Frida says nothing of hits")?);
    Ok(samples)
}

/// The process that controls Frida; it has ended when this is dropped.
#[derive(Debug)]
struct Driver(Child);

impl Driver {
    fn line(&self, output: &mut BufReader<ChildStdout>) -> Result<String> {
        let mut line = String::new();
        output.read_line(&mut line).context("Frida's output")?;
        Ok(line.trim().to_owned())
    }

    /// The last line of its standard error, when it has ended.
    fn complaint(&mut self) -> String {
        let lines = self.0.stderr.take().map(|error| BufReader::new(error).lines().map_while(Result::ok).collect());
        let lines: Vec<String> = lines.unwrap_or_default();
        lines.last().cloned().unwrap_or_default()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn hits(line: &str) -> Option<u64> {
    line.strip_prefix("hits ")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_tells_the_hits() {
        assert_eq!(hits("hits 48000"), Some(48000));
        assert_eq!(hits("attached"), None);
    }
}
