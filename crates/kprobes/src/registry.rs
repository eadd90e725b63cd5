//! The registry: which probes are planted where.

use crate::code::{Functions, Planned, original};
use crate::host::{Host, Isa, ReturnScheme, SiteData};
use crate::removal::Limbo;
use crate::site::{Bits, Chained, INHERITED, SiteRecord};
use crate::{Error, Handle, Placement, ProbeKind, Request};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use hit::ORIGINAL_BYTES;

/// All probes of one target. The caller passes the [`Host`] to each call, so that it may borrow what it needs.
///
/// ```
/// # use kprobes::*;
/// # struct Bytes;
/// # impl Isa for Bytes {
/// #     type Plan = ();
/// #     type Window = ();
/// #     const BREAKPOINT: u8 = 0xCC;
/// #     const MAX_LENGTH: usize = 1;
/// #     fn plan(_: &[u8], _: u64) -> Result<(), String> { Ok(()) }
/// #     fn length(_: &()) -> u8 { 1 }
/// #     fn operation(_: &()) -> Option<[u64; hit::OP_WORDS]> { None }
/// #     fn how(_: &(), _: Stepping) -> u32 { 0 }
/// #     fn check_followed(_: &()) -> Result<(), String> { Ok(()) }
/// #     fn image(_: &(), _: u64, _: u64, _: u32) -> Result<Image, String> { Ok(Image::default()) }
/// #     fn boundaries(code: &[u8], start: u64) -> Vec<u64> { (start..).take(code.len()).collect() }
/// # }
/// # struct Target { text: [u8; 4] }
/// # impl Host for Target {
/// #     type Isa = Bytes;
/// #     fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Error> {
/// #         let from = self.text.get(address as usize..).and_then(|rest| rest.get(..out.len()));
/// #         from.map(|from| out.copy_from_slice(from)).ok_or(Error::NotText { address })
/// #     }
/// #     fn function(&mut self, address: u64) -> Result<Function, Error> {
/// #         if address < 4 { Ok(Function { start: 0, code: vec![0; 4] }) } else { Err(Error::NotText { address }) }
/// #     }
/// #     fn return_scheme(&mut self, _: u64) -> Result<ReturnScheme, Error> { Ok(ReturnScheme::Stub) }
/// #     fn slot(&mut self, _: u64) -> Result<u64, Error> { Ok(0x100) }
/// #     fn write_slot(&mut self, _: u64, _: &[u8]) -> Result<(), Error> { Ok(()) }
/// #     fn store_program(&mut self, _: &[u8]) -> Result<u32, Error> { Ok(0) }
/// #     fn store_site(&mut self, _: u32, _: &SiteData) -> Result<(), Error> { Ok(()) }
/// #     fn publish(&mut self, _: u64, _: u64) -> Result<(), Error> { Ok(()) }
/// #     fn store_probe(&mut self, _: u32, _: &ProbeData) -> Result<(), Error> { Ok(()) }
/// #     fn set_state(&mut self, _: u32, _: u32) -> Result<(), Error> { Ok(()) }
/// #     fn set_first(&mut self, _: u32, _: u32) -> Result<(), Error> { Ok(()) }
/// #     fn set_next(&mut self, _: u32, _: u32) -> Result<(), Error> { Ok(()) }
/// #     fn set_armed(&mut self, _: u32, _: bool) -> Result<(), Error> { Ok(()) }
/// #     fn patch(&mut self, bytes: &[(u64, u8)]) -> Result<(), Error> {
/// #         for &(address, byte) in bytes {
/// #             self.text[address as usize] = byte;
/// #         }
/// #         Ok(())
/// #     }
/// #     fn grace(&mut self) -> bool { true }
/// # }
/// # fn main() -> Result<(), Error> {
/// // Four instructions of one byte at address 0; a breakpoint is 0xCC.
/// let mut target = Target { text: [0; 4] };
/// let mut registry = Registry::new(0, 0);
///
/// let request = Request::counting(1, ProbeKind::Entry, 0);
/// assert_eq!(registry.check(&mut target, &request), Ok(Placement::Boosted));
/// assert_eq!(registry.foresee(&mut target, &request), Ok(Placement::Boosted)); // this host has no detours
/// assert_eq!((target.text, registry.used()), ([0; 4], (0, 0)));
///
/// let handles = registry.register(&mut target, &[request]).map_err(|(_, why)| why)?;
/// assert_eq!(target.text, [0, 0xCC, 0, 0]);
/// assert!(registry.armed().eq([1]));
/// assert_eq!(registry.placement(&handles[0]), handles[0].placement);
/// assert_eq!(registry.used(), (1, 1));
///
/// registry.enable(&mut target, &handles, false)?;
/// assert_eq!(target.text, [0; 4]);
/// registry.enable(&mut target, &handles, true)?;
/// registry.unregister(&mut target, &handles)?;
/// assert_eq!(target.text, [0; 4]);
///
/// // The target has unmapped its code.
/// registry.register(&mut target, &[Request::counting(2, ProbeKind::Entry, 0)]).map_err(|(_, why)| why)?;
/// registry.forget(&mut target, 0..4);
/// assert_eq!(registry.armed().count(), 0);
/// assert_eq!(target.text, [0, 0, 0xCC, 0]); // nothing was restored
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Registry {
    pub(crate) sites: BTreeMap<u64, SiteRecord>,
    pub(crate) functions: Functions,
    /// Fetch programs that were stored, and where. They stay, and equal ones share a place.
    pub(crate) programs: BTreeMap<Vec<u8>, u32>,
    pub(crate) next_site: u32,
    pub(crate) next_probe: u32,
    /// The latest registration's number.
    pub(crate) serial: u64,
    /// Places whose probes were taken off and whose grace period has passed.
    pub(crate) free_probes: Vec<u32>,
    /// Places that wait for a grace period.
    pub(crate) limbo: Vec<Limbo>,
    /// Addresses where a breakpoint that nobody needs could not be taken out: the next removal tries again.
    pub(crate) stuck: Vec<u64>,
}

