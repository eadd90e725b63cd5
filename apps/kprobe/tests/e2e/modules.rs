//! Probe modules: inserted into running programs, removed, and all that can go wrong on the way.

mod cycles;
mod examples;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::memory::{changed_text, mappings};
use crate::harness::run::{Running, signal, wait_until};
use crate::harness::trace::kprobe;
use crate::harness::{Finished, Target, Tracer, need, program, python, run, skipped};

/// Builds the test module under a name, with further definitions.
fn module(name: &str, definitions: &[&str]) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("modules");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/modules/probe.c");
    // Tests run side by side, and some build the same module.
    let file = tempfile::Builder::new().prefix(name).suffix(".ko").tempfile_in(&folder).expect("a file can be made");
    let path = file.into_temp_path().keep().expect("a file can be kept");
    let mut gcc = Command::new("gcc");
    gcc.args(["-c", "-O2", "-ffreestanding", "-fPIE", "-fno-stack-protector", "-fcf-protection=none", "-DABI=1"]);
    gcc.args(["-DREGS=144", &format!("-DNAME={name}")]).args(definitions).arg("-o").arg(&path).arg(source);
    let finished = run(gcc);
    if finished.status == 127 {
        skipped("gcc is not installed");
        return None;
    }
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    Some(path)
}

fn tool(arguments: &[&str], pid: u32, rest: &[&str]) -> Finished {
    let mut command = kprobe();
    command.args(arguments).args(["-p", &pid.to_string()]).args(rest);
    run(command)
}

fn insmod(pid: u32, file: &Path, parameters: &[&str]) -> Finished {
    let file = file.to_str().expect("a path of ours");
    tool(&["insmod"], pid, &[&[file], parameters].concat())
}

/// Inserts a module that must go in.
fn insert(pid: u32, file: &Path, parameters: &[&str]) -> String {
    let finished = insmod(pid, file, parameters);
    assert_eq!(finished.status, 0, "{}{}", finished.stdout, finished.stderr);
    finished.stdout
}

/// Removes a module that must go.
fn remove(pid: u32, name: &str) -> String {
    let finished = tool(&["rmmod"], pid, &[name]);
    assert_eq!((finished.status, finished.stderr.as_str()), (0, ""), "{}", finished.stdout);
    finished.stdout
}

fn lsmod(pid: u32) -> String {
    tool(&["lsmod"], pid, &[]).stdout
}

fn is_listed(pid: u32, name: &str) -> bool {
    lsmod(pid).lines().any(|line| line.starts_with(&format!("{name} ")))
}

fn dmesg(pid: u32) -> String {
    tool(&["dmesg"], pid, &[]).stdout
}

/// Hits of a module's probes, as `lsmod` shows them.
fn hits(pid: u32, name: &str) -> u64 {
    let list = lsmod(pid);
    let line = list.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default().to_owned();
    line.split_ascii_whitespace().nth(4).map_or(0, |hits| hits.parse().expect("hits are a number"))
}

fn said(output: &str, module: &str, text: &str) -> bool {
    output.lines().any(|line| line.ends_with(&format!("] {module}: {text}")))
}

/// The target ends well, with its text as it was.
fn ends_well(target: Target) {
    assert_eq!(changed_text(target.pid()), [], "the text is not what it was");
    let finished = target.finish();
    assert_eq!(finished.status, 0, "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("faults=0\n"), "{}", finished.stdout);
}

#[test]
fn a_module_works_without_a_tool_until_it_is_removed() {
    let (path, file) = (need!(program("churn")), need!(module("one", &[])));
    let target = Target::start(&path, &["2"]);
    let out = insert(target.pid(), &file, &[]);
    assert!(said(&out, "one", "one is here"), "{out}");
    wait_until("the probe is hit", || hits(target.pid(), "one") > 0);
    let before = hits(target.pid(), "one");
    wait_until("it goes on", || hits(target.pid(), "one") > before);
    let out = remove(target.pid(), "one");
    assert!(said(&out, "one", "was hit") && said(&out, "one", "one leaves"), "{out}");
    assert!(!out.contains("wrong") && !is_listed(target.pid(), "one"), "{out}");
    ends_well(target);
}

/// No agent was mapped.
fn assert_untouched(pid: u32) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    assert!(!maps.contains(host_process::abi::MEMFD_NAME), "the target was touched: {maps}");
}

