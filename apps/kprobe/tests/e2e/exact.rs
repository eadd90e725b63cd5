//! Hits against an independent count of the same run: the kernel's own uprobe.
//!
//! Both cannot lie on one address, so the kernel's lies further on, on an instruction that is reached whenever the
//! function's entry is. Each test has a copy of libc of its own, which no other process maps.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::disassembly::{Disassembly, functions};
use crate::harness::memory::file_offset;
use crate::harness::trace::{command, trace_by};
use crate::harness::{counts, need, program, python, run, skipped};
use tempfile::TempDir;

const TRACEFS: &str = "/sys/kernel/tracing";
/// The dynamic linker, which can be told where libraries are.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// An enabled kernel uprobe, removed when dropped.
struct Uprobe {
    event: String,
}

impl Uprobe {
    /// Places a uprobe; `None`, reported as skipped, where this user or kernel cannot.
    fn place(event: &str, path: &Path, offset: u64) -> Option<Self> {
        mount();
        // Names of its own: another run of these tests may be under way.
        let uprobe = Self { event: format!("{event}_{}", std::process::id()) };
        let line = format!("p:kprobe_tests/{} {}:0x{offset:x}\n", uprobe.event, path.display());
        let placed = append("uprobe_events", &line).and_then(|()| uprobe.enable("1"));
        match placed {
            Ok(()) => Some(uprobe),
            Err(error) => {
                skipped(&format!("kernel uprobes: {error}"));
                None
            }
        }
    }

    fn enable(&self, value: &str) -> std::io::Result<()> {
        std::fs::write(format!("{TRACEFS}/events/kprobe_tests/{}/enable", self.event), value)
    }

    /// How often the kernel counted it.
    fn hits(&self) -> u64 {
        let text = std::fs::read_to_string(format!("{TRACEFS}/uprobe_profile")).expect("the profile can be read");
        let fields = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let mine = fields.into_iter().find(|fields| fields.get(1) == Some(&self.event.as_str()));
        mine.expect("the uprobe is in the profile")[2].parse().expect("hits are a number")
    }
}

impl Drop for Uprobe {
    fn drop(&mut self) {
        // What cannot be removed was not placed.
        let _ = self.enable("0");
        let _ = append("uprobe_events", &format!("-:kprobe_tests/{}\n", self.event));
    }
}

fn append(file: &str, line: &str) -> std::io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(format!("{TRACEFS}/{file}"))?.write_all(line.as_bytes())
}

fn mount() {
    if !Path::new(TRACEFS).join("uprobe_events").exists() {
        // Without the right to mount, placing fails and says so.
        let _ = Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]).status();
    }
}

/// The libc that programs map, by its name in this process's own mappings.
fn libc() -> Option<PathBuf> {
    let found =
        crate::harness::memory::mappings(std::process::id()).into_iter().find(|m| m.path.ends_with("/libc.so.6"));
    if found.is_none() {
        skipped("the test runner itself does not use glibc");
    }
    Some(found?.path.into())
}

/// The tool with the system's libc, whatever its environment says: the private one is for its child alone, or the
/// kernel would count the tool's own calls too.
fn tool_with_libc(libc: &Path) -> Command {
    let mut tool = Command::new(LOADER);
    tool.arg("--library-path").arg(libc.parent().expect("libc lies in a folder"));
    tool.arg(env!("CARGO_BIN_EXE_kprobe"));
    tool
}

/// Runs a command with a private libc, `function` counted by both; the hits must agree.
fn agrees(event: &str, function: &str, mut command: Command) {
    let original = need!(libc());
    let folder = TempDir::new().expect("temporary folders can be made");
    let copy = folder.path().join("libc.so.6");
    std::fs::copy(&original, &copy).expect("libc can be copied");
    let symbols = functions(&copy, true);
    let entry = symbols.iter().find(|symbol| symbol.name == function).expect("libc has the function");
    // Past a jump's five bytes.
    let Some(second) = Disassembly::of(&copy).straight_line_after_entry(entry, 5) else {
        return skipped(&format!("{function} has no straight line at its entry in this libc"));
    };
    let Some(uprobe) = Uprobe::place(event, &copy, file_offset(&copy, second)) else { return };
    command.env("LD_LIBRARY_PATH", folder.path());
    let probe = format!("p:counted libc.so.6:{function}");
    let trace = trace_by(tool_with_libc(&original), LIMIT, &["-c"], &[probe], &command);
    assert_eq!(trace.run.status, 0, "{}", trace.run.stderr);
    let summary = trace.summary("counted");
    assert!(summary.hits > 100, "{summary:?}");
    assert_eq!((summary.hits, summary.missed), (uprobe.hits(), 0), "{summary:?}");
}

#[test]
fn the_kernels_count_is_the_programs_own() {
    let original = need!(program("victim.pie"));
    let folder = TempDir::new().expect("temporary folders can be made");
    let copy = folder.path().join("victim");
    std::fs::copy(original, &copy).expect("the program can be copied");
    let symbols = functions(&copy, false);
    let work = symbols.iter().find(|symbol| symbol.name == "work").expect("the program has it");
    let later = Disassembly::of(&copy).straight_line_after_entry(work, 5).expect("it begins with a straight line");
    let uprobe = need!(Uprobe::place("control", &copy, file_offset(&copy, later)));
    let bare = run(command(&copy, &["2000", "3"]));
    assert_eq!(uprobe.hits(), counts("calls", &bare.stdout)["work"]);
}

#[test]
fn ls_agrees_with_the_kernel_on_malloc() {
    agrees("ls_malloc", "malloc", command("ls", &["-lR", "/usr/share/doc"]));
}

#[test]
fn ls_agrees_with_the_kernel_on_readdir() {
    agrees("ls_readdir", "readdir", command("ls", &["-lR", "/usr/share/doc"]));
}

#[test]
fn python_agrees_with_the_kernel_on_malloc() {
    let script = "import json, threading\n\
        def work():\n    for i in range(2000): json.dumps({str(k): 'x' * 600 for k in range(5)})\n\
        threads = [threading.Thread(target=work) for _ in range(3)]\n\
        [t.start() for t in threads]\n[t.join() for t in threads]";
    agrees("python_malloc", "malloc", command(need!(python()), &["-c", script]));
}

#[test]
fn sqlite_agrees_with_the_kernel_on_malloc() {
    if Command::new("sqlite3").arg("-version").output().is_err() {
        return skipped("sqlite3 is not installed");
    }
    let sql = "create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) \
        insert into t select i, hex(randomblob(20)) from n; create index x on t(b); select count(*) from t where b > 'A';";
    agrees("sqlite_malloc", "malloc", command("sqlite3", &[":memory:", sql]));
}