impl Registry {
    /// A registry for a target whose table holds `sites` sites and `probes` probes already (of an earlier time).
    #[must_use]
    pub fn new(sites: u32, probes: u32) -> Self {
        Self {
            sites: BTreeMap::new(),
            functions: Functions::default(),
            programs: BTreeMap::new(),
            next_site: sites,
            next_probe: probes,
            serial: INHERITED,
            free_probes: Vec::new(),
            limbo: Vec::new(),
            stuck: Vec::new(),
        }
    }

    /// Counts on from the number of an earlier registration: the highest one in a table that is taken over. Activations of
    /// earlier return probes are told from those of later ones by it.
    ///
    /// ```
    /// use kprobes::{Registry, SiteData};
    ///
    /// // A table with two sites and one probe, whose registration had the number 9.
    /// let mut registry = Registry::new(2, 1).after(9);
    /// let at = |address| SiteData { address, length: 1, ..SiteData::default() };
    /// registry.adopt(0, at(0x1000));
    /// registry.inherit(1, at(0x2000), vec![0], 0, true);
    /// assert_eq!(registry.used(), (2, 1));
    /// assert!(registry.armed().eq([0x2000]));
    /// ```
    #[must_use]
    pub fn after(self, serial: u64) -> Self {
        Self { serial, ..self }
    }

    /// Takes over a site that an earlier registry has left in the table, with nothing planted there.
    pub fn adopt(&mut self, index: u32, data: SiteData) {
        self.sites.insert(data.address, SiteRecord::new(index, data));
    }

    /// Takes over a site with its probes, first one first, and the number of bits that its return probes use: what a
    /// forked child has inherited. Those bits are used again when all these probes are gone.
    pub fn inherit(&mut self, index: u32, data: SiteData, probes: Vec<u32>, bits: u32, armed: bool) {
        let inherited = |probe| Chained::inherited(probe);
        let probes = probes.into_iter().map(inherited).collect();
        let made = SiteRecord::new(index, data);
        let mut site = SiteRecord { probes, bits: Bits::inherited(bits), armed, noted: armed, ..made };
        site.release(None);
        self.sites.insert(data.address, site);
    }

    /// How many sites and probes were ever made.
    #[must_use]
    pub fn used(&self) -> (u32, u32) {
        (self.next_site, self.next_probe)
    }

