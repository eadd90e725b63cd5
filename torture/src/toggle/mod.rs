//! Probes that come and go on a function while three threads and more are inside it.
//!
//! Three functions, by what a jump over their first five bytes would displace: one long instruction; several, with
//! boundaries inside the jump on which a preempted thread may stand; several across the border of two cache lines.
//! Their threads check each result. Behind the window a probe stays and counts, and at the end hits + missed must be
//! the calls, exactly.
//!
//! * **from outside** (here): the tool attaches, plants, removes and goes, and a module's probe stays meanwhile;
//! * **within one process** ([`inside`]), thousands of times: by all that makes a jump come and go;
//! * **Frida** ([`frida`]) does to the same program what we do, for comparison: its deaths are counted, not judged.

mod frida;
pub(crate) mod inside;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::Stage;
use crate::programs;
use crate::report::{Report, Verdict};
use crate::target::{PATIENCE, Target};
use crate::toggler::{Toggler, Toggles};

const PART: &str = "toggle";

/// A function: its name, where an instruction begins inside its window, where its `ret` is.
struct Kind {
    name: &'static str,
    interior: Option<u32>,
    ret: u32,
}

const KINDS: [Kind; 3] = [
    Kind { name: "long", interior: None, ret: 7 },
    Kind { name: "several", interior: Some(1), ret: 9 },
    Kind { name: "across", interior: Some(4), ret: 9 },
];

impl Kind {
    /// Probes that come and go.
    fn definitions(&self) -> Vec<String> {
        let function = format!("hot_{}", self.name);
        let interior = self.interior.map(|at| format!("p:inner {function}+{at} a=%rdi"));
        let always = [format!("p:entry {function} a=%rdi"), format!("r:back {function} v=$retval")];
        always.into_iter().chain(interior).collect()
    }
}

/// Runs the part.
///
/// # Errors
///
/// If a program cannot be built though there is a compiler.
pub(crate) fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let hot = match programs::build(stage, "hot.c", "hot", &[])? {
        Ok(path) => path,
        Err(why) => {
            report.row(PART, "everything", Verdict::Skipped, why);
            return Ok(());
        }
    };
    let stay = module(stage)?;
    let share = stage.effort.time / 7;
    for kind in KINDS.iter().filter(|kind| stage.wants(kind.name)) {
        let end = Instant::now() + share;
        let outcome = outside(stage, &hot, &stay, kind, "", |target, toggler, random| {
            let mut toggles = Toggles::default();
            toggler.until(target, random, end, &mut toggles).map(|()| toggles)
        });
        report.case(stage, PART, &format!("{} from outside, 3 threads", kind.name), outcome);
    }
    controls(stage, report, &hot, &stay);
    inside::run(stage, report, share)?;
    frida::run(stage, report, &hot)
}

