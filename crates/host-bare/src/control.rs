//! The face of control: definitions, handlers, records.

use crate::engine::Engine;
use crate::host::Target;
use crate::listing::Listed;
use crate::place::{resolve, symbolize};
use crate::{Error, Kernel, Spec, Stepping};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use events::{Definition, ErrorCode, Kind, Resolve, Schema, SyntaxError};
use hit::Counts;
use kprobes::{Handle, ProbeKind, Registry, Request};
use sync::primitive::AtomicU64;

/// What registers and removes. The kernel keeps it behind a lock, and calls it with interrupts on.
#[derive(Debug)]
pub struct Control<K: Kernel> {
    pub(crate) engine: &'static Engine<K>,
    pub(crate) registry: Registry,
    pub(crate) target: Target<K>,
    /// By number: what a probe's `id` means.
    pub(crate) events: Vec<Option<Event>>,
    /// The latest registration's number.
    pub(crate) serial: u64,
}

/// A probe that was asked for.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) schema: Schema,
    pub(crate) handle: Handle,
    /// It is removed; its number stays until its records are read.
    pub(crate) removed: bool,
    /// The data of its activations.
    pub(crate) area: Box<[AtomicU64]>,
    /// Which registration it is, if it was registered as a [`Spec`].
    pub(crate) serial: u64,
    /// It is switched off.
    pub(crate) disabled: bool,
    /// Whose it is.
    pub(crate) owner: u32,
    /// It records what happens, and not only counts.
    pub(crate) records: bool,
}

impl Event {
    /// A probe that records nothing.
    pub(crate) fn silent(name: String, handle: Handle) -> Self {
        Self { records: false, ..Self::new(name, "kprobes".into(), Schema::default(), handle) }
    }

    fn new(name: String, group: String, schema: Schema, handle: Handle) -> Self {
        let area = Box::default();
        Self { name, group, schema, handle, removed: false, area, serial: 0, disabled: false, owner: 0, records: true }
    }
}

/// A definition that is ready to be registered.
struct Prepared {
    definition: Definition,
    request: Request,
    schema: Schema,
}

/// Symbols in fetch arguments.
struct Symbols<K>(core::marker::PhantomData<K>);

impl<K: Kernel> Resolve for Symbols<K> {
    fn symbol(&self, _: Option<&str>, name: &str) -> Option<u64> {
        K::symbol(name).ok().map(|symbol| symbol.address)
    }

    fn file_offset(&self, _: u64) -> Option<u64> {
        None
    }
}

impl<K: Kernel> Control<K> {
    pub(crate) fn new(engine: &'static Engine<K>) -> Self {
        Self { engine, registry: Registry::new(0, 0), target: Target::new(engine), events: Vec::new(), serial: 0 }
    }