#[test]
fn parameters_arrive_and_wrong_ones_touch_nothing() {
    let (path, file) = (need!(program("churn")), need!(module("params", &[])));
    let target = Target::start(&path, &["1"]);
    let cases: [(&[&str], &str); 6] = [
        (&["size=1"], "no parameter `size`"),
        (&["level=x"], "level=x: a number"),
        (&["print=2"], "y or n"),
        (&["level=1", "level=2"], "given twice"),
        (&["level"], "NAME=VALUE"),
        (&["symbol=0123456789012345678901234567890123456789012345678901234567890123456789"], "room for 64 bytes"),
    ];
    for (parameters, why) in cases {
        let finished = insmod(target.pid(), &file, parameters);
        assert!(finished.status == 1 && finished.stderr.contains(why), "{parameters:?}: {}", finished.stderr);
    }
    assert_untouched(target.pid());
    let out = insert(target.pid(), &file, &["level=0xff", "offset=-3", "symbol=malloc"]);
    assert!(said(&out, "params", "255") && said(&out, "params", "3"), "{out}");
    remove(target.pid(), "params");
    ends_well(target);
}

#[test]
fn return_probes_keep_their_data_for_each_call() {
    let (path, file) = (need!(program("churn")), need!(module("returns", &[])));
    let target = Target::start(&path, &["4"]);
    insert(target.pid(), &file, &["kind=3"]);
    wait_until("it is hit", || hits(target.pid(), "returns") > 1000);
    let out = remove(target.pid(), "returns");
    assert!(!out.contains("wrong"), "{out}");
    ends_well(target);
}

#[test]
fn jprobes_see_the_call() {
    let (path, file) = (need!(program("churn")), need!(module("mirrors", &[])));
    let target = Target::start(&path, &["2"]);
    insert(target.pid(), &file, &["kind=2"]);
    wait_until("it is hit", || hits(target.pid(), "mirrors") > 100);
    assert!(!remove(target.pid(), "mirrors").contains("wrong"));
    ends_well(target);
}

#[test]
fn removal_leaves_mappings_as_they_were() {
    let (path, file) = (need!(program("churn")), need!(module("maps", &[])));
    let target = Target::start(&path, &["2"]);
    insert(target.pid(), &file, &["kind=3"]);
    remove(target.pid(), "maps");
    let before: Vec<_> = mappings(target.pid()).iter().map(|m| (m.permissions.clone(), m.path.clone())).collect();
    insert(target.pid(), &file, &["kind=3"]);
    assert!(mappings(target.pid()).len() > before.len());
    assert!(!mappings(target.pid()).iter().any(crate::harness::memory::Mapping::is_writable_and_executable));
    remove(target.pid(), "maps");
    let after: Vec<_> = mappings(target.pid()).iter().map(|m| (m.permissions.clone(), m.path.clone())).collect();
    assert_eq!(before, after);
    ends_well(target);
}

#[test]
fn an_init_that_fails_leaves_nothing() {
    let (path, file) = (need!(program("churn")), need!(module("bad", &[])));
    let target = Target::start(&path, &["2"]);
    let cases = [
        ("symbol=nosuch", "its init has failed (-1)"),
        ("fail=y", "its init has failed (-7)"),
        ("crash=y", "its init raised SIGSEGV at bad+0x"),
        ("trap=y", "its init executed a breakpoint at bad+0x"),
        ("bad=y", "its init has failed (-1)"),
        ("kind=9", "its init has failed (-1)"),
        ("spin=y", "its init did not end within 5 seconds"),
    ];
    for (parameter, why) in cases {
        let finished = insmod(target.pid(), &file, &[parameter]);
        assert!(finished.status == 1 && finished.stderr.contains(why), "{parameter}: {}", finished.stderr);
        assert_eq!(changed_text(target.pid()), [], "{parameter}");
        assert!(!is_listed(target.pid(), "bad"), "{parameter}");
        let reason = match parameter {
            "symbol=nosuch" => "no function `nosuch`",
            "bad=y" => "a handler at 0x1000 is not in the module's code",
            "kind=9" => "unknown kind 9",
            _ => continue,
        };
        assert!(finished.stdout.contains(reason), "{parameter}: {}", finished.stdout);
    }
    ends_well(target);
}

#[test]
fn an_exit_that_faults_does_not_keep_the_module() {
    let (path, file) = (need!(program("churn")), need!(module("stays", &[])));
    let target = Target::start(&path, &["1"]);
    insert(target.pid(), &file, &["exit_crash=y"]);
    let finished = tool(&["rmmod"], target.pid(), &["stays"]);
    assert!(finished.stderr.contains("its exit raised SIGSEGV"), "{}", finished.stderr);
    assert_eq!(finished.status, 0);
    assert!(!is_listed(target.pid(), "stays"));
    ends_well(target);
}

