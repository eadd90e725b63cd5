//! What is planted, and what was counted.

use alloc::string::String;
use core::fmt;
use hit::Counts;

/// A probe, for people.
#[derive(Clone, Debug)]
pub struct Listed {
    /// `GROUP/EVENT`.
    pub name: String,
    /// Its address.
    pub address: u64,
    /// The same as `SYMBOL+0xOFFSET`, if it has a symbol.
    pub place: String,
    /// How it is placed.
    pub placement: String,
    /// What it has counted.
    pub counts: Counts,
    /// It was switched off because its handler has faulted.
    pub faulted: bool,
    /// It was switched off on purpose.
    pub disabled: bool,
    /// Whose it is: a module's number + 1, or 0.
    pub owner: u32,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { hits, missed, lost, returned, unwound, faults: _, declined } = self.counts;
        write!(
            f,
            "{:<24} {:#018x} {:<32} [{}] hits={hits} missed={missed}",
            self.name, self.address, self.place, self.placement
        )?;
        if returned + unwound > 0 {
            write!(f, " returned={returned} unwound={unwound}")?;
        }
        if declined > 0 {
            write!(f, " declined={declined}")?;
        }
        if lost > 0 {
            write!(f, " lost={lost}")?;
        }
        match (self.faulted, self.disabled) {
            (true, _) => f.write_str(" [off: its handler has faulted]"),
            (_, true) => f.write_str(" [DISABLED]"),
            _ => Ok(()),
        }
    }
}
