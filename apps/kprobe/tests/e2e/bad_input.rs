//! What the tool says to what it cannot do. `cargo test -p kprobe bad_input -- --nocapture` prints the table.

use std::process::Command;

use crate::harness::run::{Finished, run};
use crate::harness::trace::kprobe;
use crate::harness::{Target, need, program};

/// Where `PROGRAM`, `GO`, `NARROW`, `TEXT` stand in arguments, there go the paths of such files.
struct Bad {
    arguments: &'static [&'static str],
    status: i32,
    says: &'static [&'static str],
}

const fn bad(status: i32, arguments: &'static [&'static str], says: &'static [&'static str]) -> Bad {
    Bad { arguments, status, says }
}

/// A trace of the program with one probe definition.
macro_rules! probe {
    ($status:literal, $line:literal, $($says:literal),*) => {
        bad($status, &["trace", "-e", $line, "--", "PROGRAM"], &[$($says),*])
    };
}

const TABLE: &[Bad] = &[
    // Usage: exit status 2.
    bad(2, &[], &["sage"]),
    bad(2, &["trace"], &["sage"]),
    bad(2, &["trace", "--", "PROGRAM"], &["-e"]),
    bad(2, &["trace", "-e", "p:work work"], &["sage"]),
    bad(2, &["trace", "-e", "p:work work", "-p", "1", "--", "PROGRAM"], &["cannot be used with"]),
    bad(2, &["trace", "-e", "p:work work", "-p", "pid"], &["pid"]),
    bad(2, &["trace", "-e", "p:work work", "--format", "xml", "--", "PROGRAM"], &["xml", "jsonl"]),
    bad(2, &["trace", "-e", "p:work work", "--duration", "soon", "--", "PROGRAM"], &["soon"]),
    bad(2, &["trace", "--unknown", "--", "PROGRAM"], &["--unknown"]),
    bad(2, &["frobnicate"], &["frobnicate"]),
    // Definitions.
    probe!(2, "x:work work", "x:work"),
    probe!(2, "p:work", "p:work"),
    probe!(2, "", ""),
    probe!(2, "p:1bad work", "1bad"),
    probe!(2, "p:work work+", "work+"),
    probe!(2, "p:work work arg=%nosuch", "%nosuch", "^"),
    probe!(2, "p:work work arg=%di:nosuch", "nosuch", "^"),
    probe!(2, "p:work work arg=+0(%di", "^"),
    probe!(2, "p:work work a=%di a=%si", "a"),
    probe!(2, "p:work work arg=$retval", "$retval"),
    probe!(2, "r0x:work work", "r0x"),
    bad(2, &["trace", "-e", "-:work", "--", "PROGRAM"], &["removes a probe"]),
    bad(2, &["trace", "-e", "p:work PROGRAM:0x1000(0x2000)", "--", "PROGRAM"], &["reference counters"]),
    bad(1, &["trace", "-e", "@/nonexistent/file", "--", "PROGRAM"], &["/nonexistent/file"]),
    // Places.
    probe!(1, "p:work wrok", "wrok", "work"),
    probe!(1, "p:work work+0x10000", "work"),
    probe!(1, "p:work five_bytes+0x1", "boundary"),
    probe!(2, "r:work work+0x4", "work"),
    probe!(1, "r:work libc.so.6:_setjmp", "more than once"),
    probe!(1, "r:work PROGRAM:_start", "no caller"),
    probe!(1, "p:work 0x10", "0x10"),
    probe!(1, "p:work PROGRAM:0xfffffff", "0xfffffff"),
    probe!(1, "p:work /nonexistent.so:0x100", "/nonexistent.so"),
    // Targets.
    bad(1, &["trace", "-e", "p:work work", "--", "/nonexistent"], &["/nonexistent"]),
    bad(1, &["trace", "-e", "p:work work", "--", "TEXT"], &["TEXT"]),
    bad(1, &["trace", "-e", "p:work work", "--", "NARROW"], &["32-bit"]),
    bad(1, &["trace", "-e", "p:work work", "-p", "999999999"], &["999999999"]),
    bad(2, &["trace", "-e", "p:work work", "-p", "0"], &["0"]),
    bad(1, &["trace", "-e", "p:work work", "-o", "/nonexistent/out", "--", "PROGRAM"], &["/nonexistent/out"]),
    bad(1, &["list", "/nonexistent"], &["/nonexistent"]),
    bad(1, &["list", "TEXT"], &["TEXT"]),
    bad(1, &["check", "-e", "p:work wrok", "PROGRAM"], &["wrok"]),
];

/// The files that the table's words stand for.
struct Files {
    words: Vec<(&'static str, String)>,
}

impl Files {
    fn replace(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, path)| text.replace(word, path))
    }
}

fn check(bad: &Bad, files: &Files) -> Result<(), String> {
    let arguments: Vec<_> = bad.arguments.iter().map(|argument| files.replace(argument)).collect();
    let mut tool = kprobe();
    tool.args(&arguments);
    let Finished { status, stdout, stderr } = run(tool);
    println!("kprobe {}\n  exit {status}", bad.arguments.join(" "));
    stderr.lines().take(4).for_each(|line| println!("  {line}"));
    let said = [stdout.as_str(), stderr.as_str()].concat();
    let missing = bad.says.iter().find(|words| !said.contains(&files.replace(words)));
    let problem = if status != bad.status {
        format!("exit status {status}, not {}", bad.status)
    } else if let Some(words) = missing {
        format!("does not say {words:?}")
    } else if said.trim().is_empty() {
        "says nothing".to_owned()
    } else if stderr.contains("panicked") {
        "panics".to_owned()
    } else if stdout.contains("sum=") && bad.status == 1 {
        "the command ran all the same".to_owned()
    } else {
        return Ok(());
    };
    Err(format!("kprobe {}: {problem}\n{stderr}", bad.arguments.join(" ")))
}

