//! What is planted, and what was counted.

use core::fmt;
use hit::Counters;
use sync::primitive::{AtomicU64, Ordering};

/// What a probe has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that it was reached and ran; for a return probe, calls that it watches.
    pub hits: u64,
    /// Times that it was reached and could not run (Linux: `nmissed`).
    pub missed: u64,
    /// Events that found no room.
    pub lost: u64,
    /// Returns that were seen.
    pub returned: u64,
    /// Activations that ended without a return.
    pub unwound: u64,
    /// Times that its handler has faulted.
    pub faults: u64,
    /// Calls that its entry handler did not want watched.
    pub declined: u64,
}

impl Counts {
    pub(crate) fn of(counters: &Counters) -> Self {
        let read = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Self {
            hits: read(&counters.hits),
            missed: read(&counters.missed),
            lost: read(&counters.lost),
            returned: read(&counters.returns),
            unwound: read(&counters.unwound),
            faults: read(&counters.faults),
            declined: read(&counters.declined),
        }
    }

    pub(crate) fn reset(counters: &Counters) {
        let Counters { hits, missed, lost, returns, unwound, faults, declined } = counters;
        for counter in [hits, missed, lost, returns, unwound, faults, declined] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

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