#[test]
fn two_modules_work_at_the_same_place_and_names_are_unique() {
    let path = need!(program("churn"));
    let (one, two) = (need!(module("left", &[])), need!(module("right", &[])));
    let target = Target::start(&path, &["2"]);
    insert(target.pid(), &one, &[]);
    insert(target.pid(), &two, &["kind=3"]);
    let again = insmod(target.pid(), &one, &[]);
    assert!(again.status == 1 && again.stderr.contains("of this name"), "{}", again.stderr);
    wait_until("both are hit", || hits(target.pid(), "left") > 10 && hits(target.pid(), "right") > 10);
    assert!(!remove(target.pid(), "left").contains("wrong"));
    let before = hits(target.pid(), "right");
    wait_until("the other goes on", || hits(target.pid(), "right") > before);
    assert!(!remove(target.pid(), "right").contains("wrong"));
    ends_well(target);
}

#[test]
fn a_trace_works_beside_a_module_and_leaves_it() {
    let (path, file) = (need!(program("churn")), need!(module("beside", &[])));
    let target = Target::start(&path, &["2"]);
    insert(target.pid(), &file, &[]);
    let tracer = Tracer::attach(&target, &["-c"], &["p:work work", "r:ret work"], &["work"]);
    std::thread::sleep(Duration::from_millis(300));
    let trace = tracer.interrupt();
    assert_eq!(trace.run.status, 0, "{}", trace.run.stderr);
    assert!(trace.summary("work").hits > 0 && trace.summary("ret").returns.unwrap_or(0) > 0, "{trace:?}");
    let before = hits(target.pid(), "beside");
    wait_until("the module goes on", || hits(target.pid(), "beside") > before);
    assert!(!remove(target.pid(), "beside").contains("wrong"));
    ends_well(target);
}

#[test]
fn a_killed_trace_does_not_take_the_module_along() {
    let (path, file) = (need!(program("churn")), need!(module("orphan", &[])));
    let target = Target::start(&path, &["2"]);
    insert(target.pid(), &file, &[]);
    drop(Tracer::attach(&target, &["-c"], &["p:work work", "p:malloc libc.so.6:malloc"], &["work"]));
    let before = hits(target.pid(), "orphan");
    wait_until("the module goes on", || hits(target.pid(), "orphan") > before);
    assert!(!remove(target.pid(), "orphan").contains("wrong"));
    ends_well(target);
}

