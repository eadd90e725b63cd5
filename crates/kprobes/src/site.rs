//! Control's own record of a site: its chain as the target has it, and the bits of its return probes.

use crate::jump::Jump;
use crate::{Error, Host, Placement, SiteData, Stepping};
use alloc::vec::Vec;
use hit::ORIGINAL_BYTES;

/// How many return probes an instance can keep apart.
const BITS: u32 = u32::BITS;

/// The serial number of probes that another registry has registered; no number of our own.
pub(crate) const INHERITED: u64 = 0;

/// A probe in a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chained {
    pub(crate) probe: u32,
    /// Which registration: places are used again, serial numbers are not.
    pub(crate) serial: u64,
    /// Return probes that we have registered: their bit.
    pub(crate) bit: Option<u32>,
    /// Handlers pass it over, and it is to leave the chain.
    pub(crate) retired: bool,
    /// Handlers pass it over until it is switched on again.
    pub(crate) disabled: bool,
    /// It wants to be asked about faults of the displaced instruction, or to be told when that is done: a jump is no gain.
    pub(crate) minds_jumps: bool,
}

impl Chained {
    /// One that another registry has registered.
    pub(crate) fn inherited(probe: u32) -> Self {
        Self { probe, serial: INHERITED, bit: None, retired: false, disabled: false, minds_jumps: true }
    }

    /// What tells this probe from all others, also of other times.
    pub(crate) fn key(&self) -> (u32, u64) {
        (self.probe, self.serial)
    }
}

/// What is kept of a site's data: the rest is the target's alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) address: u64,
    pub(crate) original: [u8; ORIGINAL_BYTES],
    pub(crate) how: u32,
    pub(crate) length: u32,
}

/// A site that was prepared at least once. There may be as many as functions: its size matters.
#[derive(Clone, Debug)]
pub(crate) struct SiteRecord {
    pub(crate) index: u32,
    pub(crate) data: Kept,
    /// What was asked for when it was made.
    pub(crate) stepping: Stepping,
    /// Its probes, first one first.
    pub(crate) probes: Vec<Chained>,
    pub(crate) bits: Bits,
    /// A breakpoint of ours stands in the text.
    pub(crate) armed: bool,
    /// The table says so.
    pub(crate) noted: bool,
    /// The jump, once it was prepared.
    pub(crate) jump: Option<Jump>,
    /// There can be none here.
    pub(crate) no_jump: bool,
}

impl SiteRecord {
    pub(crate) fn new(index: u32, data: SiteData) -> Self {
        let stepping = Stepping::default();
        let (probes, bits) = (Vec::new(), Bits::default());
        let SiteData { address, original, how, length, .. } = data;
        let data = Kept { address, original, how, length };
        Self { index, data, stepping, probes, bits, armed: false, noted: false, jump: None, no_jump: false }
    }

    pub(crate) fn placement(&self) -> Placement {
        if self.is_jump() { Placement::Jump } else { Placement::of(self.data.how) }
    }

    /// Appends a stored probe to the chain. It is taken for chained also when that fails: nobody knows.
    pub(crate) fn append<H: Host>(&mut self, host: &mut H, new: Chained) -> Result<(), Error> {
        let last = self.probes.last().map(|p| p.probe);
        if last.is_none() {
            // Mostly there is one.
            self.probes.reserve_exact(1);
        }
        self.probes.push(new);
        self.link(host, last, new.probe + 1)
    }

    /// Takes the retired probes out of the chain and gives them: of each run of them, with one write. What they point
    /// at is left as it is, for handlers that stand on them. Stops at a write that fails; what is given and what is
    /// kept then is still what the target has.
    pub(crate) fn unlink<H: Host>(&mut self, host: &mut H, gone: &mut Vec<Chained>) -> Result<(), Error> {
        let mut result = Ok(());
        let mut run = Vec::new();
        for probe in core::mem::take(&mut self.probes) {
            if probe.retired && result.is_ok() {
                run.push(probe);
                continue;
            }
            result = result.and_then(|()| self.skip(host, &mut run, probe.probe + 1, gone));
            self.probes.push(probe);
        }
        result.and_then(|()| self.skip(host, &mut run, 0, gone))
    }

