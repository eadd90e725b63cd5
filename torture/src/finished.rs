//! Commands under a time limit, in process groups that can be ended whole.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::obituary;

/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// A command that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    /// As a shell shows it: 128 + N for signal N. `None`: it had to be ended.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Finished {
    /// How it ended, in words.
    pub(crate) fn end(&self) -> String {
        ended(self.status)
    }

    /// Its standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its standard error as text.
    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

fn ended(status: Option<i32>) -> String {
    match status {
        None => "was still running when its time was up".into(),
        Some(status) if status > 128 => format!("ended by signal {}", status - 128),
        Some(status) => format!("exit status {status}"),
    }
}

/// As a shell shows it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A command that runs; ended with its process group when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    status: Option<ExitStatus>,
    /// Where it runs, if that is a folder of ours, and since when.
    folder: PathBuf,
    since: f64,
    /// The name that the kernel has for its threads.
    name: String,
    /// Its mappings when they were last looked at, for whoever has to explain its death.
    maps: String,
}

impl Running {
    /// Starts a command; what it prints goes to files `NAME.out` and `NAME.err` in `folder`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn start(mut command: Command, folder: &Path, name: &str) -> Result<Self> {
        let (stdout, stderr) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        command.process_group(0).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let since = obituary::now();
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let name = program.to_string_lossy().into_owned();
        Ok(Self { child, stdout, stderr, status: None, folder: folder.to_owned(), since, name, maps: String::new() })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, if that was asked for.
    pub(crate) fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.child.stdin.as_mut()
    }

    /// Closes its standard input.
    pub(crate) fn close(&mut self) {
        drop(self.child.stdin.take());
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// True once it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status.is_some()
    }

    /// How it ended, in words.
    pub(crate) fn end(&self) -> String {
        ended(self.status.map(code))
    }

    /// Remembers what it has mapped.
    pub(crate) fn remember_maps(&mut self) {
        let now = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap_or_default();
        if !now.is_empty() {
            self.maps = now;
        }
    }

    /// What the kernel and the last mappings say of its death.
    pub(crate) fn obituary(&self) -> String {
        // A dump takes the kernel a moment.
        std::thread::sleep(Duration::from_millis(20));
        obituary::obituary(&self.folder, &self.name, &self.maps, self.since)
    }

    /// Waits until it has printed a line.
    pub(crate) fn wait_for_line(&mut self, line: &str, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            if self.printed().lines().any(|l| l == line) {
                return true;
            }
            if self.has_ended() || Instant::now() > end {
                return false;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for its end; when its time is up it is ended, with all that it has started.
    pub(crate) fn finish(mut self, limit: Duration) -> Finished {
        let end = Instant::now() + limit;
        while !self.has_ended() && Instant::now() < end {
            std::thread::sleep(LOOK);
        }
        let status = self.status.map(code);
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        let (stdout, stderr) = (read(&self.stdout), read(&self.stderr));
        Finished { status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            signal(&format!("-{}", self.pid()), "KILL");
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to a process, or with a sign to a process group.
pub(crate) fn signal(to: &str, name: &str) {
    let mut kill = Command::new("kill");
    // One that is gone already is no failure.
    let _ = kill.args([&format!("-{name}"), "--", to]).stderr(Stdio::null()).status();
}
