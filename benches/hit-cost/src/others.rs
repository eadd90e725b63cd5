//! Other probes: on functions of libc, which the measured program uses, but not in what it times.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::cases::OTHERS;

/// Writes the definitions of [`OTHERS`] probes, spread over all functions of libc that can be probed.
///
/// # Errors
///
/// If this program has no shared libc, which the measured program then lacks as well, or it has too few functions.
pub(crate) fn choose(kprobe: &Path) -> Result<NamedTempFile> {
    let libc = libc().context("there is no libc.so.6 to place other probes in")?;
    let name = libc.file_name().and_then(|name| name.to_str()).context("libc's name")?;
    let functions = functions(kprobe, &libc)?;
    let lines: Vec<_> = functions.iter().map(|function| format!("p {name}:{function}")).collect();
    let placed = placed(kprobe, &libc, &lines)?;
    if placed.len() < OTHERS {
        bail!("only {} functions of {} can be probed, {OTHERS} are needed", placed.len(), libc.display());
    }
    let step = placed.len() / OTHERS;
    let chosen: Vec<_> = placed.into_iter().step_by(step).take(OTHERS).filter_map(|at| lines.get(at)).collect();
    file(&chosen)
}

/// The libc of this process.
fn libc() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.find(|path| path.ends_with("/libc.so.6")).map(PathBuf::from)
}

/// Its functions, each name once. Indirect ones are left out: a probe would sit on their resolver.
fn functions(kprobe: &Path, libc: &Path) -> Result<Vec<String>> {
    let text = run(Command::new(kprobe).arg("list").arg(libc))?;
    let plain = |name: &&str| !name.contains(char::is_whitespace);
    let mut names: Vec<_> =
        text.lines().filter_map(|line| line.split('\t').nth(2)).filter(plain).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Which of the definitions can be placed, each address once.
fn placed(kprobe: &Path, libc: &Path, lines: &[String]) -> Result<Vec<usize>> {
    // Each event is named by its definition's place in the list, for `check` to say which one it speaks of.
    let named = |(at, line): (usize, &String)| line.replacen("p ", &format!("p:o{at} "), 1);
    let named: Vec<_> = lines.iter().enumerate().map(named).collect();
    let file = file(&named)?;
    let output = Command::new(kprobe).args(["check", "-e", &format!("@{}", file.path().display())]).arg(libc).output();
    // Some are refused, and `check` fails then.
    let text = String::from_utf8_lossy(&output.context("cannot start kprobe check")?.stdout).into_owned();
    let mut seen = HashSet::new();
    Ok(text.lines().filter_map(placement).filter(|(_, address)| seen.insert(*address)).map(|(at, _)| at).collect())
}

/// `oN: OBJECT:SYMBOL+OFFSET at 0xADDRESS: how  | instruction`
fn placement(line: &str) -> Option<(usize, &str)> {
    let (name, rest) = line.split_once(": ")?;
    let (_, rest) = rest.split_once(" at 0x")?;
    let (address, how) = rest.split_once(": ")?;
    how.contains("  | ").then_some((name.strip_prefix('o')?.parse().ok()?, address))
}

fn file<T: AsRef<str>>(lines: &[T]) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::with_prefix("hit-cost-").context("a temporary file")?;
    for line in lines {
        writeln!(file, "{}", line.as_ref()).context("a temporary file")?;
    }
    file.flush().context("a temporary file")?;
    Ok(file)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_names_its_definition_and_its_address() {
        let line = "o12: libc.so.6:_exit+0x0/0x48 at 0xd43e0: breakpoint, boosted  | mov r8, [rip+0xfe9f9]";
        assert_eq!(placement(line), Some((12, "d43e0")));
    }

    #[test]
    fn a_refusal_is_no_placement() {
        let line = "o3: refused: `f` is ambiguous in libc.so.6: 0x140180 (writeunix) and f at 0x142980: say which";
        assert_eq!(placement(line), None);
    }
}
