//! A batch of requests: checked as a whole, before anything is done for any of them.

use crate::code::Planned;
use crate::host::{Host, Isa, ReturnScheme};
use crate::site::Bits;
use crate::{Error, ProbeKind, Registry, Request};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use hit::{Kind, MAX_CHAIN};

/// An error, and which request of the batch it belongs to.
pub(crate) type At<T> = Result<T, (usize, Error)>;

/// Where the breakpoints of a request are needed, or why it is refused.
pub(crate) type Place = Result<(Vec<u64>, Option<ReturnScheme>), Error>;

/// What is to be registered, as far as it was looked at.
pub(crate) struct Batch<'a, H: Host> {
    pub(crate) requests: &'a [Request],
    /// One for each request that was looked at.
    pub(crate) places: Vec<Place>,
    /// Sites to make, and the first request that needs each.
    pub(crate) sites: BTreeMap<u64, (usize, Planned<H>)>,
    /// How many bits are needed at each site.
    bits: BTreeMap<u64, usize>,
    /// How many probes are to be chained at each site.
    chained: BTreeMap<u64, usize>,
    /// A request that is refused is left out.
    leaves_out: bool,
}

impl<'a, H: Host> Batch<'a, H> {
    pub(crate) fn all_or_none(requests: &'a [Request]) -> Self {
        let places = Vec::with_capacity(requests.len());
        let (sites, bits, chained) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { requests, places, sites, bits, chained, leaves_out: false }
    }

    pub(crate) fn as_many_as_can_be(requests: &'a [Request]) -> Self {
        Self { leaves_out: true, ..Self::all_or_none(requests) }
    }

    /// Leaves a request out, if that is allowed. A failure of the host's is nobody's own.
    pub(crate) fn refuse(&mut self, request: usize, error: Error) -> At<()> {
        match self.places.get_mut(request) {
            Some(place) if self.leaves_out && !matches!(error, Error::Host(_)) => {
                *place = Err(error);
                Ok(())
            }
            _ => Err((request, error)),
        }
    }

    /// There can be no site at `address`, which `request` needs first: others may want it too.
    pub(crate) fn refuse_at(&mut self, address: u64, request: usize, error: Error) -> At<()> {
        self.refuse(request, error.clone())?;
        let wants = |place: &Place| place.as_ref().is_ok_and(|(addresses, _)| addresses.contains(&address));
        self.places.iter_mut().filter(|place| wants(place)).for_each(|place| *place = Err(error.clone()));
        Ok(())
    }

    /// Where breakpoints are needed for a request: nowhere for one that is refused.
    pub(crate) fn place(&self, request: usize) -> (&[u64], Option<&ReturnScheme>) {
        match self.places.get(request) {
            Some(Ok((addresses, scheme))) => (addresses, scheme.as_ref()),
            _ => (&[], None),
        }
    }

    /// Where breakpoints are needed.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        self.addresses_of(|_| true)
    }

    /// Where breakpoints are needed for certain requests.
    pub(crate) fn addresses_of<'b>(&'b self, wanted: impl Fn(&Request) -> bool + 'b) -> impl Iterator<Item = u64> + 'b {
        let those = self.requests.iter().enumerate().filter(move |(_, request)| wanted(request));
        those.flat_map(|(index, _)| self.place(index).0).copied()
    }
}

impl Registry {
    /// Checks all requests. The target is only read.
    pub(crate) fn check_all<H: Host>(&mut self, host: &mut H, batch: &mut Batch<'_, H>) -> At<()> {
        for (index, request) in batch.requests.iter().enumerate() {
            let place = self.check_one(host, index, request, batch);
            match place {
                Err(error) if !batch.leaves_out || matches!(error, Error::Host(_)) => return Err((index, error)),
                place => batch.places.push(place),
            }
        }
        Ok(())
    }

    fn check_one<H: Host>(&mut self, host: &mut H, index: usize, request: &Request, batch: &mut Batch<'_, H>) -> Place {
        let (addresses, scheme) = self.addresses(host, request)?;
        for &address in &addresses {
            let ready = batch.sites.contains_key(&address)
                || self.is_usable(host, address)? && self.steps_as_wanted(host, address);
            if !ready {
                let planned = self.plan(host, address, &request.kind)?;
                batch.sites.insert(address, (index, planned));
            }
            if request.is_followed() {
                self.check_followed(address, batch)?;
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
        Ok((addresses, scheme))
    }

    /// Refuses an instruction after which no handler can run.
    fn check_followed<H: Host>(&self, address: u64, batch: &Batch<'_, H>) -> Result<(), Error> {
        let refused = |why| Error::Refused { address, why };
        if let Some((_, (plan, _))) = batch.sites.get(&address) {
            return H::Isa::check_followed(plan).map_err(refused);
        }
        let Some(site) = self.sites.get(&address) else { return Ok(()) };
        let code = site.data.original.get(..site.data.length as usize).unwrap_or_default();
        H::Isa::plan(code, address).and_then(|plan| H::Isa::check_followed(&plan)).map_err(refused)
    }
}

/// What a request's probes are: kind, `maxactive`, and [`hit::Probe::data`].
pub(crate) fn role(request: &Request, scheme: Option<&ReturnScheme>) -> (Kind, u32, u64) {
    match (&request.kind, scheme) {
        (ProbeKind::Entry, _) => (Kind::Entry, 0, request.address),
        (ProbeKind::Internal { data }, _) => (Kind::Internal, 0, *data),
        (ProbeKind::Handler, _) => (Kind::Handler, 0, request.address),
        (ProbeKind::Return { .. }, Some(ReturnScheme::Sites(..))) => (Kind::ReturnSite, 0, request.address),
        (ProbeKind::Return { maxactive }, _) => (Kind::Return, *maxactive, request.address),
    }
}
