//! The registry: which probes are planted where.

use crate::host::{Host, Isa, ProbeData, ReturnScheme, SiteData};
use crate::site::SiteRecord;
use crate::{Error, Handle, Placement, ProbeKind, Request};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use hit::{Kind, ORIGINAL_BYTES};

/// All probes of one target. The caller passes the [`Host`] to each call, so that it may borrow what it needs.
#[derive(Debug)]
pub struct Registry {
    sites: BTreeMap<u64, SiteRecord>,
    /// Instruction boundaries of the functions that were looked at, by start.
    boundaries: BTreeMap<u64, Vec<u64>>,
    next_site: u32,
    next_probe: u32,
    /// Probes that were taken off and whose grace period has passed.
    free_probes: Vec<u32>,
}

/// One probe of a batch, checked and prepared, not yet visible.
struct Prepared {
    address: u64,
    data: ProbeData,
}

impl Registry {
    /// A registry for a target whose table holds `sites` sites and `probes` probes already (of an earlier time).
    #[must_use]
    pub fn new(sites: u32, probes: u32) -> Self {
        Self {
            sites: BTreeMap::new(),
            boundaries: BTreeMap::new(),
            next_site: sites,
            next_probe: probes,
            free_probes: Vec::new(),
        }
    }

    /// Takes over a site that an earlier registry has left in the table, with nothing planted there.
    pub fn adopt(&mut self, index: u32, data: SiteData) {
        self.sites.insert(data.address, SiteRecord::new(index, data));
    }

    /// Takes over a site with its probes, first one first, and the number of bits that its return probes use: what a
    /// forked child has inherited.
    pub fn inherit(&mut self, index: u32, data: SiteData, probes: Vec<u32>, bits: u32, armed: bool) {
        self.sites.insert(data.address, SiteRecord { index, data, probes, bits, armed });
    }

    /// How many sites and probes were ever made.
    #[must_use]
    pub fn used(&self) -> (u32, u32) {
        (self.next_site, self.next_probe)
    }

