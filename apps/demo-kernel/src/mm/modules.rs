//! Memory of modules: consecutive addresses within reach of the kernel's text, that come and go.
//!
//! A module has three parts, one behind the other and each of whole pages: text, read-only data, data. It begins as a
//! [`Draft`], rw- throughout, in which it is put together at the addresses where it will run. [`Draft::seal`] makes it
//! [`Memory`]: text r-x, read-only data r--, data rw-. [`Memory::free`] gives frames and addresses back, to be used
//! again.
//!
//! # No page is ever writable and executable
//!
//! Nor is a frame that is executable here writable elsewhere: the direct map shows it too. What one step takes away,
//! every processor has forgotten (a flush) before the next step gives something:
//!
//! | | text at its address | the same frames in the direct map |
//! |---|---|---|
//! | draft | rw- | rw- |
//! | seal | r-- | r-- |
//! | … after a flush | r-x | r-- |
//! | free | not mapped | r-- |
//! | … after a flush | not mapped | rw- |
//! | … after a flush | not mapped | the allocator's |
//!
//! The last flush of each column is for the processors' sake: one that remembers the narrower protection would fault.
//! Sealed text is written through [`super::alias`], as the kernel's own.
//!
//! Lock order: none of the locks here and in `paging` is held during a flush.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::paging::{self, direct_map};
use super::{PAGE, frames};
use crate::lock::IrqLock;

/// 512 MiB above the image: within 1 GiB of it and of [`super::exec`], so relative addresses reach all of them.
const START: u64 = 0xffff_ffff_a000_0000;
const END: u64 = START + (64 << 20);

/// The addresses that are in use, in ascending order, each with the page behind it that stays unmapped.
static USED: IrqLock<Vec<Range<u64>>> = IrqLock::new(Vec::new());

/// How many bytes each part has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Becomes r-x.
    pub(crate) text: usize,
    /// Becomes r--.
    pub(crate) rodata: usize,
    /// Stays rw-.
    pub(crate) data: usize,
}

/// Why there is no memory for a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The addresses near the kernel are used up, or would be.
    NoAddresses {
        /// So many were wanted.
        bytes: u64,
    },
    /// The memory is.
    NoFrames,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddresses { bytes } => {
                write!(f, "there is no room for {bytes} bytes: modules have {} MiB", (END - START) >> 20)
            }
            Self::NoFrames => write!(f, "there is no memory left"),
        }
    }
}

/// Where the parts begin, and where the last one ends.
#[derive(Clone, Copy, Debug)]
struct Layout {
    text: u64,
    rodata: u64,
    data: u64,
    end: u64,
}

impl Layout {
    /// The parts of `sizes` from `start` on.
    fn new(start: u64, sizes: Sizes) -> Option<Self> {
        let behind = |from: u64, bytes: usize| from.checked_add((bytes as u64).checked_next_multiple_of(PAGE)?);
        let rodata = behind(start, sizes.text)?;
        let data = behind(rodata, sizes.rodata)?;
        Some(Self { text: start, rodata, data, end: behind(data, sizes.data)? })
    }

    /// The first free place for `sizes`; it is in use from then on.
    fn reserve(sizes: Sizes) -> Result<Self, Error> {
        let bytes = Self::new(0, sizes).map_or(u64::MAX, |layout| layout.end.max(PAGE));
        let mut used = USED.lock();
        let mut start = START;
        let gap = used.iter().position(|range| {
            let fits = range.start - start > bytes;
            start = if fits { start } else { range.end };
            fits
        });
        if bytes >= END - start {
            return Err(Error::NoAddresses { bytes });
        }
        let at = gap.unwrap_or(used.len());
        used.insert(at, start..start + bytes + PAGE);
        Self::new(start, sizes).ok_or(Error::NoAddresses { bytes })
    }

    fn give_back(self) {
        USED.lock().retain(|range| range.start != self.text);
    }

    fn pages(self) -> impl Iterator<Item = u64> {
        (self.text..self.end).step_by(PAGE as usize)
    }

    /// How many pages at the beginning must not be written once sealed.
    fn protected(self) -> usize {
        ((self.data - self.text) / PAGE) as usize
    }
}

