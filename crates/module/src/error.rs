//! Why something was not done.

use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use kprobes::raw::Failure;

/// A refusal of the host's, or an error of the module's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The host has refused a probe, and so all that were to be registered with it.
    Refused {
        /// Which of them, counted from 0.
        index: u32,
        /// Why.
        reason: Reason,
    },
    /// More probes than fit into one registration.
    TooMany {
        /// How many fit.
        limit: usize,
    },
    /// A probe's symbol is longer than a name may be.
    NameTooLong,
    /// The host does not know the probe any more: it has switched it off, or the module.
    Gone,
    /// What the module says.
    Other(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { reason, .. } => write!(f, "{reason}"),
            Self::TooMany { limit } => write!(f, "at most {limit} probes can be registered together"),
            Self::NameTooLong => write!(f, "a probe's symbol has at most {} bytes", kprobes::raw::NAME_BYTES),
            Self::Gone => f.write_str("the host does not know the probe any more"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for Error {}

impl Error {
    /// What the host has said.
    pub(crate) fn refused(failure: &Failure) -> Self {
        REASON.keep(failure.reason().as_bytes());
        Self::Refused { index: failure.index, reason: Reason(()) }
    }
}

/// The host's words about the latest refusal: there is room for one in a module, since errors are handed on by value
/// and an allocator is not there. `init` fails once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(());

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; LENGTH];
        f.write_str(REASON.get(&mut bytes))
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

const LENGTH: usize = size_of_val(&Failure::NONE.text);

/// A text that is written in `init` and read whenever: relaxed, since who mixes two reads nonsense and nothing worse.
struct Words {
    length: AtomicUsize,
    bytes: [AtomicU8; LENGTH],
}

static REASON: Words = Words { length: AtomicUsize::new(0), bytes: [const { AtomicU8::new(0) }; LENGTH] };

impl Words {
    fn keep(&self, text: &[u8]) {
        self.bytes.iter().zip(text).for_each(|(to, &byte)| to.store(byte, Ordering::Relaxed));
        self.length.store(text.len().min(LENGTH), Ordering::Relaxed);
    }

    fn get<'a>(&self, bytes: &'a mut [u8; LENGTH]) -> &'a str {
        bytes.iter_mut().zip(&self.bytes).for_each(|(byte, from)| *byte = from.load(Ordering::Relaxed));
        let text = bytes.get(..self.length.load(Ordering::Relaxed)).unwrap_or_default();
        core::str::from_utf8(text).unwrap_or("(the reason was overwritten)")
    }
}