    /// From now on instructions that get their first probe take their effect this way, where they can.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// control.set_stepping(Stepping::SecondBreakpoint);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_stepping(&mut self, stepping: Stepping) {
        self.target.stepping = stepping;
    }

    /// Does what one line says: defines a probe or removes one. Gives a sentence about it.
    ///
    /// # Errors
    ///
    /// Why not. Nothing has changed then, unless the text could not be written.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// let said = control.line("p:open sys_open path=+0($arg1):string")?;
    /// control.line("-:open")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn line(&mut self, line: &str) -> Result<String, Error> {
        let definition = parse(line)?;
        if definition.kind == Kind::Remove {
            let name = definition.event_name();
            self.remove(definition.group.as_deref(), &name)?;
            return Ok(format!("removed {name}"));
        }
        let ids = self.define_all(&[line]).map_err(|(_, error)| error)?;
        let listed = ids.first().and_then(|&id| self.listed(id as usize));
        Ok(listed
            .map_or_else(String::new, |l| format!("{} at {} ({:#x}): {}", l.name, l.place, l.address, l.placement)))
    }

    /// Defines the probes of all `lines`, or none.
    ///
    /// # Errors
    ///
    /// The index of the line that is wrong or refused, and why.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// control.define(&["p:call sys_open", "r:back sys_open $retval:s32"]).map_err(|(_, error)| error)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn define(&mut self, lines: &[&str]) -> Result<(), (usize, Error)> {
        self.define_all(lines).map(drop)
    }

    /// The same; gives the events' numbers.
    fn define_all(&mut self, lines: &[&str]) -> Result<Vec<u32>, (usize, Error)> {
        let mut prepared: Vec<Prepared> = Vec::with_capacity(lines.len());
        for (index, line) in lines.iter().enumerate() {
            let one = self.prepare(line, &prepared).map_err(|error| (index, error))?;
            prepared.push(one);
        }
        let ids = self.numbers(prepared.len()).map_err(|error| (0, error))?;
        for (one, &id) in prepared.iter_mut().zip(&ids) {
            one.request.id = id;
        }
        let requests: Vec<Request> = prepared.iter().map(|p| p.request.clone()).collect();
        let handles = self.plant(&requests).map_err(|(index, error)| {
            let line = lines.get(index).copied().unwrap_or_default();
            (index, refused(line, error))
        })?;
        for ((one, handle), &id) in prepared.into_iter().zip(handles).zip(&ids) {
            let (name, group) = (one.definition.event_name(), one.definition.group_name());
            self.set(id, Event::new(name, group, one.schema, handle));
        }
        Ok(ids)
    }

    /// Registers a probe under a name, by which it can be listed, asked and removed, as one that a line has defined.
    /// ([`register`](Self::register) gives one that its owner alone can remove.)
    ///
    /// # Errors
    ///
    /// Why not.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, pre: Handler<kprobes::PreHandler<Regs>>) -> Result<(), Error> {
    /// control.attach("open", Kprobe::symbol("sys_open").pre(pre))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn attach<'a>(&mut self, name: &str, probe: impl Into<Spec<'a>>) -> Result<(), Error> {
        if self.find(None, name).is_some() {
            return Err(Error::Place(format!("there is an event `{name}` already")));
        }
        let registered = self.register(probe)?;
        if let Some(Some(event)) = self.events.get_mut(registered.id() as usize) {
            event.name = name.into();
        }
        Ok(())
    }

    /// Puts a probe at `address` that only counts.
    ///
    /// # Errors
    ///
    /// Why not.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, address: u64) -> Result<(), Error> {
    /// control.count("one", address)?;
    /// let hits = control.counts("one").map(|counts| counts.hits);
    /// # Ok(())
    /// # }
    /// ```
    pub fn count(&mut self, name: &str, address: u64) -> Result<(), Error> {
        self.attach_as(name, address, ProbeKind::Entry)
    }

    /// Puts a return probe at `address` that only counts.
    ///
    /// # Errors
    ///
    /// Why not.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, address: u64) -> Result<(), Error> {
    /// control.count_returns("back", address, 100)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn count_returns(&mut self, name: &str, address: u64, maxactive: u32) -> Result<(), Error> {
        self.attach_as(name, address, ProbeKind::Return { maxactive })
    }

    /// Puts a counting probe at each of `addresses`; gives those that were refused, with the reason.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, functions: &[u64]) -> Result<(), Error> {
    /// for (address, error) in control.count_all("all", functions) {
    ///     // This one is not probed, and why.
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn count_all(&mut self, name: &str, addresses: &[u64]) -> Vec<(u64, Error)> {
        self.attach_all(name, addresses, &ProbeKind::Entry)
    }

    /// Puts a counting return probe at each of `addresses`; gives those that were refused, with the reason.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, functions: &[u64]) -> Result<(), Error> {
    /// let refused = control.count_all_returns("all", functions, 100);
    /// # Ok(())
    /// # }
    /// ```
    pub fn count_all_returns(&mut self, name: &str, addresses: &[u64], maxactive: u32) -> Vec<(u64, Error)> {
        self.attach_all(name, addresses, &ProbeKind::Return { maxactive })
    }

    /// The instruction boundaries of the function that holds `address`.
    ///
    /// # Errors
    ///
    /// When no function is known there, or none that may be probed.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, function: u64) -> Result<(), Error> {
    /// for instruction in control.boundaries(function)? {
    ///     // Each of them can bear a probe, or is refused with a reason.
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn boundaries(&mut self, address: u64) -> Result<Vec<u64>, Error> {
        use kprobes::{Host, Isa};
        let function = self.target.function(address)?;
        Ok(<Target<K> as Host>::Isa::boundaries(&function.code, function.start))
    }

    fn attach_all(&mut self, name: &str, addresses: &[u64], kind: &ProbeKind) -> Vec<(u64, Error)> {
        let mut refused = Vec::new();
        let mut requests = Vec::with_capacity(addresses.len());
        for &address in addresses {
            let request = Request::counting(address, *kind, 0);
            match self.registry.check(&mut self.target, &request) {
                Ok(_) => requests.push(request),
                Err(error) => refused.push((address, error.into())),
            }
        }
        // What a check of one cannot see: the chain, or the bits of an address are used up. That one is left out.
        let name = |address| format!("{name}_{address:x}");
        while let Err((index, error)) = self.attach_checked(&mut requests, name) {
            let Some(request) = (index < requests.len()).then(|| requests.remove(index)) else { break };
            refused.push((request.address, error));
        }
        refused
    }

    /// Registers what records nothing, under names by address.
    fn attach_checked(&mut self, requests: &mut [Request], name: impl Fn(u64) -> String) -> Result<(), (usize, Error)> {
        let ids = self.numbers(requests.len()).map_err(|error| (requests.len().saturating_sub(1), error))?;
        for (request, &id) in requests.iter_mut().zip(&ids) {
            request.id = id;
        }
        let handles = self.plant(requests).map_err(|(index, error)| (index, error.into()))?;
        for (handle, id) in handles.into_iter().zip(ids) {
            self.set(id, Event::silent(name(handle.address), handle));
        }
        Ok(())
    }

    fn attach_as(&mut self, name: &str, address: u64, kind: ProbeKind) -> Result<(), Error> {
        if self.find(None, name).is_some() {
            return Err(Error::Place(format!("there is an event `{name}` already")));
        }
        let request = Request::counting(address, kind, 0);
        self.attach_checked(&mut [request], |_| name.to_string()).map_err(|(_, error)| error)
    }

    pub(crate) fn plant(&mut self, requests: &[Request]) -> Result<Vec<Handle>, (usize, kprobes::Error)> {
        for counters in requests.iter().filter_map(|r| self.engine.tables.counters.get(r.id as usize)) {
            Counts::reset(counters);
        }
        self.registry.register(&mut self.target, requests)
    }

    /// Removes an event; when this returns, no handler can see its probe any more.
    ///
    /// # Errors
    ///
    /// [`Error::NoEvent`], or when the text cannot be written.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// control.line("p:mine/open sys_open")?;
    /// control.remove(Some("mine"), "open")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove(&mut self, group: Option<&str>, name: &str) -> Result<(), Error> {
        let index = self.find(group, name).ok_or_else(|| Error::NoEvent(name.to_string()))?;
        let handle = self.events.get(index).and_then(|e| e.as_ref()).map(|e| e.handle.clone());
        self.registry.unregister(&mut self.target, handle.as_slice())?;
        self.mark_removed(index);
        Ok(())
    }

    /// Removes events, all of them or none.
    ///
    /// # Errors
    ///
    /// [`Error::NoEvent`] for the first that there is not, or when the text cannot be written.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// control.remove_events(&["open", "close"])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove_events(&mut self, names: &[&str]) -> Result<(), Error> {
        match names.iter().find(|name| self.find(None, name).is_none()) {
            Some(name) => Err(Error::NoEvent((*name).to_string())),
            None => {
                let once: BTreeSet<&str> = names.iter().copied().collect();
                once.into_iter().try_for_each(|name| self.remove(None, name))
            }
        }
    }

    /// Removes all events.
    ///
    /// # Errors
    ///
    /// When the text cannot be written.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// control.remove_all()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove_all(&mut self) -> Result<(), Error> {
        let live = self.events.iter_mut().flatten().filter(|e| !e.removed);
        let handles: Vec<Handle> = live.map(|e| e.handle.clone()).collect();
        self.registry.unregister(&mut self.target, &handles)?;
        (0..self.events.len()).for_each(|index| self.mark_removed(index));
        Ok(())
    }

    /// What is planted.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &Control<K>, log: fn(Listed)) -> Result<(), Error> {
    /// control.list().for_each(log);
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self) -> impl Iterator<Item = Listed> + '_ {
        (0..self.events.len()).filter_map(|index| self.listed(index))
    }

    /// What an event has counted.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &Control<K>) -> Result<(), Error> {
    /// let missed = control.counts("open").map(|counts| counts.missed);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn counts(&self, name: &str) -> Option<Counts> {
        self.engine.tables.counters.get(self.find(None, name)?).map(Counts::of)
    }

    /// Checks a line, and makes it a request.
    fn prepare(&self, line: &str, batch: &[Prepared]) -> Result<Prepared, Error> {
        let definition = parse(line)?;
        if definition.kind == Kind::Remove {
            return Err(Error::Place("a line that removes an event stands alone".into()));
        }
        let (name, group) = (definition.event_name(), definition.group_name());
        let same = |p: &Prepared| p.definition.event_name() == name && p.definition.group_name() == group;
        if self.find(Some(&group), &name).is_some() || batch.iter().any(same) {
            let column = line.find(&name).unwrap_or(0);
            return Err(Error::Syntax(SyntaxError::new(ErrorCode::EventExist, column).render(line)));
        }
        let column = definition.place_column.0;
        let bad = |why: String| {
            Error::Syntax(SyntaxError::new(ErrorCode::BadProbeAddr, column).with_detail(why).render(line))
        };
        let address = resolve::<K>(&definition.place).map_err(bad)?;
        let symbols = Symbols::<K>(core::marker::PhantomData);
        let program = events::compile(&definition, &symbols).map_err(|e| Error::Syntax(e.render(line)))?;
        let kind = match definition.kind {
            Kind::Return { maxactive } => {
                ProbeKind::Return { maxactive: maxactive.unwrap_or_else(|| self.maxactive()) }
            }
            _ => ProbeKind::Entry,
        };
        let request = Request { record: true, program: program.code, ..Request::counting(address, kind, 0) };
        Ok(Prepared { definition, request, schema: program.schema })
    }

    /// Linux: `max(10, 2 * num_possible_cpus())`.
    pub(crate) fn maxactive(&self) -> u32 {
        10.max(2 * self.engine.tables.processors.len() as u32)
    }

    /// `count` numbers that no event bears.
    pub(crate) fn numbers(&mut self, count: usize) -> Result<Vec<u32>, Error> {
        let limit = self.engine.tables.counters.len();
        let mut free: Vec<u32> = (0..).zip(&self.events).filter(|(_, e)| e.is_none()).map(|(i, _)| i).collect();
        let more = self.events.len() as u32..limit as u32;
        free.extend(more.take(count.saturating_sub(free.len())));
        free.truncate(count);
        if free.len() < count {
            let full = kprobes::Error::Full {
                what: "events (those that were removed are given back when their records are read)",
                limit,
            };
            return Err(full.into());
        }
        Ok(free)
    }

    pub(crate) fn set(&mut self, id: u32, event: Event) {
        let index = id as usize;
        if index >= self.events.len() {
            self.events.resize_with(index + 1, || None);
        }
        if let Some(place) = self.events.get_mut(index) {
            *place = Some(event);
        }
    }

    fn find(&self, group: Option<&str>, name: &str) -> Option<usize> {
        let is = |e: &Event| !e.removed && e.name == name && group.is_none_or(|g| e.group == g);
        self.events.iter().position(|e| e.as_ref().is_some_and(is))
    }

    fn listed(&self, index: usize) -> Option<Listed> {
        let event = self.events.get(index)?.as_ref().filter(|e| !e.removed)?;
        let counts = self.engine.tables.counters.get(index).map(Counts::of).unwrap_or_default();
        let address = event.handle.address;
        let faulted = counts.faults > 0;
        Some(Listed {
            name: format!("{}/{}", event.group, event.name),
            address,
            place: symbolize::<K>(address).unwrap_or_default(),
            placement: self.registry.placement(&event.handle).to_string(),
            counts,
            faulted,
            disabled: event.disabled,
            owner: event.owner,
        })
    }
}

fn parse(line: &str) -> Result<Definition, Error> {
    events::parse(line).map_err(|error| Error::Syntax(error.render(line)))
}

/// A refusal of the registry's, with the line.
fn refused(line: &str, error: kprobes::Error) -> Error {
    let code = match error {
        kprobes::Error::NotBoundary { .. } => ErrorCode::BadInsnBndry,
        kprobes::Error::NotEntry { .. } => ErrorCode::BadRetprobe,
        _ => ErrorCode::FailRegProbe,
    };
    let column = events::place_column(line);
    Error::Syntax(SyntaxError::new(code, column).with_detail(error.to_string()).render(line))
}
