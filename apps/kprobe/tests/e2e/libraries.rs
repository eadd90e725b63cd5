//! Libraries that are loaded later, unloaded, and loaded again.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::memory::changed_text;
use crate::harness::trace::{assert_same_run, bare, command};
use crate::harness::{Target, Tracer, counts, need, program, python, trace};

/// Loads the plugin `times` times with a probe on its function that waits for it.
fn waits_for(loader: &str, plugin: &str, times: &str, options: &[&str], probe: &str) {
    let (loader, plugin) = (need!(program(loader)), need!(program(plugin)));
    let command = command(&loader, &[plugin.to_str().expect("a plain path"), times]);
    let alone = bare(&command);
    let trace = trace(options, &[probe], &command);
    assert_same_run(&alone, &trace.run);
    let summary = trace.summary("plug");
    assert_eq!(summary.hits, counts("calls", &alone.stdout)["plug"], "{:?}", trace.summaries);
    // Also when it is gone at the end.
    assert!(summary.placed.iter().any(|place| place.contains(":plug+0x0 (")), "{:?}", summary.placed);
}

#[test]
fn the_constructor_of_a_library_loaded_later_is_probed() {
    waits_for("loader", "plugin.so", "1", &["-c"], "p:plug plugin.so:plug");
}

#[test]
fn the_constructor_of_a_library_loaded_later_is_probed_with_musl() {
    waits_for("loader.musl", "plugin.musl.so", "1", &["-c"], "p:plug plugin.musl.so:plug");
}

#[test]
fn a_library_loaded_again_is_probed_again() {
    waits_for("loader", "plugin.so", "5", &["-c"], "p:plug plugin.so:plug");
}

#[test]
fn a_library_loaded_again_is_probed_again_with_musl() {
    waits_for("loader.musl", "plugin.musl.so", "5", &["-c"], "p:plug plugin.musl.so:plug");
}

#[test]
fn a_library_loaded_again_is_probed_again_on_return() {
    waits_for("loader", "plugin.so", "5", &["-c"], "r:plug plugin.so:plug");
}

#[test]
fn a_library_can_be_named_by_its_path() {
    let plugin = need!(program("plugin.so"));
    waits_for("loader", "plugin.so", "1", &["-c"], &format!("p:plug {}:plug", plugin.display()));
}

#[test]
fn probes_come_and_go_while_a_library_does() {
    const CYCLES: u32 = 10;
    let (loader, plugin) = (need!(program("loader")), need!(program("plugin.so")));
    let mut target = Target::start(&loader, &[plugin.to_str().expect("a plain path"), "100000000", "wait"]);
    target.go();
    let started = Instant::now();
    for cycle in 0..CYCLES {
        let probes = ["p:main main", "p:plug plugin.so:plug", "r:alloc libc.so.6:malloc"];
        let trace = Tracer::attach(&target, &["-c"], &probes, &["main"]).interrupt();
        assert_eq!(trace.run.status, 0, "cycle {cycle}: {}", trace.run.stderr);
        assert!(!target.is_probed("main"), "cycle {cycle}");
    }
    // The thread that tells the tool of a library is in a handler: who waited for its end would wait for two seconds.
    assert!(started.elapsed() < Duration::from_secs(2) * CYCLES, "{:?}", started.elapsed());
    assert_eq!(changed_text(target.pid()), []);
}

#[test]
fn a_library_that_python_loads_is_probed() {
    let library = Path::new("/usr/lib/x86_64-linux-gnu/libsqlite3.so.0");
    if !library.exists() {
        return crate::harness::skipped("no libsqlite3.so.0");
    }
    let script = "import ctypes\nlibrary = ctypes.CDLL('libsqlite3.so.0')\nprint(sum(library.sqlite3_libversion_number() > 0 for _ in range(7)))";
    let command = command(need!(python()), &["-c", script]);
    let trace = trace(&["-c"], &["p:version libsqlite3.so.0:sqlite3_libversion_number"], &command);
    assert_eq!((trace.run.stdout.as_str(), trace.run.status), ("7\n", 0), "{}", trace.run.stderr);
    assert_eq!(trace.summary("version").hits, 7);
}
