//! Pads: memory for jumps that jumps lead to.
//!
//! A jump over several instructions can lead to few addresses ([`isa::x86::window`] says why). At such an address there is
//! a pad: five bytes, which jump to the detour. Pads lie in pages of the range that the kernel gives for it, close
//! together where the rules of their jumps allow; they are never given back.

use alloc::collections::BTreeSet;
use core::ops::Range;
use isa::x86::JUMP_LEN;

const PAGE: u64 = 4096;
const BYTES: u64 = JUMP_LEN as u64;
/// How many addresses are looked at for one pad.
const LOOKS: usize = 4096;

/// The pads that were given.
#[derive(Debug, Default)]
pub(crate) struct Pads {
    /// Pages that are ours.
    pages: BTreeSet<u64>,
    /// Pages that cannot be had.
    refused: BTreeSet<u64>,
    /// Where pads are.
    used: BTreeSet<u64>,
}

impl Pads {
    /// A pad in `range`, where `fits` says: it gives the lowest address in a range. `allocate` makes a page ours.
    pub(crate) fn take(
        &mut self,
        range: Range<u64>,
        fits: &dyn Fn(Range<u64>) -> Option<u64>,
        allocate: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let end = range.end.checked_sub(BYTES)?;
        let mut from = range.start;
        for _ in 0..LOOKS {
            let at = fits(from..end)?;
            from = match self.obstacle(at) {
                Some(behind) => behind,
                None if self.has_pages(at, &allocate) => {
                    self.used.insert(at);
                    return Some(at);
                }
                None => (at | (PAGE - 1)).checked_add(1)?,
            };
        }
        None
    }

    /// Where the pad ends that lies over one at `at`.
    fn obstacle(&self, at: u64) -> Option<u64> {
        self.used.range(at.saturating_sub(BYTES - 1)..at + BYTES).next_back().map(|&used| used + BYTES)
    }

    fn has_pages(&mut self, at: u64, allocate: &impl Fn(u64) -> bool) -> bool {
        [at, at + BYTES - 1].iter().all(|address| {
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
        let mut pads = Pads::default();
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
        let mut pads = Pads::default();
        assert_eq!(pads.take(0x10_0000..0x10_3000, &lowest, allocate), Some(0x10_1000));
        assert_eq!(pads.take(0x10_0000..0x10_3000, &lowest, allocate), Some(0x10_1005));
        assert_eq!(*asked.borrow(), [0x10_0000, 0x10_1000]);
    }

    #[test]
    fn a_full_or_empty_range_has_none() {
        let mut pads = Pads::default();
        assert_eq!(pads.take(0..0, &lowest, |_| true), None);
        assert_eq!(pads.take(0x1000..0x1006, &lowest, |_| true), Some(0x1000));
        assert_eq!(pads.take(0x1000..0x1006, &lowest, |_| true), None);
    }
}
