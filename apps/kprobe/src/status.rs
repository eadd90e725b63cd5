//! Exit statuses, and what is said to the user beside the trace.

use std::fmt;
use std::io::Write;

/// Something failed.
pub(crate) const FAILURE: u8 = 1;
/// The command line or a definition is wrong.
pub(crate) const USAGE: u8 = 2;
/// Added to a signal's number, as shells do.
pub(crate) const SIGNAL: u8 = 128;

/// An error in what the user wrote.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A line on standard error. If that is closed, nobody is there to be told.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "kprobe: {text}");
}
