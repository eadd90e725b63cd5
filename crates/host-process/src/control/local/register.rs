//! Registering: lines that define events, and probes of types.

use super::Spec;
use super::area::Area;
use super::control::Control;
use super::error::{Error, Result};
use super::event::{self, Event, Format};
use crate::abi::INSTANCES;
use crate::control::member::DEFAULT_MAXACTIVE;
use hit::Counts;
use kprobes::{HandlerData, ProbeKind, Registered, Request, SpecKind};
use std::sync::Arc;

/// An error, and which probe of the batch it belongs to.
type At<T> = core::result::Result<T, (usize, Error)>;

impl Control {
    /// Registers what the lines define: all of them, or none.
    pub(crate) fn define(&mut self, lines: &[&str]) -> At<()> {
        self.refresh().map_err(|error| (0, error))?;
        let ids = self.numbers(lines.len()).map_err(|error| (0, error))?;
        let defined = self.try_to_define(lines, &ids);
        if defined.is_err() {
            self.give_back(ids);
        }
        defined
    }

    fn try_to_define(&mut self, lines: &[&str], ids: &[u32]) -> At<()> {
        let mut requests = Vec::with_capacity(lines.len());
        let mut formats: Vec<Arc<Format>> = Vec::with_capacity(lines.len());
        for (index, (line, &id)) in lines.iter().zip(ids).enumerate() {
            let (request, format) = self.read_line(line, id, &formats).map_err(|error| (index, error))?;
            formats.push(Arc::new(format));
            requests.push(request);
        }
        // Before a hit can be recorded.
        for (&id, format) in ids.iter().zip(&formats) {
            self.set_format(id, format.clone());
        }
        let handles = self.plant(&requests)?;
        for ((request, handle), format) in requests.iter().zip(handles).zip(formats) {
            self.own(request, handle, format, Area::default());
        }
        Ok(())
    }

    /// What a line asks for, whose name neither an event has nor one of `others`.
    fn read_line(&self, line: &str, id: u32, others: &[Arc<Format>]) -> Result<(Request, Format)> {
        let definition = event::parse(line)?;
        let (request, format) = event::request(&self.target.objects, &definition, id)?;
        let same = |other: &Format| other.group == format.group && other.name == format.name;
        if self.events.iter().any(|e| same(&e.format)) || others.iter().any(|f| same(f)) {
            return Err(Error::Exists { name: format!("{}/{}", format.group, format.name) });
        }
        Ok((request, format))
    }

    /// Registers all probes, or none.
    pub(crate) fn register_all(&mut self, probes: &[Spec<'_>]) -> At<Vec<Registered>> {
        self.refresh().map_err(|error| (0, error))?;
        let ids = self.numbers(probes.len()).map_err(|error| (0, error))?;
        let mut areas = Vec::with_capacity(probes.len());
        let registered = self.try_to_register(probes, &ids, &mut areas);
        if registered.is_err() {
            areas.into_iter().for_each(|area| self.areas.give_back(area));
            self.give_back(ids);
        }
        registered
    }

    fn try_to_register(&mut self, probes: &[Spec<'_>], ids: &[u32], areas: &mut Vec<Area>) -> At<Vec<Registered>> {
        let mut requests = Vec::with_capacity(probes.len());
        for (index, (probe, &id)) in probes.iter().zip(ids).enumerate() {
            let (request, area) = self.prepare(probe, id).map_err(|error| (index, error))?;
            areas.push(area);
            requests.push(request);
        }
        let handles = self.plant(&requests)?;
        let mut registered = Vec::with_capacity(probes.len());
        for ((request, handle), area) in requests.iter().zip(handles).zip(areas.drain(..)) {
            let format = Arc::new(Format::silent(&self.target.objects, request));
            let serial = self.own(request, handle, format, area);
            registered.push(Registered::new(request.id, serial));
        }
        Ok(registered)
    }

    /// What is to be registered, with the memory for its activations' data.
    fn prepare(&mut self, probe: &Spec<'_>, id: u32) -> Result<(Request, Area)> {
        let address = self.places.address(&self.target.objects, &probe.place)?;
        let kind = match probe.kind() {
            SpecKind::Counter => ProbeKind::Entry,
            SpecKind::Kprobe | SpecKind::Jprobe => ProbeKind::Handler,
            SpecKind::Kretprobe { maxactive } => {
                ProbeKind::Return { maxactive: maxactive.unwrap_or(DEFAULT_MAXACTIVE).min(INSTANCES as u32) }
            }
        };
        let mut handlers = probe.handlers();
        let area = match kind {
            ProbeKind::Return { maxactive } if handlers.entry_bytes > 0 => {
                self.areas.take(HandlerData::area_words(handlers.entry_bytes, maxactive))
            }
            _ => Area::default(),
        };
        handlers.area = if area.is_empty() { 0 } else { area.as_ptr() as u64 };
        Ok((Request { handlers, disabled: probe.disabled, ..Request::counting(address, kind, id) }, area))
    }

    /// Takes probes off, and waits for handlers once for all of them.
    pub(crate) fn unregister_all(&mut self, probes: &[Registered]) -> Result<Vec<Counts>> {
        self.refresh()?;
        let mut serials = Vec::with_capacity(probes.len());
        for probe in probes {
            serials.push(self.registered(probe)?.serial);
        }
        let counted = self.take_off(|e| serials.contains(&e.serial))?;
        Ok(serials.iter().map(|serial| counted.get(serial).copied().unwrap_or_default()).collect())
    }

    /// Switches a probe on or off.
    pub(crate) fn enable(&mut self, probe: &Registered, on: bool) -> Result<()> {
        self.refresh()?;
        let event = self.registered(probe)?;
        if event.gone {
            return Err(Error::Gone);
        }
        let handle = event.handle.clone();
        self.registry.enable(&mut self.target, &[handle], on)?;
        let serial = probe.serial();
        self.events.iter_mut().filter(|e| e.serial == serial).for_each(|e| e.disabled = !on);
        Ok(())
    }

    /// What a probe has counted.
    pub(crate) fn counts_of(&self, probe: &Registered) -> Result<Counts> {
        self.registered(probe).map(|event| self.counted(event))
    }

    fn registered(&self, probe: &Registered) -> Result<&Event> {
        let same = |e: &&Event| e.id == probe.id() && e.serial == probe.serial();
        self.events.iter().find(same).ok_or(Error::Gone)
    }
}
