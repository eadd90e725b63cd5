//! What can go wrong in control.

use alloc::string::String;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is an engine already.
    Twice,
    /// The kernel has no executable memory within reach.
    NoCode,
    /// The line is wrong: the message with a caret under the column.
    Syntax(String),
    /// No such event.
    NoEvent(String),
    /// The probe was refused.
    Probe(kprobes::Error),
    /// The place cannot be found: why.
    Place(String),
    /// This probe is registered no longer: what was planted there has gone, or was removed by its name.
    Gone,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Twice => f.write_str("kprobes is running already"),
            Self::NoCode => f.write_str("no executable memory within 1 GiB of the kernel's text"),
            Self::NoEvent(name) => write!(f, "no event `{name}`: `kprobes` shows those there are"),
            Self::Gone => f.write_str("this probe is registered no longer"),
            Self::Syntax(text) | Self::Place(text) => f.write_str(text),
            Self::Probe(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<kprobes::Error> for Error {
    fn from(error: kprobes::Error) -> Self {
        Self::Probe(error)
    }
}
