//! Placing probes by jumps (Linux: optimized kprobes, `kernel/kprobes.c`, `arch/x86/kernel/kprobes/opt.c`).
//!
//! A probe is planted as a breakpoint first, always, and works as such. Then the breakpoint is *optimized*: replaced by a
//! jump, where the instruction set says that there can be one ([`Isa::window`]), nobody else has a probe among the
//! displaced instructions, and no probe of the site has a post- or fault handler. A failure is none: the breakpoint
//! stays. Before a site is disarmed its jump becomes a breakpoint again (*unoptimized*), and so does one that is in the
//! way of a new probe. When that one has gone the jump comes back.
//!
//! # The order of writes
//!
//! Each arrow is a [`Host::patch`], after which every processor sees what was written; all jumps of a batch take each
//! step together.
//!
//! ```text
//! optimize     breakpoint at the first byte → breakpoints at the boundaries inside → the other bytes → the jump's first
//! unoptimize   breakpoint at the first byte → the other bytes as they were → the boundaries inside as they were
//! ```
//!
//! So no processor ever executes a jump that is half written, nor the rest of an instruction. A thread that was
//! interrupted at a boundary inside comes back to a breakpoint, as long as the jump stands: the table says where in the
//! detour it goes on ([`hit::inside`]). If it has fetched that breakpoint and the jump has gone since, it runs again what
//! stands there now. Detours are never freed: a thread may be late in one for as long as it likes.
//!
//! An address inside a jump is a boundary to one and may be a probe's to another, at different times. The table has one
//! entry for it: of a jump while that stands, else of the probe's site.

use crate::code::{patch, pristine};
use crate::host::{Detour, Host, Isa, SiteData};
use crate::site::SiteRecord;
use crate::{Error, Registry, Request, Stepping};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use hit::{ORIGINAL_BYTES, Site};

/// The jump of a site: prepared once, written and taken out as often as wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jump {
    bytes: Few<8>,
    /// The detour's own site.
    site: u32,
    /// The displaced instructions.
    code: Few<ORIGINAL_BYTES>,
    /// For each byte of the jump, where in the copy the boundary there goes on; 0 where none is.
    inside: Few<8>,
    /// It stands in the text.
    standing: bool,
}

/// What the instruction set knows of the instructions that a jump displaces, and these.
type Window<H> = (<<H as Host>::Isa as Isa>::Window, Vec<u8>);

/// A few bytes, without memory of their own: there may be as many jumps as functions.
#[derive(Clone, Copy, Debug)]
struct Few<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl<const N: usize> Few<N> {
    fn new(from: impl IntoIterator<Item = u8>) -> Self {
        let mut few = Self { length: 0, bytes: [0; N] };
        for (to, byte) in few.bytes.iter_mut().zip(from) {
            *to = byte;
            few.length += 1;
        }
        few
    }
}

impl<const N: usize> core::ops::Deref for Few<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// What the table keeps of a jump, at the detour's own site, for whoever takes over: its bytes, what it displaces, and
/// where in the copy each boundary inside goes on.
fn keep(address: u64, copy: u64, bytes: &[u8], code: &[u8], detour: &Detour) -> SiteData {
    let mut original = [0; ORIGINAL_BYTES];
    original.iter_mut().zip(code).for_each(|(to, &byte)| *to = byte);
    let word =
        |bytes: &mut dyn DoubleEndedIterator<Item = u8>| bytes.rfold(0, |word, byte| word << 8 | u64::from(byte));
    let offset = |at: u64| detour.inside.iter().find(|(boundary, _)| *boundary == at).map_or(0, |&(_, to)| to as u8);
    let inside = word(&mut (0..bytes.len() as u64).map(|within| offset(address + within)));
    let op = [word(&mut bytes.iter().copied()), inside];
    let length = code.len() as u32;
    let how = Site::with_lengths(Site::JUMP, bytes.len(), 0);
    SiteData { address, slot: copy, op, original, how, length, marks: detour.marks }
}

impl Jump {
    /// The jump that [`keep`] has kept; it does not stand.
    fn of(site: u32, kept: &SiteData) -> Self {
        let [bytes, inside] = kept.op.map(u64::to_le_bytes);
        let (length, _) = Site::lengths(kept.how);
        let bytes = Few::new(bytes.into_iter().take(length as usize));
        let code = Few::new(kept.original.iter().copied().take(kept.length as usize));
        Self { bytes, site, code, inside: Few::new(inside), standing: false }
    }

    /// The boundaries inside the jump, which is at `address`, and the table's entries for them.
    fn inside(&self, address: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let entry = |(at, offset): (u64, u8)| Some((at, hit::inside(self.site, usize::from(offset))?));
        (address..).zip(self.inside.iter().copied()).filter(|&(_, offset)| offset != 0).filter_map(entry)
    }
}

