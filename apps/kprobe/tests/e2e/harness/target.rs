//! Attaching: a program that runs already, and the tool beside it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::NamedTempFile;

use super::memory::Site;
use super::run::{LIMIT, Running, signal, wait_until};
use super::trace::{Trace, at_file, command, definitions, kprobe};
use super::{Finished, event_name};

/// A running program that waits for a line on its standard input.
#[derive(Debug)]
pub(crate) struct Target {
    running: Running,
    program: PathBuf,
    stdin: std::process::ChildStdin,
}

impl Target {
    /// Starts a program and waits for its line `ready`.
    ///
    /// # Panics
    ///
    /// If it cannot be started or does not get ready.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = command(program, arguments);
        command.stdin(Stdio::piped());
        let mut running = Running::start(command);
        let stdin = running.stdin().expect("the input is a pipe");
        wait_until("the target gets ready", || running.stdout().contains("ready\n"));
        Self { running, program: program.to_owned(), stdin }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The start of a function of its program.
    pub(crate) fn site(&self, symbol: &str) -> Site {
        Site::of(self.pid(), &self.program, symbol)
    }

    /// True if a probe lies at the start of `symbol` in this process.
    pub(crate) fn is_probed(&self, symbol: &str) -> bool {
        self.site(symbol).is_patched()
    }

    /// Its standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.running.stdout()
    }

    /// Sends the line that it waits for.
    pub(crate) fn go(&mut self) {
        // A target that died shows as such when it is finished.
        let _ = self.stdin.write_all(b"\n").and_then(|()| self.stdin.flush());
    }

    /// Sends the line, and waits for the end.
    pub(crate) fn finish(mut self) -> Finished {
        self.go();
        self.running.finish(LIMIT)
    }
}

/// The tool, attached to a target.
#[derive(Debug)]
pub(crate) struct Tracer {
    running: Running,
    out: NamedTempFile,
    _lines: NamedTempFile,
}

/// Whether somebody traces a thread of the process.
fn is_held(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok()).any(|status| {
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}

impl Tracer {
    /// Attaches, and waits until every one of `symbols` (of the target's program) is probed.
    ///
    /// # Panics
    ///
    /// If that does not happen.
    pub(crate) fn attach<P: AsRef<str>>(target: &Target, options: &[&str], probes: &[P], symbols: &[&str]) -> Self {
        let out = NamedTempFile::new().expect("temporary files can be made");
        let lines = definitions(probes);
        let mut tool = kprobe();
        tool.args(["trace", "--format", "jsonl", "-o"]).arg(out.path()).args(options);
        tool.arg("-e").arg(at_file(lines.path())).arg("-p").arg(target.pid().to_string());
        tool.stdin(Stdio::null());
        let sites: Vec<_> = symbols.iter().map(|symbol| target.site(symbol)).collect();
        let mut running = Running::start(tool);
        wait_until("the probes are placed", || {
            if running.has_ended() {
                panic!("kprobe ended: {}", running.stderr());
            }
            // It holds a thread until everything is as it should be: breakpoints, too, that are to become jumps.
            sites.iter().all(Site::is_patched) && !is_held(target.pid())
        });
        Self { running, out, _lines: lines }
    }

    /// [`Self::attach`] with an entry probe, and nothing but the summary, on each of `symbols`.
    pub(crate) fn count(target: &Target, symbols: &[&str]) -> Self {
        let probes: Vec<_> = symbols.iter().map(|symbol| format!("p:{} {symbol}", event_name(symbol))).collect();
        Self::attach(target, &["-c"], &probes, symbols)
    }

    /// Ends the tool as Ctrl-C does, and reads its report.
    pub(crate) fn interrupt(self) -> Trace {
        signal(self.running.pid(), "INT");
        self.finish()
    }

    /// Waits for the tool's end (the target's), and reads its report.
    pub(crate) fn finish(self) -> Trace {
        let run = self.running.finish(LIMIT);
        let mut text = String::new();
        let mut file = File::open(self.out.path()).expect("the trace can be read");
        std::io::Read::read_to_string(&mut file, &mut text).expect("the trace is text");
        Trace::read(run, &text)
    }
}
