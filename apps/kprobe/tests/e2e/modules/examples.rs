//! The modules of `modules/`, built by the tool and inserted into a python3 that is at work.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{changed_text, insert, is_listed, remove};
use crate::harness::run::{Running, wait_until};
use crate::harness::trace::kprobe;
use crate::harness::{need, python, run};

/// Builds one of the modules.
fn build(name: &str) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let file = tempfile::Builder::new().prefix(name).suffix(".ko").tempfile_in(&folder).expect("a file can be made");
    let path = file.into_temp_path().keep().expect("a file can be kept");
    let mut command = kprobe();
    command.arg("build").arg(manifest.join("../../modules").join(name)).arg("-o").arg(&path);
    let finished = run(command);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    path
}

/// A python3 that executes a line again and again until it is told to stop, and says how often when it ends.
fn at_work(python: &Path, line: &str) -> Running {
    let script = format!(
        "import os, select, sys, time\nrounds = 0\nprint('ready', flush=True)\n\
         while not select.select([sys.stdin], [], [], 0.02)[0]:\n    {line}\n    rounds += 1\nprint('ended')\n"
    );
    let mut command = Command::new(python);
    command.args(["-c", &script]).stdin(Stdio::piped());
    let running = Running::start(command);
    wait_until("python3 is at work", || running.stdout().contains("ready"));
    running
}

/// Inserts a module for a moment, and gives what it has said. The program goes on and ends as it should.
fn says(name: &str, parameters: &[&str], line: &str) -> Option<String> {
    let python = python()?;
    let module = build(name);
    let mut running = at_work(&python, line);
    let mut said = insert(running.pid(), &module, parameters);
    assert!(is_listed(running.pid(), name));
    std::thread::sleep(std::time::Duration::from_millis(300));
    said += &remove(running.pid(), name);
    assert!(!is_listed(running.pid(), name));
    assert_eq!(changed_text(running.pid()), [], "the text is not what it was");
    running.stdin().expect("a pipe").write_all(b"\n").expect("python3 reads");
    let finished = running.finish(std::time::Duration::from_secs(10));
    assert_eq!((finished.status, finished.stdout.as_str()), (0, "ready\nended\n"), "{}", finished.stderr);
    Some(said)
}

#[test]
fn open_failures_tells_of_each_failing_open() {
    let line = "try: open('/no/such/file')\n    except OSError: pass";
    let said = need!(says("open-failures", &[], line));
    assert!(said.contains("open returns -2: /no/such/file (python3["), "{said}");
    let line = "try: os.open('no-such', os.O_RDONLY, dir_fd=os.open('/', os.O_RDONLY))\n    except OSError: pass";
    let said = need!(says("open-failures", &["symbols=libc.so.6:openat64"], line));
    assert!(said.contains("openat64 returns -2: no-such"), "{said}");
}

#[test]
fn malloc_histogram_counts_sizes() {
    let said = need!(says("malloc-histogram", &[], "x = bytearray(100000)"));
    assert!(said.contains(" 131072 |"), "{said}");
}

#[test]
fn jprobe_args_sees_the_arguments() {
    let line = "try: open('/no/such/file')\n    except OSError: pass";
    let said = need!(says("jprobe-args", &["symbol=libc.so.6:open64", "count=2", "string=1"], line));
    assert!(said.contains("(\"/no/such/file\", 0x80000) in python3["), "{said}");
}

#[test]
fn single_step_log_prints_registers_before_and_after() {
    let said = need!(says("single-step-log", &["symbol=libc.so.6:getppid", "limit=2"], "os.getppid()"));
    let rows = |when: &str| said.lines().filter(|line| line.contains(&format!("] {when} "))).count();
    assert_eq!((rows("before"), rows("after")), (2, 2), "{said}");
}

/// A small file system in memory, unmounted when it is dropped; without the right to mount one, `/dev/full`.
struct Full(tempfile::TempDir, bool);

impl Full {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder.path());
        let mounted = run(mount).status == 0;
        Self(folder, mounted)
    }

    fn file(&self) -> String {
        if self.1 { self.0.path().join("file").display().to_string() } else { "/dev/full".into() }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        if self.1 {
            let mut unmount = Command::new("umount");
            unmount.arg(self.0.path());
            run(unmount);
        }
    }
}

#[test]
fn disk_full_tells_of_writes_without_space() {
    let full = Full::new();
    let line = format!(
        "f = os.open('{}', os.O_WRONLY | os.O_CREAT)\n    try: os.write(f, b'x' * 65536); os.write(f, b'x' * 65536)\n    \
         except OSError as e: assert e.errno == 28\n    os.close(f)",
        full.file()
    );
    let said = need!(says("disk-full", &[], &line));
    assert!(said.contains("no space: write to descriptor"), "{said}");
    assert!(!said.contains("disk-full: 0 writes"), "{said}");
}
