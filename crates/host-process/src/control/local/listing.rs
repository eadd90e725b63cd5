//! What is planted, and what was counted.

use core::fmt;
use hit::Counts;

/// A probe, for people.
#[derive(Clone, Debug)]
pub struct Listed {
    /// `GROUP/EVENT`.
    pub name: String,
    /// Its address.
    pub address: u64,
    /// The same as `OBJECT:SYMBOL+0xOFFSET`, if it has a symbol.
    pub place: String,
    /// How it is placed.
    pub placement: String,
    /// What it has counted.
    pub counts: Counts,
    /// It is switched off.
    pub disabled: bool,
    /// The library that it was in is unloaded (Linux: `[GONE]`).
    pub gone: bool,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, address, place, placement, counts, disabled, gone } = self;
        let Counts { hits, missed, returned, unwound, declined, faults, lost } = *counts;
        write!(f, "{name:<24} {address:#018x} {place:<32} [{placement}] hits={hits} missed={missed}")?;
        let further =
            [("returned", returned), ("unwound", unwound), ("declined", declined), ("faults", faults), ("lost", lost)];
        for (what, count) in further.into_iter().filter(|&(_, count)| count > 0) {
            write!(f, " {what}={count}")?;
        }
        f.write_str(if *disabled { " [DISABLED]" } else { "" })?;
        f.write_str(if *gone { " [GONE]" } else { "" })
    }
}
