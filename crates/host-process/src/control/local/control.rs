//! What the mutex protects: the target that is ourselves, its registry, and what was defined.

use super::error::{Error, Result};
use super::event::{self, Event, Format, Ids};
use super::own::Own;
use super::record::{self, Raw, Record};
use super::threads;
use crate::abi::{Bank, Home, action};
use crate::control::clock::Clock;
use crate::control::guards::Guards;
use crate::control::hooks::{self, Needs};
use crate::control::image::Image;
use crate::control::maps::{Mapping, mappings};
use crate::control::objects::{Cache, Objects};
use crate::control::tally::Tally;
use crate::control::target::Target;
use crate::control::{inject, settle};
use agent_image::IMAGE;
use core::mem::offset_of;
use hit::Counters;
use kprobes::{Handle, ProbeKind, Registry, Request};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::primitive::Ordering;

/// Banks of the shared memory: forked children do not count.
const BANKS: usize = 1;

/// Control of the own process.
#[derive(Debug)]
pub(crate) struct Control {
    target: Target,
    registry: Registry,
    guards: Guards,
    needs: Needs,
    cache: Cache,
    /// The executable mappings that `target.objects` was read from.
    mapped: Vec<Mapping>,
    ids: Ids,
    events: Vec<Event>,
    /// How to read the records of an id, also when its event has gone.
    formats: BTreeMap<u32, Arc<Format>>,
    clock: Clock,
}

impl Control {
    /// Maps the agent into this process, and takes `SIGTRAP` over. Nothing stands in the program's text yet.
    pub(crate) fn enter(mut own: Own) -> Result<Self> {
        let pid = own.pid;
        let image = Image::parse(IMAGE)?;
        let agent = inject::inject(&mut own, pid, &image, inject::OWN_MEMFD_NAME, BANKS)?;
        inject::count(pid, agent.home)?;
        if let Some(bank) = agent.shared.bank(0) {
            bank.pid.store(u64::from(pid.cast_unsigned()), Ordering::Relaxed);
        }
        let mut cache = Cache::default();
        let mapped = executable(pid)?;
        let mut target = Target::open(pid, agent, Objects::read(pid, &mut cache)?)?;
        // Nobody listens at the mailbox.
        target.set_home_half(offset_of!(Home, alone), 1)?;
        target.set_remote(Some(Box::new(own)));
        Ok(Self {
            target,
            registry: Registry::new(0, 0),
            guards: Guards::default(),
            needs: Needs::default(),
            cache,
            mapped,
            ids: Ids::default(),
            events: Vec::new(),
            formats: BTreeMap::new(),
            clock: Clock::start(),
        })
    }

    /// Takes `SIGTRAP` over again, after a start that failed when the agent was there already.
    pub(crate) fn restart(&mut self, mut own: Own) -> Result<()> {
        let pid = own.pid;
        inject::restart(&mut own, pid, self.target.agent.home)?;
        Ok(self.target.set_home_half(offset_of!(Home, alone), 1)?)
    }

    /// Plants what protects the probes to come, and puts right what that comes too late for. If it fails, nothing stands
    /// in the program's text. The calling thread believes to block `SIGTRAP` if it was `blocked`.
    pub(crate) fn begin(&mut self, own: Own, blocked: bool) -> Result<()> {
        let begun = self.settle(own);
        if begun.is_err() {
            let guards = self.guards.take();
            self.registry.unregister(&mut self.target, &guards)?;
        } else if blocked {
            settle::note_blocked(&self.target, Own::thread() as i32)?;
        }
        begun
    }

    fn settle(&mut self, mut own: Own) -> Result<()> {
        self.guard()?;
        threads::check_masks(own.pid)?;
        let scratch = self.target.home(offset_of!(Home, scratch));
        settle::clean_handlers(&mut own, &self.target, scratch)?;
        Ok(())
    }

    /// Plants the guards that the objects and probes of now need. One that has no place leaves a gap in the protection,
    /// as it does in a target; the probes themselves do not depend on it.
    fn guard(&mut self) -> Result<()> {
        let mut wanted = hooks::wanted(&self.target.objects, self.needs, &mut self.cache);
        wanted.retain(|&(_, data)| data & action::BITS != action::OBJECTS);
        self.guards.place(&mut self.target, &mut self.registry, wanted)?;
        Ok(())
    }

    /// Libraries may have been loaded or unloaded since the last look.
    fn refresh(&mut self) -> Result<()> {
        let mapped = executable(self.target.pid)?;
        if mapped == self.mapped {
            return Ok(());
        }
        let objects = Objects::read(self.target.pid, &mut self.cache)?;
        let before = core::mem::replace(&mut self.target.objects, Arc::new(objects));
        for range in before.all.iter().flat_map(|o| o.code.iter()) {
            if self.target.objects.at(range.start).is_none() {
                self.registry.forget(&mut self.target, range.clone());
                self.guards.forget(range);
                let inside = |e: &&mut Event| range.contains(&e.handle.address);
                self.events.iter_mut().filter(inside).for_each(|e| e.gone = true);
            }
        }
        self.guard()?;
        // The guards' own slots may be new mappings.
        self.mapped = executable(self.target.pid)?;
        Ok(())
    }

    /// Registers what the lines define: all of them, or none.
    pub(crate) fn define(&mut self, lines: &[&str]) -> Result<()> {
        self.refresh()?;
        let mut ids = Vec::new();
        let defined = self.try_to_define(lines, &mut ids);
        if defined.is_err() {
            ids.into_iter().for_each(|id| self.forget_id(id));
        }
        defined
    }