#[test]
fn a_module_of_a_trace_ends_with_it() {
    let (path, file) = (need!(program("churn")), need!(module("guest", &[])));
    let target = Target::start(&path, &["2"]);
    let mut tool = kprobe();
    tool.args(["trace", "--duration", "1", "-e", "p:work work", "--format", "jsonl", "-c", "--module"]);
    tool.arg(format!("{},level=77", file.display())).args(["-p", &target.pid().to_string()]);
    let finished = run(tool);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    for text in
        [r#""message":"77""#, r#""message":"guest is here""#, r#""message":"guest leaves""#, r#""event":"work""#]
    {
        assert!(finished.stderr.contains(text), "{text}: {}", finished.stderr);
    }
    assert!(!finished.stderr.contains("wrong") && !is_listed(target.pid(), "guest"), "{}", finished.stderr);
    ends_well(target);
}

#[test]
fn a_module_is_there_before_the_command_runs() {
    let (path, file) = (need!(program("children")), need!(module("early", &[])));
    let mut tool = kprobe();
    tool.args(["trace", "--module"]).arg(format!("{},symbol=libc.so.6:waitpid,print=y", file.display()));
    tool.args(["--"]).arg(&path).arg("vfork_exec");
    let finished = run(tool);
    assert!(said(&finished.stderr, "early", "early is here"), "{}", finished.stderr);
    let bare = run({
        let mut command = Command::new(&path);
        command.arg("vfork_exec");
        command
    });
    assert_eq!((bare.status, bare.stdout), (finished.status, finished.stdout), "{}", finished.stderr);
    assert!(said(&finished.stderr, "early", "hit"), "{}", finished.stderr);
}

#[test]
fn a_command_does_not_start_without_its_module() {
    let file = need!(module("never", &[]));
    let mut tool = kprobe();
    tool.args(["trace", "--module"]).arg(format!("{},symbol=nosuch", file.display())).args(["--", "echo", "ran"]);
    let finished = run(tool);
    assert_eq!((finished.status, finished.stdout.as_str()), (1, ""), "{}", finished.stderr);
    assert!(finished.stderr.contains("module never: its init has failed (-1)"), "{}", finished.stderr);
}

#[test]
fn a_handler_that_faults_switches_its_module_off_and_nothing_else() {
    let (path, file) = (need!(program("churn")), need!(module("faulty", &[])));
    let target = Target::start(&path, &["4"]);
    let out = insert(target.pid(), &file, &["fault=y", "level=100000"]);
    wait_until("it is off", || lsmod(target.pid()).contains(" faulted "));
    let out = out + &dmesg(target.pid());
    assert!(out.contains("faulty: a handler has raised SIGSEGV at faulty+0x"), "{out}");
    // The next command takes it out.
    let finished = tool(&["rmmod"], target.pid(), &["faulty"]);
    assert!(finished.stderr.contains("module faulty (faulted) was removed"), "{}", finished.stderr);
    assert_eq!((finished.status, is_listed(target.pid(), "faulty")), (0, false), "{}", finished.stderr);
    ends_well(target);
}

#[test]
fn a_module_of_a_trace_that_faults_is_removed_at_once() {
    let (path, file) = (need!(program("churn")), need!(module("falls", &[])));
    let target = Target::start(&path, &["2"]);
    let mut tool = kprobe();
    tool.args(["trace", "--duration", "2", "--module"]).arg(format!("{},fault=y,level=100000", file.display()));
    tool.args(["-p", &target.pid().to_string()]);
    let finished = run(tool);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    assert!(finished.stderr.contains("module falls was removed from process"), "{}", finished.stderr);
    assert!(finished.stderr.contains("a handler has raised SIGSEGV at falls+0x"), "{}", finished.stderr);
    ends_well(target);
}

#[test]
fn a_module_stays_mapped_as_long_as_a_thread_is_in_its_handler() {
    let (path, file) = (need!(program("churn")), need!(module("hangs", &[])));
    let target = Target::start(&path, &["1"]);
    insert(target.pid(), &file, &["hang=y"]);
    wait_until("it is hit", || hits(target.pid(), "hangs") > 0);
    let finished = tool(&["rmmod"], target.pid(), &["hangs"]);
    assert_eq!(finished.status, 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("a thread is still in one of its handlers"), "{}", finished.stderr);
    assert!(lsmod(target.pid()).contains(" going "));
    assert_eq!(hits(target.pid(), "hangs"), 0, "its probes are off");
    // The next command takes it out, as soon as that can be.
    std::thread::sleep(Duration::from_secs(8));
    let finished = tool(&["rmmod"], target.pid(), &["hangs"]);
    assert!(finished.stderr.contains("module hangs (going) was removed"), "{}", finished.stderr);
    assert!(!is_listed(target.pid(), "hangs"));
    ends_well(target);
}

#[test]
fn a_module_falls_silent_before_the_program_restricts_itself() {
    let file = need!(module("silent", &[]));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("confined");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/modules/confined.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-rdynamic", "-o"]).arg(&path).arg(source);
    assert_eq!(run(gcc).status, 0);
    let mut target = Target::start(&path, &[]);
    insert(target.pid(), &file, &["print=y"]);
    target.go();
    wait_until("it goes on", || lsmod(target.pid()).contains(" silent "));
    wait_until("it has missed hits", || lsmod(target.pid()).contains(" 100 "));
    assert_eq!(hits(target.pid(), "silent"), 1);
    assert!(said(&dmesg(target.pid()), "silent", "hit"));
    let finished = target.finish();
    assert_eq!((finished.status, finished.stdout.as_str()), (0, "ready\nsum=17951\n"), "{}", finished.stderr);
}

/// Forks at each line, and calls `getppid` in parent and child.
const FORKS: &str = "
import os, sys, time
print('ready', flush=True)
sys.stdin.readline()
child = os.fork()
if child == 0:
    for _ in range(200):
        os.getppid()
        time.sleep(0.05)
    os._exit(0)
print('child', child, flush=True)
for _ in range(200):
    os.getppid()
    time.sleep(0.05)
";

#[test]
fn a_forked_child_has_a_copy_of_the_module() {
    let (python, file) = (need!(python()), need!(module("copied", &[])));
    let mut command = Command::new(python);
    command.args(["-c", FORKS]).stdin(std::process::Stdio::piped());
    let mut parent = Running::start(command);
    wait_until("it is ready", || parent.stdout().contains("ready"));
    insert(parent.pid(), &file, &["symbol=libc.so.6:getppid", "print=y"]);
    let mut stdin = parent.stdin().expect("the input is a pipe");
    std::io::Write::write_all(&mut stdin, b"\n").expect("it can be written");
    let mut child = 0;
    wait_until("it forks", || {
        let text = parent.stdout();
        child = text.lines().find_map(|l| l.strip_prefix("child ")).and_then(|n| n.parse().ok()).unwrap_or(0);
        child != 0
    });
    wait_until("both are hit", || hits(parent.pid(), "copied") > 5 && hits(child, "copied") > 5);
    remove(parent.pid(), "copied");
    assert!(!is_listed(parent.pid(), "copied") && is_listed(child, "copied"));
    assert!(said(&dmesg(child), "copied", "hit"));
    let before = hits(child, "copied");
    wait_until("the child goes on", || hits(child, "copied") > before);
    assert!(remove(child, "copied").contains("copied leaves"));
    assert_eq!((changed_text(parent.pid()), changed_text(child)), (vec![], vec![]));
    signal(child, "KILL");
}

#[test]
fn a_tool_that_is_killed_while_it_inserts_harms_nobody() {
    let (path, file) = (need!(program("churn")), need!(module("killed", &[])));
    let target = Target::start(&path, &["2"]);
    // The agent is there: without it the first moment of an attach is not covered.
    insert(target.pid(), &file, &[]);
    remove(target.pid(), "killed");
    for attempt in 0..20 {
        let mut command = kprobe();
        command.arg("insmod").arg("-p").arg(target.pid().to_string()).arg(&file);
        let running = Running::start(command);
        std::thread::sleep(Duration::from_millis(attempt * 17 % 140));
        drop(running);
        wait_until("nobody traces it", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", target.pid())).unwrap_or_default();
            status.contains("TracerPid:\t0")
        });
    }
    // Whatever stands there now goes, or is there already.
    let finished = insmod(target.pid(), &file, &[]);
    assert!(finished.status == 0 || finished.stderr.contains("of this name"), "{}", finished.stderr);
    wait_until("it is hit", || hits(target.pid(), "killed") > 0);
    assert!(!remove(target.pid(), "killed").contains("wrong"));
    ends_well(target);
}