/// The memory of a module that is being put together: rw- throughout, text filled with `int3`, all else with zeros.
#[derive(Debug)]
pub(crate) struct Draft {
    layout: Layout,
}

impl Draft {
    /// Memory for a module.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn new(sizes: Sizes) -> Result<Self, Error> {
        let layout = Layout::reserve(sizes)?;
        // From here on its drop takes back what there is.
        let mut draft = Self { layout };
        if !layout.pages().all(paging::map_zeroed) {
            return Err(Error::NoFrames);
        }
        let text = (layout.rodata - layout.text) as usize;
        draft.bytes()[..text].fill(0xcc);
        Ok(draft)
    }

    /// Where the text begins, and the memory.
    pub(crate) fn address(&self) -> u64 {
        self.layout.text
    }

    /// Where the read-only data begin.
    pub(crate) fn rodata(&self) -> u64 {
        self.layout.rodata
    }

    /// Where the data begin.
    pub(crate) fn data(&self) -> u64 {
        self.layout.data
    }

    /// All of it, from the text on.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let bytes = (self.layout.end - self.layout.text) as usize;
        // SAFETY: all pages are mapped, rw-, and ours alone; the borrow is `self`'s.
        unsafe { core::slice::from_raw_parts_mut(self.layout.text as *mut u8, bytes) }
    }

    /// Gives every part its protection.
    ///
    /// # Errors
    ///
    /// When there is no memory for the page tables that this takes. All of it is given back then.
    pub(crate) fn seal(self) -> Result<Memory, Error> {
        let layout = self.layout;
        let frames: Vec<u64> = layout.pages().filter_map(paging::translate).map(|page| page.physical()).collect();
        let protected = &frames[..layout.protected()];
        if !direct_map::protect(protected) {
            make_ordinary(protected);
            return Err(Error::NoFrames);
        }
        paging::change(layout.text..layout.data, paging::READ_ONLY);
        paging::flush_everywhere();
        paging::change(layout.text..layout.rodata, paging::CODE);
        paging::flush_everywhere();
        // The memory's now, not the draft's to take back.
        core::mem::forget(self);
        Ok(Memory { layout, frames })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let layout = self.layout;
        // SAFETY: the frames came from `map_zeroed`, and the draft's borrows have ended.
        unsafe { paging::unmap_range(layout.text, layout.end) };
        layout.give_back();
    }
}

/// The direct map writes `frames` again, on all processors.
fn make_ordinary(frames: &[u64]) {
    let tables = direct_map::release(frames);
    paging::flush_everywhere();
    for table in tables {
        // SAFETY: the table came from the allocator, nothing refers to it, and no processor remembers it.
        unsafe { frames::give_back(table) };
    }
}

/// The memory of a module that may run: text r-x, read-only data r--, data rw-. It stays until it is [freed](Self::free).
#[derive(Debug)]
#[must_use = "memory that is dropped is never used again"]
pub(crate) struct Memory {
    layout: Layout,
    frames: Vec<u64>,
}

impl Memory {
    /// The text.
    pub(crate) fn text(&self) -> Range<u64> {
        self.layout.text..self.layout.rodata
    }

    /// All of it.
    pub(crate) fn range(&self) -> Range<u64> {
        self.layout.text..self.layout.end
    }

    /// Gives it back.
    ///
    /// # Safety
    ///
    /// No processor executes it or will return to it, no probe is planted in it, and nobody keeps a reference into it.
    pub(crate) unsafe fn free(self) {
        let Self { layout, frames } = self;
        paging::change(layout.text..layout.end, 0);
        paging::flush_everywhere();
        make_ordinary(&frames[..layout.protected()]);
        for frame in frames {
            // SAFETY: it came from the allocator; its only mappings were the one that every processor has forgotten,
            // and the direct map's, which says rw- everywhere.
            unsafe { frames::give_back(frame) };
        }
        layout.give_back();
    }
}

/// Whether an address is in a module's text. Trap context may ask: nothing is locked, and the tables of this window stay.
pub(crate) fn is_text(address: u64) -> bool {
    (START..END).contains(&address) && paging::translate(address).is_some_and(|page| page.executable())
}

/// Bytes of addresses that are in use, with the pages between.
pub(crate) fn in_use() -> u64 {
    USED.lock().iter().map(|range| range.end - range.start).sum()
}