/// The module with the probe that stays.
fn module(stage: &Stage) -> Result<PathBuf> {
    let path = stage.place.path().join("stay.ko");
    let folder = programs::tests().join("modules");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/stay.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-c", "-O2", "-ffreestanding", "-fPIE", "-fno-stack-protector", "-fcf-protection=none", "-DABI=1"]);
    gcc.arg("-DREGS=144").arg("-I").arg(folder).arg("-o").arg(&path).arg(source);
    let output = gcc.output()?;
    if !output.status.success() {
        bail!("stay.c: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(path)
}

/// One function: what stays is put in, the threads start, `torment` does its worst, they stop, and all is counted.
fn outside(
    stage: &Stage,
    hot: &Path,
    stay: &Path,
    kind: &Kind,
    lie: &str,
    torment: impl FnOnce(&mut Target, &Toggler<'_>, &mut testkit::generate::Random) -> Result<Toggles, String>,
) -> Result<String, String> {
    let text = |error: anyhow::Error| format!("{error:#}");
    let folder = stage.place.empty(&format!("toggle-{}", kind.name)).map_err(text)?;
    let prepare = |command: &mut Command| {
        if !lie.is_empty() {
            command.env("TORTURE_LIE", lie);
        }
    };
    let mut target = Target::start_with(hot, &[kind.name, "3"], &folder, prepare).map_err(text)?;
    insert(stage, &target, stay, kind, &folder)?;
    target.tell("go", "going")?;
    let definitions = kind.definitions();
    let definitions: Vec<_> = definitions.iter().map(String::as_str).collect();
    let toggler = Toggler { stage, folder: &folder, definitions: &definitions, longest: 25, options: &[] };
    let mut random = stage.random(kind.name);
    let toggles = torment(&mut target, &toggler, &mut random)?;
    target.tell("stop", "stopped")?;
    let (calls, faults) = (target.number("calls").unwrap_or(0), target.number("faults"));
    let [hits, missed] = stayed(stage, &target, &folder)?;
    let removed = tool(stage, &["rmmod", "-p", &target.pid().to_string(), "stay"], &folder)?;
    let changed = target.changed_text();
    if faults != Some(0) || hits + missed != calls || calls == 0 || !changed.is_empty() {
        return Err(format!(
            "{calls} calls, but the probe that stays has {hits} hits and {missed} missed ({removed}); {faults:?} wrong \
             results; code that differs from its file: {changed:?}; {}\n  {}",
            toggles.figures(),
            target.condition()
        ));
    }
    let finished = target.finish();
    if finished.status != Some(0) {
        return Err(format!("at its end: {}; {}", finished.end(), finished.errors()));
    }
    Ok(format!("{calls} calls = {hits} hits + {missed} missed of the probe that stays; {}", toggles.figures()))
}

fn tool(stage: &Stage, words: &[&str], folder: &Path) -> Result<String, String> {
    let finished = stage.tool.run(words, folder, PATIENCE).map_err(|error| format!("{error:#}"))?;
    match finished.status {
        Some(0) => Ok(finished.text()),
        _ => Err(format!("kprobe {}: {}; {}{}", words.join(" "), finished.end(), finished.text(), finished.errors())),
    }
}

fn insert(stage: &Stage, target: &Target, stay: &Path, kind: &Kind, folder: &Path) -> Result<(), String> {
    let (symbol, offset) = (format!("symbol=hot_{}", kind.name), format!("offset={}", kind.ret));
    let (pid, stay) = (target.pid().to_string(), stay.to_string_lossy());
    tool(stage, &["insmod", "-p", &pid, &stay, &symbol, &offset], folder).map(|_| ())
}

/// Hits and missed of the probe that stays.
fn stayed(stage: &Stage, target: &Target, folder: &Path) -> Result<[u64; 2], String> {
    let list = tool(stage, &["lsmod", "-p", &target.pid().to_string()], folder)?;
    let line = list.lines().find(|line| line.starts_with("stay ")).unwrap_or_default();
    let mut columns = line.split_ascii_whitespace().skip(4).map(str::parse);
    match (columns.next(), columns.next()) {
        (Some(Ok(hits)), Some(Ok(missed))) => Ok([hits, missed]),
        _ => Err(format!("lsmod does not show the module: {list}")),
    }
}

/// A program that counts one call too many; one whose code was damaged; one that was killed by its code.
fn controls(stage: &Stage, report: &mut Report, hot: &Path, stay: &Path) {
    let [_, several, _] = &KINDS;
    let only = |outcome: Result<String, String>| outcome.map(|_| ());
    let lie = outside(stage, hot, stay, several, "1", |_, _, _| Ok(Toggles::default()));
    report.control(stage, PART, "one call too many", only(lie));
    let damage = |bytes: &'static [u8]| {
        outside(stage, hot, stay, several, "", move |target, _, _| {
            let at = target.address("hot_several").map_err(|error| format!("{error:#}"))?;
            target.poke(at + 7, bytes).map_err(|error| format!("{error:#}"))?;
            std::thread::sleep(std::time::Duration::from_millis(100));
            Ok(Toggles::default())
        })
    };
    report.control(stage, PART, "a changed byte of the function", only(damage(&[8])));
    report.control(stage, PART, "an instruction that kills", only(damage(&[0x0F, 0x0B])));
}
