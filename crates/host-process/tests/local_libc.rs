//! Probes on what control itself calls, in the C library: nothing waits for itself, and nothing recurses.

use host_process::local::Process;

/// What control uses to plant probes, to take them off, and to answer questions.
const FUNCTIONS: [&str; 16] = [
    "malloc",
    "free",
    "realloc",
    "open64",
    "close",
    "read",
    "write",
    "pread64",
    "pwrite64",
    "mmap64",
    "munmap",
    "syscall",
    "getpid",
    "clock_gettime",
    "pthread_mutex_lock",
    "pthread_mutex_unlock",
];

#[test]
fn functions_that_control_calls_can_be_probed_while_it_does() {
    let process = Process::start().unwrap();
    let entries: Vec<String> = FUNCTIONS.iter().map(|f| format!("p:e_{f} libc.so.6:{f}")).collect();
    let returns: Vec<String> = FUNCTIONS.iter().map(|f| format!("r:r_{f} libc.so.6:{f}")).collect();
    for round in 0..5 {
        for line in entries.iter().chain(&returns) {
            process.define(line).unwrap();
        }
        let text = format!("{round}: {}", "x".repeat(1000));
        let file = tempfile();
        std::fs::write(&file, &text).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        std::fs::remove_file(&file).unwrap();
        for function in ["malloc", "free", "close", "pwrite64", "pread64"] {
            for kind in ["e", "r"] {
                let counts = process.counts(&format!("{kind}_{function}")).unwrap();
                assert!(counts.hits > 0 && counts.missed == 0, "{kind}_{function}: {counts:?}");
            }
        }
        // Half one by one, the rest at once.
        for function in FUNCTIONS {
            process.remove(&format!("e_{function}")).unwrap();
        }
        process.remove_all().unwrap();
    }
}

fn tempfile() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("local-libc-{}", std::process::id()))
}
