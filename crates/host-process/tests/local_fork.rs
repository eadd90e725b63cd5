//! A forked child of a program that probes itself: it may not change probes, and its own count nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use host_process::local::{Error, Process};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn called_in_both(n: u64) -> u64 {
    std::hint::black_box(n) + 1
}

/// Runs `f` in a forked child; what it says.
fn in_child(f: impl FnOnce() -> String) -> String {
    let (mut here, mut there) = UnixStream::pair().unwrap();
    // SAFETY: the child only runs `f` and ends; its locks are its own, and the allocator survives a fork.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(here);
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or_else(|_| "panic".into());
        let _ = there.write_all(said.as_bytes());
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    drop(there);
    let mut said = String::new();
    here.read_to_string(&mut said).unwrap();
    let mut status = 0;
    // SAFETY: our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "the child has died: {status:#x}");
    said
}

#[test]
fn a_child_runs_over_probes_and_cannot_change_them() {
    let process = Process::start().unwrap();
    process.define_all(&["p:entry called_in_both", "r:return called_in_both"]).unwrap();
    let said = in_child(|| {
        let sum: u64 = (0_u64..100).map(|n| called_in_both(n)).sum();
        let refused = process.remove("entry").unwrap_err();
        assert!(matches!(refused, Error::Forked { .. }), "{refused}");
        assert!(matches!(Process::start(), Err(Error::Forked { .. })));
        format!("{sum} {refused}")
    });
    assert!(said.starts_with("5050 ") && said.contains("was forked from"), "{said}");
    assert_eq!(process.counts("entry").unwrap().hits, 0);
    (0_u64..7).map(|n| called_in_both(n)).for_each(drop);
    assert_eq!(process.counts("entry").unwrap().hits, 7);
    assert_eq!(process.counts("return").unwrap().returned, 7);
    process.remove_all().unwrap();
}
