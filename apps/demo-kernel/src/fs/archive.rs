//! The RAM disk's format: a ustar archive (POSIX.1-1988, `pax` "ustar Interchange Format").
//!
//! Regular files only, which is all that the one who packs it makes. Nothing in it is trusted: the archive ends where
//! a header makes no sense.

use alloc::string::String;

const BLOCK: usize = 512;
const NAME: core::ops::Range<usize> = 0..100;
const SIZE: core::ops::Range<usize> = 124..136;
const SUM: core::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const MAGIC: core::ops::Range<usize> = 257..262;
const PREFIX: core::ops::Range<usize> = 345..500;

/// A file in the archive.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) bytes: &'static [u8],
}

/// The files of an archive, in its order.
#[derive(Debug)]
pub(super) struct Entries {
    rest: &'static [u8],
}

/// Begins to read.
pub(super) const fn entries(archive: &'static [u8]) -> Entries {
    Entries { rest: archive }
}

impl Iterator for Entries {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            let (header, rest) = self.rest.split_at_checked(BLOCK)?;
            let size = header_size(header)?;
            let bytes = rest.get(..size)?;
            self.rest = rest.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
            if matches!(header[KIND], b'0' | 0) {
                return Some(Entry { path: header_path(header)?, bytes });
            }
        }
    }
}

/// How many bytes follow a header; none if it is none, as the blocks of zeros at the end.
#[inline(never)]
fn header_size(header: &[u8]) -> Option<usize> {
    let valid = &header[MAGIC] == b"ustar" && octal(&header[SUM])? == header_sum(header);
    valid.then(|| octal(&header[SIZE])).flatten()
}

/// The sum of a header's bytes, with its own field taken as blanks.
fn header_sum(header: &[u8]) -> usize {
    let byte = |(at, byte): (usize, &u8)| usize::from(if SUM.contains(&at) { b' ' } else { *byte });
    header.iter().enumerate().map(byte).sum()
}

fn header_path(header: &[u8]) -> Option<String> {
    let (prefix, name) = (text(&header[PREFIX])?, text(&header[NAME])?);
    let mut path = String::from(prefix);
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(name);
    Some(path)
}

/// A field that ends with a zero, or is full.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    core::str::from_utf8(&field[..end]).ok()
}

fn octal(field: &[u8]) -> Option<usize> {
    let digits = text(field)?.trim();
    usize::from_str_radix(digits, 8).ok()
}
