//! What was counted for an event, in all processes of a trace.

use super::member::{Member, State};
use super::objects::Objects;
use crate::abi::Bank;
use hit::Counts;
use kprobes::Handle;
use std::collections::BTreeMap;
use std::ops::Range;

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

    /// Adds what was counted elsewhere.
    pub(crate) fn join(&mut self, other: &Self) {
        self.hits += other.hits;
        self.missed += other.missed;
        self.lost += other.lost;
        self.returns += other.returns;
        self.unwound += other.unwound;
    }

    /// Whether nothing was counted.
    pub(crate) fn is_zero(&self) -> bool {
        [self.hits, self.missed, self.lost, self.returns, self.unwound] == [0; 5]
    }

    pub(crate) fn say_placed(&mut self, text: String) {
        if !self.placed.contains(&text) {
            self.placed.push(text);
        }
    }

    /// Where a definition is placed in a member, and where it was as long as its object was mapped.
    pub(crate) fn place(&mut self, definition: usize, member: &Member) {
        let past = member.past.iter().filter(|(of, _)| *of == definition);
        past.for_each(|(_, text)| self.say_placed(text.clone()));
        if let Some(State::Placed(handle)) = member.states.get(definition) {
            self.say_placed(place_of(&member.target.objects, handle));
        }
    }
}

/// Where a probe is, and how it is placed.
pub(crate) fn place_of(objects: &Objects, handle: &Handle) -> String {
    let address = handle.address;
    let place = match (objects.symbolize(address), objects.at(address)) {
        (Some((name, offset, _)), Some(object)) => format!("{}:{name}+{offset:#x}", object.base_name()),
        _ => format!("{address:#x}"),
    };
    format!("{place} ({})", handle.placement)
}

/// Counts and places of one function that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionTally {
    /// Index of the pattern's definition.
    pub definition: usize,
    /// The name of the function's event.
    pub name: String,
    /// What was counted.
    pub tally: Tally,
}

/// The counts of the functions of patterns, by their events: of those that were hit.
pub(crate) type FunctionCounts = BTreeMap<u32, Tally>;

/// Adds what a bank has counted for a range of events.
pub(crate) fn add_functions(counts: &mut FunctionCounts, bank: &Bank, events: Range<usize>) {
    for event in events {
        let mut tally = Tally::default();
        tally.add(bank.counts(event));
        if !tally.is_zero() {
            counts.entry(event as u32).or_default().join(&tally);
        }
    }
}

/// Says where the functions are that a member has counted.
pub(crate) fn place_functions(counts: &mut FunctionCounts, member: &Member) {
    for group in member.groups.iter().filter(|group| group.block.is_each()) {
        for (nth, &at) in group.at.iter().enumerate() {
            if let Some(tally) = counts.get_mut(&group.block.event(at as usize)) {
                group.place(nth).into_iter().for_each(|text| tally.say_placed(text));
            }
        }
    }
}
