//! What was counted for a probe, read at one time.

use crate::Counters;
use sync::primitive::{AtomicU64, Ordering};

/// What a probe has counted.
///
/// ```
/// let counters = hit::Counters::new();
/// hit::Counters::add(&counters.hits);
/// assert_eq!(hit::Counts::of(&counters).hits, 1);
/// hit::Counts::reset(&counters);
/// assert_eq!(hit::Counts::of(&counters), hit::Counts::default());
/// ```
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
    /// Times that its handler has faulted: in a kernel once, for then it is switched off.
    pub faults: u64,
    /// Calls that its entry handler did not want watched.
    pub declined: u64,
}

impl Counts {
    /// What stands in `counters` now. Each is read by itself: while probes are hit they need not fit together.
    #[must_use]
    pub fn of(counters: &Counters) -> Self {
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

    /// Sets `counters` to zero, for the next probe that has them.
    pub fn reset(counters: &Counters) {
        let Counters { hits, missed, lost, returns, unwound, faults, declined } = counters;
        for counter in [hits, missed, lost, returns, unwound, faults, declined] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