    /// Says where and how a probe would be placed by a breakpoint, and touches nothing.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn check<H: Host>(&mut self, host: &mut H, request: &Request) -> Result<Placement, Error> {
        let (addresses, scheme) = self.addresses(host, request)?;
        let mut placement = None;
        for address in addresses {
            let (plan, _) = self.plan(host, address, &request.kind)?;
            if request.is_followed() {
                H::Isa::check_followed(&plan).map_err(|why| Error::Refused { address, why })?;
            }
            placement.get_or_insert(Placement::of(H::Isa::how(&plan, host.stepping())));
        }
        Ok(summary(&request.kind, scheme, placement.unwrap_or(Placement::Boosted)))
    }

    /// As [`check`](Self::check), but by a jump where there would be one, if nobody else's probe is in the way, and if there is
    /// memory for the detour in reach.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn foresee<H: Host>(&mut self, host: &mut H, request: &Request) -> Result<Placement, Error> {
        Ok(match self.check(host, request)? {
            sites @ Placement::ReturnSites(..) => sites,
            by_breakpoint if !self.would_jump(host, request.address, request) => by_breakpoint,
            Placement::ReturnStub => Placement::JumpReturnStub,
            _ => Placement::Jump,
        })
    }

    /// Takes probes off; returns when no handler can see them any more, but for one that waits for the caller
    /// ([`Host::grace`]). Handles of probes that are off already do nothing.
    ///
    /// # Errors
    ///
    /// When the target cannot be written: the first failure. Everything else was done; the same call can be repeated
    /// for the rest.
    pub fn unregister<'a, H: Host>(
        &mut self,
        host: &mut H,
        handles: impl IntoIterator<Item = &'a Handle>,
    ) -> Result<(), Error> {
        self.take_off(host, handles.into_iter().flat_map(Handle::members))
    }

    /// Switches probes on or off, without taking them off: they keep their places in their chains. Where no other probe is
    /// on, the text is as without any (Linux: `disable_kprobe`). Handlers that run already go on; returns of calls that
    /// were watched before are still seen.
    ///
    /// # Errors
    ///
    /// When the target cannot be written, or its code has changed meanwhile: probes that are to be switched on there stay
    /// off.
    pub fn enable<H: Host>(&mut self, host: &mut H, handles: &[Handle], on: bool) -> Result<(), Error> {
        self.switch(host, handles.iter().flat_map(Handle::members), on)
    }

    /// Takes everything off that lies in `range`, which is mapped no longer: nothing is restored there. The places of
    /// these probes are used again after the next removal.
    pub fn forget<H: Host>(&mut self, host: &mut H, range: core::ops::Range<u64>) {
        let gone: Vec<u64> = self.sites.range(range).map(|(&a, _)| a).collect();
        for address in gone {
            if let Some(site) = self.sites.remove(&address) {
                self.abandon(host, site);
            }
        }
        // As above: what cannot be written is not there any more.
        let _ = host.flush();
        self.functions.clear();
    }

    /// How a probe is placed now: a jump becomes a breakpoint when another probe wants an instruction that it displaces,
    /// and comes back later.
    #[must_use]
    pub fn placement(&self, handle: &Handle) -> Placement {
        let step = self.sites.get(&handle.address).map(SiteRecord::placement);
        match (&handle.placement, step) {
            (Placement::ReturnStub | Placement::JumpReturnStub, Some(step)) => return_stub(step),
            (sites @ Placement::ReturnSites(..), _) => sites.clone(),
            (_, Some(step)) => step,
            (before, None) => before.clone(),
        }
    }

    /// The addresses where a breakpoint or a jump stands.
    pub fn armed(&self) -> impl Iterator<Item = u64> + '_ {
        self.sites.values().filter(|s| s.armed).map(|s| s.data.address)
    }

    /// Where breakpoints are needed for a request.
    pub(crate) fn addresses<H: Host>(
        &mut self,
        host: &mut H,
        request: &Request,
    ) -> Result<(Vec<u64>, Option<ReturnScheme>), Error> {
        check_built(request)?;
        // The host found its own places by decoding code from where it begins; a known site's was proved before.
        let proved = matches!(request.kind, ProbeKind::Internal { .. }) || self.sites.contains_key(&request.address);
        if !proved {
            self.functions.check_boundary(host, request.address)?;
        }
        let returns = matches!(request.kind, ProbeKind::Return { .. });
        if !returns && !request.handlers.mirror {
            return Ok((vec![request.address], None));
        }
        let function = host.function(request.address)?.start;
        if function != request.address {
            return Err(Error::NotEntry { address: request.address, function });
        }
        if !returns {
            return Ok((vec![request.address], None));
        }
        let scheme = host.return_scheme(function)?;
        let addresses = match &scheme {
            ReturnScheme::Stub => vec![request.address],
            ReturnScheme::Sites(sites, _) => sites.clone(),
        };
        Ok((addresses, Some(scheme)))
    }

    /// Whether the site at `address` is known and its code is still the same.
    pub(crate) fn is_usable<H: Host>(&self, host: &mut H, address: u64) -> Result<bool, Error> {
        let Some(site) = self.sites.get(&address) else { return Ok(false) };
        if site.armed {
            return Ok(true);
        }
        let length = site.data.length as usize;
        let mut now = [0u8; ORIGINAL_BYTES];
        let read = original(&self.sites, host, address, &mut now)?;
        Ok(length <= read && now.get(..length) == site.data.original.get(..length))
    }

    /// Whether a known site steps as the host wants it now. One with probes stays as it is.
    pub(crate) fn steps_as_wanted<H: Host>(&self, host: &H, address: u64) -> bool {
        self.sites.get(&address).is_some_and(|site| {
            // Also one that should have been disarmed and could not be.
            site.armed || !site.probes.is_empty() || site.stepping == host.stepping()
        })
    }

    /// How the instruction at `address` is displaced, and the bytes that stand there without any probe.
    pub(crate) fn plan<H: Host>(&mut self, host: &mut H, address: u64, kind: &ProbeKind) -> Result<Planned<H>, Error> {
        let mut bytes = [0u8; ORIGINAL_BYTES];
        let length = original(&self.sites, host, address, &mut bytes)?;
        let armed = self.sites.get(&address).is_some_and(|s| s.armed);
        if bytes.first() == Some(&H::Isa::BREAKPOINT) && !armed {
            return Err(Error::ForeignBreakpoint { address });
        }
        let code = bytes.get(..length.min(H::Isa::MAX_LENGTH)).unwrap_or(&bytes);
        let plan = H::Isa::plan(code, address).map_err(|why| Error::Refused { address, why })?;
        // The boundaries were proved on the file's code: it must be the code that runs. The host may have places of
        // its own in code that it knows from elsewhere.
        let now = bytes.get(..usize::from(H::Isa::length(&plan))).unwrap_or(&bytes);
        match self.functions.check_same(host, address, now) {
            Err(changed @ Error::Changed { .. }) => Err(changed),
            Err(unknown) if !matches!(kind, ProbeKind::Internal { .. }) => Err(unknown),
            _ => Ok((plan, bytes)),
        }
    }
}

/// Refuses what was left out when this was built.
fn check_built(request: &Request) -> Result<(), Error> {
    if matches!(request.kind, ProbeKind::Return { .. }) && !cfg!(feature = "kretprobes") {
        return Err(Error::LeftOut { what: "return probes", feature: "kretprobes" });
    }
    if request.handlers.mirror && !cfg!(feature = "jprobes") {
        return Err(Error::LeftOut { what: "jprobes", feature: "jprobes" });
    }
    Ok(())
}

/// How a request is placed, whose (first) instruction takes its effect by `step`.
pub(crate) fn summary(kind: &ProbeKind, scheme: Option<ReturnScheme>, step: Placement) -> Placement {
    match (kind, scheme) {
        (ProbeKind::Return { .. }, Some(ReturnScheme::Sites(sites, why))) => Placement::ReturnSites(sites.len(), why),
        (ProbeKind::Return { .. }, _) => return_stub(step),
        _ => step,
    }
}

/// A return probe with a stub, at an entry that is placed like this.
fn return_stub(entry: Placement) -> Placement {
    if entry == Placement::Jump { Placement::JumpReturnStub } else { Placement::ReturnStub }
}
