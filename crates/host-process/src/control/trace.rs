//! A trace: the processes that are traced together, and what comes from them.
//!
//! # Who does what
//!
//! The caller's thread owns the trace and makes every `ptrace` call (the kernel ties a tracee to one thread). It calls
//! [`Trace::service`] again and again: that answers mailboxes, notices children and deaths, and collects records. A
//! small thread of its own moves the heartbeat, so that agents do not take a busy tool for a dead one.

use super::catalogue::Catalogue;
use super::check::{Verdict, View};
use super::clock::Clock;
use super::families::Families;
use super::groups::{Matched, matched};
use super::image::Image;
use super::mail::Mail;
use super::member::{Member, News, Plan, State};
use super::memory::Memory;
use super::modules::Message;
use super::notice::{Notice, Options, Progress, Record};
use super::objects::{Cache, Objects};
use super::resolve::FetchSymbols;
use super::shared::SharedMap;
use super::stop::Held;
use super::tally::{FunctionCounts, FunctionTally, Tally, add_functions, place_functions};
use super::{HostError, Result, follow, hooks, inject, launch, linker, maps, modules, process, scrub, settle};
use crate::abi::{event, mail as state};
use events::{Definition, Place, compile};
use std::ffi::OsString;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;
use sync::primitive::Ordering;

/// The processes of one trace.
///
/// A command, from its first instruction to its end:
///
/// ```
/// # #[cfg(feature = "local")] {
/// use host_process::control::{Image, Options, Trace};
/// use std::time::Duration;
///
/// let definitions = vec![events::parse("p:allocations libc.so.6:malloc size=$arg1")?];
/// let mut trace = Trace::new(Image::parse(agent_image::IMAGE)?, definitions, Options::default());
/// let mut child = trace.launch(&["sort".into(), "/dev/null".into()])?;
/// assert_eq!(trace.pending(), [(0, "libc.so.6".into())], "the dynamic linker has not run yet");
///
/// while trace.is_active() {
///     trace.wait(Duration::from_millis(10));
///     trace.service()?;
/// }
/// assert!(child.wait()?.success());
/// let tally = &trace.tallies()[0];
/// assert!(tally.hits > 0);
/// assert_eq!(trace.take_records().len() as u64, tally.hits - tally.lost);
/// assert!(trace.take_notices().is_empty());
/// assert_eq!(trace.uncounted_processes(), 0);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Trace {
    image: Image,
    pub(super) plan: Plan,
    pub(super) members: Vec<Member>,
    families: Families,
    /// The command that was started for this trace.
    launched: Option<i32>,
    /// It inherits a mask with `SIGTRAP` in it.
    inherits_block: bool,
    /// Banks of processes that cannot be worked with, or have gone: only their counts and records are read.
    strangers: Vec<Stranger>,
    cache: Cache,
    tallies: Vec<Tally>,
    /// What functions of patterns have counted in processes that have left.
    functions: FunctionCounts,
    records: Vec<Record>,
    /// The time stamp counter when the rings began to be read last: older records are all out.
    horizon: u64,
    pub(super) notices: Vec<Notice>,
    /// What modules have printed.
    pub(super) messages: Vec<Message>,
    /// Converts the records' time stamps.
    pub clock: Clock,
}

impl Trace {
    /// A trace of nothing yet. `image` is the agent.
    #[must_use]
    pub fn new(image: Image, definitions: Vec<Definition>, options: Options) -> Self {
        let tallies = definitions.iter().map(|_| Tally::default()).collect();
        let mut cache = Cache::default();
        cache.catalogue = Catalogue::new(&definitions);
        Self {
            image,
            plan: Plan {
                definitions: Arc::new(definitions),
                follow: options.follow,
                count: options.count,
                breakpoints: options.breakpoints,
                progress: Arc::default(),
                modules: Arc::default(),
            },
            members: Vec::new(),
            cache,
            families: Families::default(),
            launched: None,
            inherits_block: false,
            strangers: Vec::new(),
            tallies,
            functions: FunctionCounts::new(),
            records: Vec::new(),
            horizon: 0,
            notices: Vec::new(),
            messages: Vec::new(),
            clock: Clock::start(),
        }
    }

