//! What was counted for an event, in all processes of a trace.

use super::member::{Member, State};
use hit::Counts;

/// Counts and places of an event.
///
/// ```
/// use host_process::control::Tally;
///
/// let tally = Tally { hits: 5, returns: 3, unwound: 1, ..Tally::default() };
/// assert_eq!(tally.active(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times the probe ran; for a return probe, activations it watched.
    pub hits: u64,
    /// Times it could not run.
    pub missed: u64,
    /// Events that found no room.
    pub lost: u64,
    /// Returns.
    pub returns: u64,
    /// Activations that ended without returning.
    pub unwound: u64,
    /// Where and how it was placed, each once.
    pub placed: Vec<String>,
}

impl Tally {
    /// Activations that have not ended.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.hits.saturating_sub(self.returns).saturating_sub(self.unwound)
    }

    pub(crate) fn add(&mut self, counts: Option<Counts>) {
        let Some(counts) = counts else { return };
        self.hits = self.hits.wrapping_add(counts.hits);
        self.missed += counts.missed;
        self.lost += counts.lost;
        self.returns += counts.returned;
        self.unwound += counts.unwound;
    }

    pub(crate) fn place(&mut self, state: &State, member: &Member) {
        let State::Placed(handle) = state else { return };
        let address = handle.address;
        let place = match (member.target.objects.symbolize(address), member.target.objects.at(address)) {
            (Some((name, offset, _)), Some(object)) => format!("{}:{name}+{offset:#x}", object.base_name()),
            _ => format!("{address:#x}"),
        };
        let text = format!("{place} ({})", handle.placement);
        if !self.placed.contains(&text) {
            self.placed.push(text);
        }
    }
}
