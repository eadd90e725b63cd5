//! The sites that were stored last, as they are in the target.
//!
//! A new site is written three times: as a whole, when it gets its first probe, and when its breakpoint is noted. The
//! latter are four bytes in each of many neighbours; these are written as a whole again, with one system call. Nobody but the
//! tool writes to a site.

use hit::Site;

const BYTES: usize = size_of::<Site>();
/// More are not kept.
const LIMIT: usize = 1 << 16;

/// Sites with consecutive indices.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    first: u32,
    bytes: Vec<u8>,
    /// Which were changed since they were written.
    changed: Vec<bool>,
}

impl Recent {
    /// A site is being written.
    pub(crate) fn put(&mut self, index: u32, site: &[u8]) {
        if self.at(index) == Some(self.changed.len()) && self.changed.len() < LIMIT {
            self.bytes.extend_from_slice(site);
            self.changed.push(false);
        } else if self.changed.iter().any(|changed| *changed) {
            // What is to be written has to stay: this one is not kept.
        } else {
            *self = Self { first: index, bytes: site.to_vec(), changed: vec![false] };
        }
    }

    /// Changes four bytes of a site, to be written with the next [`changed`](Self::changed); false if it is not kept.
    pub(crate) fn set(&mut self, index: u32, offset: usize, value: u32) -> bool {
        let Some(at) = self.at(index) else { return false };
        let Some(changed) = self.changed.get_mut(at) else { return false };
        *changed = true;
        let place = at * BYTES + offset;
        self.bytes.get_mut(place..place + 4).into_iter().for_each(|to| to.copy_from_slice(&value.to_le_bytes()));
        true
    }

    /// The sites that were changed; they count as written from here on.
    pub(crate) fn changed(&mut self) -> impl Iterator<Item = (u32, &[u8])> {
        let sites = (self.first..).zip(self.bytes.chunks_exact(BYTES)).zip(&mut self.changed);
        sites.filter_map(|(site, changed)| core::mem::take(changed).then_some(site))
    }

    fn at(&self, index: u32) -> Option<usize> {
        index.checked_sub(self.first).map(|at| at as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_sites_that_are_known_are_written_as_a_whole() {
        let mut recent = Recent::default();
        let site = |byte: u8| vec![byte; BYTES];
        recent.put(7, &site(1));
        recent.put(8, &site(2));
        assert!(!recent.set(6, 0, 0) && !recent.set(9, 0, 0));
        assert!(recent.set(8, 4, 0x0A0B_0C0D));
        let changed: Vec<(u32, Vec<u8>)> = recent.changed().map(|(index, bytes)| (index, bytes.to_vec())).collect();
        let mut wanted = site(2);
        wanted[4..8].copy_from_slice(&[0x0D, 0x0C, 0x0B, 0x0A]);
        assert_eq!(changed, [(8, wanted)]);
        assert_eq!(recent.changed().count(), 0);
        // Others, elsewhere: those are kept now.
        recent.put(20, &site(3));
        assert!(recent.set(20, 0, 1) && !recent.set(8, 0, 1));
    }

    #[test]
    fn a_change_that_is_not_written_is_not_lost() {
        let mut recent = Recent::default();
        recent.put(7, &[1; BYTES]);
        assert!(recent.set(7, 0, 5));
        recent.put(20, &[2; BYTES]);
        assert!(!recent.set(20, 0, 1));
        assert_eq!(recent.changed().map(|(index, _)| index).collect::<Vec<_>>(), [7]);
    }
}
