//! Pads: memory for jumps that jumps lead to.
//!
//! A jump over several instructions can lead to few addresses ([`Isa::window`](crate::Isa::window) says why). At such an address there is a
//! pad: a jump to the detour. Pads lie in pages of the range that the host gives for it, close together where the rules
//! of their jumps allow; they are never given back.

use alloc::collections::{BTreeMap, BTreeSet};
use core::ops::Range;

const PAGE: u64 = 4096;
/// How many addresses are looked at for one pad.
const LOOKS: usize = 4096;

/// The pads that were given.
///
/// ```
/// use kprobes::Pads;
///
/// // Jumps of five bytes, which can lead to even addresses; all pages can be had.
/// let mut pads = Pads::new(5);
/// let even = |range: std::ops::Range<u64>| Some(range.start.next_multiple_of(2)).filter(|at| range.contains(at));
/// let mut take = || pads.take(0x1001..0x2000, &even, |_page| true);
/// assert_eq!((take(), take()), (Some(0x1002), Some(0x1008)));
/// ```
#[derive(Debug)]
pub struct Pads {
    /// Bytes of a pad.
    bytes: u64,
    /// Pages that are ours.
    pages: BTreeSet<u64>,
    /// Pages that cannot be had.
    refused: BTreeSet<u64>,
    /// Where pads are.
    used: BTreeSet<u64>,
    /// For an address that was the lowest one for a pad: where the next one is looked for. What lies before is taken.
    next: BTreeMap<u64, u64>,
}

impl Pads {
    /// None yet, for jumps of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let (pages, refused, used) = Default::default();
        Self { bytes: bytes as u64, pages, refused, used, next: BTreeMap::new() }
    }

    /// A pad in `range`, where `fits` says: it gives the lowest address in a range.
    /// `allocate` makes a page ours, which may be written as [`Host::write_slot`](crate::Host::write_slot) does.
    pub fn take(
        &mut self,
        range: Range<u64>,
        fits: &dyn Fn(Range<u64>) -> Option<u64>,
        allocate: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let bytes = self.bytes;
        let end = range.end.checked_sub(bytes)?;
        let lowest = fits(range.start..end)?;
        let mut from = self.next.get(&lowest).copied().unwrap_or(lowest);
        for _ in 0..LOOKS {
            let at = fits(from..end)?;
            from = match self.obstacle(at) {
                Some(behind) => behind,
                None if self.has_pages(at, &allocate) => {
                    self.used.insert(at);
                    self.next.insert(lowest, at + bytes);
                    return Some(at);
                }
                None => (at | (PAGE - 1)).checked_add(1)?,
            };
        }
        None
    }

    /// Where the pad ends that lies over one at `at`.
    fn obstacle(&self, at: u64) -> Option<u64> {
        let bytes = self.bytes;
        self.used.range((at + 1).saturating_sub(bytes)..at + bytes).next_back().map(|&used| used + bytes)
    }

    fn has_pages(&mut self, at: u64, allocate: &impl Fn(u64) -> bool) -> bool {
        [at, at + self.bytes - 1].iter().all(|address| {
            let page = address & !(PAGE - 1);
            let had = self.pages.contains(&page) || !self.refused.contains(&page) && allocate(page);
            if had { &mut self.pages } else { &mut self.refused }.insert(page);
            had
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowest(range: Range<u64>) -> Option<u64> {
        (!range.is_empty()).then_some(range.start)
    }

    #[test]
    fn pads_do_not_overlap() {
        let mut pads = Pads::new(5);
        let mut take = || pads.take(0x10_0000..0x10_1000, &lowest, |_| true);
        assert_eq!([take(), take(), take()], [Some(0x10_0000), Some(0x10_0005), Some(0x10_000A)]);
    }

    #[test]
    fn a_page_is_asked_for_once_and_what_cannot_be_had_is_passed_over() {
        let asked = core::cell::RefCell::new(alloc::vec::Vec::new());
        let allocate = |page| {
            asked.borrow_mut().push(page);
            page != 0x10_0000
        };
        let mut pads = Pads::new(5);
        assert_eq!(pads.take(0x10_0000..0x10_3000, &lowest, allocate), Some(0x10_1000));
        assert_eq!(pads.take(0x10_0000..0x10_3000, &lowest, allocate), Some(0x10_1005));
        assert_eq!(*asked.borrow(), [0x10_0000, 0x10_1000]);
    }

    #[test]
    fn a_full_or_empty_range_has_none() {
        let mut pads = Pads::new(5);
        assert_eq!(pads.take(0..0, &lowest, |_| true), None);
        assert_eq!(pads.take(0x1000..0x1006, &lowest, |_| true), Some(0x1000));
        assert_eq!(pads.take(0x1000..0x1006, &lowest, |_| true), None);
    }
}
