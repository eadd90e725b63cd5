//! Running commands under a time limit, in process groups that can be ended whole.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

/// The limit for a run whose length does not matter.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit status as a shell shows it: 128 + the signal's number for a signal.
    pub(crate) status: i32,
    /// All of its standard output.
    pub(crate) stdout: String,
    /// All of its standard error.
    pub(crate) stderr: String,
}

/// A running command, ended with its whole process group when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    what: String,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
    ended: bool,
}

impl Running {
    /// Starts a command in a process group of its own. Its output goes to files: a pipe that nobody reads, or that a
    /// grandchild keeps open, cannot stop the test.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub(crate) fn start(mut command: Command) -> Self {
        let stdout = NamedTempFile::new().expect("temporary files can be made");
        let stderr = NamedTempFile::new().expect("temporary files can be made");
        let what = format!("{command:?}");
        let child = command
            .process_group(0)
            .stdout(writer(&stdout))
            .stderr(writer(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        Self { child, what, stdout, stderr, ended: false }
    }

    /// The process id, which is also the process group's.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process's standard input, where it was asked for.
    pub(crate) fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output so far.
    pub(crate) fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    /// Its standard error so far.
    pub(crate) fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// True once the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// If that takes longer than `limit`; the process group is killed then.
    pub(crate) fn finish(mut self, limit: Duration) -> Finished {
        let status = self.wait(limit);
        self.ended = true;
        Finished { status: shell_status(status), stdout: self.stdout(), stderr: self.stderr() }
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            if start.elapsed() > limit {
                signal_group(self.pid(), "KILL");
                panic!(
                    "{} still runs after {limit:?}\n--- stdout\n{}\n--- stderr\n{}",
                    self.what,
                    self.stdout(),
                    self.stderr()
                );
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            signal_group(self.pid(), "KILL");
            // The process may be gone already; either way nothing is left to wait for.
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, within [`LIMIT`], with no input.
pub(crate) fn run(mut command: Command) -> Finished {
    command.stdin(Stdio::null());
    Running::start(command).finish(LIMIT)
}

/// Polls until `condition` holds.
///
/// # Panics
///
/// If it does not within ten seconds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, name: &str) {
    send(name, &pid.to_string());
}

fn signal_group(pid: u32, name: &str) {
    send(name, &format!("-{pid}"));
}

fn send(name: &str, to: &str) {
    // A process that is gone already needs no signal.
    let _ = Command::new("sh").args(["-c", "kill -s \"$0\" -- \"$1\" 2>/dev/null", name, to]).status();
}

fn shell_status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn writer(file: &NamedTempFile) -> File {
    file.reopen().expect("a temporary file can be opened again")
}

fn contents(file: &NamedTempFile) -> String {
    String::from_utf8_lossy(&std::fs::read(file.path()).unwrap_or_default()).into_owned()
}
