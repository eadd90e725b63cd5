//! Instructions that fault where a probe sits: the program sees the fault as it would without.

use std::fs;
use std::path::Path;

use crate::harness::run::{signal, wait_until};
use crate::harness::trace::{assert_same_run, bare, command, trace};
use crate::harness::{Target, Tracer, assert_exact, counts, need, program, python};

macro_rules! scenarios {
    ($($module:ident: $program:literal;)*) => {
        $(mod $module {
            super::scenarios!(@each $program:
                kinds("load store exchange aligned relative divide undefined pushing+6 calling+6 calling_far+1 returning+6")
                in_the_middle("copy") floating("divide_vector") skipped("load") repaired("store") places("load")
                simple("load") by_default("load") by_default_again("load") bus_by_default("load")
                division_by_default("divide") ignored("load") once("load") sent("load") sent_often("load")
                nested("load store") masked("load") overflow("load") threads("load") children("load"));
        })*
    };
    (@each $program:literal: $($scenario:ident($symbols:literal))*) => {
        $(#[test] fn $scenario() { super::unchanged($program, stringify!($scenario), $symbols); })*
    };
}
use scenarios;

/// The scenario's output, status and counts are those of the bare run.
fn unchanged(name: &str, scenario: &str, symbols: &str) {
    let path = need!(program(name));
    let symbols: Vec<_> = symbols.split(' ').collect();
    assert_exact(&path, &[scenario], &symbols);
}

scenarios! {
    glibc: "faults";
    glibc_static: "faults.static";
    musl: "faults.musl";
}

#[test]
fn an_unwinder_in_the_handler_finds_the_function_that_has_faulted() {
    unchanged("faults", "walked", "load");
}

#[test]
fn return_probes_and_probes_on_the_way_change_nothing() {
    let path = need!(program("faults"));
    let plain = command(&path, &["kinds"]);
    let probes =
        ["r:load_returns load", "p:jumps siglongjmp", "r:stores store", "p:actions sigaction", "p:on_fault on_fault"];
    let traced = trace(&["-c"], &probes, &plain);
    assert_same_run(&bare(&plain), &traced.run);
    let loads = traced.summary("load_returns");
    assert_eq!((loads.hits, loads.returns, loads.unwound), (6, Some(1), Some(5)), "{loads:?}");
    assert_eq!(traced.summary("on_fault").hits, 18);
}

#[test]
fn children_that_are_followed_fault_as_their_parents_do() {
    let path = need!(program("faults"));
    let plain = command(&path, &["children"]);
    let traced = trace(&["-c", "-f"], &["p:load load"], &plain);
    assert_same_run(&bare(&plain), &traced.run);
    // Two in forked children, besides what the program counts.
    assert_eq!(traced.summary("load").hits, 4);
}

#[test]
fn go_recovers_from_a_nil_pointer() {
    let path = need!(program("faults.go"));
    assert_exact(&path, &[], &["main.load", "main.divide"]);
}

#[test]
fn pythons_fault_handler_reports_as_ever() {
    let (python, library) = (need!(python()), need!(program("faults.so")));
    let code = format!("import ctypes, faulthandler; faulthandler.enable(); ctypes.CDLL({library:?}).load(0, 0)");
    let plain = command(&python, &["-c", &code]);
    let bare = bare(&plain);
    let traced = trace(&["-c"], &["p:load faults.so:load"], &plain);
    assert_same_run(&bare, &traced.run);
    assert_eq!(traced.summary("load").hits, 1);
    let report = "Fatal Python error: Segmentation fault";
    assert!(bare.stderr.contains(report) && traced.run.stderr.contains(report), "{}", traced.run.stderr);
}

/// The signals that a process catches and ignores, as the kernel shows them.
fn dispositions(pid: u32) -> Vec<String> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).expect("it lives");
    status.lines().filter(|line| line.starts_with("SigCgt") || line.starts_with("SigIgn")).map(str::to_owned).collect()
}

/// The program's output after its second line of input, with what it prints for the first before the tool goes.
fn through_an_attachment(name: &str, attachments: usize) {
    let path = need!(program(name));
    let mut plain = Target::start(&path, &["waiting"]);
    plain.go();
    let bare = plain.finish();

    let mut target = Target::start(&path, &["waiting"]);
    let before = dispositions(target.pid());
    for _ in 1..attachments {
        Tracer::count(&target, &["load"]).interrupt();
        assert_eq!(dispositions(target.pid()), before, "after the first tool");
    }
    let tracer = Tracer::count(&target, &["load"]);
    target.go();
    wait_until("the program comes to its second stop", || target.stdout().matches("ready\n").count() == 2);
    let traced = tracer.interrupt();
    let mut after = before.clone();
    // Meanwhile the program has stopped to handle SIGFPE.
    remove_signal(&mut after, 8);
    assert_eq!(dispositions(target.pid()), after, "after the tool");
    let finished = target.finish();
    assert_same_run(&bare, &finished);
    let loads = traced.summary("load");
    assert_eq!(loads.hits, 2, "{loads:?}");
    assert_eq!(counts("calls", &finished.stdout)["load"], 2);
}

/// Takes a signal out of the set of those that are caught.
fn remove_signal(dispositions: &mut [String], signal: u32) {
    for line in dispositions.iter_mut().filter(|line| line.starts_with("SigCgt")) {
        let (name, set) = line.split_once('\t').expect("a name and a set");
        let set = u64::from_str_radix(set, 16).expect("a set in hexadecimal");
        *line = format!("{name}\t{:016x}", set & !(1 << (signal - 1)));
    }
}

#[test]
fn handlers_from_before_the_tool_work_under_it_and_after_it() {
    through_an_attachment("faults", 1);
}

#[test]
fn handlers_from_before_the_tool_work_under_it_and_after_it_with_musl() {
    through_an_attachment("faults.musl", 1);
}

#[test]
fn handlers_outlive_several_tools() {
    through_an_attachment("faults", 3);
}

#[test]
fn a_signal_from_outside_reaches_the_program() {
    let path = need!(program("faults"));
    let target = Target::start(&path, &["told"]);
    let tracer = Tracer::count(&target, &["load"]);
    signal(target.pid(), "SEGV");
    signal(target.pid(), "FPE");
    let finished = target.finish();
    assert!(finished.stdout.contains("signal 11 code 0 value 0 me 0\n"), "{finished:?}");
    assert!(finished.stdout.contains("signal 8 code 0 value 0 me 0\nhandled=2\n"), "{finished:?}");
    tracer.finish();
}
