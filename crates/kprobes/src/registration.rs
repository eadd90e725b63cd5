//! Registering a batch: check all, prepare all, then make it visible; see the crate's documentation for why so.

use crate::batch::{At, Batch, Place, role};
use crate::code::patch;
use crate::host::{Host, Isa, ProbeData, ReturnScheme, SiteData};
use crate::registry::summary;
use crate::request::Member;
use crate::site::{Chained, SiteRecord};
use crate::{Error, Handle, Placement, Registry, Request};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use hit::{Kind, ORIGINAL_BYTES, Site};

/// A probe of a batch that is stored and not yet visible.
struct Stored {
    request: usize,
    member: Member,
    bit: Option<u32>,
    disabled: bool,
    minds_jumps: bool,
}

/// A site that is stored and not yet published.
struct Made {
    record: SiteRecord,
    slot: u64,
    /// Where a second breakpoint stands.
    step_end: Option<u64>,
}

impl Made {
    fn publish<H: Host>(&self, host: &mut H) -> Result<(), Error> {
        let entry = u64::from(self.record.index);
        if let Some(end) = self.step_end {
            host.publish(end, entry | hit::STEP_END)?;
        }
        if host.publishes_slots() {
            host.publish(self.slot, entry | hit::SLOT)?;
        }
        host.publish(self.record.data.address, entry)
    }
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
    /// /// Counts hits at all of these addresses.
    /// fn count<H: Host>(registry: &mut Registry, host: &mut H, addresses: &[u64]) -> Result<Vec<Handle>, Error> {
    ///     let request = |(id, &address): (usize, &u64)| Request::counting(address, ProbeKind::Entry, id as u32);
    ///     let requests: Vec<Request> = addresses.iter().enumerate().map(request).collect();
    ///     registry.register(host, &requests).map_err(|(_, why)| why)
    /// }
    /// ```
    pub fn register<H: Host>(&mut self, host: &mut H, requests: &[Request]) -> At<Vec<Handle>> {
        let batch = Batch::all_or_none(requests);
        let handles = self.register_batch(host, batch)?;
        // None was left out: that would have been an error.
        Ok(handles.into_iter().flatten().collect())
    }

    /// Registers those of `requests` that can be, and says of each other why not.
    ///
    /// # Errors
    ///
    /// When the host fails. Nothing of the batch is live, and the target's text is as before.
    ///
    /// ```
    /// # use kprobes::{Error, Handle, Host, ProbeKind, Registry, Request};
    /// /// Counts hits at as many of these addresses as can be probed.
    /// fn count<H: Host>(registry: &mut Registry, host: &mut H, addresses: &[u64]) -> Result<Vec<Handle>, Error> {
    ///     let request = |(id, &address): (usize, &u64)| Request::counting(address, ProbeKind::Entry, id as u32);
    ///     let requests: Vec<Request> = addresses.iter().enumerate().map(request).collect();
    ///     let placed = registry.register_each(host, &requests)?;
    ///     Ok(placed.into_iter().filter_map(|placed| placed.inspect_err(|why| println!("{why}")).ok()).collect())
    /// }
    /// ```
    pub fn register_each<H: Host>(
        &mut self,
        host: &mut H,
        requests: &[Request],
    ) -> Result<Vec<Result<Handle, Error>>, Error> {
        self.register_batch(host, Batch::as_many_as_can_be(requests)).map_err(|(_, error)| error)
    }

    fn register_batch<H: Host>(&mut self, host: &mut H, mut batch: Batch<'_, H>) -> At<Vec<Result<Handle, Error>>> {
        host.flush().map_err(|error| (0, error))?;
        self.check_all(host, &mut batch)?;
        let planted = self.plant(host, &mut batch);
        // Also when that has failed: it may have taken jumps out that are in nobody's way now.
        let touched: Vec<u64> = batch.addresses().collect();
        self.optimize_around(host, &touched);
        let written = host.flush().map_err(|error| (0, error));
        let stored = planted?;
        written.map(|()| self.handles(batch, &stored))
    }

    /// Prepares what nothing refuses, and makes it visible.
    fn plant<H: Host>(&mut self, host: &mut H, batch: &mut Batch<'_, H>) -> At<Vec<Stored>> {
        self.make_way(host, batch).map_err(|error| (0, error))?;
        self.make_sites(host, batch)?;
        let stored = self.store_all(host, batch)?;
        self.expose(host, &stored)?;
        Ok(stored)
    }