/// What to write for a jump, in three steps.
#[derive(Default)]
struct Writes {
    first: Vec<(u64, u8)>,
    boundaries: Vec<(u64, u8)>,
    rest: Vec<(u64, u8)>,
}

impl Writes {
    /// Adds the bytes of one jump, or those that it has replaced.
    fn add(&mut self, address: u64, bytes: &[u8], jump: &Jump) {
        for (within, &byte) in bytes.iter().enumerate() {
            let is_boundary = jump.inside.get(within).is_some_and(|offset| *offset != 0);
            let to = match within {
                0 => &mut self.first,
                _ if is_boundary => &mut self.boundaries,
                _ => &mut self.rest,
            };
            to.push((address + within as u64, byte));
        }
    }
}

impl SiteRecord {
    /// The jump, while it stands in the text.
    fn standing(&self) -> Option<&Jump> {
        self.jump.as_ref().filter(|jump| jump.standing)
    }

    /// Whether a jump of ours stands in the text.
    pub(crate) fn is_jump(&self) -> bool {
        self.standing().is_some()
    }

    /// The detour's own site, while the jump stands.
    pub(crate) fn standing_jump(&self) -> Option<u32> {
        self.standing().map(|jump| jump.site)
    }

    /// The bytes of the text that are not the target's own, and what is its own there.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = (u64, u8)> + '_ {
        let jump = self.standing();
        let length = jump.map_or(usize::from(self.armed), |jump| jump.bytes.len());
        let code = jump.map_or(&self.data.original[..], |jump| &jump.code);
        (self.data.address..).zip(code.iter().copied().take(length))
    }

    /// Whether a jump would be right here.
    fn wants_jump(&self) -> bool {
        let may = self.stepping == Stepping::Jump && self.armed && !self.no_jump && !self.is_jump();
        may && self.probes.iter().filter(|p| !p.retired).all(|p| !p.minds_jumps)
    }
}

impl Registry {
    /// Takes over a jump that an earlier registry has prepared, and left in the table at the detour's own site
    /// ([`hit::Site::JUMP`]); it may stand in the text. To be called behind [`adopt`](Self::adopt) or
    /// [`inherit`](Self::inherit) for the probed site.
    ///
    /// ```
    /// use hit::Site;
    /// use kprobes::{Registry, SiteData};
    ///
    /// // As it stands in a table: a jump of five bytes over two instructions, the second of which begins at 0x1004.
    /// let how = Site::with_lengths(Site::JUMP, 5, 0);
    /// let op = [0xCC_03_02_01_E9, 4 << 32];
    /// let jump = SiteData { address: 0x1000, slot: 0x8040, op, how, length: 6, ..SiteData::default() };
    ///
    /// let mut registry = Registry::new(2, 1);
    /// registry.inherit(0, SiteData { address: 0x1000, length: 4, ..SiteData::default() }, vec![0], 0, true);
    /// registry.inherit_jump(1, &jump, true);
    /// assert!(registry.jumps().eq([0x1000]));
    /// ```
    pub fn inherit_jump(&mut self, index: u32, jump: &SiteData, stands: bool) {
        if let Some(site) = self.sites.get_mut(&jump.address) {
            site.jump = Some(Jump { standing: stands && site.armed, ..Jump::of(index, jump) });
        }
    }

