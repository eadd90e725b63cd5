//! Modules as part of a trace: what a command asks of the processes that it works with.

use super::file::ModuleFile;
use super::insert::insert;
use super::log::{self, Message};
use super::remove::{Removed, find, remove};
use super::table::{self, Stored};
use crate::abi::modules::Modules;
use crate::control::member::Member;
use crate::control::notice::Notice;
use crate::control::stop::Held;
use crate::control::trace::Trace;
use crate::control::{HostError, Result};
use core::mem::offset_of;
use std::time::Duration;

/// How often a thread is looked for that is in no handler.
const ATTEMPTS: usize = 200;
/// How often it is tried to get a module out that a thread is still in.
const TRIES: usize = 3;

impl Member {
    /// Holds a thread for a while, `tid` or any, and lets `f` work with it.
    ///
    /// One that is in a handler could not leave it meanwhile, and would be waited for in vain: another is better.
    pub(crate) fn with_thread<T>(&mut self, tid: Option<i32>, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let mut held = match tid {
            Some(tid) => Held::thread(self.pid(), tid)?,
            None => self.calm_thread()?,
        };
        held.keep(self.target.agent.home)?;
        let before = self.target.set_remote(Some(Box::new(held)));
        let teller = core::mem::replace(&mut self.teller, tid);
        let result = f(self);
        self.teller = teller;
        drop(self.target.set_remote(before));
        result
    }

    fn calm_thread(&self) -> Result<Held> {
        for _ in 0..ATTEMPTS {
            let held = Held::any(self.pid())?;
            if !self.target.is_inside(&held)? {
                return Ok(held);
            }
            held.release()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Held::any(self.pid())
    }

    /// In a child that was forked: which of its modules end with the trace.
    pub(crate) fn find_guests(&mut self) -> Result<()> {
        let guests = self.stored()?.into_iter().filter(|m| m.guest);
        self.modules.guests = guests.map(|m| (m.number, m.name)).collect();
        self.modules.is_done = !self.modules.guests.is_empty();
        Ok(())
    }

    /// The signals whose handlers an earlier tool has left changed, and we have not.
    pub(crate) fn cleaned_before(&self) -> Result<u64> {
        let at = table::field(self.target.agent.home, offset_of!(Modules, cleaned));
        let ours = self.cleaned.iter().fold(0u64, |set, (signal, _)| set | 1 << (signal - 1));
        Ok(self.target.memory().word(at)? & !ours)
    }

    /// The modules in the process.
    fn stored(&self) -> Result<Vec<Stored>> {
        table::stored(self.target.memory(), self.target.agent.home)
    }

    /// Whether there are modules in the process: then guards and agent stay when the tool leaves.
    pub(crate) fn is_inhabited(&self) -> Result<bool> {
        Ok(!self.stored()?.is_empty())
    }

    /// Inserts modules, while a thread is held. What was inserted before a failure stays.
    pub(crate) fn insert_all(&mut self, files: &[(ModuleFile, bool)]) -> Result<()> {
        if core::mem::replace(&mut self.modules.is_done, true) {
            return Ok(());
        }
        for (file, guest) in files {
            let number = insert(self, file, *guest)?;
            if *guest {
                self.modules.guests.push((number, file.name().to_owned()));
            }
        }
        Ok(())
    }

    /// Takes out what is of no use any more: modules whose handlers have faulted, that were going, or half inserted, and
    /// those of a trace that was killed. Says what it has removed.
    fn sweep(&mut self) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        for module in self.stored()? {
            let ours = self.modules.guest_name(module.number).is_some();
            if module.is_live() && (!module.guest || ours) {
                continue;
            }
            let state = super::list::state_text(&module);
            if remove(self, module.number, module.is_live())? != Removed::Going {
                gone.push(format!("module {} ({state}) was removed from process {}", module.name, self.pid()));
            }
        }
        Ok(gone)
    }

    /// Removes the modules that end with this trace, `teller` being a thread that waits for us if there is one.
    pub(crate) fn remove_guests(&mut self, teller: Option<i32>) -> Result<()> {
        if self.modules.guests.is_empty() {
            return Ok(());
        }
        self.with_thread(teller, |member| {
            let guests: Vec<u32> = member.modules.guests.iter().map(|g| g.0).collect();
            guests.into_iter().rev().try_for_each(|guest| remove(member, guest, true).map(drop))
        })
    }

    /// Removes all modules, `teller` being a thread that waits for us.
    pub(crate) fn remove_modules(&mut self, teller: Option<i32>) -> Result<Vec<String>> {
        let all = self.stored()?;
        if all.is_empty() {
            return Ok(Vec::new());
        }
        self.with_thread(teller, |member| {
            for module in &all {
                remove(member, module.number, true)?;
            }
            Ok(all.into_iter().map(|m| m.name).collect())
        })
    }

    /// Notes which signals' handlers were changed, if they are to stay so.
    pub(crate) fn note_cleaned(&self, stays: bool) -> Result<()> {
        let cleaned = self.cleaned.iter().fold(0u64, |set, (signal, _)| set | 1 << (signal - 1));
        let noted = if stays { cleaned } else { 0 };
        let at = table::field(self.target.agent.home, offset_of!(Modules, cleaned));
        self.target.memory().write(at, &noted.to_le_bytes())
    }