#[test]
fn hostile_files_are_refused_with_a_reason_and_touch_nothing() {
    let (path, file) = (need!(program("churn")), need!(module("good", &[])));
    let good = std::fs::read(&file).expect("it was built");
    let target = Target::start(&path, &["1"]);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let with = |at: usize, bytes: &[u8]| {
        let mut copy = good.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        copy
    };
    let other =
        |definitions: &[&str]| std::fs::read(module("other", definitions).expect("gcc is there")).expect("built");
    let sections = u64::from_le_bytes(good[40..48].try_into().expect("8 bytes")) as usize;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("text", b"#!/bin/sh\necho no module\n".to_vec()),
        ("header", good[..32].to_vec()),
        ("half", good[..good.len() / 2].to_vec()),
        ("short", good[..good.len() - 40].to_vec()),
        ("class", with(4, &[1])),
        ("endian", with(5, &[2])),
        ("type", with(16, &[2])),
        ("shared", std::fs::read(&path).expect("the program can be read")),
        ("machine", with(18, &[183])),
        ("entries", with(58, &[63])),
        ("sections", with(60, &[0xff, 0xff])),
        ("names", with(62, &[0xf0, 0xff])),
        ("offset", with(40, &[0xff; 8])),
        ("size", with(sections + 64 + 32, &[0xff; 8])),
        ("where", with(sections + 64 + 24, &[0xff; 8])),
        ("abi", other(&["-UABI", "-DABI=2"])),
        ("regs", other(&["-UREGS", "-DREGS=136"])),
        ("magic", other(&["-Dkprobes_module=another"])),
        ("undefined", other(&["-Dkprobes_symbol=x", "-Dkprobes_print=printf"])),
        ("name", other(&["-UNAME", "-DNAME=a/b"])),
        ("long", other(&["-UNAME", &format!("-DNAME={}", "x".repeat(57))])),
    ];
    for (name, bytes) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("it can be written");
        let finished = insmod(target.pid(), &path, &[]);
        assert_eq!(finished.status, 1, "{name}: {}", finished.stderr);
        let why = finished.stderr.strip_prefix(&format!("kprobe: module {}: ", path.display()));
        assert!(why.is_some_and(|why| why.len() > 10 && why.lines().count() == 1), "{name}: {}", finished.stderr);
    }
    let folder = insmod(target.pid(), folder.path(), &[]);
    assert!(folder.status == 1 && folder.stderr.contains("not a file"), "{}", folder.stderr);
    assert_untouched(target.pid());
    ends_well(target);
}