    /// The addresses where a jump stands.
    pub fn jumps(&self) -> impl Iterator<Item = u64> + '_ {
        self.sites.values().filter(|site| site.is_jump()).map(|site| site.data.address)
    }

    /// The address of the jump that stands over `address`, and does not begin there.
    pub(crate) fn jump_over(&self, address: u64) -> Option<u64> {
        let over = |site: &&SiteRecord| site.replaced().any(|(at, _)| at == address);
        // Jumps do not overlap: it is the nearest one before, or none.
        let before = self.sites.range(..address).rev().map(|(_, site)| site);
        before.take(Self::REACH).find(over).map(|site| site.data.address)
    }

    /// More sites than can begin within the length of a jump.
    const REACH: usize = 8;

    /// Puts jumps where breakpoints stand, if they can be there.
    fn optimize<H: Host>(&mut self, host: &mut H, addresses: impl Iterator<Item = u64>) {
        let mut writes = Writes::default();
        let mut written = Vec::new();
        for address in addresses {
            if self.can_jump(host, address)
                && let Some(site) = self.sites.get_mut(&address)
                && let Some(jump) = site.jump.as_mut()
            {
                jump.standing = true;
                writes.add(address, &jump.bytes, jump);
                written.push(address);
            }
        }
        let Writes { first, boundaries, rest } = writes;
        let done = patch(host, &boundaries).and_then(|()| patch(host, &rest)).and_then(|()| patch(host, &first));
        if done.is_err() {
            // What cannot be written now may be writable again when it is taken out.
            let _ = self.unoptimize(host, written.into_iter());
        }
    }

    /// Whether a jump can be written at `address` now; prepares it.
    fn can_jump<H: Host>(&mut self, host: &mut H, address: u64) -> bool {
        let Some(site) = self.sites.get(&address).filter(|site| site.wants_jump()) else { return false };
        let is_prepared = site.jump.is_some();
        // Before anything is prepared: where many instructions are probed, few have a jump's length to themselves.
        if self.jump_over(address).is_some() || !self.is_alone(address, H::Isa::JUMP_LENGTH) {
            return false;
        }
        if !is_prepared {
            let jump = self.prepare(host, address).ok();
            // Without one it stays a breakpoint: what is against a jump now will be so later.
            self.sites.entry(address).and_modify(|site| (site.no_jump, site.jump) = (jump.is_none(), jump));
        }
        let Some(jump) = self.sites.get(&address).and_then(|site| site.jump.as_ref()) else { return false };
        let same = self.is_alone(address, jump.code.len())
            && pristine(&self.sites, host, address, jump.code.len()).is_ok_and(|now| now == *jump.code);
        // First that it stands: a breakpoint inside is the jump's from the first moment.
        let told = same && host.set_jump(jump.site, true).is_ok();
        let published = told && jump.inside(address).all(|(at, entry)| host.publish(at, entry).is_ok());
        if told && !published {
            // Nothing stands there; a host that cannot be written has gone.
            let _ = host.set_jump(jump.site, false);
        }
        published
    }

    /// Whether nobody has a breakpoint or a jump behind the first of these bytes.
    fn is_alone(&self, address: u64, length: usize) -> bool {
        self.sites.range(address + 1..address + length.max(1) as u64).all(|(_, site)| !site.armed && !site.noted)
    }

    /// What a jump at `address` would displace, if that can be.
    fn window<H: Host>(&mut self, host: &mut H, address: u64) -> Result<Window<H>, Error> {
        let (window, code) = self.functions.with(host, address, |code, start| {
            let (window, length) = H::Isa::window(code, start, address)?;
            let from = (address - start) as usize;
            let code = code.get(from..from + length).ok_or("it is not in the function")?;
            Ok((window, code.to_vec()))
        })?;
        if !host.may_displace(address..address + code.len() as u64) {
            return Err(Error::Ours { address });
        }
        if code.len() > ORIGINAL_BYTES {
            return Err(Error::Refused { address, why: "what is displaced is too long to be kept".into() });
        }
        Ok((window, code))
    }

    /// Whether a probe would be placed by a jump, were it alone.
    pub(crate) fn would_jump<H: Host>(&mut self, host: &mut H, address: u64, request: &Request) -> bool {
        let may = host.has_detours() && host.stepping() == Stepping::Jump && !request.minds_jumps();
        may && self.window(host, address).is_ok()
    }

    /// Makes the detour of a site.
    fn prepare<H: Host>(&mut self, host: &mut H, address: u64) -> Result<Jump, Error> {
        let refused = |why: String| Error::Refused { address, why };
        let known = self.sites.get(&address).ok_or(Error::NotText { address })?.index;
        let (window, code) = self.window(host, address)?;
        let slot = host.detour_slot(address, self.next_site)?;
        let entry = host.detour_entry(slot)?;
        let detour = H::Isa::detour(&window, known, slot, entry).map_err(refused)?;
        let start = slot + detour.start as u64;
        host.write_slot(slot, &detour.code)?;
        let bytes = H::Isa::jump(&window, start);
        // It cannot lead there: by a pad, which leads on.
        let pad = match &bytes {
            Some(_) => None,
            None => Some(host.pad(address, &|range| H::Isa::target(&window, range))?),
        };
        if let Some(pad) = pad {
            host.write_slot(pad, &H::Isa::onward(pad, start).map_err(refused)?)?;
        }
        let bytes =
            bytes.or_else(|| H::Isa::jump(&window, pad?)).ok_or_else(|| refused("the pad does not fit".into()))?;
        let kept = keep(address, slot + hit::SLOT_BYTES, &bytes, &code, &detour);
        let index = self.publish_detour(host, &kept)?;
        host.publish(slot, u64::from(known) | hit::INSTEAD)?;
        for begin in [Some(start), pad].into_iter().flatten() {
            host.publish(begin, u64::from(index) | hit::DETOUR)?;
        }
        Ok(Jump::of(index, &kept))
    }

    /// Stores and publishes the detour's copy as a site of its own, so that faults in it are understood. Gives its index.
    fn publish_detour<H: Host>(&mut self, host: &mut H, detour: &SiteData) -> Result<u32, Error> {
        let index = self.next_site;
        host.store_site(index, detour)?;
        host.publish(detour.slot, u64::from(index) | hit::SLOT)?;
        self.next_site += 1;
        Ok(index)
    }

    /// Makes breakpoints of jumps again.
    ///
    /// # Errors
    ///
    /// When the target cannot be written.
    pub(crate) fn unoptimize<H: Host>(
        &mut self,
        host: &mut H,
        addresses: impl Iterator<Item = u64>,
    ) -> Result<(), Error> {
        let mut writes = Writes::default();
        let mut taken = Vec::new();
        for address in addresses {
            let Some(jump) = self.sites.get(&address).and_then(SiteRecord::standing) else { continue };
            taken.push(address);
            let mut now = vec![0; jump.bytes.len()];
            if host.read(address, &mut now).is_ok()
                && let Some(bytes) = without_jump(jump, &now, H::Isa::BREAKPOINT)
            {
                writes.add(address, &bytes, jump);
            }
        }
        let Writes { first, boundaries, rest } = writes;
        patch(host, &first).and_then(|()| patch(host, &rest)).and_then(|()| patch(host, &boundaries))?;
        for address in taken {
            if let Some(jump) = self.sites.get_mut(&address).and_then(|site| site.jump.as_mut()) {
                jump.standing = false;
                // From here on a breakpoint inside is somebody else's.
                host.set_jump(jump.site, false)?;
            }
        }
        Ok(())
    }

    /// The table's entry for `address` may be that of a jump which stood over it once: it becomes that of its site again.
    pub(crate) fn publish_again<H: Host>(&self, host: &mut H, address: u64) -> Result<(), Error> {
        match self.sites.get(&address) {
            Some(site) if host.has_detours() && !site.armed && self.jump_over(address).is_none() => {
                host.publish(address, u64::from(site.index))
            }
            _ => Ok(()),
        }
    }

    /// Puts jumps back that breakpoints at these addresses were in the way of.
    pub(crate) fn optimize_around<H: Host>(&mut self, host: &mut H, addresses: &[u64]) {
        if !host.has_detours() {
            return;
        }
        let near = |&address: &u64| self.sites.range(..=address).rev().take(Self::REACH).map(|(&at, _)| at);
        let near: BTreeSet<u64> = addresses.iter().flat_map(near).collect();
        self.optimize(host, near.into_iter());
    }
}

