//! Handlers: a module of our own, which counts, is inserted into the waiting program and removed from it again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Tool;
use crate::case::{At, Case};
use crate::command::{self, limited};
use crate::hot::Hot;
use crate::samples::Samples;
use crate::waiting::Waiting;

const NAME: &str = "count-calls";
/// Where the tool does not say how a module's probe is placed, but would say it of one of its own.
pub(super) const PLANNED: &str = "by `check`: ";

/// Builds the module whose source is in `module`.
///
/// # Errors
///
/// If the tool cannot.
pub(super) fn build(kprobe: &Path, module: &Path, folder: &Path) -> Result<PathBuf> {
    let file = folder.join("count-calls.ko");
    command::text(limited(kprobe).arg("build").arg(module).arg("-o").arg(&file)).context("the module with handlers")?;
    Ok(file)
}

pub(super) fn measure(tool: &Tool, module: &Path, case: &Case, hot: &Hot) -> Result<Samples> {
    let mut program = Waiting::start(hot, case)?;
    let pid = program.pid.to_string();
    let at = match case.at {
        At::Entry => "entry",
        At::Return => "return",
        At::Both => "both",
    };
    let parameters = [format!("symbol=hot:{}", case.function.symbol), format!("at={at}")];
    command::text(tool.command("insmod", case).args(["-p", &pid]).arg(module).args(parameters))?;
    let mut samples = program.go()?;
    let text = command::text(limited(&tool.path).args(["lsmod", "-p", &pid]))?;
    samples.placed = placed(&text).map_or_else(|| planned(tool, case, &pid), Ok)?;
    let said = command::text(limited(&tool.path).args(["rmmod", "-p", &pid, NAME]))?;
    check(&said, case, samples.calls)?;
    samples.hits = Some(samples.calls);
    Ok(samples)
}

/// How the probe is placed, where the list of modules says so: `… [how] …`.
fn placed(modules: &str) -> Option<String> {
    let (_, rest) = modules.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// How `kprobe check` would place a probe there, which need not be how the module's is.
fn planned(tool: &Tool, case: &Case, pid: &str) -> Result<String> {
    let letter = if case.at == At::Entry { 'p' } else { 'r' };
    let line = format!("{letter}:probe hot:{}", case.function.symbol);
    let text = command::text(tool.command("check", case).args(["-p", pid, "-e", &line]))?;
    Ok(format!("{PLANNED}{}", how(&text).context("kprobe check says nothing of the probe")?))
}

/// `EVENT: OBJECT:SYMBOL+OFFSET at 0xADDRESS: how  | instruction`
fn how(check: &str) -> Option<&str> {
    let (_, rest) = check.split_once(" at 0x")?;
    let (_, rest) = rest.split_once(": ")?;
    Some(rest.split("  |").next()?.trim())
}

/// `entered=N returned=N missed=N`
fn check(said: &str, case: &Case, calls: u64) -> Result<()> {
    let number = |key: &str| {
        let mut words = said.split_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(name, _)| *name == key).and_then(|(_, value)| value.parse::<u64>().ok())
    };
    let keys: &[&str] = match case.at {
        At::Entry => &["entered"],
        At::Return => &["returned"],
        At::Both => &["entered", "returned"],
    };
    for key in keys {
        let counted = number(key).with_context(|| format!("the module says `{}`", said.trim()))?;
        if counted != calls || number("missed") != Some(0) {
            bail!("{calls} calls, but the module says `{}`", said.trim());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{PUSH, Who, Work};

    #[test]
    fn what_the_module_has_counted_is_compared() {
        let case = Case::new(Who::Ours, At::Both, Work::Handler, PUSH);
        let said = "[45325.309058][   T2215] count-calls: entered=278 returned=278 missed=0\n";
        assert!(check(said, &case, 278).is_ok());
        assert!(check(said, &case, 279).is_err());
        assert!(check(&said.replace("missed=0", "missed=1"), &case, 278).is_err());
        assert!(check("", &case, 278).is_err());
    }

    #[test]
    fn how_is_what_check_says_between_address_and_instruction() {
        let line = "y: hot:t_push+0x0/0xa at 0x5622ad6afe80: breakpoint at the entry, return stub  | push rbp\n";
        assert_eq!(how(line), Some("breakpoint at the entry, return stub"));
    }
}
