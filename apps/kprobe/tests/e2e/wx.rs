//! No page of a target is ever writable and executable; the agent asks for nothing from the target.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::memory::{Mapping, mappings};
use crate::harness::run::{LIMIT, Running};
use crate::harness::trace::kprobe;
use crate::harness::{Target, Tracer, need, program, python};

/// Watches a process's mappings, as often as the machine can, while `action` runs; gives samples and offences.
fn watched(pid: impl Fn() -> Option<u32> + Sync, action: impl FnOnce()) -> (usize, Vec<Mapping>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut samples, mut offences) = (0, Vec::new());
            while !done.load(Ordering::Relaxed) {
                let now = pid().map(mappings).unwrap_or_default();
                samples += usize::from(!now.is_empty());
                offences.extend(now.into_iter().filter(Mapping::is_writable_and_executable));
                std::thread::sleep(Duration::from_micros(50));
            }
            (samples, offences)
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
        done.store(true, Ordering::Relaxed);
        let watched = watcher.join().expect("the watcher does not panic");
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        watched
    })
}

/// The first child of a process, by any of its threads.
fn child_of(pid: u32) -> Option<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("children")).ok()?;
        text.split_ascii_whitespace().next()?.parse().ok()
    })
}

#[test]
fn the_watcher_finds_a_writable_and_executable_mapping() {
    let bad = mappings(std::process::id()).into_iter().filter(Mapping::is_writable_and_executable).count();
    assert_eq!(bad, 0);
    let script = "import mmap, sys\nm = mmap.mmap(-1, 4096, prot=7)\nprint('ready', flush=True)\nsys.stdin.readline()";
    let target = Target::start(&need!(python()), &["-c", script]);
    let (samples, offences) = watched(|| Some(target.pid()), || std::thread::sleep(Duration::from_millis(20)));
    assert!(samples > 0 && !offences.is_empty(), "a writable and executable mapping was not noticed");
}

#[test]
fn attach_and_detach_make_no_page_writable_and_executable() {
    let path = need!(program("churn"));
    let target = Target::start(&path, &["2"]);
    let probes = ["p:work work", "r:malloc libc.so.6:malloc"];
    let (samples, offences) = watched(
        || Some(target.pid()),
        || {
            for _ in 0..5 {
                Tracer::attach(&target, &["-c"], &probes, &["work"]).interrupt();
            }
        },
    );
    assert!(samples > 10);
    assert!(offences.is_empty(), "{offences:?}");
    assert!(target.finish().stdout.contains("faults=0\n"));
}

#[test]
fn launch_makes_no_page_writable_and_executable() {
    let path = need!(program("victim.pie"));
    let mut tool = kprobe();
    tool.args(["trace", "-c", "-e", "p:work work", "-e", "r:leaf leaf", "--"]).arg(&path).args(["20000", "3"]);
    tool.stdin(Stdio::null());
    let running = Running::start(tool);
    let pid = running.pid();
    let (samples, offences) = watched(move || child_of(pid), || drop(running.finish(LIMIT)));
    assert!(samples > 3, "only {samples} samples");
    assert!(offences.is_empty(), "{offences:?}");
}

fn output(program: &str, arguments: &[&str], path: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(path).output().expect("binutils are installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_agent_needs_nothing_and_has_no_writable_and_executable_segment() {
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    std::fs::write(file.path(), agent_image::IMAGE).expect("a file can be written");
    let agent = file.path();
    assert_eq!(output("nm", &["-D", "--undefined-only"], agent), "");
    let segments = output("readelf", &["-W", "-l"], agent);
    assert!(!segments.contains("RWE") && !segments.contains("INTERP"), "{segments}");
    assert!(!output("readelf", &["-W", "-d"], agent).contains("NEEDED"));
}