    fn try_to_define(&mut self, lines: &[&str], ids: &mut Vec<u32>) -> Result<()> {
        let mut formats: Vec<Format> = Vec::new();
        let mut requests = Vec::new();
        for line in lines {
            let definition = event::parse(line)?;
            let id = self.ids.take()?;
            ids.push(id);
            let (request, format) = event::request(&self.target.objects, &definition, id)?;
            let full = format!("{}/{}", format.group, format.name);
            let known = self.events.iter().any(|e| e.is_called(&full));
            if known || formats.iter().any(|f| f.group == format.group && f.name == format.name) {
                return Err(Error::Exists { name: full });
            }
            formats.push(format);
            requests.push(request);
        }
        let formats: Vec<Arc<Format>> = formats.into_iter().map(Arc::new).collect();
        // Before a hit can be recorded.
        self.formats.extend(ids.iter().copied().zip(formats.iter().cloned()));
        let handles = self.register(&requests)?;
        for ((handle, format), id) in handles.into_iter().zip(formats).zip(ids.iter()) {
            self.events.push(Event { id: *id, handle, format, gone: false });
        }
        Ok(())
    }

    fn register(&mut self, requests: &[Request]) -> Result<Vec<Handle>> {
        let returns = requests.iter().any(|r| matches!(r.kind, ProbeKind::Return { .. }));
        if returns && !self.needs.returns {
            self.needs.returns = true;
            self.guard()?;
        }
        let handles = self.registry.register(&mut self.target, requests).map_err(|(_, error)| error)?;
        self.mapped = executable(self.target.pid)?;
        Ok(handles)
    }

    /// Removes one event.
    pub(crate) fn remove(&mut self, name: &str) -> Result<()> {
        self.refresh()?;
        let index = self.index(name)?;
        let Some(event) = self.events.get(index) else { return Err(Error::Unknown { name: name.into() }) };
        if !event.gone {
            self.registry.unregister(&mut self.target, core::slice::from_ref(&event.handle))?;
        }
        let event = self.events.remove(index);
        self.forget_id(event.id);
        Ok(())
    }

    /// Removes all events.
    pub(crate) fn remove_all(&mut self) -> Result<()> {
        self.refresh()?;
        let present = self.events.iter().filter(|e| !e.gone);
        let handles: Vec<Handle> = present.map(|e| e.handle.clone()).collect();
        self.registry.unregister(&mut self.target, &handles)?;
        for event in core::mem::take(&mut self.events) {
            self.forget_id(event.id);
        }
        Ok(())
    }

    /// Nothing counts under this number any more.
    fn forget_id(&mut self, id: u32) {
        if let Some(counters) = self.bank().and_then(|b| b.counters.get(id as usize)) {
            let Counters { hits, missed, lost, returns, unwound, .. } = counters;
            [hits, missed, lost, returns, unwound].into_iter().for_each(|c| c.store(0, Ordering::Relaxed));
        }
        self.ids.give_back(id);
    }

    /// What was counted for an event.
    pub(crate) fn counts(&self, name: &str) -> Result<Tally> {
        let index = self.index(name)?;
        let Some(event) = self.events.get(index) else { return Err(Error::Unknown { name: name.into() }) };
        let mut tally = Tally::default();
        if let Some(counters) = self.bank().and_then(|b| b.counters.get(event.id as usize)) {
            tally.add(counters);
        }
        tally.placed.push(self.place(&event.handle));
        Ok(tally)
    }

    fn place(&self, handle: &Handle) -> String {
        let (address, objects) = (handle.address, &self.target.objects);
        let place = match (objects.symbolize(address), objects.at(address)) {
            (Some((name, offset, _)), Some(object)) => format!("{}:{name}+{offset:#x}", object.base_name()),
            _ => format!("{address:#x}"),
        };
        format!("{place} ({})", handle.placement)
    }

    /// The names of all events.
    pub(crate) fn names(&self) -> Vec<String> {
        self.events.iter().map(|e| format!("{}/{}", e.format.group, e.format.name)).collect()
    }

    /// The records since the last call, in the order of time.
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        let Some(bank) = self.target.agent.shared.bank(0) else { return Vec::new() };
        let raw = record::take(bank);
        self.clock.advance();
        let record = |raw: Raw| {
            let format = self.formats.get(&raw.header.event)?.clone();
            let time = self.clock.nanoseconds(raw.header.time);
            Some(Record::new(raw, format, self.target.objects.clone(), time))
        };
        let mut records: Vec<Record> = raw.into_iter().filter_map(record).collect();
        records.sort_by_key(Record::time_ns);
        records
    }

    fn bank(&self) -> Option<&Bank> {
        self.target.agent.shared.bank(0)
    }

    fn index(&self, name: &str) -> Result<usize> {
        let unknown = || Error::Unknown { name: name.into() };
        self.events.iter().position(|e| e.is_called(name)).ok_or_else(unknown)
    }

    /// Where the agent keeps its tables.
    pub(crate) fn home(&self) -> u64 {
        self.target.agent.home
    }
}

/// The executable mappings of a process.
fn executable(pid: i32) -> Result<Vec<Mapping>> {
    Ok(mappings(pid)?.into_iter().filter(Mapping::is_executable).collect())
}
