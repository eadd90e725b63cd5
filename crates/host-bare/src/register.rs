//! Probes of types: what is registered by value, and owned until it is unregistered.

use crate::control::Event;
use crate::place::function_at;
use crate::tables::zeroed;
use crate::{Control, Counts, Error, Kernel, Registered, Spec};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use kprobes::{Handle, HandlerData, Place, ProbeKind, Request, SpecKind};
use sync::primitive::AtomicU64;

impl<K: Kernel> Control<K> {
    /// Registers a probe: a `Kprobe`, `Jprobe` or `Kretprobe`.
    ///
    /// # Errors
    ///
    /// Why not. Nothing has changed then.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, pre: Handler<kprobes::PreHandler<Regs>>) -> Result<(), Error> {
    /// let probe = control.register(Kprobe::symbol("sys_open").pre(pre))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn register<'a>(&mut self, probe: impl Into<Spec<'a>>) -> Result<Registered, Error> {
        let mut all = self.register_all(vec![probe.into()]).map_err(|(_, error)| error)?;
        all.pop().ok_or(Error::Gone)
    }

    /// Registers all of `probes`, or none.
    ///
    /// # Errors
    ///
    /// Which of them is refused, and why. Nothing has changed then.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// let probes = vec![Kprobe::symbol("sys_open").into(), Kprobe::symbol("sys_read").into()];
    /// let registered = control.register_all(probes).map_err(|(_, error)| error)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn register_all(&mut self, probes: Vec<Spec<'_>>) -> Result<Vec<Registered>, (usize, Error)> {
        let ids = self.numbers(probes.len()).map_err(|error| (0, error))?;
        let mut prepared = Vec::with_capacity(probes.len());
        for (index, (probe, &id)) in probes.iter().zip(&ids).enumerate() {
            prepared.push(self.prepare_spec(probe, id).map_err(|error| (index, error))?);
        }
        let (requests, areas): (Vec<Request>, Vec<Box<[AtomicU64]>>) = prepared.into_iter().unzip();
        let handles = self.plant(&requests).map_err(|(index, error)| (index, error.into()))?;
        let planted = requests.iter().zip(areas).zip(handles);
        Ok(planted.map(|((request, area), handle)| self.own(request, area, handle)).collect())
    }

    /// What is to be registered, with the memory for its activations' data.
    fn prepare_spec(&self, probe: &Spec<'_>, id: u32) -> Result<(Request, Box<[AtomicU64]>), Error> {
        let address = match probe.place {
            Place::Address(address) => address,
            Place::Symbol { name, offset } => function_at::<K>(name, offset).map_err(Error::Place)?,
        };
        let kind = match probe.kind() {
            SpecKind::Counter => ProbeKind::Entry,
            SpecKind::Kprobe | SpecKind::Jprobe => ProbeKind::Handler,
            SpecKind::Kretprobe { maxactive } => {
                let most = self.engine.tables.instances.len() as u32;
                ProbeKind::Return { maxactive: maxactive.unwrap_or_else(|| self.maxactive()).min(most) }
            }
        };
        let mut handlers = probe.handlers();
        let words = match kind {
            ProbeKind::Return { maxactive } if handlers.entry_bytes > 0 => {
                HandlerData::area_words(handlers.entry_bytes, maxactive)
            }
            _ => 0,
        };
        let area: Box<[AtomicU64]> = zeroed(words);
        handlers.area = if words > 0 { area.as_ptr() as u64 } else { 0 };
        Ok((Request { handlers, disabled: probe.disabled, ..Request::counting(address, kind, id) }, area))
    }

    fn own(&mut self, request: &Request, area: Box<[AtomicU64]>, handle: Handle) -> Registered {
        self.serial += 1;
        let name = event_name::<K>(request);
        let (disabled, owner) = (request.disabled, request.handlers.owner);
        self.set(request.id, Event { area, serial: self.serial, disabled, owner, ..Event::silent(name, handle) });
        Registered::new(request.id, self.serial)
    }

    /// Takes a probe off; when this returns, no handler of it runs or can run. Gives what it has counted in all.
    ///
    /// # Errors
    ///
    /// Why not, with the probe, so that it can be tried again: the text could not be written. What has gone already
    /// ([`Error::Gone`]) needs no second try.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// let probe = control.register(Kprobe::symbol("sys_open"))?;
    /// let counts = control.unregister(probe).map_err(|(_, error)| error)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn unregister(&mut self, probe: Registered) -> Result<Counts, (Registered, Error)> {
        match self.unregister_all(vec![probe]) {
            Ok(counts) => Ok(counts.first().copied().unwrap_or_default()),
            Err((mut probes, error)) => Err((probes.pop().unwrap_or(const { Registered::new(u32::MAX, 0) }), error)),
        }
    }

    /// Takes probes off, and waits for handlers once for all of them. Gives what each has counted.
    ///
    /// # Errors
    ///
    /// As [`unregister`](Self::unregister).
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// let probes = vec![Kprobe::symbol("sys_open").into(), Kprobe::symbol("sys_read").into()];
    /// let registered = control.register_all(probes).map_err(|(_, error)| error)?;
    /// let counts = control.unregister_all(registered).map_err(|(_, error)| error)?;
    /// let hits: u64 = counts.iter().map(|counts| counts.hits).sum();
    /// # Ok(())
    /// # }
    /// ```
    pub fn unregister_all(&mut self, probes: Vec<Registered>) -> Result<Vec<Counts>, (Vec<Registered>, Error)> {
        let mut handles = Vec::with_capacity(probes.len());
        for probe in &probes {
            match self.event_of(probe) {
                Some(event) => handles.push(event.handle.clone()),
                None => return Err((probes, Error::Gone)),
            }
        }
        if let Err(error) = self.registry.unregister(&mut self.target, &handles) {
            return Err((probes, error.into()));
        }
        let counts = probes.iter().map(|probe| self.counts_of(probe).unwrap_or_default()).collect();
        probes.iter().for_each(|probe| self.mark_removed(probe.id() as usize));
        Ok(counts)
    }

    /// Switches a probe on or off. Off, it costs nothing: where no other probe is, the text is as without any. What it
    /// has counted stays.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`], or when the text cannot be written.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// let probe = control.register(Kprobe::symbol("sys_open"))?;
    /// control.enable(&probe, false)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn enable(&mut self, probe: &Registered, on: bool) -> Result<(), Error> {
        let handle = self.event_of(probe).ok_or(Error::Gone)?.handle.clone();
        self.registry.enable(&mut self.target, &[handle], on)?;
        if let Some(Some(event)) = self.events.get_mut(probe.id() as usize) {
            event.disabled = !on;
        }
        Ok(())
    }

    /// What a probe has counted.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// let probe = control.register(Kprobe::symbol("sys_open"))?;
    /// let hits = control.counts_of(&probe).map(|counts| counts.hits);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn counts_of(&self, probe: &Registered) -> Option<Counts> {
        self.event_of(probe)?;
        self.engine.tables.counters.get(probe.id() as usize).map(Counts::of)
    }

    /// How often a probe was reached and could not run (Linux: `nmissed`).
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>) -> Result<(), Error> {
    /// let probe = control.register(Kprobe::symbol("sys_open"))?;
    /// let missed = control.nmissed(&probe);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn nmissed(&self, probe: &Registered) -> u64 {
        self.counts_of(probe).map_or(0, |counts| counts.missed)
    }

    /// Memory that held code has gone, or is about to: what is planted there is forgotten, and nothing is restored. Gives
    /// the names of the probes that were there. Nobody may execute that memory any more.
    ///
    /// ```
    /// # use core::ops::Range;
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, text: Range<u64>, log: fn(&str)) {
    /// // A module is unloaded: what others have planted in its text goes with it.
    /// for name in control.forget(text) {
    ///     log(&format!("{name} was removed with the module"));
    /// }
    /// # }
    /// ```
    pub fn forget(&mut self, range: Range<u64>) -> Vec<String> {
        self.registry.forget(&mut self.target, range.clone());
        self.target.forget(range.clone());
        let there = |e: &Event| !e.removed && range.contains(&e.handle.address);
        let gone: Vec<usize> = (0..self.events.len())
            .filter(|&i| self.events.get(i).and_then(Option::as_ref).is_some_and(there))
            .collect();
        let names = gone.iter().filter_map(|&i| self.events.get(i)?.as_ref().map(|e| e.name.clone())).collect();
        // Once for all: what was taken off above is used again only after this.
        let _ = self.registry.unregister(&mut self.target, &[]);
        gone.into_iter().for_each(|index| self.mark_removed(index));
        names
    }

    /// From now on no handler of this owner's probes is called; with `false`, they are again.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, owner: u32, probes: Vec<Registered>) -> Result<(), Error> {
    /// // A module goes: first its handlers are called no more, then its probes are taken off.
    /// control.silence(owner, true);
    /// control.unregister_all(probes).map_err(|(_, error)| error)?;
    /// // Its number may be another one's now.
    /// control.silence(owner, false);
    /// # Ok(())
    /// # }
    /// ```
    pub fn silence(&mut self, owner: u32, silent: bool) {
        self.engine.set_silenced(owner, u64::from(silent));
    }

    /// The event has gone: its grace period is over, so nobody uses its memory any more. Its number stays as long as there
    /// may be records of it.
    pub(crate) fn mark_removed(&mut self, index: usize) {
        let Some(place) = self.events.get_mut(index) else { return };
        match place {
            Some(event) if event.records => {
                event.removed = true;
                event.area = Box::default();
            }
            _ => *place = None,
        }
    }

    fn event_of(&self, probe: &Registered) -> Option<&Event> {
        let event = self.events.get(probe.id() as usize)?.as_ref()?;
        (event.serial == probe.serial() && !event.removed).then_some(event)
    }
}

/// A name in the manner of Linux's: `p_SYMBOL_OFFSET`, `r_…` for returns, `j_…` for a jprobe.
fn event_name<K: Kernel>(request: &Request) -> String {
    let kind = match request.kind {
        ProbeKind::Return { .. } => "r",
        _ if request.handlers.mirror => "j",
        _ => "p",
    };
    let place = match K::symbol_at(request.address) {
        Some(symbol) => alloc::format!("{}_{:x}", symbol.name, request.address - symbol.address),
        None => alloc::format!("{:x}", request.address),
    };
    alloc::format!("{kind}_{place}").replace("::", "_")
}
