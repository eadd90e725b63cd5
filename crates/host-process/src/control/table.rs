//! The probe table in another process: plain data as bytes, and back.

use super::Result;
use super::memory::Memory;
use crate::abi::{Home, PROBES, SITES};
use core::mem::offset_of;
use hit::{Handlers, Kind, Probe, Site};
use kprobes::{HandlerData, ProbeData, SiteData};

/// Writes integers at the offsets of a `repr(C)` structure.
struct Fields(Vec<u8>);

impl Fields {
    fn of<T>() -> Self {
        Self(vec![0; size_of::<T>()])
    }

    fn put(mut self, offset: usize, bytes: &[u8]) -> Self {
        if let Some(place) = self.0.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        self
    }

    fn word(self, offset: usize, value: u64) -> Self {
        self.put(offset, &value.to_le_bytes())
    }

    fn half(self, offset: usize, value: u32) -> Self {
        self.put(offset, &value.to_le_bytes())
    }
}

pub(crate) fn site_bytes(site: &SiteData) -> Vec<u8> {
    let op: Vec<u8> = site.op.iter().flat_map(|w| w.to_le_bytes()).collect();
    Fields::of::<Site>()
        .word(offset_of!(Site, address), site.address)
        .word(offset_of!(Site, slot), site.slot)
        .put(offset_of!(Site, op), &op)
        .put(offset_of!(Site, original), &site.original)
        .half(offset_of!(Site, how), site.how)
        .half(offset_of!(Site, length), site.length)
        .0
}

/// [`hit::Marks`]: words only.
pub(crate) fn marks_bytes(site: &SiteData) -> Vec<u8> {
    site.marks.iter().flat_map(|w| w.to_le_bytes()).collect()
}

pub(crate) fn probe_bytes(probe: &ProbeData) -> Vec<u8> {
    Fields::of::<Probe>()
        .half(offset_of!(Probe, state), probe.state())
        .half(offset_of!(Probe, kind), probe.kind.code())
        .half(offset_of!(Probe, id), probe.id)
        .half(offset_of!(Probe, next), probe.next)
        .half(offset_of!(Probe, code), probe.code.0)
        .half(offset_of!(Probe, code_length), probe.code.1)
        .half(offset_of!(Probe, flags), probe.flags())
        .half(offset_of!(Probe, bit), probe.bit)
        .half(offset_of!(Probe, maxactive), probe.maxactive)
        .word(offset_of!(Probe, data), probe.data)
        .word(offset_of!(Probe, serial), probe.serial)
        .put(offset_of!(Probe, handlers), &handler_bytes(&probe.handlers))
        .0
}

fn handler_bytes(handlers: &HandlerData) -> Vec<u8> {
    Fields::of::<Handlers>()
        .word(offset_of!(Handlers, before), handlers.before)
        .word(offset_of!(Handlers, after), handlers.after)
        .word(offset_of!(Handlers, fault), handlers.fault)
        .word(offset_of!(Handlers, user), handlers.user)
        .word(offset_of!(Handlers, area), handlers.area)
        .half(offset_of!(Handlers, entry_bytes), handlers.entry_bytes)
        .half(offset_of!(Handlers, owner), handlers.owner)
        .0
}

/// What stands in a target's table.
#[derive(Debug)]
pub(crate) struct StoredSite {
    pub(crate) index: u32,
    pub(crate) data: SiteData,
    pub(crate) armed: bool,
    pub(crate) first: u32,
}

impl StoredSite {
    /// Whether it is a detour's: `armed` says that its jump stands.
    pub(crate) fn is_jump(&self) -> bool {
        self.data.how & Site::JUMP != 0
    }
}

/// What stands in a target's table for a probe.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoredProbe {
    pub(crate) next: u32,
    pub(crate) kind: Option<Kind>,
    pub(crate) bit: u32,
    pub(crate) id: u32,
    pub(crate) data: u64,
    pub(crate) registered: bool,
    /// A module's number + 1, or 0.
    pub(crate) owner: u32,
    /// The number of its registration.
    pub(crate) serial: u64,
}

pub(crate) fn half_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..offset + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(crate) fn word_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..offset + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The entries at `offset` in a home, as many as the word at `used` says, and there is room for.
fn entries<T>(memory: &Memory, home: u64, (offset, limit): (usize, usize), used: usize) -> Result<Vec<u8>> {
    let count = (memory.half(home + used as u64)? as usize).min(limit);
    let mut bytes = vec![0; count * size_of::<T>()];
    memory.read(home + offset as u64, &mut bytes)?;
    Ok(bytes)
}

/// All sites of a target's table.
pub(crate) fn sites(memory: &Memory, home: u64) -> Result<Vec<StoredSite>> {
    let bytes = entries::<Site>(memory, home, (offset_of!(Home, sites), SITES), offset_of!(Home, sites_used))?;
    let read = |(index, b): (usize, &[u8])| {
        let op_at = |i: usize| word_at(b, offset_of!(Site, op) + 8 * i);
        let original = offset_of!(Site, original);
        StoredSite {
            index: index as u32,
            data: SiteData {
                address: word_at(b, offset_of!(Site, address)),
                slot: word_at(b, offset_of!(Site, slot)),
                op: core::array::from_fn(op_at),
                original: b.get(original..original + 16).and_then(|o| o.try_into().ok()).unwrap_or_default(),
                how: half_at(b, offset_of!(Site, how)),
                length: half_at(b, offset_of!(Site, length)),
                ..SiteData::default()
            },
            armed: half_at(b, offset_of!(Site, state)) == Site::ARMED,
            first: half_at(b, offset_of!(Site, first)),
        }
    };
    Ok(bytes.chunks_exact(size_of::<Site>()).enumerate().map(read).collect())
}

/// All probes of a target's table.
pub(crate) fn probes(memory: &Memory, home: u64) -> Result<Vec<StoredProbe>> {
    let bytes = entries::<Probe>(memory, home, (offset_of!(Home, probes), PROBES), offset_of!(Home, probes_used))?;
    let read = |b: &[u8]| StoredProbe {
        next: half_at(b, offset_of!(Probe, next)),
        kind: Kind::from_code(half_at(b, offset_of!(Probe, kind))),
        bit: half_at(b, offset_of!(Probe, bit)),
        id: half_at(b, offset_of!(Probe, id)),
        data: word_at(b, offset_of!(Probe, data)),
        registered: half_at(b, offset_of!(Probe, state)) != 0,
        owner: half_at(b, offset_of!(Probe, handlers) + offset_of!(Handlers, owner)),
        serial: word_at(b, offset_of!(Probe, serial)),
    };
    Ok(bytes.chunks_exact(size_of::<Probe>()).map(read).collect())
}

/// The number of the latest registration in a table.
pub(crate) fn latest(probes: &[StoredProbe]) -> u64 {
    probes.iter().map(|p| p.serial).max().unwrap_or(0)
}

/// The chain of probes that begins at `first` (an index + 1).
pub(crate) fn chain(probes: &[StoredProbe], first: u32) -> Vec<u32> {
    let mut chain = Vec::new();
    let mut next = first;
    while let Some(index) = next.checked_sub(1).filter(|_| chain.len() < hit::MAX_CHAIN) {
        let Some(probe) = probes.get(index as usize) else { break };
        chain.push(index);
        next = probe.next;
    }
    chain
}
