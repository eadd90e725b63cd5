//! The payload of a record: its arguments one after the other, each with a tag in front, so that it can be read without
//! knowing what could not be recorded.
//!
//! | Tag | Behind it |
//! |---|---|
//! | [`FAULT`] | nothing: it could not be read |
//! | [`VALUE`] | the number, or all elements of an array, as wide as the type says |
//! | [`STRING`] | its length in two bytes, and the bytes |
//! | [`CUT_STRING`] | the same; there was more |
//! | [`MIXED`] | an array whose elements have tags of their own |
//! | [`TRUNCATED`] | nothing: there was no room for this argument and those after it |
//!
//! Numbers are little endian. A payload that ends early is read as if [`TRUNCATED`] stood there.

/// It could not be read.
pub const FAULT: u8 = 0;
/// A number, or an array of numbers.
pub const VALUE: u8 = 1;
/// A string.
pub const STRING: u8 = 2;
/// The beginning of a string.
pub const CUT_STRING: u8 = 3;
/// An array of tagged elements.
pub const MIXED: u8 = 4;
/// The record was full.
pub const TRUNCATED: u8 = 0xff;

/// Bytes of a string's tag and length.
pub const STRING_HEADER: usize = 3;

/// Writes a payload. Each method gives none, and leaves the record to be truncated, if there is no room.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    /// How much is written. INVARIANT: at most `out.len()`.
    len: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Goes back to an earlier length.
    pub(crate) fn rewind(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Drops what is behind `len` and marks that; a record full to the last byte ends there instead.
    pub(crate) fn truncate_at(&mut self, len: usize) {
        self.rewind(len);
        let _ = self.tag(TRUNCATED);
    }

    /// The next `count` bytes, to be filled.
    pub(crate) fn claim(&mut self, count: usize) -> Option<&mut [u8]> {
        let end = self.len.checked_add(count)?;
        let claimed = self.out.get_mut(self.len..end)?;
        self.len = end;
        Some(claimed)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        // A loop and not `copy_from_slice`, whose length check could panic.
        self.claim(bytes.len())?.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Some(())
    }

    pub(crate) fn tag(&mut self, tag: u8) -> Option<()> {
        self.bytes(&[tag])
    }

    /// The low `size` bytes of a number.
    pub(crate) fn number(&mut self, value: u64, size: usize) -> Option<()> {
        self.tag(VALUE)?;
        self.bytes(value.to_le_bytes().get(..size)?)
    }

    /// A string of at most `most` bytes that leaves `reserve` bytes free, filled in by `read`; a fault if that gives none.
    pub(crate) fn string(
        &mut self,
        most: usize,
        reserve: usize,
        read: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<()> {
        let start = self.len;
        self.claim(STRING_HEADER)?;
        let room = self.out.len().saturating_sub(self.len).saturating_sub(reserve).min(most);
        let len = read(self.out.get_mut(self.len..)?.get_mut(..room)?);
        self.len = start;
        let Some(len) = len else {
            return self.tag(FAULT);
        };
        let len = len.min(room);
        self.tag(if len == room { CUT_STRING } else { STRING })?;
        self.bytes(&u16::try_from(len).ok()?.to_le_bytes())?;
        self.claim(len).map(|_| ())
    }

    /// A string that is there already, whole or not at all.
    pub(crate) fn text(&mut self, text: &[u8]) -> Option<()> {
        self.tag(STRING)?;
        self.bytes(&u16::try_from(text.len()).ok()?.to_le_bytes())?;
        self.bytes(text)
    }
}
