//! What the tool prints: ftrace's lines, JSON, summaries; where it prints it; how it exits.

use std::process::Command;

use crate::harness::run::run;
use crate::harness::trace::{command, kprobe};
use crate::harness::{Finished, need, program, trace};

/// Runs the tool with text output.
fn text(arguments: &[&str], command: &Command) -> Finished {
    let mut tool = kprobe();
    tool.arg("trace").args(arguments).arg("--").arg(command.get_program()).args(command.get_args());
    run(tool)
}

#[test]
fn an_entry_is_an_ftrace_line() {
    let path = need!(program("returns"));
    let run = text(&["-e", "p:tail tail value=%di:s64"], &command(&path, &["tail_calls"]));
    let lines: Vec<_> = run.stderr.lines().filter(|line| line.contains(" tail: (")).collect();
    assert_eq!(lines.len(), 1000, "{}", run.stderr);
    // COMM-TID [CPU] TIME: EVENT: (SYMBOL+0xOFF/0xSIZE) NAME=VALUE
    let (left, right) = lines[3].split_once(": tail: (").expect("an event line");
    assert!(right.starts_with("tail+0x0/0x") && right.ends_with(") value=6"), "{}", lines[3]);
    let fields: Vec<_> = left.split_ascii_whitespace().collect();
    let [task, cpu, time] = fields[..] else { panic!("{}", lines[3]) };
    let (comm, tid) = task.rsplit_once('-').expect("COMM-TID");
    assert_eq!(comm, "returns");
    assert!(tid.parse::<u32>().is_ok() && time.parse::<f64>().is_ok(), "{}", lines[3]);
    assert!(cpu.starts_with('[') && cpu.ends_with(']'), "{}", lines[3]);
}

#[test]
fn a_return_line_names_the_caller() {
    let path = need!(program("returns"));
    let run = text(&["-e", "r:inner inner value=$retval:s64"], &command(&path, &["callers"]));
    let line = run.stderr.lines().find(|line| line.contains(" inner: (")).expect("a return line");
    assert!(line.contains(": inner: (outer+0x") && line.contains(" <- inner) value=1"), "{line}");
}

#[test]
fn the_trace_goes_to_a_file_and_leaves_standard_error_alone() {
    let path = need!(program("returns"));
    let out = tempfile::NamedTempFile::new().expect("temporary files can be made");
    let file = out.path().to_str().expect("a plain path");
    let run = text(&["-o", file, "-e", "p:tail tail"], &command(&path, &["tail_calls"]));
    assert_eq!(run.stderr, "");
    let trace = std::fs::read_to_string(out.path()).expect("the trace is text");
    assert_eq!(trace.matches(" tail: (").count(), 1000);
}

#[test]
fn the_summary_is_a_table() {
    let path = need!(program("returns"));
    let run = text(&["-c", "-e", "p:tail tail", "-e", "r:head head"], &command(&path, &["tail_calls"]));
    for column in ["hits", "missed", "lost", "returns", "unwound", "active"] {
        assert!(run.stderr.to_lowercase().contains(column), "no column {column}:\n{}", run.stderr);
    }
    assert!(run.stderr.lines().any(|line| line.contains("tail") && line.contains("1000")), "{}", run.stderr);
    assert!(!run.stderr.contains(": tail: ("), "-c prints no events");
}

#[test]
fn events_are_json_objects() {
    let path = need!(program("returns"));
    let trace = trace(&[], &["p:mine/tail tail value=%di:s64", "r:mine/head head"], &command(&path, &["tail_calls"]));
    let entries: Vec<_> = trace.events.iter().filter(|event| event["type"] == "entry").collect();
    assert_eq!(entries.len(), 1000, "{}", trace.run.stderr);
    for (event, i) in entries.iter().zip(0..) {
        assert_eq!(event["event"], "tail");
        assert_eq!(event["group"], "mine");
        assert_eq!(event["comm"], "returns");
        assert_eq!(event["function"], "tail");
        assert_eq!(event["offset"], 0);
        assert_eq!(event["args"]["value"], i * 2);
        assert!(event["pid"].is_u64() && event["tid"].is_u64() && event["cpu"].is_u64(), "{event}");
        assert!(!event["ts"].is_null() && !event["addr"].is_null(), "{event}");
    }
    let returns = trace.events.iter().filter(|event| event["type"] == "return").count();
    assert_eq!(returns, 1000);
    for summary in &trace.summaries {
        assert_eq!((summary.hits, summary.missed, summary.lost), (1000, 0, 0), "{summary:?}");
        assert!(!summary.placed.is_empty(), "a probe says how it is placed: {summary:?}");
    }
}

