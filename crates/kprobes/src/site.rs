//! Control's own record of a site.

use crate::{Placement, SiteData};
use alloc::vec::Vec;

/// A site that was prepared at least once.
#[derive(Clone, Debug)]
pub(crate) struct SiteRecord {
    pub(crate) index: u32,
    pub(crate) data: SiteData,
    /// Its probes, first one first.
    pub(crate) probes: Vec<u32>,
    /// The next return probe's bit.
    pub(crate) bits: u32,
    pub(crate) armed: bool,
}

impl SiteRecord {
    pub(crate) fn new(index: u32, data: SiteData) -> Self {
        Self { index, data, probes: Vec::new(), bits: 0, armed: false }
    }

    pub(crate) fn placement(&self) -> Placement {
        if self.data.how & hit::Site::EMULATE != 0 { Placement::Emulated } else { Placement::Boosted }
    }
}