/// What is to stand where a jump has stood, if `now` does: a breakpoint, and what was displaced behind it. `None` when
/// somebody has written over it: it is his then, and half of one's own would be worse than none. (One who has changed the
/// first byte alone keeps that.)
fn without_jump(jump: &Jump, now: &[u8], breakpoint: u8) -> Option<Vec<u8>> {
    let original = |at: usize| jump.code.get(at).copied();
    let is_ours = |at: usize, byte: u8| jump.bytes.get(at) == Some(&byte) || original(at) == Some(byte);
    let (&first, rest) = now.split_first()?;
    if !rest.iter().zip(1..).all(|(&byte, at)| is_ours(at, byte)) {
        return None;
    }
    let first = if jump.bytes.first() == Some(&first) { breakpoint } else { first };
    Some([first].into_iter().chain((1..now.len()).filter_map(original)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jump() -> Jump {
        let (bytes, code) = ([0xE9, 0xCC, 2, 3, 4], [0x55, 0x48, 0x89, 0xE5, 0x90]);
        let inside = Few::new([0, 7]);
        Jump { bytes: Few::new(bytes), site: 0, code: Few::new(code), inside, standing: true }
    }

    #[test]
    fn a_jump_becomes_a_breakpoint_before_the_displaced_bytes() {
        let wanted = Some(vec![0xCC, 0x48, 0x89, 0xE5, 0x90]);
        assert_eq!(without_jump(&jump(), &[0xE9, 0xCC, 2, 3, 4], 0xCC), wanted);
        // Half of that was done before.
        assert_eq!(without_jump(&jump(), &[0xCC, 0x48, 2, 0xE5, 4], 0xCC), wanted);
    }

    #[test]
    fn somebody_elses_first_byte_stays_and_the_rest_is_restored() {
        let wanted = Some(vec![0xF8, 0x48, 0x89, 0xE5, 0x90]);
        assert_eq!(without_jump(&jump(), &[0xF8, 0xCC, 2, 3, 4], 0xCC), wanted);
    }

    #[test]
    fn somebody_elses_jump_stays_as_a_whole() {
        assert_eq!(without_jump(&jump(), &[0xE9, 1, 2, 3, 4], 0xCC), None);
        assert_eq!(without_jump(&jump(), &[], 0xCC), None);
    }
}