#[test]
fn events_are_in_the_order_of_time() {
    let path = need!(program("victim.pie"));
    let trace = trace(&[], &["p:work work", "p:leaf leaf"], &command(&path, &["2000", "3"]));
    let times: Vec<_> = trace.events.iter().filter_map(|event| event["ts"].as_f64()).collect();
    assert_eq!(times.len(), trace.events.len(), "every event has a time");
    assert!(times.is_sorted(), "the events are not in order");
    let (work, leaf) = (trace.summary("work"), trace.summary("leaf"));
    assert_eq!(trace.events.len() as u64, work.hits + leaf.hits - work.lost - leaf.lost);
}

#[test]
fn what_does_not_fit_is_counted_as_lost() {
    let path = need!(program("victim.pie"));
    let trace = trace(&[], &["p:work work a=%di b=%si"], &command(&path, &["100000", "4"]));
    let summary = trace.summary("work");
    assert_eq!(summary.hits, 400_000, "{summary:?}");
    assert_eq!(trace.events.len() as u64 + summary.lost, summary.hits);
}

#[test]
fn strings_are_read_from_memory() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let trace = trace(&[], &["p:open libc.so.6:open path=+0(%di):string"], &command("cat", &[file]));
    let opened = trace.events.iter().any(|event| event["args"]["path"] == file);
    assert!(opened, "{:?}\n{}", trace.events, trace.run.stderr);
}

#[test]
fn a_number_of_events_ends_the_trace_and_not_the_command() {
    let path = need!(program("returns"));
    let trace = trace(&["--max-events", "10"], &["p:tail tail"], &command(&path, &["tail_calls"]));
    assert_eq!(trace.events.len(), 10);
    assert!(trace.run.stdout.contains("calls tail=1000\n"), "{}", trace.run.stdout);
}

#[test]
fn the_exit_status_is_the_commands() {
    for (script, status) in [("exit 0", 0), ("exit 41", 41), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)] {
        let trace = trace(&["-c"], &["p:malloc libc.so.6:malloc"], &command("sh", &["-c", script]));
        assert_eq!(trace.run.status, status, "{script}: {}", trace.run.stderr);
    }
}

#[test]
fn the_commands_input_and_output_are_its_own() {
    let trace = trace(&["-c"], &["p:write libc.so.6:write"], &command("sh", &["-c", "echo out; echo err >&2; cat"]));
    assert_eq!((trace.run.stdout.as_str(), trace.run.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn an_unqualified_symbol_is_the_programs_own_first() {
    let path = need!(program("victim.pie"));
    let trace = trace(&["-c"], &["p:work work", "p:any_malloc malloc"], &command(&path, &["1000", "1"]));
    assert_eq!(trace.summary("work").hits, 1000);
    assert!(trace.summary("any_malloc").hits > 10, "found in libc: {:?}", trace.summaries);
}

#[test]
fn a_place_can_be_an_offset_in_a_file() {
    let path = need!(program("victim.pie"));
    let symbol = crate::harness::memory::symbol(&path, "work");
    let offset = crate::harness::memory::file_offset(&path, symbol);
    let probe = format!("p:work {}:0x{offset:x}", path.display());
    let trace = trace(&["-c"], &[probe], &command(&path, &["1000", "1"]));
    assert_eq!(trace.summary("work").hits, 1000);
}

#[test]
fn a_place_can_be_an_address() {
    let path = need!(program("victim.static"));
    let probe = format!("p:work 0x{:x}", crate::harness::memory::symbol(&path, "work"));
    let trace = trace(&["-c"], &[probe], &command(&path, &["1000", "1"]));
    assert_eq!(trace.summary("work").hits, 1000);
}

#[test]
fn list_names_functions_by_pattern() {
    let path = need!(program("victim.pie"));
    let mut tool = kprobe();
    tool.arg("list").arg(&path).arg("wor*");
    let run = run(tool);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains("work") && !run.stdout.contains("leaf"), "{}", run.stdout);
}

#[test]
fn check_says_how_a_probe_would_be_placed() {
    let path = need!(program("victim.pie"));
    let mut tool = kprobe();
    tool.args(["check", "-e", "p:work work", "-e", "r:back work"]).arg(&path);
    let run = run(tool);
    assert_eq!(run.status, 0, "{}", run.stderr);
    for how in [
        "work: victim.pie:work+0x0/",
        ": jump  | ",
        "back: victim.pie:work+0x0/",
        ": jump at the entry, return stub  | ",
    ] {
        assert!(run.stdout.contains(how), "{}", run.stdout);
    }
}

#[test]
fn check_says_how_a_probe_would_be_placed_by_a_breakpoint() {
    let path = need!(program("victim.pie"));
    let mut tool = kprobe();
    tool.args(["check", "--placement", "breakpoint", "-e", "p:work work"]).arg(&path);
    let run = run(tool);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains(": breakpoint, "), "{}", run.stdout);
}