    /// What modules that end with the trace have printed.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let Some(bank) = self.target.agent.shared.bank(self.target.bank) else { return Vec::new() };
        let name = |owner: u64| {
            let number = owner.checked_sub(1).map(|n| n as u32);
            number.and_then(|n| self.modules.guest_name(n)).unwrap_or_default().to_owned()
        };
        log::drain(bank, &name)
    }
}

impl Trace {
    /// Inserts a module into every process that is traced from now on, as soon as its libraries are there.
    ///
    /// With `stays`, it stays when the trace ends. Otherwise it is removed then, and what it prints is the trace's
    /// ([`take_messages`](Self::take_messages)).
    ///
    /// ```no_run
    /// # use host_process::control::{HostError, Trace, modules::ModuleFile};
    /// # use std::{path::Path, time::Duration};
    /// # fn example(trace: &mut Trace, pid: i32) -> Result<(), HostError> {
    /// trace.add_module(ModuleFile::read(Path::new("malloc-histogram.ko"), &[])?, false);
    /// trace.attach(pid)?;
    /// trace.wait(Duration::from_secs(1));
    /// trace.detach()?;
    /// // What its `exit` has printed is among them.
    /// for message in trace.take_messages() {
    ///     println!("{}: {}", message.module, message.text);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_module(&mut self, file: ModuleFile, stays: bool) {
        std::sync::Arc::make_mut(&mut self.plan.modules).push((file, !stays));
    }

    /// Removes a module from an attached process. What went wrong in its `exit` is told by a notice.
    ///
    /// # Errors
    ///
    /// When the process has no such module, or one of its handlers does not end: the module does nothing any more then,
    /// and its memory is given back by the next command that can.
    ///
    /// ```no_run
    /// # use host_process::control::{HostError, Trace, modules};
    /// # fn example(trace: &mut Trace, pid: i32) -> Result<(), HostError> {
    /// trace.attach(pid)?;
    /// for module in modules::list(pid)? {
    ///     trace.remove_module(pid, &module.name)?;
    /// }
    /// assert_eq!(modules::list(pid)?, []);
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove_module(&mut self, pid: i32, name: &str) -> Result<()> {
        let refused = |why: String| HostError::Module { name: name.to_owned(), why };
        for attempt in 0..TRIES {
            let missing = || refused(format!("process {pid} has no module of this name"));
            let member = self.members.iter_mut().find(|m| m.pid() == pid).ok_or_else(missing)?;
            let number = member.stored()?.into_iter().find(|m| m.name == name).map(|m| m.number);
            let number = number.ok_or_else(missing)?;
            match member.with_thread(None, |member| remove(member, number, attempt == 0))? {
                Removed::Gone(wrong) => {
                    wrong.into_iter().for_each(|why| self.say(format!("module {name}: {why}")));
                    return Ok(());
                }
                Removed::Going => self.service()?,
            }
        }
        Err(refused(
            "its probes are off, but a thread is still in one of its handlers: its memory stays until the next command"
                .into(),
        ))
    }

    /// What modules have printed since the last call that end with this trace.
    pub fn take_messages(&mut self) -> Vec<Message> {
        core::mem::take(&mut self.messages)
    }

    /// The last member is a process that was attached to: modules go out and in, while a thread of it is held.
    pub(in crate::control) fn settle_modules(&mut self) -> Result<()> {
        let files = self.plan.modules.clone();
        let Some(member) = self.members.last_mut() else { return Ok(()) };
        if files.is_empty() && !member.is_inhabited()? {
            return Ok(());
        }
        let gone = member.with_thread(None, |member| {
            let gone = member.sweep()?;
            member.insert_all(&files)?;
            Ok(gone)
        })?;
        gone.into_iter().for_each(|text| self.say(text));
        Ok(())
    }

    /// Modules of this trace whose handlers have faulted are removed at once; messages are collected.
    pub(in crate::control) fn attend_modules(&mut self) {
        let mut said = Vec::new();
        for member in self.members.iter_mut().filter(|m| !m.modules.guests.is_empty()) {
            self.messages.extend(member.messages());
            let off = |number: u32| find(member, number).ok().flatten().is_some_and(|m| !m.is_live());
            let broken: Vec<(u32, String)> = member.modules.guests.iter().filter(|g| off(g.0)).cloned().collect();
            for (number, name) in broken {
                let removed = member.with_thread(None, |member| remove(member, number, false));
                said.push(match removed {
                    Ok(_) => format!("module {name} was removed from process {}: it was switched off", member.pid()),
                    Err(error) => format!("module {name} is switched off, and cannot be removed: {error}"),
                });
                // Its last messages have been read.
                member.modules.guests.retain(|g| g.0 != number);
            }
        }
        said.into_iter().for_each(|text| self.say(text));
    }

    /// The result of inserting modules into a process that was not attached to: nobody is there to get the error.
    pub(in crate::control) fn note_modules(&mut self, pid: i32, inserted: Result<()>, fatal: bool) {
        if let Err(error) = inserted {
            self.notices.push(Notice::Refused { pid, why: error.to_string(), fatal });
        }
    }
}