    /// What follows the last probe so far is `next` and no longer `run`.
    fn skip<H: Host>(
        &mut self,
        host: &mut H,
        run: &mut Vec<Chained>,
        next: u32,
        gone: &mut Vec<Chained>,
    ) -> Result<(), Error> {
        if run.is_empty() {
            return Ok(());
        }
        let result = self.link(host, self.probes.last().map(|p| p.probe), next);
        if result.is_ok() { gone } else { &mut self.probes }.append(run);
        result
    }

    fn link<H: Host>(&self, host: &mut H, before: Option<u32>, next: u32) -> Result<(), Error> {
        match before {
            Some(before) => host.set_next(before, next),
            None => host.set_first(self.index, next),
        }
    }

    /// The bit of a probe that has left, after its grace period.
    pub(crate) fn release(&mut self, bit: Option<u32>) {
        self.bits.give_back(bit);
        if self.bits.inherited > 0 && !self.probes.iter().any(|p| p.serial == INHERITED) {
            let inherited = core::mem::take(&mut self.bits.inherited);
            self.bits.give_back(0..inherited);
        }
    }
}

/// The bits by which an instance tells the return probes of its site apart.
///
/// An activation can outlive its probe for as long as it likes, and still bears the bit, which may be another probe's by
/// then. That one's registration has a higher number than any that the activation knows ([`hit::returns::Instance::newest`]), so
/// it is not taken for its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    /// Bits from here on were never used.
    fresh: u32,
    /// Bits that were given back, the longest ago first. Few sites have some.
    free: Vec<u8>,
    /// So many first bits belong to inherited probes, until the last of these is gone: nobody has said which to which.
    inherited: u32,
}

impl Bits {
    /// The first `count` bits are those of inherited probes.
    pub(crate) fn inherited(count: u32) -> Self {
        let count = count.min(BITS);
        Self { fresh: count, free: Vec::new(), inherited: count }
    }

    /// How many more return probes there can be.
    pub(crate) fn available(&self) -> usize {
        (BITS - self.fresh) as usize + self.free.len()
    }

    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.fresh == BITS {
            return (!self.free.is_empty()).then(|| u32::from(self.free.remove(0)));
        }
        self.fresh += 1;
        Some(self.fresh - 1)
    }

    /// Gives a bit back that no handler has seen.
    pub(crate) fn untake(&mut self, bit: u32) {
        self.free.insert(0, bit as u8);
    }

    /// Gives bits back that activations may still bear.
    fn give_back(&mut self, bits: impl IntoIterator<Item = u32>) {
        self.free.extend(bits.into_iter().map(|bit| bit as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(bits: &mut Bits) -> u32 {
        let bit = bits.take().unwrap();
        bits.give_back([bit]);
        bit
    }

    #[test]
    fn a_bit_is_used_again_as_late_as_possible() {
        let mut bits = Bits::default();
        let held: Vec<u32> = (0..4).map(|_| bits.take().unwrap()).collect();
        assert_eq!(held, [0, 1, 2, 3]);
        bits.give_back([2, 0]);
        let given: Vec<u32> = (0..31).map(|_| cycle(&mut bits)).collect();
        assert_eq!(given[..28], (4..32).collect::<Vec<_>>());
        assert_eq!(given[28..], [2, 0, 4]);
    }

    #[test]
    fn there_are_thirty_two_bits() {
        let mut bits = Bits::default();
        assert_eq!((0..40).map_while(|_| bits.take()).count(), 32);
        assert_eq!(bits.available(), 0);
        bits.untake(7);
        assert_eq!((bits.available(), bits.take()), (1, Some(7)));
    }

    #[test]
    fn inherited_bits_come_back_when_the_last_inherited_probe_is_gone() {
        let mut site = SiteRecord::new(0, SiteData::default());
        site.bits = Bits::inherited(32);
        let inherited = Chained::inherited(3);
        site.probes.push(inherited);
        site.release(None);
        assert_eq!(site.bits.available(), 0);
        site.probes.clear();
        site.release(None);
        assert_eq!(site.bits.available(), 32);
        site.release(None);
        assert_eq!(site.bits.available(), 32);
    }
}
