//! Return probes through every way out of a function: entries = returns + unwound + active.

use crate::harness::trace::{assert_same_run, bare, command};
use crate::harness::{Summary, counts, event_name, need, program, trace};

/// The three ways a probed call can be, and their sum.
fn balance(summary: &Summary) -> (u64, u64, u64) {
    let number = |value: Option<u64>| value.unwrap_or_else(|| panic!("no return counts in {summary:?}"));
    let (returns, unwound, active) = (number(summary.returns), number(summary.unwound), number(summary.active));
    assert_eq!(summary.hits, returns + unwound + active, "entries = returns + unwound + active: {summary:?}");
    (returns, unwound, active)
}

/// Return probes with room for `instances` activations on `symbols`: the program behaves as bare, every call is
/// counted, and the sums agree. Gives the summaries.
fn probed(name: &str, scenario: &str, instances: &str, symbols: &[&str]) -> Option<Vec<Summary>> {
    let path = program(name)?;
    let command = command(&path, &[scenario]);
    let alone = bare(&command);
    let probes: Vec<_> = symbols.iter().map(|symbol| format!("r{instances}:{} {symbol}", event_name(symbol))).collect();
    let trace = trace(&["-c"], &probes, &command);
    assert_same_run(&alone, &trace.run);
    let calls = counts("calls", &alone.stdout);
    let summaries = symbols.iter().map(|symbol| {
        let summary = trace.summary(&event_name(symbol)).clone();
        balance(&summary);
        assert_eq!(summary.hits + summary.missed, calls[*symbol], "calls of {symbol}: {summary:?}");
        summary
    });
    Some(summaries.collect())
}

/// [`probed`] with enough room: nothing missed, nothing active at the end.
fn exact(name: &str, scenario: &str, symbols: &[&str]) -> Option<Vec<(u64, u64)>> {
    let summaries = probed(name, scenario, "4096", symbols)?;
    let ended = summaries.iter().map(|summary| {
        let (returns, unwound, active) = balance(summary);
        assert_eq!((summary.missed, active), (0, 0), "{summary:?}");
        (returns, unwound)
    });
    Some(ended.collect())
}

/// Tests of scenarios in programs; `unwound` and `returned` say how every probed call of the scenario ends.
macro_rules! exact {
    ($($test:ident: $program:literal $scenario:literal $symbols:expr;)*) => {
        $(#[test] fn $test() { need!(exact($program, $scenario, $symbols)); })*
    };
}
macro_rules! all_unwound {
    ($($test:ident: $program:literal $scenario:literal $symbols:expr;)*) => {
        $(#[test] fn $test() {
            for (returns, unwound) in need!(exact($program, $scenario, $symbols)) {
                assert_eq!(returns, 0);
                assert!(unwound > 0);
            }
        })*
    };
}
macro_rules! all_returned {
    ($($test:ident: $program:literal $scenario:literal $symbols:expr;)*) => {
        $(#[test] fn $test() {
            for (returns, unwound) in need!(exact($program, $scenario, $symbols)) {
                assert!(returns > 0);
                assert_eq!(unwound, 0);
            }
        })*
    };
}

const C: &[&str] = &["outer", "inner"];
const CXX: &[&str] = &["hop", "skip"];

all_unwound! {
    longjmp_unwinds: "returns" "long_jumps" C;
    longjmp_unwinds_in_a_static_program: "returns.static" "long_jumps" C;
    longjmp_unwinds_with_musl: "returns.musl" "long_jumps" C;
    siglongjmp_unwinds: "returns" "signal_jumps" C;
    siglongjmp_unwinds_with_musl: "returns.musl" "signal_jumps" C;
    siglongjmp_out_of_a_handler_unwinds: "returns" "jumps_from_a_handler" C;
}

// Whether a thread's end counts its calls as unwound (a forced unwind) or leaves them active (musl has none) is the
// C library's affair; the sum is ours.
macro_rules! balanced {
    ($($test:ident: $program:literal $scenario:literal $symbols:expr;)*) => {
        $(#[test] fn $test() {
            for summary in need!(probed($program, $scenario, "4096", $symbols)) {
                assert_eq!(summary.missed, 0, "{summary:?}");
            }
        })*
    };
}

balanced! {
    pthread_exit_runs_cleanups: "returns" "thread_exit" C;
    pthread_exit_runs_cleanups_in_a_static_program: "returns.static" "thread_exit" C;
    pthread_exit_runs_cleanups_with_musl: "returns.musl" "thread_exit" C;
    pthread_cancel_runs_cleanups: "returns" "thread_cancel" C;
    pthread_cancel_runs_cleanups_in_a_static_program: "returns.static" "thread_cancel" C;
    pthread_cancel_runs_cleanups_with_musl: "returns.musl" "thread_cancel" C;
    pthread_exit_runs_destructors: "throws" "thread_exit" &["hop"];
    pthread_cancel_runs_destructors: "throws" "thread_cancel" &["hop"];
    an_uncaught_exception_terminates: "throws" "uncaught" &["hop"];
}

