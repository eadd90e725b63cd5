//! `kprobe trace`.

use crate::args::{Placement, TraceArgs};
use crate::output::Output;
use crate::progress::Progress;
use crate::status::{FAILURE, SIGNAL, say};
use crate::{definitions, modules, report};
use anyhow::{Result, bail};
use events::Definition;
use host_process::control::{HostError, Image, Notice, Options, Trace};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the tool sleeps when nothing happens.
const IDLE: Duration = Duration::from_millis(10);
/// What waits longer than this is said.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a command may take to end by the same Ctrl-C that ended the trace.
const LAST_WORDS: Duration = Duration::from_millis(200);

struct Run<'a> {
    args: &'a TraceArgs,
    definitions: Vec<Definition>,
    output: Output,
    trace: Trace,
    child: Option<Child>,
    ended: Option<ExitStatus>,
    interrupted: Arc<AtomicBool>,
    start: Instant,
    told_waiting: bool,
    /// Why events were not placed in a followed process.
    not_placed: BTreeMap<usize, String>,
    /// The command was ended before its first instruction, because an event cannot be placed.
    refused: bool,
    /// The first error; the trace stops there, the target does not.
    failed: Option<anyhow::Error>,
}

/// Runs a trace; the exit status.
pub(crate) fn run(args: &TraceArgs) -> Result<u8> {
    let modules = args.modules.iter().map(|text| modules::with_parameters(text)).collect::<Result<Vec<_>>>()?;
    let definitions = if args.events.is_empty() { Vec::new() } else { definitions::read(&args.events)? };
    let output = Output::new(args.output.as_deref(), args.format, &definitions, args.max_events)?;
    let options =
        Options { follow: args.follow, count: args.count, breakpoints: args.placement == Placement::Breakpoint };
    let mut trace = Trace::new(Image::parse(crate::AGENT)?, definitions.clone(), options);
    modules.into_iter().for_each(|file| trace.add_module(file, false));
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|s| !is_ignored(*s)) {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let mut run = Run {
        args,
        definitions,
        output,
        trace,
        child: None,
        ended: None,
        interrupted,
        start: Instant::now(),
        told_waiting: false,
        not_placed: BTreeMap::new(),
        refused: false,
        failed: None,
    };
    run.begin()?;
    run.follow();
    run.end()
}

/// Whether a signal was ignored when we were started, as under `nohup`: it stays so, for us and for the command.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let set = set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    set & (1 << (signal - 1)) != 0
}

