//! Where everything is put: parts of equal protection, one after another, in one range.

use crate::sections::Section;
use crate::{Error, MAX_SIZE};
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes in a page, the unit of protection.
pub const PAGE: u64 = 4096;
/// Bytes in an entry of the table of addresses.
pub(crate) const GOT_ENTRY: u64 = 8;

/// What may be done with a segment of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Code: read and executed.
    Text,
    /// Constants and tables of addresses: read.
    ReadOnly,
    /// Variables, zeroed ones too: read and written.
    Data,
}

impl Part {
    /// All parts in the order in which they are put.
    const ALL: [Self; 3] = [Self::Text, Self::ReadOnly, Self::Data];
}

/// The pages of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its protection.
    pub part: Part,
    /// Where it begins in the range, a multiple of [`PAGE`].
    pub offset: u64,
    /// How long it is, a multiple of [`PAGE`], never 0.
    pub size: u64,
}

/// The range.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) segments: Vec<Segment>,
    /// Where the table of addresses begins in the range.
    pub(crate) got: u64,
    pub(crate) size: u64,
}

/// Gives each section its place, and the table of addresses `got_entries` places.
pub(crate) fn lay_out(sections: &mut [Section<'_>], got_entries: usize) -> Result<Layout, Error> {
    let mut layout = Layout { segments: Vec::new(), got: 0, size: 0 };
    for part in Part::ALL {
        let offset = layout.size;
        let mut end = place_sections(sections, part, offset)?;
        if part == Part::ReadOnly && got_entries > 0 {
            layout.got = end.next_multiple_of(GOT_ENTRY);
            end = checked(layout.got + got_entries as u64 * GOT_ENTRY, || "the table of addresses".into())?;
        }
        layout.size = end.next_multiple_of(PAGE);
        if end > offset {
            layout.segments.push(Segment { part, offset, size: layout.size - offset });
        }
    }
    if layout.segments.is_empty() { Err(Error::Empty) } else { Ok(layout) }
}

/// Puts a part's sections from `start` on, those that are only zeros last, and returns where they end.
fn place_sections(sections: &mut [Section<'_>], part: Part, start: u64) -> Result<u64, Error> {
    let mut end = start;
    for zeros in [false, true] {
        for section in sections.iter_mut().filter(|s| s.part == part && s.is_zeros() == zeros) {
            // Neither can overflow: an alignment is a page at most, and `end` within the limit.
            section.offset = end.next_multiple_of(section.align);
            end = checked(section.offset.saturating_add(section.size), || section.shown())?;
        }
    }
    Ok(end)
}

fn checked(end: u64, section: impl FnOnce() -> String) -> Result<u64, Error> {
    if end > MAX_SIZE { Err(Error::TooLarge { section: section(), end }) } else { Ok(end) }
}
