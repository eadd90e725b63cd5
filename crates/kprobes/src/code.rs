//! The target's code: functions with their boundaries, and instructions as they are without any breakpoint.

use crate::site::SiteRecord;
use crate::{Error, Host, Isa};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::OnceCell;
use hit::ORIGINAL_BYTES;

/// How an instruction is displaced, and the bytes that stand there without any probe.
pub(crate) type Planned<H> = (<<H as Host>::Isa as Isa>::Plan, [u8; ORIGINAL_BYTES]);

/// A function that was looked at.
#[derive(Debug)]
struct Known {
    start: u64,
    /// Found out when somebody asks for one behind the start: to decode a function costs more than all else that is done for a
    /// probe at its entry.
    boundaries: OnceCell<Vec<u64>>,
    code: Vec<u8>,
}

impl Known {
    fn check_boundary<I: Isa>(&self, address: u64) -> Result<(), Error> {
        if address == self.start {
            return Ok(());
        }
        let boundaries = self.boundaries.get_or_init(|| I::boundaries(&self.code, self.start));
        let at = boundaries.partition_point(|&b| b < address);
        match boundaries.get(at) {
            Some(&b) if b == address => Ok(()),
            after => {
                let before = at.checked_sub(1).and_then(|i| boundaries.get(i)).copied().unwrap_or(self.start);
                let after = after.copied().unwrap_or(self.start + self.code.len() as u64);
                Err(Error::NotBoundary { address, before, after })
            }
        }
    }

    fn check_same(&self, address: u64, now: &[u8]) -> Result<(), Error> {
        let rest = address.checked_sub(self.start).and_then(|at| self.code.get(at as usize..));
        let same = rest.is_some_and(|code| code.starts_with(now));
        same.then_some(()).ok_or(Error::Changed { address })
    }
}

/// The latest functions that were looked at, by start: what is probed together mostly lies together, so that each is asked
/// for, and decoded, once.
///
/// Another object may have come to its place since. So what is remembered can allow, but not refuse: before that the
/// host is asked again.
#[derive(Debug, Default)]
pub(crate) struct Functions(BTreeMap<u64, Known>);

impl Functions {
    /// How many are remembered.
    const KEPT: usize = 64;

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Refuses an address at which no instruction of its function begins.
    pub(crate) fn check_boundary<H: Host>(&mut self, host: &mut H, address: u64) -> Result<(), Error> {
        self.check(host, address, |known| known.check_boundary::<H::Isa>(address))
    }

    /// Refuses an instruction that is not the one that was proved to begin here.
    pub(crate) fn check_same<H: Host>(&mut self, host: &mut H, address: u64, now: &[u8]) -> Result<(), Error> {
        self.check(host, address, |known| {
            known.check_same(address, now).and_then(|()| known.check_boundary::<H::Isa>(address))
        })
    }

    /// What `look` makes of the function around `address`: its code, and where that begins.
    pub(crate) fn with<H: Host, T>(
        &mut self,
        host: &mut H,
        address: u64,
        look: impl Fn(&[u8], u64) -> Result<T, String>,
    ) -> Result<T, Error> {
        self.check(host, address, |known| look(&known.code, known.start).map_err(|why| Error::Refused { address, why }))
    }

    fn check<H: Host, T>(
        &mut self,
        host: &mut H,
        address: u64,
        check: impl Fn(&Known) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = self.0.range(..=address).next_back().map(|(_, known)| known);
        let remembered = before.filter(|known| address - known.start < known.code.len() as u64);
        if let Some(Ok(found)) = remembered.map(&check) {
            return Ok(found);
        }
        let function = host.function(address)?;
        let known = Known { start: function.start, boundaries: OnceCell::new(), code: function.code };
        let result = check(&known);
        if self.0.len() >= Self::KEPT {
            self.0.clear();
        }
        self.0.insert(known.start, known);
        result
    }
}

/// Reads code with our own breakpoints taken out. Near the end of a mapping fewer bytes may be there.
pub(crate) fn original<H: Host>(
    sites: &BTreeMap<u64, SiteRecord>,
    host: &mut H,
    address: u64,
    bytes: &mut [u8; ORIGINAL_BYTES],
) -> Result<usize, Error> {
    let mut length = bytes.len();
    while let Err(error) = host.read(address, bytes.get_mut(..length).unwrap_or_default()) {
        length -= 1;
        if length == 0 {
            return Err(error);
        }
    }
    restore(sites, address, bytes.get_mut(..length).unwrap_or_default());
    Ok(length)
}

/// As [`original`], so many bytes.
pub(crate) fn pristine<H: Host>(
    sites: &BTreeMap<u64, SiteRecord>,
    host: &mut H,
    address: u64,
    length: usize,
) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; length];
    host.read(address, &mut bytes)?;
    restore(sites, address, &mut bytes);
    Ok(bytes)
}

/// Takes what is ours out of `bytes`, which are the text at `address`.
fn restore(sites: &BTreeMap<u64, SiteRecord>, address: u64, bytes: &mut [u8]) {
    let end = address.saturating_add(bytes.len() as u64);
    // A jump that begins before may reach into them.
    let first = address.saturating_sub(ORIGINAL_BYTES as u64);
    for (at, original) in sites.range(first..end).flat_map(|(_, site)| site.replaced()) {
        if let Some(byte) = at.checked_sub(address).and_then(|offset| bytes.get_mut(offset as usize)) {
            *byte = original;
        }
    }
}

/// Whether a breakpoint stands at `address`; not, where nothing is mapped.
pub(crate) fn stands<H: Host>(host: &mut H, address: u64) -> bool {
    let mut now = [0u8];
    host.read(address, &mut now).is_ok() && now == [H::Isa::BREAKPOINT]
}

/// Writes text, if there is something to write, when what the tables say of it is there.
pub(crate) fn patch<H: Host>(host: &mut H, bytes: &[(u64, u8)]) -> Result<(), Error> {
    if bytes.is_empty() { Ok(()) } else { host.flush().and_then(|()| host.patch(bytes)) }
}
