//! Worlds that are wrong in one way: on each of them the suite must fail.

use super::world::{Ability, Counts, Record, Refusal, World};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of every ten hits one is not counted.
    DropsHits,
    /// One hit too many is counted where there is one.
    CountsTwice,
    /// Misses are not counted.
    ForgetsMisses,
    /// A return is counted as unwound.
    CallsReturnsUnwound,
    /// Values are one too high.
    WrongValues,
    /// Of the records the last one is not given.
    DropsRecords,
    /// Records come in the reverse order.
    WrongOrder,
    /// A record bears the address of the next byte.
    WrongAddress,
    /// While an event is defined, functions give one more.
    WrongResults,
    /// Once something was planted, the text's first byte is a breakpoint for ever.
    LeavesText,
    /// Nothing is planted; the rest is as it must be.
    HidesText,
    /// Refused lines are taken for defined.
    AcceptsAnything,
    /// The line that is refused is always said to be the first.
    BlamesTheFirst,
    /// Of a batch that is refused, the lines before the refused one are placed.
    PlacesHalves,
    /// Removing takes off nothing.
    KeepsEvents,
    /// Removing takes off everything.
    RemovesAll,
    /// What is defined again goes on counting.
    KeepsCounts,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::DropsHits,
        Self::CountsTwice,
        Self::ForgetsMisses,
        Self::CallsReturnsUnwound,
        Self::WrongValues,
        Self::DropsRecords,
        Self::WrongOrder,
        Self::WrongAddress,
        Self::WrongResults,
        Self::LeavesText,
        Self::HidesText,
        Self::AcceptsAnything,
        Self::BlamesTheFirst,
        Self::PlacesHalves,
        Self::KeepsEvents,
        Self::RemovesAll,
        Self::KeepsCounts,
    ];
}

/// A world with a fault, around one without.
///
/// ```
/// # #[cfg(all(feature = "std", target_arch = "x86_64"))] {
/// use testkit::suite::{Broken, CASES, Fault, ModelWorld, Verdict, World, run_case};
///
/// let machine = ModelWorld::machine();
/// let mut world = ModelWorld::new(&machine);
/// let mut broken = Broken::new(&mut world, Fault::WrongResults);
/// assert_eq!(broken.call("suite_leaf", [5, 0]), 6);
/// assert!(broken.define(&["p:leaf suite_leaf"]).is_ok());
/// assert_eq!(broken.call("suite_leaf", [5, 0]), 7, "now something is defined");
/// assert!(broken.remove(&["leaf"]).is_ok());
/// // The suite finds it.
/// assert!(CASES.iter().any(|case| matches!(run_case(case, &mut broken), Verdict::Failed(_))));
/// # }
/// ```
pub struct Broken<'w> {
    inner: &'w mut dyn World,
    fault: Fault,
    /// Something was defined once.
    touched: bool,
    /// Hits of removed events, for those who keep them.
    kept: Vec<(String, u64)>,
}

impl core::fmt::Debug for Broken<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Broken").field("fault", &self.fault).finish_non_exhaustive()
    }
}

impl<'w> Broken<'w> {
    /// `inner` with a fault.
    #[must_use]
    pub fn new(inner: &'w mut dyn World, fault: Fault) -> Self {
        Self { inner, fault, touched: false, kept: Vec::new() }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn kept_hits(&self, event: &str) -> u64 {
        self.kept.iter().filter(|(name, _)| name == event).map(|(_, hits)| hits).sum()
    }

    fn wrong_counts(&self, event: &str, counts: Counts) -> Counts {
        match self.fault {
            Fault::DropsHits => Counts { hits: counts.hits - counts.hits / 10, ..counts },
            Fault::CountsTwice if counts.hits == 1 => Counts { hits: 2, ..counts },
            Fault::ForgetsMisses => Counts { missed: 0, ..counts },
            Fault::CallsReturnsUnwound => Counts { returned: 0, unwound: counts.unwound + counts.returned, ..counts },
            Fault::KeepsCounts => Counts { hits: counts.hits + self.kept_hits(event), ..counts },
            _ => counts,
        }
    }
}

impl World for Broken<'_> {
    fn address(&self, function: &str) -> u64 {
        self.inner.address(function)
    }

    fn text(&mut self, address: u64, out: &mut [u8]) {
        self.inner.text(address, out);
        let breakpoint = 0xCC;
        match (self.fault, out.first_mut()) {
            (Fault::LeavesText, Some(first)) if self.touched => *first = breakpoint,
            (Fault::HidesText, _) => out.iter_mut().filter(|b| **b == breakpoint).for_each(|b| *b = 0x90),
            _ => {}
        }
    }

    fn call(&mut self, function: &str, arguments: [u64; 2]) -> u64 {
        let wrong = self.is(Fault::WrongResults) && !self.inner.events().is_empty();
        self.inner.call(function, arguments).wrapping_add(u64::from(wrong))
    }

    fn define(&mut self, lines: &[&str]) -> Result<(), Refusal> {
        self.touched = true;
        let defined = self.inner.define(lines);
        match (self.fault, defined) {
            (Fault::AcceptsAnything, Err(_)) => Ok(()),
            (Fault::BlamesTheFirst, Err(refusal)) => Err(Refusal { line: 0, ..refusal }),
            (Fault::PlacesHalves, Err(refusal)) => {
                let before = lines.get(..refusal.line).unwrap_or_default();
                // It was not refused for these lines.
                let _ = self.inner.define(before);
                Err(refusal)
            }
            (_, defined) => defined,
        }
    }

    fn remove(&mut self, events: &[&str]) -> Result<(), String> {
        match self.fault {
            Fault::KeepsEvents => Ok(()),
            Fault::RemovesAll => {
                let all = self.inner.events();
                let known = events.iter().all(|event| all.iter().any(|e| e == event));
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                self.inner.remove(if known { &all } else { events })
            }
            Fault::KeepsCounts => {
                for event in events {
                    let hits = self.inner.counts(event).map_or(0, |c| c.hits);
                    self.kept.push(((*event).to_string(), hits));
                }
                self.inner.remove(events)
            }
            _ => self.inner.remove(events),
        }
    }

    fn events(&self) -> Vec<String> {
        self.inner.events()
    }

    fn counts(&mut self, event: &str) -> Option<Counts> {
        let counts = self.inner.counts(event)?;
        Some(self.wrong_counts(event, counts))
    }

    fn records(&mut self) -> Vec<Record> {
        let mut records = self.inner.records();
        match self.fault {
            Fault::WrongValues => {
                let values = records.iter_mut().flat_map(|r| r.values.iter_mut().flatten());
                values.for_each(|v| *v = v.wrapping_add(1));
            }
            Fault::DropsRecords => drop(records.pop()),
            Fault::WrongOrder => records.reverse(),
            Fault::WrongAddress => records.iter_mut().for_each(|r| r.address += 1),
            _ => {}
        }
        records
    }

    fn repetitions(&self, wanted: usize) -> usize {
        self.inner.repetitions(wanted)
    }

    fn can(&self, ability: Ability) -> bool {
        self.inner.can(ability)
    }

    fn call_together(&mut self, calls: &[(&str, [u64; 2])]) -> Vec<u64> {
        self.inner.call_together(calls)
    }
}
