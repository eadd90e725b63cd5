//! Insertion and removal again and again, under load: nothing may be left behind.

use super::{insert, module, remove};
use crate::harness::memory::{changed_text, mappings};
use crate::harness::{Target, counts, need, program};

/// Mappings, descriptors and resident memory (KiB) of a process.
fn resources(pid: u32) -> (usize, usize, u64) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let resident = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).expect("it has memory");
    (mappings(pid).len(), descriptors, resident.trim().trim_end_matches(" kB").parse().expect("a number"))
}

/// Inserts and removes a module again and again while four threads hit its probe.
fn cycles(count: u32) {
    let (path, file) = (need!(program("churn")), need!(module("cycle", &[])));
    let target = Target::start(&path, &["4"]);
    let mut first = (0, 0, 0);
    for cycle in 0..count {
        insert(target.pid(), &file, if cycle % 2 == 0 { &["kind=1"] } else { &["kind=3"] });
        let out = remove(target.pid(), "cycle");
        assert!(!out.contains("wrong") && out.contains("cycle leaves"), "cycle {cycle}: {out}");
        if cycle == count / 10 {
            first = resources(target.pid());
        }
    }
    let last = resources(target.pid());
    assert_eq!((first.0, first.1), (last.0, last.1), "mappings and descriptors");
    // Its heap is at work; a leak of one page for each cycle would show.
    assert!(last.2 < first.2 + 1024 + u64::from(count), "{} KiB became {} KiB", first.2, last.2);
    let finished = {
        assert_eq!(changed_text(target.pid()), []);
        target.finish()
    };
    assert!(finished.stdout.contains("faults=0\n") && counts("calls", &finished.stdout)["work"] > 0, "{finished:?}");
}

#[test]
fn a_hundred_cycles_under_load_leave_nothing_behind() {
    cycles(100);
}

#[test]
#[ignore = "takes minutes; the hundred above are its short form"]
fn a_thousand_cycles_under_load_leave_nothing_behind() {
    cycles(1000);
}
