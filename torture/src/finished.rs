//! Commands under a time limit, in process groups that can be ended whole.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

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
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, stdout, stderr, status: None, maps: String::new() })
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
        obituary(self.pid(), &self.maps)
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

/// What the kernel's log says of a process, with the mappings of the addresses that it names.
pub(crate) fn obituary(pid: u32, maps: &str) -> String {
    let Ok(log) = Command::new("dmesg").output() else { return String::new() };
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let mine = format!("[{pid}]");
    let mut text = String::new();
    for line in log.lines().filter(|line| line.contains(&mine)) {
        text += &format!("\n  kernel: {line}");
        for address in line.split([' ', ':', ',']).filter_map(|word| u64::from_str_radix(word, 16).ok()) {
            let holds = |line: &&str| range(line).is_some_and(|range| range.contains(&address));
            if let Some(mapping) = maps.lines().find(holds) {
                text += &format!("\n    {address:#x} is in {mapping}");
            }
        }
    }
    text
}

fn range(line: &str) -> Option<std::ops::Range<u64>> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}
