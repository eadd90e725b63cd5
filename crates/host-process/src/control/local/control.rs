//! What the mutex protects: the target that is ourselves, its registry, and what was defined.

use super::area::{Area, Areas};
use super::blacklist::{Blacklist, Forbidden};
use super::error::{Error, Result};
use super::event::{Event, Format, Ids};
use super::listing::Listed;
use super::loaded::Loaded;
use super::notify::Notifiers;
use super::own::Own;
use super::place::Places;
use super::record::{self, Raw, Record};
use super::threads;
use crate::abi::{Bank, Home, action};
use crate::control::clock::Clock;
use crate::control::guards::Guards;
use crate::control::hooks::{self, Needs};
use crate::control::image::Image;
use crate::control::objects::{Cache, Mapped, Objects};
use crate::control::target::Target;
use crate::control::{inject, settle};
use agent_image::IMAGE;
use core::mem::offset_of;
use hit::Counts;
use kprobes::{Handle, ProbeKind, Registry, Request};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::primitive::Ordering;

/// Banks of the shared memory: forked children do not count.
const BANKS: usize = 1;

/// Control of the own process.
#[derive(Debug)]
pub(crate) struct Control {
    pub(super) target: Target,
    pub(super) registry: Registry,
    guards: Guards,
    needs: Needs,
    cache: Cache,
    /// What was loaded when `target.objects` was read.
    loaded: Loaded,
    pub(super) blacklist: Blacklist,
    pub(super) places: Places,
    pub(super) ids: Ids,
    /// The latest registration's number.
    serial: u64,
    pub(super) areas: Areas,
    pub(super) notifiers: Notifiers,
    pub(super) events: Vec<Event>,
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
        let loaded = Loaded::now();
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
            loaded,
            blacklist: Blacklist::default(),
            places: Places::default(),
            ids: Ids::default(),
            serial: 0,
            areas: Areas::default(),
            notifiers: Notifiers::default(),
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

    /// Plants what protects the probes to come, and puts right what that comes too late for. If it fails, nothing
    /// stands
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
    pub(super) fn refresh(&mut self) -> Result<()> {
        let loaded = Loaded::now();
        if loaded == self.loaded {
            return Ok(());
        }
        let objects = Objects::read(self.target.pid, &mut self.cache)?;
        let before = core::mem::replace(&mut self.target.objects, Arc::new(objects));
        let gone: Vec<&Mapped> = before.all.iter().filter(|o| self.has_gone(o)).collect();
        for range in gone.into_iter().flat_map(|o| o.code.iter()) {
            self.registry.forget(&mut self.target, range.clone());
            self.guards.forget(range);
            let inside = |e: &&mut Event| range.contains(&e.handle.address);
            self.events.iter_mut().filter(inside).for_each(|e| e.gone = true);
        }
        self.guard()?;
        self.loaded = loaded;
        Ok(())
    }

    /// Whether an object is loaded no longer, or was loaded anew: where breakpoints stood there are none.
    fn has_gone(&self, object: &Mapped) -> bool {
        let same = |o: &&Mapped| o.file == object.file && o.bias == object.bias;
        let broken = |at: u64| {
            let mut byte = [0];
            self.target.memory().read(at, &mut byte).is_err() || byte != [isa::x86::BREAKPOINT]
        };
        self.target.objects.all.iter().find(same).is_none()
            || self.registry.armed().filter(|&at| object.holds(at)).any(broken)
    }

    /// Registers a batch whose addresses may be probed; the index of the request that is refused.
    pub(super) fn plant(&mut self, requests: &[Request]) -> core::result::Result<Vec<Handle>, (usize, Error)> {
        for (index, request) in requests.iter().enumerate() {
            let checked = self.blacklist.check(&self.target.objects, request.address);
            checked.map_err(|error| (index, error))?;
        }
        let returns = requests.iter().any(|r| matches!(r.kind, ProbeKind::Return { .. }));
        if returns && !self.needs.returns {
            self.needs.returns = true;
            self.guard().map_err(|error| (0, error))?;
        }
        let planted = self.registry.register(&mut self.target, requests);
        planted.map_err(|(index, error)| (index, error.into()))
    }

