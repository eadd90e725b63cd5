//! Who is asked about a breakpoint that is not ours: what the agent and control share about it.

use hit::Probe;
use sync::primitive::{AtomicU32, AtomicU64};

/// Notifiers in a process at once.
pub const NOTIFIERS: usize = 16;
/// [`Probe::id`] of a notifier: nothing is counted for it.
pub const NO_COUNTERS: u32 = u32::MAX;

/// One who is asked.
#[repr(C)]
#[derive(Debug)]
pub struct Notifier {
    /// Its place among the others ([`order`]), not 0. Written before `record` says that it is registered.
    pub order: AtomicU64,
    /// What calls handlers takes it for a probe: `handlers.user` is its function, and `state` says, as a probe's does,
    /// whether it is asked. The agent sets that to 0 when it has faulted.
    pub record: Probe,
}

/// All of them.
#[repr(C)]
#[derive(Debug)]
pub struct Notifiers {
    /// How many places are taken: as long as there are none, no breakpoint pays for them. Written by control.
    pub present: AtomicU32,
    /// In no order.
    pub table: [Notifier; NOTIFIERS],
}

/// The word by which notifiers are ordered: higher priorities come first, and of equals the one that was registered
/// earlier (has the lower `serial`, which is not 0).
///
/// ```
/// use host_process::abi::notifiers::order;
///
/// let mut asked = [(0, 1), (-5, 2), (10, 3), (0, 4)];
/// asked.sort_by_key(|&(priority, serial)| order(priority, serial));
/// assert_eq!(asked, [(10, 3), (0, 1), (0, 4), (-5, 2)]);
/// ```
#[must_use]
pub const fn order(priority: i32, serial: u32) -> u64 {
    let rank = (i32::MAX as i64 - priority as i64) as u64;
    rank << 32 | serial as u64
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn priorities_go_before_times_of_registration() {
        let all = [(i32::MAX, 9), (5, 1), (5, 2), (0, 1), (-1, 7), (i32::MIN, 1), (i32::MIN, u32::MAX)];
        let orders = all.map(|(priority, serial)| order(priority, serial));
        assert!(orders.is_sorted() && orders[0] > 0, "{orders:x?}");
    }
}