    /// Prepares the batch's sites: slots and copies of all, then their entries in the table.
    fn make_sites<H: Host>(&mut self, host: &mut H, batch: &mut Batch<'_, H>) -> At<()> {
        let mut made = Vec::with_capacity(batch.sites.len());
        for (address, (request, (plan, original))) in core::mem::take(&mut batch.sites) {
            match self.make_site(host, address, &plan, original) {
                Ok(site) => made.push((request, site)),
                Err(error) => batch.refuse_at(address, request, error)?,
            }
        }
        host.flush().map_err(|error| (0, error))?;
        // Built from what is in order, a tree of sites is as small as can be.
        let mut fresh: Vec<(u64, SiteRecord)> = Vec::new();
        for (request, site) in made {
            let address = site.record.data.address;
            if let Err(error) = site.publish(host) {
                // A place without an address is nobody's, also for whoever reads the table later.
                host.store_site(site.record.index, &SiteData::default()).map_err(|error| (request, error))?;
                batch.refuse_at(address, request, error)?;
                continue;
            }
            if let Some(old) = self.sites.remove(&address) {
                self.abandon(host, old);
            }
            fresh.push((address, site.record));
        }
        if fresh.len() > self.sites.len() / 4 {
            self.sites.append(&mut fresh.into_iter().collect());
        } else {
            self.sites.extend(fresh);
        }
        host.flush().map_err(|error| (0, error))
    }

    /// Prepares a site: slot, copy, its place among the sites.
    fn make_site<H: Host>(
        &mut self,
        host: &mut H,
        address: u64,
        plan: &<H::Isa as Isa>::Plan,
        original: [u8; ORIGINAL_BYTES],
    ) -> Result<Made, Error> {
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
        self.next_site += 1;
        let record = SiteRecord { stepping: host.stepping(), ..SiteRecord::new(index, data) };
        let step_end = (how & Site::SECOND_BREAKPOINT != 0).then_some(slot + image.complete as u64);
        Ok(Made { record, slot, step_end })
    }

    /// Stores the probes of all requests.
    fn store_all<H: Host>(&mut self, host: &mut H, batch: &mut Batch<'_, H>) -> At<Vec<Stored>> {
        let mut stored = Vec::with_capacity(batch.requests.len());
        for (index, request) in batch.requests.iter().enumerate() {
            let before = stored.len();
            if let Err(error) = self.store_one(host, index, request, batch.place(index), &mut stored) {
                let refused = batch.refuse(index, error);
                let kept = if refused.is_err() { 0 } else { before };
                self.discard(stored.get(kept..).unwrap_or_default());
                stored.truncate(kept);
                refused?;
            }
        }
        host.flush().map_err(|error| {
            self.discard(&stored);
            (0, error)
        })?;
        Ok(stored)
    }

    fn store_one<H: Host>(
        &mut self,
        host: &mut H,
        index: usize,
        request: &Request,
        (addresses, scheme): (&[u64], Option<&ReturnScheme>),
        stored: &mut Vec<Stored>,
    ) -> Result<(), Error> {
        for &address in addresses {
            let (member, bit) = self.store(host, request, scheme, address)?;
            let (disabled, minds_jumps) = (request.disabled, request.minds_jumps());
            stored.push(Stored { request: index, member, bit, disabled, minds_jumps });
        }
        Ok(())
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
        host.flush().and_then(|()| patch(host, &plant)).map_err(|error| (stored.len(), error))
    }

    /// Takes out the jumps that a batch cannot live with: over an instruction that is to get a breakpoint, or a site of
    /// its own, and where a post- or fault handler comes. The table then says of these addresses what it said before.
    fn make_way<H: Host>(&mut self, host: &mut H, batch: &Batch<'_, H>) -> Result<(), Error> {
        let enabled = batch.addresses_of(|request| !request.disabled);
        let over = batch.sites.keys().copied().chain(enabled).filter_map(|address| self.jump_over(address));
        let taken: BTreeSet<u64> = over.chain(batch.addresses_of(Request::minds_jumps)).collect();
        self.unoptimize(host, taken.into_iter())?;
        batch.addresses().try_for_each(|address| self.publish_again(host, address))
    }

    fn handles<H: Host>(&self, batch: Batch<'_, H>, stored: &[Stored]) -> Vec<Result<Handle, Error>> {
        let mut stored = stored;
        let handle = |(request, place): (&Request, Place)| {
            let (addresses, scheme) = place?;
            let site = addresses.first().and_then(|a| self.sites.get(a));
            let step = site.map_or(Placement::Boosted, SiteRecord::placement);
            let (own, others) = stored.split_at_checked(addresses.len()).unwrap_or((stored, &[]));
            stored = others;
            let members: Vec<Member> = own.iter().map(|s| s.member).collect();
            Ok(Handle::new(&members, request.address, summary(&request.kind, scheme, step)))
        };
        batch.requests.iter().zip(batch.places).map(handle).collect()
    }
}
