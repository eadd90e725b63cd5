//! The same on Frida: it attaches an interceptor to the hot function and detaches it, again and again.
//!
//! Nothing of it is judged: the row says how many programs have died, beside ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{KINDS, PART};
use crate::Stage;
use crate::finished::Running;
use crate::report::{Report, Verdict};
use crate::target::Target;

const SCRIPT: &str = include_str!("../../programs/frida_toggle.py");

/// Attaches and detaches for each program.
const TOGGLES: &str = "300";

/// Runs it.
///
/// # Errors
///
/// If files cannot be written.
pub(super) fn run(stage: &Stage, report: &mut Report, hot: &Path) -> Result<()> {
    let python = match python(stage.effort.short) {
        Ok(python) => python,
        Err(why) => {
            report.row(PART, "Frida, for comparison", Verdict::Skipped, why);
            return Ok(());
        }
    };
    let folder = stage.place.empty("toggle-frida")?;
    let script = folder.join("toggle.py");
    std::fs::write(&script, SCRIPT)?;
    let targets = if stage.effort.short { 1 } else { 4 };
    for kind in KINDS.iter().filter(|kind| stage.wants(kind.name)) {
        let (mut died, mut toggles, mut ends) = (0, 0, Vec::new());
        for _ in 0..targets {
            let mut target = Target::start(hot, &[kind.name, "3"], &folder)?;
            if target.tell("go", "going").is_err() {
                continue;
            }
            let mut command = Command::new(&python);
            command.arg(&script).args([&target.pid().to_string(), &format!("hot_{}", kind.name), TOGGLES]);
            let finished = Running::start(command, &folder, "frida")?.finish(Duration::from_secs(40));
            toggles += finished
                .text()
                .lines()
                .filter_map(|line| line.strip_prefix("toggles=")?.parse().ok())
                .max()
                .unwrap_or(0);
            std::thread::sleep(Duration::from_millis(100));
            if target.running.has_ended() {
                died += 1;
                ends.push(target.running.end());
            }
        }
        ends.sort();
        ends.dedup();
        let figures =
            format!("{died} of {targets} targets died; {toggles} attach/detach rounds in all; {}", ends.join(", "));
        report.row(PART, &format!("{} from outside, by Frida (not judged)", kind.name), Verdict::Ok, figures);
    }
    Ok(())
}

/// A Python with Frida: kept beside the built programs, since it is large.
fn python(short: bool) -> Result<PathBuf, String> {
    let built = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = built.with_file_name("torture-frida");
    let python = folder.join("bin/python");
    let works = || {
        let import = Command::new(&python).args(["-c", "import frida"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    if works() {
        return Ok(python);
    }
    if short {
        return Err("Frida is not installed here; the long form installs it".into());
    }
    let begin = Instant::now();
    let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).output();
    let made = made.is_ok_and(|output| output.status.success());
    let pip = Command::new(&python).args(["-m", "pip", "install", "-q", "frida"]).output();
    if made && pip.is_ok() && works() {
        return Ok(python);
    }
    let why = pip.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stderr).into_owned());
    Err(format!("Frida could not be installed ({} s): {}", begin.elapsed().as_secs(), why.lines().last().unwrap_or("")))
}