#[test]
fn bad_input_is_refused_with_its_reason() {
    let text = tempfile::NamedTempFile::new().expect("temporary files can be made");
    std::fs::write(text.path(), "no program").expect("a temporary file can be written");
    let path = |path: &std::path::Path| path.to_str().expect("a plain path").to_owned();
    let mut words = vec![("PROGRAM", path(&need!(program("victim.pie")))), ("TEXT", path(text.path()))];
    words.push(("NARROW", path(&need!(program("narrow")))));
    let files = Files { words };
    let failures: Vec<_> = TABLE.iter().filter_map(|bad| check(bad, &files).err()).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), TABLE.len(), failures.join("\n"));
}

/// Attaching with one definition must fail, say why, and leave the target able to finish its work.
fn refused_attach(target: Target, definition: &str, says: &str) {
    let mut tool = kprobe();
    tool.args(["trace", "-c", "--duration", "1", "-e", definition, "-p"]).arg(target.pid().to_string());
    let run = run(tool);
    println!("kprobe trace -e '{definition}' -p PID\n  exit {}\n  {}", run.status, run.stderr.trim());
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert!(run.stderr.contains(says), "{}", run.stderr);
    let finished = target.finish();
    assert_eq!(finished.status, 0, "the target was harmed: {}{}", finished.stdout, finished.stderr);
}

#[test]
fn a_wrong_symbol_leaves_a_running_target_unharmed() {
    let path = need!(program("churn"));
    refused_attach(Target::start(&path, &["2"]), "p:work wrok", "wrok");
}

#[test]
fn a_wrong_boundary_leaves_a_running_target_unharmed() {
    let path = need!(program("churn"));
    refused_attach(Target::start(&path, &["2"]), "p:work work+0x1", "boundary");
}

#[test]
fn a_target_of_another_user_is_refused() {
    let path = need!(program("churn"));
    if !is_root() {
        return crate::harness::skipped("only root can become another user");
    }
    let target = Target::start(&path, &["2"]);
    // The tool's folder may be closed to that user: a copy in an open place is run.
    let open = tempfile::Builder::new().prefix("kprobe-e2e").tempdir().expect("temporary folders can be made");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(open.path(), readable).expect("permissions can be set");
    let tool = open.path().join("kprobe");
    std::fs::copy(env!("CARGO_BIN_EXE_kprobe"), &tool).expect("the tool can be copied");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups"]).arg(&tool);
    command.args(["trace", "-e", "p:work work", "-p"]).arg(target.pid().to_string());
    let run = run(command);
    assert_eq!(run.status, 1, "{}", run.stderr);
    assert!(run.stderr.contains("ermi"), "it says that permission is missing: {}", run.stderr);
    assert_eq!(target.finish().status, 0);
}

#[test]
fn a_sealed_target_is_traced_or_refused_but_lives() {
    let path = need!(program("sealed"));
    let target = Target::start(&path, &[]);
    let mut tool = kprobe();
    tool.args(["trace", "-c", "--duration", "1", "-e", "p:work work", "-p"]).arg(target.pid().to_string());
    let run = run(tool);
    assert!(run.status == 0 || (run.status == 1 && run.stderr.contains("eccomp")), "{}", run.stderr);
    let finished = target.finish();
    assert_eq!((finished.stdout.as_str(), finished.status), ("ready\nsum=14950\n", 0), "{}", finished.stderr);
}

#[test]
fn a_program_that_seals_itself_is_freed_of_its_probes_before() {
    let path = need!(program("sealed"));
    let mut tool = kprobe();
    tool.args(["trace", "-c", "-e", "p:work work", "--"]).arg(&path);
    let run = run(tool);
    assert_eq!((run.stdout.as_str(), run.status), ("ready\nsum=14950\n", 0), "{}", run.stderr);
    assert!(run.stderr.contains("removed before"), "{}", run.stderr);
}

#[test]
fn a_hidden_target_is_traced_by_root() {
    let path = need!(program("hidden"));
    if !is_root() {
        return crate::harness::skipped("only root may trace a program that may not be dumped");
    }
    let mut target = Target::start(&path, &[]);
    let tracer = crate::harness::Tracer::count(&target, &["work"]);
    target.go();
    assert_eq!(tracer.finish().summary("work").hits, 100);
    assert_eq!(target.finish().stdout, "ready\nsum=14950\n");
}

#[test]
fn a_second_tool_on_one_target_works_or_says_why_not() {
    let path = need!(program("churn"));
    let target = Target::start(&path, &["2"]);
    let tracer = crate::harness::Tracer::count(&target, &["work"]);
    let mut tool = kprobe();
    tool.args(["trace", "-c", "--duration", "1", "-e", "p:work work", "-p"]).arg(target.pid().to_string());
    let second = run(tool);
    assert!(second.status == 0 || !second.stderr.is_empty(), "it works or says why not");
    assert!(tracer.interrupt().summary("work").hits > 0);
    assert!(target.finish().stdout.contains("faults=0\n"));
}

#[test]
fn programs_that_end_or_execute_at_once_are_traced() {
    for script in ["exit 3", "exec true", ":"] {
        let expected = i32::from(script == "exit 3") * 3;
        let mut tool = kprobe();
        tool.args(["trace", "-c", "-e", "p:m libc.so.6:malloc", "--", "sh", "-c", script]);
        let run = run(tool);
        assert_eq!(run.status, expected, "{script}: {}", run.stderr);
    }
    let mut tool = kprobe();
    tool.args(["trace", "-c", "-e", "p:m libc.so.6:malloc", "--", "true"]);
    assert_eq!(run(tool).status, 0);
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}