    /// Says where and how a probe would be placed, and touches nothing.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn check<H: Host>(&mut self, host: &mut H, request: &Request) -> Result<Placement, Error> {
        let (addresses, scheme) = self.addresses(host, request)?;
        let mut placement = None;
        for address in addresses {
            let (plan, _) = self.plan(host, address)?;
            let emulated = H::Isa::operation(&plan).is_some();
            placement.get_or_insert(if emulated { Placement::Emulated } else { Placement::Boosted });
        }
        Ok(summary(&request.kind, scheme, placement.unwrap_or(Placement::Boosted)))
    }

    /// Registers all of `requests`, or none.
    ///
    /// # Errors
    ///
    /// The index of the request that failed, and why. The target's text is as before.
    pub fn register<H: Host>(&mut self, host: &mut H, requests: &[Request]) -> Result<Vec<Handle>, (usize, Error)> {
        let mut handles = Vec::with_capacity(requests.len());
        let mut batch: Vec<Prepared> = Vec::with_capacity(requests.len());
        for (i, request) in requests.iter().enumerate() {
            handles.push(self.prepare(host, request, &mut batch).map_err(|e| (i, e))?);
        }
        let last = requests.len().saturating_sub(1);
        self.install(host, &mut handles, batch).map_err(|e| (last, e))?;
        Ok(handles)
    }

    /// Takes probes off; returns when no handler can see them any more.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    pub fn unregister<H: Host>(&mut self, host: &mut H, handles: &[Handle]) -> Result<(), Error> {
        let members: Vec<(u64, u32)> = handles.iter().flat_map(|h| h.members.iter().copied()).collect();
        self.disarm_unused(host, &members)?;
        for &(_, probe) in &members {
            host.retire_probe(probe)?;
        }
        host.grace();
        for (address, probe) in members {
            self.unlink(host, address, probe)?;
        }
        Ok(())
    }

    /// Takes everything off that lies in `range`, which is mapped no longer: nothing is restored there.
    pub fn forget<H: Host>(&mut self, host: &mut H, range: core::ops::Range<u64>) {
        let gone: Vec<u64> = self.sites.range(range).map(|(&a, _)| a).collect();
        for address in gone {
            let Some(site) = self.sites.remove(&address) else { continue };
            for probe in site.probes {
                // A target that cannot be written has gone, and its probes with it.
                let _ = host.retire_probe(probe);
            }
            let _ = host.set_armed(site.index, false);
        }
        self.boundaries.clear();
    }

    /// The addresses where a breakpoint stands.
    pub fn armed(&self) -> impl Iterator<Item = u64> + '_ {
        self.sites.values().filter(|s| s.armed).map(|s| s.data.address)
    }

    fn prepare<H: Host>(
        &mut self,
        host: &mut H,
        request: &Request,
        batch: &mut Vec<Prepared>,
    ) -> Result<Handle, Error> {
        let (addresses, scheme) = self.addresses(host, request)?;
        let code = match request.program.len() {
            0 => (0, 0),
            n => (host.store_program(&request.program)?, n as u32),
        };
        let mut placement = Placement::Boosted;
        for &address in &addresses {
            let site = self.site(host, address)?;
            placement = site.placement();
            let bit = site.bits;
            let (kind, maxactive, data) = match (&request.kind, &scheme) {
                (ProbeKind::Entry, _) => (Kind::Entry, 0, request.address),
                (ProbeKind::Internal { data }, _) => (Kind::Internal, 0, *data),
                (ProbeKind::Return { .. }, Some(ReturnScheme::Sites(..))) => (Kind::ReturnSite, 0, request.address),
                (ProbeKind::Return { maxactive }, _) => {
                    if bit >= 32 {
                        return Err(Error::TooManyReturns { address });
                    }
                    site.bits += 1;
                    (Kind::Return, *maxactive, request.address)
                }
            };
            let data = ProbeData { kind, id: request.id, record: request.record, code, bit, maxactive, data, next: 0 };
            batch.push(Prepared { address, data });
        }
        let placement = summary(&request.kind, scheme, placement);
        let members = vec![(0, u32::MAX); addresses.len()];
        Ok(Handle { members, address: request.address, placement })
    }

    /// Where breakpoints are needed for a request.
    fn addresses<H: Host>(
        &mut self,
        host: &mut H,
        request: &Request,
    ) -> Result<(Vec<u64>, Option<ReturnScheme>), Error> {
        // The host found its own places by decoding code from where it begins.
        if !matches!(request.kind, ProbeKind::Internal { .. }) {
            self.check_boundary(host, request.address)?;
        }
        if !matches!(request.kind, ProbeKind::Return { .. }) {
            return Ok((vec![request.address], None));
        }
        let function = host.function(request.address)?.start;
        if function != request.address {
            return Err(Error::NotEntry { address: request.address, function });
        }
        let scheme = host.return_scheme(function)?;
        let addresses = match &scheme {
            ReturnScheme::Stub => vec![request.address],
            ReturnScheme::Sites(sites, _) => sites.clone(),
        };
        Ok((addresses, Some(scheme)))
    }

    fn check_boundary<H: Host>(&mut self, host: &mut H, address: u64) -> Result<(), Error> {
        if self.sites.contains_key(&address) {
            return Ok(());
        }
        let known = self.boundaries.range(..=address).next_back().map(|(&start, b)| (start, b));
        let covers = |b: &Vec<u64>| b.last().is_some_and(|&l| address <= l);
        let start = match known.filter(|(_, b)| covers(b)) {
            Some((start, _)) => start,
            None => {
                let function = host.function(address)?;
                let found = H::Isa::boundaries(&function.code, function.start);
                self.boundaries.insert(function.start, found);
                function.start
            }
        };
        let all = self.boundaries.get(&start).map(Vec::as_slice).unwrap_or_default();
        let at = all.partition_point(|&b| b < address);
        match all.get(at) {
            Some(&b) if b == address => Ok(()),
            after => {
                let before = at.checked_sub(1).and_then(|i| all.get(i)).copied().unwrap_or(start);
                Err(Error::NotBoundary { address, before, after: after.copied().unwrap_or(address) })
            }
        }
    }

    /// How the instruction at `address` is displaced, and the bytes that stand there without any probe.
    fn plan<H: Host>(
        &mut self,
        host: &mut H,
        address: u64,
    ) -> Result<(<H::Isa as Isa>::Plan, [u8; ORIGINAL_BYTES]), Error> {
        let mut bytes = [0u8; ORIGINAL_BYTES];
        let length = self.original(host, address, &mut bytes)?;
        if bytes.first() == Some(&H::Isa::BREAKPOINT) && !self.armed_at(address) {
            return Err(Error::ForeignBreakpoint { address });
        }
        let code = bytes.get(..length.min(H::Isa::MAX_LENGTH)).unwrap_or(&bytes);
        let plan = H::Isa::plan(code, address).map_err(|why| Error::Refused { address, why })?;
        // The boundaries were proved on the file's code: it must be the code that runs.
        if let Ok(function) = host.function(address) {
            let at = (address - function.start) as usize;
            let length = usize::from(H::Isa::length(&plan));
            let proved = function.code.get(at..at + length);
            if proved.is_some() && proved != bytes.get(..length) {
                return Err(Error::Changed { address });
            }
        }
        Ok((plan, bytes))
    }

    /// Reads code with our own breakpoints taken out. Near the end of a mapping fewer bytes may be there.
    fn original<H: Host>(&self, host: &mut H, address: u64, bytes: &mut [u8; ORIGINAL_BYTES]) -> Result<usize, Error> {
        let mut length = bytes.len();
        while let Err(error) = host.read(address, bytes.get_mut(..length).unwrap_or_default()) {
            length -= 1;
            if length == 0 {
                return Err(error);
            }
        }
        for (&at, site) in self.sites.range(address..address + length as u64).filter(|(_, s)| s.armed) {
            if let Some(byte) = bytes.get_mut((at - address) as usize) {
                *byte = site.data.original[0];
            }
        }
        Ok(length)
    }

    fn armed_at(&self, address: u64) -> bool {
        self.sites.get(&address).is_some_and(|s| s.armed)
    }

    /// The site at `address`: a known one if its code is still the same, else a new one.
    fn site<H: Host>(&mut self, host: &mut H, address: u64) -> Result<&mut SiteRecord, Error> {
        let usable = match self.sites.get(&address) {
            Some(site) if site.armed => true,
            Some(site) => {
                let length = site.data.length as usize;
                let kept = site.data.original;
                let mut now = [0u8; ORIGINAL_BYTES];
                let read = self.original(host, address, &mut now)?;
                length <= read && now.get(..length) == kept.get(..length)
            }
            None => false,
        };
        if !usable {
            let (plan, original) = self.plan(host, address)?;
            let site = self.make_site(host, address, &plan, original)?;
            self.sites.insert(address, site);
        }
        self.sites.get_mut(&address).ok_or(Error::NotText { address })
    }

    fn make_site<H: Host>(
        &mut self,
        host: &mut H,
        address: u64,
        plan: &<H::Isa as Isa>::Plan,
        original: [u8; ORIGINAL_BYTES],
    ) -> Result<SiteRecord, Error> {
        let slot = host.slot(address)?;
        let refused = |why: String| Error::Refused { address, why };
        let image = H::Isa::image(plan, address, slot).map_err(refused)?;
        host.write_slot(slot, &image)?;
        let operation = H::Isa::operation(plan);
        let data = SiteData {
            address,
            slot,
            op: operation.unwrap_or_default(),
            original,
            how: if operation.is_some() { hit::Site::EMULATE } else { 0 },
            length: u32::from(H::Isa::length(plan)),
        };
        let index = self.next_site;
        host.store_site(index, &data)?;
        host.publish(address, index)?;
        self.next_site += 1;
        Ok(SiteRecord::new(index, data))
    }

    /// Makes a prepared batch visible: chains first, breakpoints last.
    fn install<H: Host>(&mut self, host: &mut H, handles: &mut [Handle], batch: Vec<Prepared>) -> Result<(), Error> {
        let mut members = handles.iter_mut().flat_map(|h| h.members.iter_mut());
        let mut plant: Vec<(u64, u8)> = Vec::new();
        for prepared in batch {
            let probe = self.free_probes.pop().unwrap_or(self.next_probe);
            if probe == self.next_probe {
                self.next_probe += 1;
            }
            let address = prepared.address;
            let site = self.sites.get_mut(&address).ok_or(Error::NotText { address })?;
            chain(host, site, probe, prepared.data)?;
            if let Some(member) = members.next() {
                *member = (address, probe);
            }
            if !site.armed {
                site.armed = true;
                host.set_armed(site.index, true)?;
                plant.push((address, H::Isa::BREAKPOINT));
            }
        }
        host.patch(&plant)
    }

    /// Restores the text of the sites that only `members` sit at.
    fn disarm_unused<H: Host>(&mut self, host: &mut H, members: &[(u64, u32)]) -> Result<(), Error> {
        let leaving: alloc::collections::BTreeSet<u32> = members.iter().map(|&(_, p)| p).collect();
        let unused: Vec<u64> = self
            .sites
            .values()
            .filter(|s| s.armed && s.probes.iter().all(|p| leaving.contains(p)))
            .map(|s| s.data.address)
            .collect();
        let mut restore = Vec::with_capacity(unused.len());
        for address in &unused {
            // Somebody else's change of the text, or another object mapped here since: not ours to overwrite.
            let mut now = [0u8];
            let ours = host.read(*address, &mut now).is_ok() && now == [H::Isa::BREAKPOINT];
            if let (true, Some(site)) = (ours, self.sites.get(address)) {
                restore.push((*address, site.data.original[0]));
            }
        }
        host.patch(&restore)?;
        for address in unused {
            if let Some(site) = self.sites.get_mut(&address) {
                site.armed = false;
                host.set_armed(site.index, false)?;
            }
        }
        Ok(())
    }

    /// Takes a retired probe out of its chain; its place can be used again.
    fn unlink<H: Host>(&mut self, host: &mut H, address: u64, probe: u32) -> Result<(), Error> {
        self.free_probes.push(probe);
        let Some(site) = self.sites.get_mut(&address) else { return Ok(()) };
        let Some(at) = site.probes.iter().position(|&p| p == probe) else { return Ok(()) };
        site.probes.remove(at);
        let next = site.probes.get(at).map_or(0, |p| p + 1);
        match at.checked_sub(1).and_then(|i| site.probes.get(i)) {
            Some(&before) => host.set_next(before, next),
            None => host.set_first(site.index, next),
        }
    }
}

/// Appends a probe to its site's chain.
fn chain<H: Host>(host: &mut H, site: &mut SiteRecord, probe: u32, data: ProbeData) -> Result<(), Error> {
    host.store_probe(probe, &data)?;
    match site.probes.last() {
        Some(&last) => host.set_next(last, probe + 1)?,
        None => host.set_first(site.index, probe + 1)?,
    }
    site.probes.push(probe);
    Ok(())
}

fn summary(kind: &ProbeKind, scheme: Option<ReturnScheme>, step: Placement) -> Placement {
    match (kind, scheme) {
        (ProbeKind::Return { .. }, Some(ReturnScheme::Sites(sites, why))) => Placement::ReturnSites(sites.len(), why),
        (ProbeKind::Return { .. }, _) => Placement::ReturnStub,
        _ => step,
    }
}