    /// As many numbers as there are probes in a batch.
    pub(super) fn numbers(&mut self, count: usize) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            match self.ids.take() {
                Ok(id) => ids.push(id),
                Err(error) => {
                    self.give_back(ids);
                    return Err(error);
                }
            }
        }
        Ok(ids)
    }

    pub(super) fn give_back(&mut self, ids: Vec<u32>) {
        ids.into_iter().for_each(|id| self.ids.give_back(id));
    }

    /// Keeps what was planted; which registration it is.
    pub(super) fn own(&mut self, request: &Request, handle: Handle, format: Arc<Format>, area: Area) -> u64 {
        self.serial += 1;
        let (id, disabled, serial) = (request.id, request.disabled, self.serial);
        self.events.push(Event { id, serial, handle, format, area, disabled, gone: false });
        self.serial
    }

    /// From now on records of this number are read so.
    pub(super) fn set_format(&mut self, id: u32, format: Arc<Format>) {
        self.formats.insert(id, format);
    }

    /// Takes off the events for which `leaves` says so, and waits once for all of them.
    pub(super) fn take_off(&mut self, leaves: impl Fn(&Event) -> bool) -> Result<BTreeMap<u64, Counts>> {
        let present = self.events.iter().filter(|e| !e.gone && leaves(e));
        let handles: Vec<Handle> = present.map(|e| e.handle.clone()).collect();
        self.registry.unregister(&mut self.target, &handles)?;
        let (gone, stay) = core::mem::take(&mut self.events).into_iter().partition(leaves);
        self.events = stay;
        let mut counted = BTreeMap::new();
        for event in Vec::from_iter::<Vec<Event>>(gone) {
            counted.insert(event.serial, self.counted(&event));
            let Event { id, area, .. } = event;
            if let Some(bank) = self.bank() {
                bank.reset(id as usize);
            }
            self.areas.give_back(area);
            self.ids.give_back(id);
        }
        Ok(counted)
    }

    /// Removes one event.
    pub(crate) fn remove(&mut self, name: &str) -> Result<()> {
        self.refresh()?;
        let serial = self.event(name)?.serial;
        self.take_off(|e| e.serial == serial).map(drop)
    }

    /// Removes all events.
    pub(crate) fn remove_all(&mut self) -> Result<()> {
        self.refresh()?;
        self.take_off(|_| true).map(drop)
    }

    /// What was counted for an event.
    pub(crate) fn counts(&self, name: &str) -> Result<Counts> {
        self.event(name).map(|event| self.counted(event))
    }

    pub(super) fn counted(&self, event: &Event) -> Counts {
        self.bank().and_then(|bank| bank.counts(event.id as usize)).unwrap_or_default()
    }

    /// All events.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let listed = |event: &Event| Listed {
            name: event.full_name(),
            address: event.handle.address,
            place: self.place(event.handle.address),
            placement: self.registry.placement(&event.handle).to_string(),
            counts: self.counted(event),
            disabled: event.disabled,
            gone: event.gone,
        };
        self.events.iter().map(listed).collect()
    }

    fn place(&self, address: u64) -> String {
        let objects = &self.target.objects;
        match (objects.symbolize(address), objects.at(address)) {
            (Some((name, offset, _)), Some(object)) => format!("{}:{name}+{offset:#x}", object.base_name()),
            _ => format!("{address:#x}"),
        }
    }

    /// What forbids probes on itself.
    pub(crate) fn blacklist(&mut self) -> Result<Vec<Forbidden>> {
        self.refresh()?;
        Ok(self.blacklist.list(&self.target.objects))
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

    fn event(&self, name: &str) -> Result<&Event> {
        let unknown = || Error::Unknown { name: name.into() };
        self.events.iter().find(|e| e.is_called(name)).ok_or_else(unknown)
    }

    /// Where the agent has what ends a jprobe's mirror.
    pub(crate) fn jprobe_return(&self) -> Result<u64> {
        let image = Image::parse(IMAGE)?;
        let entry = self.target.memory().word(self.target.home(offset_of!(Home, entry)))?;
        Ok(entry - image.symbol("agent_entry")? + image.symbol("kprobes_jprobe_return")?)
    }

    /// Where the agent keeps its tables.
    pub(crate) fn home(&self) -> u64 {
        self.target.agent.home
    }
}
