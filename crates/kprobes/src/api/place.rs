//! Where a probe is put.

use core::fmt;

/// An address, or a symbol and an offset: one of the two (Linux: both or neither is `EINVAL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// An address in the target.
    Address(u64),
    /// A symbol, and how many bytes behind it.
    Symbol {
        /// `SYMBOL`, or `OBJECT:SYMBOL` when it may be in several objects.
        name: &'a str,
        /// The offset in bytes.
        offset: u64,
    },
}

impl Place<'_> {
    /// The object that is named, and the symbol.
    ///
    /// ```
    /// use kprobes::Place;
    /// let place = Place::Symbol { name: "libc.so.6:openat", offset: 4 };
    /// assert_eq!(place.names(), Some((Some("libc.so.6"), "openat")));
    /// assert_eq!(Place::Symbol { name: "core::str::len", offset: 0 }.names(), Some((None, "core::str::len")));
    /// assert_eq!(Place::Address(7).names(), None);
    /// ```
    #[must_use]
    pub fn names(&self) -> Option<(Option<&str>, &str)> {
        let Self::Symbol { name, .. } = self else { return None };
        // A Rust path has colons too, in pairs.
        let single = name.char_indices().find(|&(at, c)| {
            let is_colon = |at: usize| name.as_bytes().get(at) == Some(&b':');
            c == ':' && !is_colon(at + 1) && !(at > 0 && is_colon(at - 1))
        });
        let (object, symbol) = match single.and_then(|(at, _)| name.split_at_checked(at)) {
            Some((object, symbol)) => (Some(object), symbol.get(1..).unwrap_or_default()),
            None => (None, *name),
        };
        Some((object, symbol))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address:#x}"),
            Self::Symbol { name, offset: 0 } => f.write_str(name),
            Self::Symbol { name, offset } => write!(f, "{name}+{offset:#x}"),
        }
    }
}