    /// Why definitions cannot be placed in a process, as far as its files tell; it is not touched.
    ///
    /// # Errors
    ///
    /// When there is no such process, or it may not be looked at.
    ///
    /// ```
    /// # #[cfg(feature = "local")] {
    /// # use host_process::control::{Image, Options, Trace};
    /// let definitions = vec![events::parse("p libc.so.6:malloc")?, events::parse("p libc.so.6:malloq*")?];
    /// let mut trace = Trace::new(Image::parse(agent_image::IMAGE)?, definitions, Options::default());
    /// let refused = trace.check(std::process::id().cast_signed())?;
    /// assert_eq!((refused.len(), refused[0].0), (1, 1));
    /// assert!(refused[0].1.contains("the nearest names: malloc"), "{}", refused[0].1);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check(&mut self, pid: i32) -> Result<Vec<(usize, String)>> {
        let mut view = View::with(pid, &mut self.cache)?.by_breakpoints();
        let mut refused = Vec::new();
        for (index, definition) in self.plan.definitions.iter().enumerate() {
            if let Place::Pattern { .. } = definition.place {
                let objects = view.objects();
                let nothing = matched(objects, index, definition, true, &mut self.cache.catalogue);
                let wrong = compile(definition, &FetchSymbols(objects)).map_err(|error| error.to_string());
                if let (Matched::Nothing(why), _) | (_, Err(why)) = (nothing, wrong) {
                    refused.push((index, why));
                }
            } else if let Verdict::Refused(why) = view.check(definition) {
                refused.push((index, why));
            }
        }
        Ok(refused)
    }

    /// Starts a command with the probes in it.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or its program cannot be traced; it has not run an instruction then.
    pub fn launch(&mut self, command: &[OsString]) -> Result<Child> {
        let mut child = launch::held(command)?;
        let pid = child.id().cast_signed();
        self.launched = Some(pid);
        self.inherits_block = launch::blocks_trap();
        let entered = self.enter_held(pid, pid);
        if entered.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        entered.map(|()| child)
    }

    /// Puts the probes into a running process.
    ///
    /// # Errors
    ///
    /// When it may not be traced; it goes on as before.
    ///
    /// ```
    /// # #[cfg(feature = "local")] {
    /// # use host_process::control::{Image, Options, Trace};
    /// use std::io::{BufRead, BufReader, Write};
    /// use std::process::{Command, Stdio};
    ///
    /// let script = "echo up; read line; echo $line; read line";
    /// let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    /// let mut said = BufReader::new(child.stdout.take().ok_or("a pipe")?).lines();
    /// assert_eq!(said.next().transpose()?.as_deref(), Some("up"));
    ///
    /// let definitions = vec![events::parse("p:writes libc.so.6:write")?];
    /// let mut trace = Trace::new(Image::parse(agent_image::IMAGE)?, definitions, Options::default());
    /// trace.attach(child.id().cast_signed())?;
    /// assert!(trace.mapped().contains(&"libc.so.6".into()));
    ///
    /// child.stdin.as_mut().ok_or("a pipe")?.write_all(b"hello\n")?;
    /// assert_eq!(said.next().transpose()?.as_deref(), Some("hello"));
    /// trace.service()?;
    /// let records = trace.take_records();
    /// // Before the horizon nothing is to come any more: these can be sorted and shown.
    /// assert!(records.len() == 1 && records[0].time < trace.horizon());
    ///
    /// trace.detach()?;
    /// assert!(!trace.is_active() && trace.tallies()[0].hits == 1);
    /// # child.kill()?;
    /// # child.wait()?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attach(&mut self, pid: i32) -> Result<()> {
        process::check(pid)?;
        process::read_program(pid)?;
        // Files are read before a thread is held, so that it stands still for as short a time as can be.
        let mut needs = self.plan.needs();
        let mut abandoned = false;
        if let Some((home, shared)) = inject::find(pid)? {
            scrub::check_free(pid, shared)?;
            let inhabited = modules::are_in(pid, home)?;
            needs.returns |= inhabited;
            abandoned = !inhabited && scrub::is_due(pid, home)?;
        }
        let objects = Objects::read(pid, &mut self.cache)?;
        hooks::wanted(&objects, needs, &mut self.cache);
        let memory = Memory::open(pid)?;
        let hold = || {
            let held = Held::any(pid)?;
            // An earlier tool's guards go, and ours come: no thread may pass there between.
            let others = if abandoned { settle::hold_others(pid, held.tid(), Vec::new()) } else { Vec::new() };
            Ok((held, others))
        };
        // The thread that works for us must not be the one that the linker waits for.
        let is_quiet = |held: &Result<_>| held.is_err() || !linker::is_at_work(&memory, &objects);
        let (held, others) = linker::patiently(hold, is_quiet)?;
        self.enter(held, others, pid, true)?;
        let settled = self.settle_modules();
        if settled.is_err() {
            // The first failure is the one to be told.
            let _ = self.detach();
        }
        settled
    }

    /// A thread that stands at an exec stop: the new program gets the probes, and goes on.
    pub(super) fn enter_held(&mut self, pid: i32, tid: i32) -> Result<()> {
        process::read_program(pid)?;
        let held = Held::take(pid, tid)?;
        self.enter(held, Vec::new(), pid, false)
    }

    /// `others` are held beside the thread that works for us.
    fn enter(&mut self, mut held: Held, others: Vec<Held>, pid: i32, running: bool) -> Result<()> {
        let tid = held.tid();
        let mut member = Member::enter(&mut held, pid, &self.image, &self.plan, &mut self.cache)?;
        member.complete = running || !member.target.objects.is_dynamic();
        let agent = member.target.agent.clone();
        if let Some(bank) = agent.shared.bank(0) {
            bank.pid.store(u64::from(pid.cast_unsigned()), Ordering::Relaxed);
        }
        agent.shared.header().listening.store(1, Ordering::Release);
        self.families.add(agent);
        if held.unblock_trap() || core::mem::take(&mut self.inherits_block) {
            settle::note_blocked(&member.target, tid)?;
        }
        member.target.set_remote(Some(Box::new(held)));
        let mut placed = member.begin(&self.plan, tid, others, &mut self.cache);
        if placed.is_ok() && !running && member.complete {
            placed = member.insert_all(&self.plan.modules).and(placed);
        }
        let refused = |news: &Vec<News>| news.iter().any(|n| matches!(n, News::Failed(..)));
        // An event that cannot be placed before anything has run is the user's error.
        let failed = placed.as_ref().map_or(true, |news| self.members.is_empty() && refused(news));
        if failed {
            let _ = member.remove_probes();
            self.end_unstarted(pid);
        }
        drop(member.target.set_remote(None));
        if placed.is_err() {
            member.hang_up();
            let _ = member.depart(None);
        }
        self.note(pid, placed?, failed);
        self.members.push(member);
        Ok(())
    }

    /// Ends the command that was started for this trace; it has not run an instruction of its own.
    fn end_unstarted(&self, pid: i32) {
        if self.launched == Some(pid) {
            // SAFETY: a signal to our own child, which is not reaped yet, so the number is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }

    fn note(&mut self, pid: i32, news: Vec<News>, fatal: bool) {
        self.notices.extend(news.into_iter().map(|n| match n {
            News::Failed(event, why) => Notice::Failed { event, pid, why, fatal },
            News::Spread(event, what) => Notice::Spread { event, what },
            News::Note(text) => Notice::Note(text),
        }));
    }

    /// Sleeps until an agent wants something, or `time` is over.
    pub fn wait(&self, time: Duration) {
        self.families.wait(time, || self.members.iter().any(|m| m.waits_for_us()));
    }

    /// Answers agents, notices what became of the processes, collects records.
    ///
    /// # Errors
    ///
    /// When a target cannot be worked with any more.
    pub fn service(&mut self) -> Result<()> {
        self.adopt_children();
        // Looked for anew each time: an answer can end a member, and the others move up.
        let waits = |m: &Member| m.waits_for_us();
        while let Some(index) = self.members.iter().position(waits) {
            self.answer(index)?;
        }
        self.collect();
        self.bury();
        self.clock.advance();
        Ok(())
    }

    /// Children that have found themselves a bank become members.
    fn adopt_children(&mut self) {
        for (agent, bank, pid) in self.families.claims() {
            let same = |shared: &Arc<SharedMap>, index: usize| index == bank && Arc::ptr_eq(shared, &agent.shared);
            let is_member = self.members.iter().any(|m| same(&m.target.agent.shared, m.target.bank));
            if is_member || self.strangers.iter().any(|s| same(&s.shared, s.bank)) {
                continue;
            }
            let shared = agent.shared.clone();
            // The number comes from the target: it must name a process that shares this memory.
            let proved = maps::has_file(pid, shared.file());
            let child = proved.then(|| Member::fork(agent, pid, bank, &self.plan, &mut self.cache));
            match child {
                Some(Ok(child)) => self.members.push(child),
                _ => {
                    let objects = if proved {
                        Objects::read(pid, &mut self.cache).unwrap_or_default()
                    } else {
                        Objects::default()
                    };
                    let pid = if proved || !process::is_alive(pid) { Some(pid) } else { None };
                    self.strangers.push(Stranger { shared, bank, pid, objects: Arc::new(objects) });
                }
            }
        }
    }

    /// Takes a mailbox's event.
    fn answer(&mut self, index: usize) -> Result<()> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        let shared = member.target.agent.shared.clone();
        let Some(bank) = shared.bank(member.target.bank) else { return Ok(()) };
        let mailbox = &bank.mailbox;
        let (pid, tid) = (mailbox.pid.load(Ordering::Relaxed) as i32, mailbox.tid.load(Ordering::Relaxed) as i32);
        let mail = Mail { pid: member.pid(), shared: shared.clone(), bank: member.target.bank };
        match mailbox.event.load(Ordering::Relaxed) {
            event::EXEC => return follow::exec(self, index, mail, pid, tid),
            event::SANDBOX => return self.free_before_sandbox(index, mail, tid),
            _ => {}
        }
        let (bank, starting) = (member.target.bank, !member.complete);
        member.target.set_remote(Some(Box::new(mail)));
        let placed = member.refresh(&mut self.cache).and_then(|()| member.place(&self.plan, &mut self.cache));
        drop(member.target.set_remote(None));
        let mut refused = placed.as_ref().is_ok_and(|news| news.iter().any(|n| matches!(n, News::Failed(..))));
        let mut inserted = Ok(());
        if placed.is_ok() && !refused && member.complete && !self.plan.modules.is_empty() {
            let files = self.plan.modules.clone();
            inserted = member.with_thread(Some(tid), |member| member.insert_all(&files));
            refused = inserted.is_err();
        }
        let fatal = refused && starting && self.launched == Some(pid);
        let mail = Mail { pid: member.pid(), shared, bank };
        if fatal {
            self.end_unstarted(pid);
        }
        mail.resume();
        match placed {
            Ok(news) => {
                self.note(pid, news, fatal);
                self.note_modules(pid, inserted, fatal);
            }
            Err(HostError::Gone { .. } | HostError::NoProcess { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A process is about to forbid itself system calls: its probes go, and it is traced no more.
    fn free_before_sandbox(&mut self, index: usize, mail: Mail, tid: i32) -> Result<()> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        let (pid, shared, bank) = (member.pid(), member.target.agent.shared.clone(), member.target.bank);
        member.target.set_remote(Some(Box::new(mail)));
        let placed = member.states.clone();
        let modules = member.remove_modules(Some(tid));
        let removed = member.remove_probes();
        drop(member.target.set_remote(None));
        let departed = removed.and_then(|()| member.depart(Some(tid)));
        member.states = placed;
        let modules = modules?.into_iter().map(|name| format!(", and its module {name}")).collect::<String>();
        self.say(format!(
            "process {pid} is about to restrict its own system calls (seccomp), and could be ended for one that a probe \
             needs: its probes were removed before{modules}"
        ));
        let mail = Mail { pid, shared, bank };
        mail.resume();
        mail.wait_for_end();
        self.leave(index);
        departed
    }

    /// Moves records from the rings to our own memory.
    fn collect(&mut self) {
        self.horizon = Clock::counter();
        self.attend_modules();
        for member in &self.members {
            let shared = &member.target.agent.shared;
            if let Some(bank) = shared.bank(member.target.bank) {
                super::drain::drain(bank, &member.target.objects, &mut self.records);
            }
        }
        for stranger in &self.strangers {
            if let Some(bank) = stranger.shared.bank(stranger.bank) {
                super::drain::drain(bank, &stranger.objects, &mut self.records);
                // Nobody can do anything for it.
                let mailbox = &bank.mailbox.state;
                let _ = mailbox.compare_exchange(state::EVENT, state::RESUME, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    /// Processes that have ended, or run another program, leave the trace.
    fn bury(&mut self) {
        let gone = |m: &Member| m.life.is_over() || m.target.memory().word(m.target.agent.home).is_err();
        while let Some(index) = self.members.iter().position(gone) {
            self.leave(index);
        }
        let (members, strangers) = (&self.members, &self.strangers);
        self.families.prune(|shared| {
            members.iter().any(|m| Arc::ptr_eq(&m.target.agent.shared, shared))
                || strangers.iter().any(|s| Arc::ptr_eq(&s.shared, shared))
        });
        while let Some(index) = self.strangers.iter().position(|s| s.pid.is_some_and(|pid| !process::is_alive(pid))) {
            let stranger = self.strangers.remove(index);
            self.harvest(&stranger.shared, stranger.bank, &stranger.objects);
        }
    }

    /// A member leaves: its last records and its counts are kept.
    pub(super) fn leave(&mut self, index: usize) {
        let member = self.members.remove(index);
        self.messages.extend(member.messages());
        let shared = member.target.agent.shared.clone();
        self.say_placed(&member);
        if member.target.memory().word(member.target.agent.home).is_err()
            && process::runs_program(member.pid())
            && !self.plan.follow
        {
            self.notices.push(Notice::Note(format!(
                "process {} has executed another program, and its probes ended with the old one; -f follows",
                member.pid()
            )));
        }
        self.harvest(&shared, member.target.bank, &member.target.objects);
        place_functions(&mut self.functions, &member);
    }

    /// Notes where events were placed in a member that leaves.
    fn say_placed(&mut self, member: &Member) {
        self.tallies.iter_mut().enumerate().for_each(|(id, tally)| tally.place(id, member));
        for group in &member.groups {
            let tally = self.tallies.get_mut(group.block.definition);
            tally.into_iter().for_each(|tally| tally.say_placed(group.summary()));
        }
    }

    /// Takes a bank's records and counts, and frees it.
    fn harvest(&mut self, shared: &SharedMap, index: usize, objects: &Arc<Objects>) {
        let Some(bank) = shared.bank(index) else { return };
        super::drain::drain(bank, objects, &mut self.records);
        for (id, tally) in self.tallies.iter_mut().enumerate() {
            tally.add(bank.counts(id));
        }
        let events = self.tallies.len()..self.cache.catalogue.len();
        add_functions(&mut self.functions, bank, events);
        // Its first word, the process id, becomes zero too: the bank is free.
        shared.wipe(index);
    }

    /// Whether any process is still traced.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.members.is_empty()
    }

    /// The records since the last call.
    pub fn take_records(&mut self) -> Vec<Record> {
        core::mem::take(&mut self.records)
    }

    /// The time stamp counter before which all records have been collected, but for those of a thread that was
    /// interrupted while it wrote one.
    #[must_use]
    pub fn horizon(&self) -> u64 {
        self.horizon
    }

    /// The base names of what is mapped in the first traced process.
    #[must_use]
    pub fn mapped(&self) -> Vec<String> {
        let objects = self.members.first().map(|m| &m.target.objects.all);
        objects.into_iter().flatten().map(|o| o.base_name().to_owned()).collect()
    }

    /// The notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        core::mem::take(&mut self.notices)
    }

    /// What events wait for, as (index, name of the object).
    #[must_use]
    pub fn pending(&self) -> Vec<(usize, String)> {
        let states = self.members.iter().flat_map(|m| m.states.iter().enumerate());
        states.filter_map(|(i, s)| if let State::Pending(name) = s { Some((i, name.clone())) } else { None }).collect()
    }

    /// Takes all probes out of all processes, which go on untouched.
    ///
    /// # Errors
    ///
    /// The first failure; the other processes are freed nevertheless.
    pub fn detach(&mut self) -> Result<()> {
        let mut result = Ok(());
        for member in &mut self.members {
            let left = member.remove_guests(None);
            let removed = left.and(member.remove_probes());
            member.hang_up();
            let departed = removed.and_then(|()| member.depart(None));
            match departed {
                Ok(()) => {}
                Err(_) if member.life.is_over() => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        let known: Vec<i32> = self.members.iter().map(Member::pid).collect();
        scrub::scrub_families(self.families.files(), &known);
        while !self.members.is_empty() {
            self.leave_detached();
        }
        for stranger in core::mem::take(&mut self.strangers) {
            self.harvest(&stranger.shared, stranger.bank, &stranger.objects);
        }
        result
    }

    fn leave_detached(&mut self) {
        let member = self.members.remove(0);
        self.messages.extend(member.messages());
        let shared = member.target.agent.shared.clone();
        self.say_placed(&member);
        self.harvest(&shared, member.target.bank, &member.target.objects);
        place_functions(&mut self.functions, &member);
    }

    /// What was counted so far, by definition; for a pattern, all its functions together.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        let mut all = self.tallies.clone();
        for member in &self.members {
            let bank = member.target.agent.shared.bank(member.target.bank);
            for (id, tally) in all.iter_mut().enumerate() {
                tally.place(id, member);
                tally.add(bank.and_then(|bank| bank.counts(id)));
            }
            for group in &member.groups {
                let tally = all.get_mut(group.block.definition);
                tally.into_iter().for_each(|tally| tally.say_placed(group.summary()));
            }
        }
        for FunctionTally { definition, tally, .. } in self.functions() {
            all.get_mut(definition).into_iter().for_each(|sum| sum.join(&tally));
        }
        all
    }

    /// What was counted so far for single functions of patterns: those that were hit.
    ///
    /// ```
    /// # #[cfg(feature = "local")] {
    /// # use host_process::control::{Image, Options, Trace};
    /// # use std::time::Duration;
    /// let definitions = vec![events::parse("p libc.so.6:mem*")?];
    /// let mut trace = Trace::new(Image::parse(agent_image::IMAGE)?, definitions, Options::default());
    /// let mut child = trace.launch(&["sort".into(), "/dev/null".into()])?;
    /// while trace.is_active() {
    ///     trace.wait(Duration::from_millis(10));
    ///     trace.service()?;
    /// }
    /// # child.wait()?;
    /// let placed = trace.progress().placed.load(std::sync::atomic::Ordering::Relaxed);
    /// let functions = trace.functions();
    /// assert!(placed > functions.len(), "those that were not hit are not listed");
    /// let sum: u64 = functions.iter().map(|function| function.tally.hits).sum();
    /// assert_eq!(sum, trace.tallies()[0].hits);
    /// let first = &trace.take_records()[0];
    /// let (definition, name) = trace.event(first.event).ok_or("an event of ours")?;
    /// assert_eq!(definition, 0);
    /// assert!(functions.iter().any(|function| Some(&function.name) == name.as_ref()));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn functions(&self) -> Vec<FunctionTally> {
        let definitions = self.tallies.len();
        let mut all = self.functions.clone();
        for member in &self.members {
            if let Some(bank) = member.target.agent.shared.bank(member.target.bank) {
                add_functions(&mut all, bank, definitions..self.cache.catalogue.len());
                place_functions(&mut all, member);
            }
        }
        let told = |(event, tally)| {
            let (definition, name) = self.event(event as usize)?;
            Some(FunctionTally { definition, name: name?, tally })
        };
        all.into_iter().filter_map(told).collect()
    }

    /// The definition that a record's event belongs to, and the event's own name, if it is that of a pattern's function.
    #[must_use]
    pub fn event(&self, event: usize) -> Option<(usize, Option<String>)> {
        let catalogue = &self.cache.catalogue;
        Some((catalogue.definition(event, self.tallies.len())?, catalogue.name(event)))
    }

    /// How far the placing of patterns is.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        self.plan.progress.clone()
    }

    /// Forked children that were not counted, because too many were followed at once.
    #[must_use]
    pub fn uncounted_processes(&self) -> u64 {
        self.families.uncounted()
    }

    pub(super) fn say(&mut self, text: String) {
        self.notices.push(Notice::Note(text));
    }
}

/// A process of the trace that cannot be worked with: another user's by now, or gone.
#[derive(Debug)]
struct Stranger {
    shared: Arc<SharedMap>,
    bank: usize,
    /// `None`: not a process of this name space, or not the one that it says it is. Nobody knows when it ends.
    pid: Option<i32>,
    objects: Arc<Objects>,
}
