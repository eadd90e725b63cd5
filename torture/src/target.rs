//! A program of ours that runs and obeys lines.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use symbols::{Lookup, Object};

use crate::finished::{Finished, Running};

/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) running: Running,
    program: PathBuf,
    what: String,
}

impl Target {
    /// Starts it and waits for its line `ready`.
    ///
    /// # Errors
    ///
    /// If it does not get ready.
    pub(crate) fn start(program: &Path, arguments: &[&str], folder: &Path) -> Result<Self> {
        Self::start_with(program, arguments, folder, |_| {})
    }

    /// The same, in surroundings that `prepare` makes.
    ///
    /// # Errors
    ///
    /// If it does not get ready.
    pub(crate) fn start_with(
        program: &Path,
        arguments: &[&str],
        folder: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        prepare(&mut command);
        Self::of(command, folder)
    }

    /// A command, whatever starts it.
    ///
    /// # Errors
    ///
    /// If it does not get ready.
    pub(crate) fn of(mut command: Command, folder: &Path) -> Result<Self> {
        command.stdin(Stdio::piped()).current_dir(folder);
        let program = PathBuf::from(command.get_program());
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let what = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let running = Running::start(command, folder, "target")?;
        let mut target = Self { running, program, what };
        if !target.running.wait_for_line("ready", PATIENCE) {
            let condition = target.condition();
            bail!("it did not get ready: {condition}: {}", target.finish().errors());
        }
        target.running.remember_maps();
        Ok(target)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Sends it a line and waits for the line that answers.
    ///
    /// # Errors
    ///
    /// If it is dead, or does not answer; with all that is known of that.
    pub(crate) fn tell(&mut self, line: &str, answer: &str) -> Result<(), String> {
        self.running.remember_maps();
        let sent = self.running.stdin().is_some_and(|pipe| writeln!(pipe, "{line}").is_ok());
        if sent && self.running.wait_for_line(answer, PATIENCE) {
            return Ok(());
        }
        Err(format!("no answer `{answer}` to `{line}`: {}", self.condition()))
    }

    /// The number behind `KEY=` in what it has printed last.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        let printed = self.running.printed();
        printed.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    }

    /// Whether it is dead, and how it died; or what it does instead.
    pub(crate) fn condition(&mut self) -> String {
        let pid = self.pid();
        let name = self.what.clone();
        // A death takes the kernel a moment, with a dump.
        for _ in 0..50 {
            let state = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if self.running.has_ended() || !state.contains("State:\tZ") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.running.has_ended() {
            return format!("{name} (process {pid}) is dead: {}{}", self.running.end(), self.running.obituary());
        }
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let wanted = ["State:", "SigPnd:", "ShdPnd:", "SigBlk:", "SigCgt:", "TracerPid:"];
        let status = read("status");
        let status: Vec<_> = status.lines().filter(|line| wanted.iter().any(|key| line.starts_with(key))).collect();
        format!("{name} (process {pid}) lives: {}; {}", status.join(", "), self.threads())
    }

    /// Where its threads are, in the kernel's words.
    fn threads(&self) -> String {
        let folder = format!("/proc/{}/task", self.pid());
        let tasks = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let at = |task: std::fs::DirEntry| {
            let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            format!("thread {}: {}", task.file_name().to_string_lossy(), read("syscall").trim())
        };
        tasks.take(12).map(at).collect::<Vec<_>>().join("; ")
    }

    /// Closes its input and waits for its end.
    pub(crate) fn finish(mut self) -> Finished {
        self.running.close();
        self.running.finish(PATIENCE)
    }

    /// Where a function of its program is in its memory.
    ///
    /// # Errors
    ///
    /// If there is none of that name.
    pub(crate) fn address(&self, symbol: &str) -> Result<u64> {
        let object = Object::read(&self.program)?;
        let Lookup::Found(function) = object.lookup(symbol) else { bail!("no function {symbol}") };
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        let real = self.program.canonicalize()?;
        let first = maps.lines().find(|line| line.ends_with(&*real.to_string_lossy())).context("it is not mapped")?;
        let base = u64::from_str_radix(first.split('-').next().unwrap_or_default(), 16)?;
        let fixed = object.loads().first().is_some_and(|load| load.vaddr != 0);
        Ok(if fixed { function.addr } else { base + function.addr })
    }

    /// Writes into its code: for controls.
    ///
    /// # Errors
    ///
    /// If that may not be.
    pub(crate) fn poke(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let memory = File::options().write(true).open(format!("/proc/{}/mem", self.pid()))?;
        memory.write_all_at(bytes, address).context("its memory")
    }

    /// Where its executable memory is not what its files say.
    pub(crate) fn changed_text(&self) -> Vec<String> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap_or_default();
        maps.lines().filter_map(|line| self.changed(line)).flatten().collect()
    }

    fn changed(&self, line: &str) -> Option<Vec<String>> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let executable = fields.next()?.contains('x');
        let number = |text| u64::from_str_radix(text, 16).ok();
        let offset = number(fields.next()?)? as usize;
        let path = fields.nth(2)?;
        if !executable || !path.starts_with('/') {
            return None;
        }
        let (start, end) = (number(start)?, number(end)?);
        let file = std::fs::read(path).ok()?;
        let mut memory = vec![0; (end - start) as usize];
        File::open(format!("/proc/{}/mem", self.pid())).ok()?.read_exact_at(&mut memory, start).ok()?;
        let bytes = memory.iter().zip(file.get(offset..)?).zip(start..);
        let differing = bytes.filter(|((now, then), _)| now != then).take(8);
        Some(differing.map(|((now, then), at)| format!("{path} at {at:#x}: {now:02x} instead of {then:02x}")).collect())
    }
}
