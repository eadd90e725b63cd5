//! Attaching to, and leaving, a busy multi-threaded program.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use crate::harness::memory::changed_text;
use crate::harness::run::wait_until;
use crate::harness::{Target, Tracer, counts, need, program, run, skipped};

/// Attaches to a busy program and detaches from it, `cycles` times; then its text must be as it was and its checks hold.
fn cycles(name: &str, cycles: u32, probes: &[&str]) {
    let path = need!(program(name));
    let target = Target::start(&path, &["4"]);
    let mut hits = 0;
    for cycle in 0..cycles {
        let tracer = Tracer::attach(&target, &["-c"], probes, &["work"]);
        std::thread::sleep(Duration::from_millis(u64::from(cycle % 10)));
        let trace = tracer.interrupt();
        assert_eq!(trace.run.status, 0, "cycle {cycle}: {}", trace.run.stderr);
        assert_eq!(changed_text(target.pid()), [], "cycle {cycle}: the text is not what it was");
        hits += trace.summary("work").hits;
    }
    let finished = target.finish();
    assert_eq!(finished.status, 0, "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("faults=0\n"), "{}", finished.stdout);
    assert!(hits > 0, "no probe was hit in any cycle");
    assert!(hits <= counts("calls", &finished.stdout)["work"]);
}

const HEAP_AND_OWN: &[&str] = &["p:work work", "p:malloc libc.so.6:malloc", "p:free libc.so.6:free"];

#[test]
fn the_comparison_of_text_notices_one_byte() {
    let path = need!(program("churn"));
    let target = Target::start(&path, &["1"]);
    let site = target.site("main");
    assert_eq!(changed_text(target.pid()), []);
    assert!(!site.is_patched());
    let memory = std::fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", target.pid()));
    let memory = memory.expect("a child's memory can be opened");
    memory.write_all_at(&[0xcc], site.address()).expect("a child's text can be written");
    assert!(site.is_patched());
    assert_eq!(changed_text(target.pid()).len(), 1);
    assert!(target.finish().stdout.contains("faults=0\n"));
}

#[test]
fn a_hundred_cycles_leave_a_busy_program_unharmed() {
    cycles("churn", 100, HEAP_AND_OWN);
}

#[test]
fn cycles_leave_a_static_program_unharmed() {
    cycles("churn.static", 10, &["p:work work", "p:malloc malloc", "p:free free"]);
}

#[test]
fn cycles_leave_a_musl_program_unharmed() {
    cycles("churn.musl", 10, &["p:work work", "p:malloc libc.so:malloc", "p:free libc.so:free"]);
}

#[test]
fn cycles_with_return_probes_leave_a_busy_program_unharmed() {
    cycles("churn", 20, &["r:work work", "r64:malloc libc.so.6:malloc", "r64:free libc.so.6:free"]);
}

#[test]
fn ctrl_c_detaches_and_the_target_runs_on() {
    let path = need!(program("churn"));
    let target = Target::start(&path, &["2"]);
    let trace = Tracer::count(&target, &["work"]).interrupt();
    assert_eq!(trace.run.status, 0, "{}", trace.run.stderr);
    assert!(!target.is_probed("work"));
    assert!(target.finish().stdout.contains("faults=0\n"));
}

#[test]
fn the_duration_ends_an_attached_trace() {
    let path = need!(program("churn"));
    let target = Target::start(&path, &["2"]);
    let trace = Tracer::attach(&target, &["-c", "--duration", "1"], &["p:work work"], &["work"]).finish();
    assert_eq!(trace.run.status, 0, "{}", trace.run.stderr);
    assert!(trace.summary("work").hits > 0);
    assert!(!target.is_probed("work"));
    assert!(target.finish().stdout.contains("faults=0\n"));
}

#[test]
fn a_killed_tool_leaves_the_target_running() {
    let path = need!(program("churn"));
    let target = Target::start(&path, &["2"]);
    drop(Tracer::count(&target, &["work"]));
    std::thread::sleep(Duration::from_millis(100));
    assert!(target.finish().stdout.contains("faults=0\n"));
}

#[test]
fn the_next_tool_takes_over_from_a_killed_one() {
    let path = need!(program("churn"));
    let target = Target::start(&path, &["2"]);
    drop(Tracer::count(&target, &["work"]));
    let trace = Tracer::attach(&target, &["-c", "--duration", "1"], &["p:work work"], &["work"]).finish();
    assert_eq!(trace.run.status, 0, "{}", trace.run.stderr);
    assert!(trace.summary("work").hits > 0);
    wait_until("the probe is removed", || !target.is_probed("work"));
    assert_eq!(changed_text(target.pid()), []);
    assert!(target.finish().stdout.contains("faults=0\n"));
}

#[test]
fn strace_may_watch_a_program_while_its_probes_are_hit() {
    let path = need!(program("churn"));
    let target = Target::start(&path, &["2"]);
    let tracer = Tracer::count(&target, &["work"]);
    let mut strace = Command::new("timeout");
    strace.args(["--signal=INT", "0.5", "strace", "-f", "-o", "/dev/null", "-p"]).arg(target.pid().to_string());
    let watched = run(strace);
    if watched.status == 127 {
        skipped("strace is not installed");
    }
    assert!(tracer.interrupt().summary("work").hits > 0);
    // Each stop by strace interrupts the program's waiting calls (signal(7)), with us or without; it counts those and
    // nothing else went wrong.
    let finished = target.finish();
    assert!(finished.stderr.lines().all(|line| line.contains("Interrupted system call")), "{}", finished.stderr);
    assert!(finished.stdout.contains("calls work="), "{}", finished.stdout);
}

/// `EFLAGS.TF` as a debugger sets it shows in what `pushfq` pushes: restored, it would stay when the debugger has left.
#[test]
fn a_debugger_steps_through_hits_and_leaves() {
    const DEBUGGER: &str = "/usr/bin/gdb";
    if !std::path::Path::new(DEBUGGER).exists() {
        return skipped("no gdb");
    }
    let path = need!(program("churn"));
    let target = Target::start(&path, &["1"]);
    let probes = ["p:work work", "p:record work a=$arg1", "r:back work v=$retval"];
    let tracer = Tracer::attach(&target, &[], &probes, &["work"]);
    let mut debugger = Command::new(DEBUGGER);
    debugger.args(["-nx", "-batch", "-p", &target.pid().to_string(), "-ex", "break work", "-ex", "continue"]);
    debugger.args(["-ex", "delete", "-ex", "stepi 2000"]);
    let debugged = run(debugger);
    assert!(debugged.stdout.contains("detached"), "{}{}", debugged.stdout, debugged.stderr);
    std::thread::sleep(Duration::from_millis(100));
    let trace = tracer.interrupt();
    assert_eq!(trace.run.status, 0, "{}", trace.run.stderr);
    let finished = target.finish();
    // Stops by a debugger interrupt `epoll_wait`, which the program counts as faults of its own: no more than that.
    let said = finished.stderr.replace("epoll_wait: Interrupted system call\n", "");
    assert!(finished.status < 2 && said.is_empty(), "{} {}{}", finished.status, finished.stdout, finished.stderr);
}
