//! Registering a batch: check all, prepare all, then make it visible; see the crate's documentation for why so.

use crate::code::{Planned, patch};
use crate::host::{Host, Isa, ProbeData, ReturnScheme, SiteData};
use crate::registry::summary;
use crate::request::Member;
use crate::site::{Bits, Chained, SiteRecord};
use crate::{Error, Handle, Placement, ProbeKind, Registry, Request};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use hit::{Kind, MAX_CHAIN, ORIGINAL_BYTES, Site};

/// An error, and which request of the batch it belongs to.
type At<T> = Result<T, (usize, Error)>;

/// A batch that nothing refuses.
struct Checked<H: Host> {
    /// For each request, where its breakpoints are needed.
    places: Vec<(Vec<u64>, Option<ReturnScheme>)>,
    /// Sites to make, and the first request that needs each.
    sites: BTreeMap<u64, (usize, Planned<H>)>,
    /// How many bits are needed at each site.
    bits: BTreeMap<u64, usize>,
    /// How many probes are to be chained at each site.
    chained: BTreeMap<u64, usize>,
}

/// A probe of a batch that is stored and not yet visible.
struct Stored {
    request: usize,
    member: Member,
    bit: Option<u32>,
    disabled: bool,
    minds_jumps: bool,
}

impl Registry {
    /// Registers all of `requests`, or none.
    ///
    /// # Errors
    ///
    /// The index of the request that failed, and why. Nothing of the batch is live, and the target's text is as
    /// before. All requests are checked before anything is prepared.
    ///
    /// ```
    /// # use kprobes::{Error, Handle, Host, ProbeKind, Registry, Request};
    /// /// Counts hits at as many of these addresses as can be probed.
    /// fn count<H: Host>(registry: &mut Registry, host: &mut H, mut addresses: Vec<u64>) -> Vec<Handle> {
    ///     loop {
    ///         let request = |(id, &address): (usize, &u64)| Request::counting(address, ProbeKind::Entry, id as u32);
    ///         let requests: Vec<Request> = addresses.iter().enumerate().map(request).collect();
    ///         match registry.register(host, &requests) {
    ///             Ok(handles) => return handles,
    ///             Err((refused, why)) => println!("{:#x}: {why}", addresses.remove(refused)),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn register<H: Host>(&mut self, host: &mut H, requests: &[Request]) -> At<Vec<Handle>> {
        let Checked { places, sites, .. } = self.check_all(host, requests)?;
        let planted = self.plant(host, requests, &places, sites);
        // Also when that has failed: it may have taken jumps out that are in nobody's way now.
        let touched: Vec<u64> = places.iter().flat_map(|(addresses, _)| addresses).copied().collect();
        self.optimize_around(host, &touched);
        Ok(self.handles(requests, places, &planted?))
    }

    /// Prepares what nothing refuses, and makes it visible.
    fn plant<H: Host>(
        &mut self,
        host: &mut H,
        requests: &[Request],
        places: &[(Vec<u64>, Option<ReturnScheme>)],
        sites: BTreeMap<u64, (usize, Planned<H>)>,
    ) -> At<Vec<Stored>> {
        self.make_way(host, requests, places, sites.keys()).map_err(|error| (0, error))?;
        for (address, (request, (plan, original))) in sites {
            self.make_site(host, address, &plan, original).map_err(|error| (request, error))?;
        }
        let stored = self.store_all(host, requests, places)?;
        self.expose(host, &stored)?;
        Ok(stored)
    }

    /// Checks all requests. The target is only read.
    fn check_all<H: Host>(&mut self, host: &mut H, requests: &[Request]) -> At<Checked<H>> {
        let places = Vec::with_capacity(requests.len());
        let mut batch = Checked { places, sites: BTreeMap::new(), bits: BTreeMap::new(), chained: BTreeMap::new() };
        for (index, request) in requests.iter().enumerate() {
            self.check_one(host, index, request, &mut batch).map_err(|error| (index, error))?;
        }
        Ok(batch)
    }

    fn check_one<H: Host>(
        &mut self,
        host: &mut H,
        index: usize,
        request: &Request,
        batch: &mut Checked<H>,
    ) -> Result<(), Error> {
        let (addresses, scheme) = self.addresses(host, request)?;
        for &address in &addresses {
            let ready = batch.sites.contains_key(&address)
                || self.is_usable(host, address)? && self.steps_as_wanted(host, address);
            if !ready {
                let planned = self.plan(host, address, &request.kind)?;
                batch.sites.insert(address, (index, planned));
            }
            if request.is_followed() {
                self.check_followed::<H>(address, batch)?;
            }
            // What is longer would not be run to its end.
            let chained = batch.chained.entry(address).or_default();
            *chained += 1;
            if *chained + self.sites.get(&address).map_or(0, |site| site.probes.len()) > MAX_CHAIN {
                return Err(Error::Full { what: "probes at one address", limit: MAX_CHAIN });
            }
            if role(request, scheme.as_ref()).0 == Kind::Return {
                let old = self.sites.get(&address).filter(|_| !batch.sites.contains_key(&address));
                let available = old.map_or_else(|| Bits::default().available(), |site| site.bits.available());
                let needed = batch.bits.entry(address).or_default();
                if *needed == available {
                    return Err(Error::TooManyReturns { address });
                }
                *needed += 1;
            }
        }
        batch.places.push((addresses, scheme));
        Ok(())
    }

    /// Refuses an instruction after which no handler can run.
    fn check_followed<H: Host>(&self, address: u64, batch: &Checked<H>) -> Result<(), Error> {
        let refused = |why| Error::Refused { address, why };
        if let Some((_, (plan, _))) = batch.sites.get(&address) {
            return H::Isa::check_followed(plan).map_err(refused);
        }
        let Some(site) = self.sites.get(&address) else { return Ok(()) };
        let code = site.data.original.get(..site.data.length as usize).unwrap_or_default();
        H::Isa::plan(code, address).and_then(|plan| H::Isa::check_followed(&plan)).map_err(refused)
    }

    /// Prepares a site: slot, copy, entry in the table.
    fn make_site<H: Host>(
        &mut self,
        host: &mut H,
        address: u64,
        plan: &<H::Isa as Isa>::Plan,
        original: [u8; ORIGINAL_BYTES],
    ) -> Result<(), Error> {
        let slot = host.slot(address)?;
        let refused = |why: String| Error::Refused { address, why };
        let how = H::Isa::how(plan, host.stepping());
        let image = H::Isa::image(plan, address, slot, how).map_err(refused)?;
        host.write_slot(slot, &image.code)?;
        let data = SiteData {
            address,
            slot,
            op: H::Isa::operation(plan).unwrap_or_default(),
            original,
            how: Site::with_lengths(how, image.complete, image.code.len()),
            length: u32::from(H::Isa::length(plan)),
            marks: image.marks,
        };
        let index = self.next_site;
        host.store_site(index, &data)?;
        let entry = u64::from(index);
        if how & Site::SECOND_BREAKPOINT != 0 {
            host.publish(slot + image.complete as u64, entry | hit::STEP_END)?;
        }
        if host.publishes_slots() {
            host.publish(slot, entry | hit::SLOT)?;
        }
        host.publish(address, entry)?;
        self.next_site += 1;
        let record = SiteRecord { stepping: host.stepping(), ..SiteRecord::new(index, data) };
        if let Some(old) = self.sites.insert(address, record) {
            self.abandon(host, old);
        }
        Ok(())
    }

    /// Stores the probes of all requests, or none.
    fn store_all<H: Host>(
        &mut self,
        host: &mut H,
        requests: &[Request],
        places: &[(Vec<u64>, Option<ReturnScheme>)],
    ) -> At<Vec<Stored>> {
        let mut stored = Vec::with_capacity(requests.len());
        for (index, (request, (addresses, scheme))) in requests.iter().zip(places).enumerate() {
            for &address in addresses {
                match self.store(host, request, scheme.as_ref(), address) {
                    Ok((member, bit)) => {
                        let (disabled, minds_jumps) = (request.disabled, request.minds_jumps());
                        stored.push(Stored { request: index, member, bit, disabled, minds_jumps });
                    }
                    Err(error) => {
                        self.discard(&stored);
                        return Err((index, error));
                    }
                }
            }
        }
        Ok(stored)
    }

    /// Stores a probe and its program.
    fn store<H: Host>(
        &mut self,
        host: &mut H,
        request: &Request,
        scheme: Option<&ReturnScheme>,
        address: u64,
    ) -> Result<(Member, Option<u32>), Error> {
        let code = self.program(host, &request.program)?;
        let (kind, maxactive, data) = role(request, scheme);
        let probe = self.free_probes.last().copied().unwrap_or(self.next_probe);
        let site = self.sites.get_mut(&address).ok_or(Error::NotText { address })?;
        let bit = match kind {
            Kind::Return => Some(site.bits.take().ok_or(Error::TooManyReturns { address })?),
            _ => None,
        };
        let (id, record, bits) = (request.id, request.record, bit.unwrap_or(0));
        let (handlers, disabled) = (request.handlers, request.disabled);
        let serial = self.serial + 1;
        let data =
            ProbeData { kind, id, record, code, bit: bits, maxactive, serial, data, next: 0, handlers, disabled };
        if let Err(error) = host.store_probe(probe, &data) {
            bit.into_iter().for_each(|bit| site.bits.untake(bit));
            return Err(error);
        }
        if self.free_probes.pop().is_none() {
            self.next_probe += 1;
        }
        self.serial = serial;
        Ok((Member { address, probe, serial }, bit))
    }

    /// Where a fetch program is stored, and its length.
    fn program<H: Host>(&mut self, host: &mut H, program: &[u8]) -> Result<(u32, u32), Error> {
        if program.is_empty() {
            return Ok((0, 0));
        }
        let length = program.len() as u32;
        if let Some(&at) = self.programs.get(program) {
            return Ok((at, length));
        }
        let at = host.store_program(program)?;
        self.programs.insert(program.into(), at);
        Ok((at, length))
    }

    /// Gives back what stored probes have, which no handler has seen.
    fn discard(&mut self, stored: &[Stored]) {
        for stored in stored.iter().rev() {
            self.free_probes.push(stored.member.probe);
            if let (Some(bit), Some(site)) = (stored.bit, self.sites.get_mut(&stored.member.address)) {
                site.bits.untake(bit);
            }
        }
    }

    /// Makes a stored batch visible: chains first, breakpoints last. What a failure leaves visible is taken off again.
    fn expose<H: Host>(&mut self, host: &mut H, stored: &[Stored]) -> At<()> {
        let Err((chained, error)) = self.try_to_expose(host, stored) else { return Ok(()) };
        let (visible, hidden) = stored.split_at_checked(chained).unwrap_or((stored, &[]));
        self.discard(hidden);
        // What cannot be taken off now is tried again with the next removal; the first failure says why.
        let _ = self.take_off(host, visible.iter().map(|s| s.member));
        let failed = visible.last().or(stored.first()).map_or(0, |s| s.request);
        Err((failed, error))
    }

    /// As [`expose`](Self::expose); an error comes with the number of probes that may be visible.
    fn try_to_expose<H: Host>(&mut self, host: &mut H, stored: &[Stored]) -> At<()> {
        let mut plant: Vec<(u64, u8)> = Vec::new();
        for (index, &Stored { member, bit, disabled, minds_jumps, .. }) in stored.iter().enumerate() {
            let address = member.address;
            let failed = |error| (index + 1, error);
            let site = self.sites.get_mut(&address).ok_or((index, Error::NotText { address }))?;
            let new =
                Chained { probe: member.probe, serial: member.serial, bit, retired: false, disabled, minds_jumps };
            site.append(host, new).map_err(failed)?;
            if !site.armed && !disabled {
                (site.armed, site.noted) = (true, true);
                plant.push((address, H::Isa::BREAKPOINT));
                host.set_armed(site.index, true).map_err(failed)?;
            }
        }
        patch(host, &plant).map_err(|error| (stored.len(), error))
    }

    /// Takes out the jumps that a batch cannot live with: over an instruction that is to get a breakpoint, or a site of
    /// its own, and where a post- or fault handler comes. The table then says of these addresses what it said before.
    fn make_way<'a, H: Host>(
        &mut self,
        host: &mut H,
        requests: &[Request],
        places: &[(Vec<u64>, Option<ReturnScheme>)],
        new: impl Iterator<Item = &'a u64>,
    ) -> Result<(), Error> {
        let addresses = |wanted: &dyn Fn(&Request) -> bool| -> Vec<u64> {
            let those = requests.iter().zip(places).filter(|(request, _)| wanted(request));
            those.flat_map(|(_, (addresses, _))| addresses).copied().collect()
        };
        let on = addresses(&|request| !request.disabled);
        let over = new.copied().chain(on).filter_map(|address| self.jump_over(address));
        let taken: BTreeSet<u64> = over.chain(addresses(&Request::minds_jumps)).collect();
        self.unoptimize(host, taken.into_iter())?;
        addresses(&|_| true).into_iter().try_for_each(|address| self.publish_again(host, address))
    }

    fn handles(
        &self,
        requests: &[Request],
        places: Vec<(Vec<u64>, Option<ReturnScheme>)>,
        stored: &[Stored],
    ) -> Vec<Handle> {
        let mut members = stored.iter().map(|s| s.member);
        let handle = |(request, (addresses, scheme)): (&Request, (Vec<u64>, Option<ReturnScheme>))| {
            let site = addresses.first().and_then(|a| self.sites.get(a));
            let step = site.map_or(Placement::Boosted, SiteRecord::placement);
            Handle {
                members: members.by_ref().take(addresses.len()).collect(),
                address: request.address,
                placement: summary(&request.kind, scheme, step),
            }
        };
        requests.iter().zip(places).map(handle).collect()
    }
}

/// What a request's probes are: kind, `maxactive`, and [`hit::Probe::data`].
fn role(request: &Request, scheme: Option<&ReturnScheme>) -> (Kind, u32, u64) {
    match (&request.kind, scheme) {
        (ProbeKind::Entry, _) => (Kind::Entry, 0, request.address),
        (ProbeKind::Internal { data }, _) => (Kind::Internal, 0, *data),
        (ProbeKind::Handler, _) => (Kind::Handler, 0, request.address),
        (ProbeKind::Return { .. }, Some(ReturnScheme::Sites(..))) => (Kind::ReturnSite, 0, request.address),
        (ProbeKind::Return { maxactive }, _) => (Kind::Return, *maxactive, request.address),
    }
}
