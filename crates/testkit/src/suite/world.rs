//! What a host must be able to do for the suite.

pub use hit::Counts;

use alloc::string::String;
use alloc::vec::Vec;

/// A place where the suite's program runs and probes can be planted.
///
/// Events are named by their definition lines. All methods but [`call_together`](World::call_together) are called while
/// no function of the program runs.
pub trait World {
    /// Where a function of the program begins.
    fn address(&self, function: &str) -> u64;
    /// The bytes of the program's text as they stand in memory now, breakpoints and all. Whatever cannot be read is 0.
    fn text(&mut self, address: u64, out: &mut [u8]);
    /// Calls a function of the program with its arguments in `rdi` and `rsi`, and gives `rax`.
    fn call(&mut self, function: &str, arguments: [u64; 2]) -> u64;
    /// Defines events by lines as `kprobe_events` takes them: all of them, or none.
    ///
    /// # Errors
    ///
    /// Which line is refused first, and why.
    fn define(&mut self, lines: &[&str]) -> Result<(), Refusal>;
    /// Removes events: all of them, or none.
    ///
    /// # Errors
    ///
    /// When there is none of one of these names, or it cannot be removed.
    fn remove(&mut self, events: &[&str]) -> Result<(), String>;
    /// The names of the events that are defined.
    fn events(&self) -> Vec<String>;
    /// What was counted for an event since it was defined; `None` when there is no event of that name.
    fn counts(&mut self, event: &str) -> Option<Counts>;
    /// The records since the last call, in the order in which they were made.
    fn records(&mut self) -> Vec<Record>;

    /// How often to do what a case would do so many times. A world in which each definition is a long way may say less.
    fn repetitions(&self, wanted: usize) -> usize {
        wanted
    }
    /// Whether the world can do more than what all can.
    fn can(&self, ability: Ability) -> bool {
        let _ = ability;
        false
    }
    /// Calls functions at the same time, each in a thread of its own, and gives their results. For
    /// [`Ability::Threads`].
    fn call_together(&mut self, calls: &[(&str, [u64; 2])]) -> Vec<u64> {
        calls.iter().map(|&(function, arguments)| self.call(function, arguments)).collect()
    }
}

/// What some worlds can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// Run several functions at the same time.
    Threads,
}

/// Why an event was not defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the lines, from 0.
    pub line: usize,
    /// The reason, as users see it.
    pub why: String,
}

/// One event that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The event's name.
    pub event: String,
    /// The address of the probed instruction; for a return, of the function.
    pub address: u64,
    /// What was fetched, in the line's order, as it would be in a register; `None` for what could not be read.
    pub values: Vec<Option<u64>>,
}
