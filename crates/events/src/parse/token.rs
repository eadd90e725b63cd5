//! A line in words, each with its column, and quoted names hidden from whoever looks for separators.

use alloc::{string::String, vec::Vec};

use crate::error::{ErrorCode, SyntaxError};

/// A word of the line.
#[derive(Debug)]
pub(super) struct Token<'a> {
    raw: &'a str,
    /// `raw` with each byte of a quoted name, quotes included, replaced by a letter: of the same length, so that what is
    /// found in one is at the same place in the other.
    masked: String,
    column: usize,
    /// How many bytes are masked.
    quoted: usize,
}

const MASK: char = 'q';

impl Token<'_> {
    pub(super) fn part(&self) -> Part<'_> {
        Part { raw: self.raw, masked: &self.masked, column: self.column, quoted: self.quoted }
    }
}

/// Some of a word: what it says, what it says without its quoted names, and where it is in the line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) raw: &'a str,
    pub(super) masked: &'a str,
    pub(super) column: usize,
    quoted: usize,
}

impl<'a> Part<'a> {
    /// The column behind it.
    pub(super) const fn end(self) -> usize {
        self.column + self.raw.len()
    }

    /// Length in bytes without quoted names.
    pub(super) const fn plain_len(self) -> usize {
        self.raw.len().saturating_sub(self.quoted)
    }

    /// What is before byte `at`, and from it on. `at` comes from searching `masked` for ASCII.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        let split = |text: &'a str| text.split_at_checked(at).unwrap_or((text, ""));
        let ((raw, raw_rest), (masked, masked_rest)) = (split(self.raw), split(self.masked));
        let rest = Self { raw: raw_rest, masked: masked_rest, column: self.column + raw.len(), ..self };
        (Self { raw, masked, ..self }, rest)
    }

    /// All but the first `count` bytes.
    pub(super) fn skip(self, count: usize) -> Self {
        self.split_at(count).1
    }

    /// What is before and what is behind the byte `at`, which is ASCII.
    pub(super) fn around(self, at: usize) -> (Self, Self) {
        let (before, rest) = self.split_at(at);
        (before, rest.skip(1))
    }

    /// The name it is, without its quotes; none if it is empty or only partly quoted.
    pub(super) fn name(self) -> Option<String> {
        let Some(inside) = self.raw.strip_prefix('"') else {
            return (!self.raw.is_empty() && !self.raw.contains('"')).then(|| self.raw.into());
        };
        let mut name = String::new();
        let mut characters = inside.chars();
        loop {
            match characters.next()? {
                '\\' => name.push(characters.next()?),
                '"' => break,
                character => name.push(character),
            }
        }
        (characters.next().is_none() && !name.is_empty()).then_some(name)
    }

    pub(super) const fn error(self, code: ErrorCode) -> SyntaxError {
        SyntaxError::new(code, self.column)
    }
}

/// Splits a line at whitespace outside of quotes.
pub(super) fn split(line: &str) -> Result<Vec<Token<'_>>, SyntaxError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(start) = line.bytes().skip(at).position(|b| !is_space(b)).map(|skipped| at + skipped) {
        let token = token(line, start)?;
        at = start + token.raw.len();
        tokens.push(token);
    }
    Ok(tokens)
}

/// ASCII whitespace as C has it.
pub(super) const fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn token(line: &str, start: usize) -> Result<Token<'_>, SyntaxError> {
    let text = line.get(start..).unwrap_or("");
    let mut masked = String::new();
    let mut quoted = 0;
    let mut before = None;
    let mut is_immediate = false;
    let mut rest = text;
    while let Some(next) = rest.chars().next().filter(|c| !u8::try_from(*c).is_ok_and(is_space)) {
        let taken = if next == '"' && opens_name(before) && !is_immediate {
            let len = quoted_len(rest).ok_or(SyntaxError::new(ErrorCode::QuoteNoClose, start + masked.len()))?;
            masked.extend(core::iter::repeat_n(MASK, len));
            quoted += len;
            len
        } else {
            // In an immediate string, `\"text"`, quotes do not hold spaces together.
            is_immediate |= rest.starts_with("\\\"");
            masked.push(next);
            next.len_utf8()
        };
        before = Some(next);
        rest = rest.get(taken..).unwrap_or("");
    }
    Ok(Token { raw: text.get(..masked.len()).unwrap_or(text), masked, column: start, quoted })
}

/// Whether a quote behind this character begins a name: at a word's start, after `OBJECT:` and after `@`.
pub(super) fn opens_name(before: Option<char>) -> bool {
    before.is_none_or(|c| matches!(c, ':' | '@') || u8::try_from(c).is_ok_and(is_space))
}

/// The length of the quoted name that `text` begins with, quotes included.
pub(super) fn quoted_len(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    let close = text.bytes().skip(1).position(|byte| {
        let is_close = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_close
    })?;
    Some(close + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn words(line: &str) -> Vec<(usize, String)> {
        split(line).unwrap().iter().map(|token| (token.column, token.masked.clone())).collect()
    }

    #[test]
    fn words_are_split_at_whitespace_and_keep_their_columns() {
        assert_eq!(words("  p\t foo \x0b"), vec![(2, "p".into()), (5, "foo".into())]);
        assert_eq!(words(""), vec![]);
    }

    #[test]
    fn quoted_names_are_masked_at_their_length() {
        assert_eq!(words(r#"a:"b c"+1"#), vec![(0, "a:qqqqq+1".into())]);
        assert_eq!(words(r#""a\" b" c"#), vec![(0, "qqqqqqq".into()), (8, "c".into())]);
        assert_eq!(words("\"é\""), vec![(0, "qqqq".into())]);
    }

    #[test]
    fn immediate_strings_are_not_names() {
        assert_eq!(words(r#"\"a b" c"#), vec![(0, r#"\"a"#.into()), (4, r#"b""#.into()), (7, "c".into())]);
        assert_eq!(words(r#"a=\"b:"c"#), vec![(0, r#"a=\"b:"c"#.into())]);
    }

    #[test]
    fn an_open_quote_is_reported_where_it_opens() {
        assert_eq!(split(r#"p lib:"foo"#).unwrap_err(), SyntaxError::new(ErrorCode::QuoteNoClose, 6));
    }

    #[test]
    fn names_lose_their_quotes_and_escapes() {
        let name = |text: &str| split(text).unwrap()[0].part().name();
        assert_eq!(name(r#""a\"\\b""#).as_deref(), Some(r#"a"\b"#));
        assert_eq!(name("plain").as_deref(), Some("plain"));
        assert_eq!(name(r#"a"b""#), None);
        assert_eq!(name(r#""""#), None);
    }
}
