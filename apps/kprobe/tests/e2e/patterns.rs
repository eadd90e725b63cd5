//! Patterns: every function that matches, and the program none the wiser.

use std::process::Command;
use std::time::Duration;

use crate::harness::memory::changed_text;
use crate::harness::run::{Running, signal, wait_until};
use crate::harness::trace::{assert_same_run, bare, command, kprobe, trace_within};
use crate::harness::{Target, Tracer, counts, need, program, python, run};

const LONG: Duration = Duration::from_secs(180);

/// Runs a command with probes on every function of all its objects: nothing may be different.
fn is_unchanged_by(probe: &str, command: &Command) {
    let alone = bare(command);
    let trace = trace_within(LONG, &["-c"], &[probe], command);
    assert_same_run(&alone, &trace.run);
    let all = &trace.summaries[0];
    assert!(all.hits > 1000, "{all:?}");
    assert_eq!((all.missed, all.lost), (0, 0), "{all:?}");
    let functions: u64 = trace.summaries.iter().skip(1).map(|summary| summary.hits).sum();
    assert_eq!(all.hits, functions, "the sum is that of the functions");
    assert!(all.placed.iter().any(|text| text.starts_with("libc.so.6: ")), "{:?}", all.placed);
}

#[test]
fn every_function_of_all_objects_is_probed_and_ls_lists_the_same() {
    is_unchanged_by("p *:*", &command("ls", &["-l", "/usr/bin"]));
}

#[test]
fn every_function_of_all_objects_is_probed_on_return_and_ls_lists_the_same() {
    is_unchanged_by("r *:*", &command("ls", &["-l", "/usr/bin"]));
}

#[test]
fn every_function_of_all_objects_is_probed_and_python_computes_the_same() {
    is_unchanged_by("p *:*", &command(need!(python()), &["-c", "import json; print(json.dumps(sum(range(1000))))"]));
}

#[test]
fn a_pattern_on_libc_counts_what_each_function_alone_would() {
    let script = "import os\nfor _ in range(7): os.getppid()\nprint(os.getuid() >= 0)";
    let command = command(need!(python()), &["-c", script]);
    let trace = trace_within(LONG, &["-c"], &["p libc.so.6:get*id"], &command);
    assert_eq!((trace.run.stdout.as_str(), trace.run.status), ("True\n", 0), "{}", trace.run.stderr);
    assert_eq!(trace.summary("getppid").hits, 7);
    assert!(trace.summary("getuid").hits >= 1);
    assert!(trace.summaries.iter().all(|summary| summary.event != "getsid"), "only what was hit is listed");
}

#[test]
fn a_pattern_with_a_name_is_one_event() {
    let script = "import os\nfor _ in range(7): os.getppid()";
    let command = command(need!(python()), &["-c", script]);
    let trace = trace_within(LONG, &[], &["p:ids libc.so.6:getpp*"], &command);
    assert_eq!(trace.summaries.len(), 1);
    assert_eq!(trace.summary("ids").hits, 7);
    assert_eq!(trace.events.iter().filter(|event| event["event"] == "ids").count(), 7, "{:?}", trace.events);
}

#[test]
fn attaching_to_a_busy_program_and_leaving_restores_all_text() {
    let path = need!(program("churn"));
    let target = Target::start(&path, &["4"]);
    for probe in ["p:all *:*", "r:all *:*"] {
        let tracer = Tracer::attach(&target, &["-c"], &[probe], &["work"]);
        std::thread::sleep(Duration::from_millis(50));
        let trace = tracer.interrupt();
        assert_eq!(trace.run.status, 0, "{}", trace.run.stderr);
        assert!(trace.summary("all").hits > 0, "{:?}", trace.summaries);
        assert_eq!(changed_text(target.pid()), [], "{probe}: the text is not what it was");
    }
    let finished = target.finish();
    assert_eq!(finished.status, 0, "{}{}", finished.stdout, finished.stderr);
    assert!(
        finished.stdout.contains("faults=0\n") && counts("calls", &finished.stdout)["work"] > 0,
        "{}",
        finished.stdout
    );
}

#[test]
fn a_target_that_dies_while_it_is_armed_ends_the_trace() {
    let path = need!(program("churn"));
    for milliseconds in [0, 5, 10, 20, 40, 80] {
        let target = Target::start(&path, &["2"]);
        let mut tool = kprobe();
        tool.args(["trace", "-c", "-e", "p *:*", "-p"]).arg(target.pid().to_string());
        let mut running = Running::start(tool);
        std::thread::sleep(Duration::from_millis(milliseconds));
        signal(target.pid(), "KILL");
        wait_until("the tool ends with its target", || running.has_ended());
        let finished = running.finish(LONG);
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        assert!([0, 1].contains(&finished.status), "{}: {}", finished.status, finished.stderr);
        drop(target);
    }
}

fn kprobe_says(arguments: &[&str]) -> (i32, String) {
    let mut tool = kprobe();
    tool.args(arguments);
    let finished = run(tool);
    (finished.status, finished.stdout + &finished.stderr)
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error_with_near_names() {
    let (status, said) = kprobe_says(&["trace", "-e", "p libc.so.6:mallox*", "--", "true"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("no function matches `mallox*` in libc.so.6; the nearest names: malloc"), "{said}");
    let (status, said) = kprobe_says(&["trace", "-e", "p *:no_such_function_*", "--", "true"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("no function matches `no_such_function_*`"), "{said}");
}

#[test]
fn check_and_list_take_patterns() {
    let file = need!(program("churn"));
    let file = file.to_str().expect("a plain path");
    let (status, said) = kprobe_says(&["check", "-e", "p m?in", file]);
    assert!(status == 0 && said.contains("m?in: 1 functions, 1 can be probed, 0 are refused"), "{said}");
    let (status, said) = kprobe_says(&["list", file, "*:m?in"]);
    assert!(status == 0 && said.contains("main"), "{said}");
    let (status, said) = kprobe_says(&["list", file, "nowhere*:m?in"]);
    assert_eq!(status, 1, "{said}");
}