all_returned! {
    recursion_a_thousand_deep_returns: "returns" "recursion" &["dive"];
    recursion_a_thousand_deep_returns_with_musl: "returns.musl" "recursion" &["dive"];
    tail_calls_return_from_both: "returns" "tail_calls" &["head", "tail"];
    backtraces_are_complete: "returns" "callers" C;
    coroutines_return_in_any_order: "returns" "coroutines" C;
    coroutines_return_on_other_threads: "returns" "coroutines_between_threads" C;
    rust_backtraces_are_complete: "panics.rust" "backtraces" &["hop"];
    ordinary_calls_return: "victim.pie" "2000" &["work"];
    ordinary_calls_return_in_a_static_program: "victim.static" "2000" &["work"];
    ordinary_calls_return_with_musl: "victim.musl-static" "2000" &["work"];
}

exact! {
    nested_exceptions_pass: "throws" "nested" CXX;
    nested_exceptions_pass_in_a_static_program: "throws.static" "nested" CXX;
    exceptions_inside_destructors_pass: "throws" "nested_in_destructor_order" CXX;
    random_throws_in_four_threads_pass: "throws" "fuzz" CXX;
    random_throws_in_four_threads_pass_in_a_static_program: "throws.static" "fuzz" CXX;
    exceptions_inside_coroutines_pass: "throws" "coroutine_throw" &["hop"];
    exceptions_on_a_coroutine_that_moved_pass: "throws" "coroutine_moves_and_throws" &["hop"];
    an_exception_leaves_a_handler_on_its_own_stack: "throws" "alternate_stack" CXX;
    rust_panics_pass: "panics.rust" "simple" &["hop"];
    nested_rust_panics_pass: "panics.rust" "nested" &["hop"];
    rust_panics_in_threads_pass: "panics.rust" "threads" &["hop"];
    rust_panics_pass_with_musl: "panics.rust-musl" "simple" &["hop"];
    nested_rust_panics_pass_with_musl: "panics.rust-musl" "nested" &["hop"];
    rust_panics_in_threads_pass_with_musl: "panics.rust-musl" "threads" &["hop"];
}

#[test]
fn a_call_that_ends_the_process_stays_active() {
    for summary in need!(probed("returns", "process_exit", "16", C)) {
        assert_eq!(balance(&summary), (0, 0, 1), "{summary:?}");
    }
}

#[test]
fn calls_without_a_free_instance_are_missed_and_counted() {
    for summary in need!(probed("returns", "recursion", "16", &["dive"])) {
        assert_eq!(balance(&summary), (20 * 16, 0, 0), "{summary:?}");
        assert_eq!(summary.missed, 20 * (1001 - 16));
    }
}

#[test]
fn exceptions_pass_where_instances_run_out() {
    need!(probed("throws", "fuzz", "1", CXX));
}

/// Go: the return instructions are probed. A leaf function returns as often as it is called.
fn go(scenario: &str) {
    let path = need!(program("victim.go"));
    let command = command(&path, &[scenario, "5000"]);
    let alone = bare(&command);
    let probes = ["r:work main.work", "r:outer main.outer", "r:deep main.deep", "r:inner main.inner"];
    let trace = trace(&["-c"], &probes, &command);
    assert_same_run(&alone, &trace.run);
    let calls = counts("calls", &alone.stdout);
    assert_eq!(trace.summary("work").returns, Some(calls["main.work"]), "{:?}", trace.summaries);
    assert!(trace.summary("outer").returns >= Some(calls["main.outer"]), "{:?}", trace.summaries);
}

#[test]
fn go_functions_return() {
    go("loop");
}

#[test]
fn go_functions_return_on_stacks_that_grow() {
    go("growth");
}

#[test]
fn go_panics_and_recovers() {
    go("panics");
}

#[test]
fn return_values_and_callers_are_reported() {
    let path = need!(program("returns"));
    let trace = trace(&[], &["r:tail tail value=$retval:s64"], &command(&path, &["tail_calls"]));
    let values: Vec<_> = trace.events.iter().filter_map(|event| event["args"]["value"].as_i64()).collect();
    assert_eq!(values, (0..1000).map(|i| i * 2 + 5).collect::<Vec<_>>(), "{}", trace.run.stderr);
    assert!(trace.events.iter().all(|event| event["type"] == "return" && event["function"] == "tail"));
}
