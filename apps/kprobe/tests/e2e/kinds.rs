//! Every kind of program, launched and attached to: right results, exact hits.

use crate::harness::trace::assert_same_run;
use crate::harness::trace::command;
use crate::harness::{Target, Tracer, assert_exact, counts, need, program, run};

/// Launches a program with entry probes on `symbols`.
fn launched(name: &str, arguments: &[&str], symbols: &[&str]) {
    let path = need!(program(name));
    assert_exact(&path, arguments, symbols);
}

/// Attaches to a program that has not begun its work, and lets it run to its end.
fn attached(name: &str, arguments: &[&str], symbol: &str) {
    let path = need!(program(name));
    let mut waiting = arguments.to_vec();
    waiting.push("wait");
    let bare = run(command(&path, &waiting));
    let mut target = Target::start(&path, &waiting);
    let tracer = Tracer::count(&target, &[symbol]);
    target.go();
    let trace = tracer.finish();
    assert_same_run(&bare, &target.finish());
    let summary = trace.summaries.first().unwrap_or_else(|| panic!("no summary: {:?}", trace.run));
    assert_eq!(summary.hits, counts("calls", &bare.stdout)[symbol], "{summary:?}");
    assert_eq!((summary.missed, summary.lost), (0, 0), "{summary:?}");
}

macro_rules! kinds {
    ($($kind:ident: $program:literal;)*) => {
        mod launch {
            $(#[test] fn $kind() { super::launched($program, &["20000", "4"], &["work"]); })*
        }
        mod attach {
            $(#[test] fn $kind() { super::attached($program, &["20000", "4"], "work"); })*
        }
    };
}

kinds! {
    glibc_pie: "victim.pie";
    glibc_no_pie: "victim.no-pie";
    glibc_with_endbr: "victim.cet";
    glibc_static: "victim.static";
    glibc_static_pie: "victim.static-pie";
    musl_static: "victim.musl-static";
    musl_dynamic: "victim.musl";
    rust: "victim.rust";
    rust_musl_static: "victim.rust-musl";
}

#[test]
fn launch_go_in_a_loop() {
    launched("victim.go", &["loop", "20000"], &["main.work"]);
}

#[test]
fn attach_go_in_a_loop() {
    attached("victim.go", &["loop", "20000"], "main.work");
}

#[test]
fn launch_go_with_growing_stacks() {
    launched("victim.go", &["growth"], &["main.work"]);
}

#[test]
fn attach_go_with_growing_stacks() {
    attached("victim.go", &["growth", "0"], "main.work");
}

#[test]
fn launch_go_with_panics_and_garbage_collection() {
    launched("victim.go", &["panics"], &["main.work"]);
}

#[test]
fn launch_go_with_its_own_sigtrap() {
    launched("victim.go", &["trap"], &["main.work"]);
}

#[test]
fn two_probes_one_nested_in_the_other_count_both() {
    launched("victim.pie", &["20000", "4"], &["work", "leaf"]);
}
