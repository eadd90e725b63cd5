//! Names in a file's tables of strings.

use crate::Error;
use alloc::format;
use alloc::string::String;

/// Longer than any name that a compiler makes, short enough that a file of lies is read in linear time.
const MAX_NAME: usize = 4096;
/// How much of a name an error message shows.
const SHOWN: usize = 80;

/// A table of strings, each ended by a zero byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'d>(pub(crate) &'d [u8]);

impl<'d> Names<'d> {
    /// The string at `offset`; `what` and `index` say whose name it is.
    pub(crate) fn get(self, offset: u32, what: &'static str, index: usize) -> Result<&'d str, Error> {
        let bad = |why| Error::BadName { what, index: index as u64, why };
        if offset == 0 {
            return Ok("");
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let tail = self.0.get(start..).ok_or_else(|| bad("lies outside the table of names"))?;
        let window = &tail[..tail.len().min(MAX_NAME)];
        let Some(end) = window.iter().position(|&byte| byte == 0) else {
            return Err(bad(if window.len() < MAX_NAME { "does not end" } else { "is too long" }));
        };
        core::str::from_utf8(&window[..end]).map_err(|_| bad("is no UTF-8"))
    }
}

/// A name as an error message shows it: escaped and shortened.
pub(crate) fn shown(name: &str) -> String {
    if name.is_empty() {
        return String::from("(no name)");
    }
    let mut characters = name.chars();
    let text: String = characters.by_ref().take(SHOWN).flat_map(char::escape_debug).collect();
    if characters.next().is_some() { format!("{text}…") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_the_zero_byte() {
        assert_eq!(Names(b"\0main\0x\0").get(1, "symbol", 1), Ok("main"));
        assert_eq!(Names(b"\0main\0x\0").get(6, "symbol", 1), Ok("x"));
    }

    #[test]
    fn a_name_that_is_none_is_refused_with_the_reason() {
        let why = |table: &[u8], offset| match Names(table).get(offset, "symbol", 7) {
            Err(Error::BadName { why, index: 7, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(b"\0main\0", 7), "lies outside the table of names");
        assert_eq!(why(b"\0main", 1), "does not end");
        assert_eq!(why(b"\0\xff\0", 1), "is no UTF-8");
        assert_eq!(why(&[b'a'; 5000], 1), "is too long");
    }

    #[test]
    fn a_shown_name_is_short_and_printable() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(""), "(no name)");
        assert_eq!(shown(&"x".repeat(81)).chars().count(), 81);
    }
}