impl Run<'_> {
    fn begin(&mut self) -> Result<()> {
        match self.args.pid {
            Some(pid) => {
                let _progress = Progress::new(format!("placing probes in process {pid}"), Some(self.trace.progress()));
                self.check_first(pid)?;
                self.trace.attach(pid)?;
            }
            None => {
                let _progress =
                    Progress::new("starting the command and placing probes".into(), Some(self.trace.progress()));
                self.child = Some(self.trace.launch(&self.args.command)?);
            }
        }
        let notices = self.trace.take_notices();
        if let Some(why) = self.refusals(&notices) {
            self.abandon();
            bail!(why);
        }
        self.say_all(notices);
        Ok(())
    }

    /// What can be refused is refused before anything of the process is touched.
    fn check_first(&mut self, pid: i32) -> Result<()> {
        let refused = self.trace.check(pid)?;
        let told = |(index, why): (usize, String)| format!("{}: {why}", self.output.event(index).0);
        if refused.is_empty() { Ok(()) } else { bail!(refused.into_iter().map(told).collect::<Vec<_>>().join("\n")) }
    }

    /// The events that could not be placed before anything had run, if there are any.
    fn refusals(&self, notices: &[Notice]) -> Option<String> {
        let refusal = |n: &Notice| match n {
            Notice::Failed { event, why, fatal: true, .. } => Some(format!("{}: {why}", self.output.event(*event).0)),
            Notice::Refused { why, fatal: true, .. } => Some(why.clone()),
            _ => None,
        };
        let all: Vec<String> = notices.iter().filter_map(refusal).collect();
        (!all.is_empty()).then(|| all.join("\n"))
    }

    /// Nothing is traced: a command that we started ends before it has done anything, a process goes on.
    fn abandon(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.trace.detach();
    }

    fn say_all(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            match notice {
                Notice::Note(text) => say(&text),
                // With -f, of each program; the summary says it at the end.
                Notice::Spread { .. } if self.args.follow => {}
                Notice::Spread { event, what } => say(&format!("{}: {what}", self.output.event(event).0)),
                // With -f, most programs have not what is probed; said at the end if none had it.
                Notice::Failed { event, why, .. } if self.args.follow => {
                    self.not_placed.entry(event).or_insert(why);
                }
                Notice::Refused { pid, why, .. } => say(&format!("not inserted into process {pid}: {why}")),
                Notice::Failed { event, pid, why, .. } => {
                    say(&format!("{}: not placed in process {pid}: {why}", self.output.event(event).0));
                }
            }
        }
    }

    /// Prints what comes until there is a reason to stop.
    fn follow(&mut self) {
        let end = self.args.duration.map(|s| self.start + Duration::from_secs_f64(s));
        while self.failed.is_none() {
            self.trace.wait(IDLE);
            self.reap();
            if let Err(error) = self.step() {
                self.failed = Some(error);
            }
            let over = end.is_some_and(|e| Instant::now() >= e);
            let idle = !self.trace.is_active() && self.child.is_none();
            if idle || over || self.interrupted.load(Ordering::Relaxed) || self.output.is_full() {
                return;
            }
        }
    }

    fn step(&mut self) -> Result<()> {
        let first_program = self.start.elapsed();
        self.trace.service()?;
        let notices = self.trace.take_notices();
        if let Some(why) = self.refusals(&notices) {
            // Found out when the program's libraries were mapped, before its first instruction.
            self.abandon();
            self.child = None;
            self.refused = true;
            bail!(why);
        }
        self.say_all(notices);
        let horizon = self.trace.horizon();
        self.output.records(&mut self.trace, Some(horizon))?;
        if !self.told_waiting && first_program > PATIENCE {
            self.told_waiting = true;
            self.tell_waiting();
        }
        Ok(())
    }

    fn tell_waiting(&self) {
        let waiting: BTreeSet<(usize, String)> = self.trace.pending().into_iter().collect();
        let mapped = self.trace.mapped().join(", ");
        for (event, object) in waiting {
            let event = self.output.event(event).0;
            say(&format!("{event}: waiting for {object} to be loaded; mapped until now: {mapped}"));
        }
    }

    /// Has the command ended?
    fn reap(&mut self) {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            self.ended = Some(status);
            self.child = None;
        }
    }

    /// Takes the probes out, prints the rest and the summary, and waits for the command.
    fn end(mut self) -> Result<u8> {
        let tallies_before = {
            let _progress = Progress::new("removing the probes".into(), None);
            let placed = self.trace.tallies();
            match self.trace.detach() {
                Ok(()) | Err(HostError::Gone { .. }) => {}
                Err(error) => say(&format!("the probes could not be removed everywhere: {error}")),
            }
            placed
        };
        if self.failed.is_none()
            && let Err(error) = self.print_rest(tallies_before)
        {
            self.failed = Some(error);
        }
        let status = self.wait_for_command();
        match self.failed {
            Some(error) if self.refused => Err(error),
            Some(error) => {
                say(&format!("{error:#}; the trace ends here, the program was left alone"));
                Ok(FAILURE)
            }
            None => Ok(status),
        }
    }

    fn print_rest(&mut self, placed: Vec<host_process::control::Tally>) -> Result<()> {
        self.output.records(&mut self.trace, None)?;
        let mut tallies = self.trace.tallies();
        for (tally, before) in tallies.iter_mut().zip(placed) {
            tally.placed = before.placed;
        }
        let uncounted = self.trace.uncounted_processes();
        if uncounted > 0 {
            say(&format!("{uncounted} processes were not counted: more were alive at once than can be followed"));
        }
        let notices = self.trace.take_notices();
        self.say_all(notices);
        for (&event, why) in
            self.not_placed.iter().filter(|&(&e, _)| tallies.get(e).is_some_and(|t| t.placed.is_empty()))
        {
            say(&format!("{}: placed nowhere: {why}", self.output.event(event).0));
        }
        if self.definitions.is_empty() {
            return Ok(());
        }
        report::summary(&mut self.output, &self.definitions, &tallies, &self.trace.functions())
    }

    fn wait_for_command(&mut self) -> u8 {
        if self.interrupted.load(Ordering::Relaxed) {
            let end = Instant::now() + LAST_WORDS;
            while self.child.is_some() && Instant::now() < end {
                std::thread::sleep(IDLE);
                self.reap();
            }
            if self.child.is_some() {
                return SIGNAL + SIGINT as u8;
            }
        }
        if let Some(child) = &mut self.child {
            self.ended = child.wait().ok();
        }
        self.ended.map_or(0, code)
    }
}

fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => SIGNAL.saturating_add(signal as u8),
        (None, None) => FAILURE,
    }
}
