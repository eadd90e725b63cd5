//! Frames that the direct map must not write: text and read-only data of modules.
//!
//! The direct map consists of large pages, and a single frame's protection takes small ones. A large page is split when
//! the first of its frames is [protected](protect), and put together again when the last one is [given
//! free](release): so the tables that this takes come and go with the modules.
//!
//! Neither flushes: the caller does, once for all frames, and before it relies on the change. While other
//! processors may still use the old entries, a large page and its small ones say the same of every frame but those that
//! change.

use alloc::vec::Vec;

use super::{ADDRESS, DATA, LARGE, LARGE_PAGE, PAGE, PRESENT, TABLES, WRITABLE, directory, entry, set};
use crate::mm::{direct, exec, frames};

/// Bits that the processor sets by itself: accessed, dirty.
const SET_BY_PROCESSOR: u64 = 1 << 5 | 1 << 6;

/// Makes the direct map's pages of `frames` read-only. Without memory for a table, some of them: false.
pub(in crate::mm) fn protect(frames: &[u64]) -> bool {
    let _tables = TABLES.lock();
    frames.iter().all(|&frame| {
        let Some(table) = small_pages(frame) else { return false };
        set(table, direct(frame), 1, frame | DATA & !WRITABLE);
        true
    })
}

/// Makes them writable again, whether [`protect`] came to them or not. Gives the frames of tables that have become
/// superfluous, which are the allocator's when all processors have been flushed.
#[must_use]
pub(in crate::mm) fn release(frames: &[u64]) -> Vec<u64> {
    let _tables = TABLES.lock();
    let mut superfluous = Vec::new();
    for &frame in frames {
        let Some((upper, old)) = large_entry(frame).filter(|(_, old)| old & LARGE == 0) else { continue };
        let table = old & ADDRESS;
        set(table, direct(frame), 1, frame | DATA);
        let first = frame & !(LARGE_PAGE - 1);
        if is_whole(table, first) {
            set(upper, direct(frame), 2, first | DATA | LARGE);
            superfluous.push(table);
        }
    }
    superfluous
}

/// The table of level 2 for a frame in the direct map, and its entry.
fn large_entry(frame: u64) -> Option<(u64, u64)> {
    let upper = directory(direct(frame))?;
    Some((upper, entry(upper, direct(frame), 2)))
}

/// The table of small pages for a frame, made if there is none.
fn small_pages(frame: u64) -> Option<u64> {
    assert!(frame >= crate::mm::IMAGE_LIMIT + exec::BYTES, "{frame:#x} is no frame of the allocator's");
    let (upper, old) = large_entry(frame)?;
    if old & LARGE == 0 {
        return Some(old & ADDRESS);
    }
    let table = frames::take()?;
    let first = frame & !(LARGE_PAGE - 1);
    for small in (first..first + LARGE_PAGE).step_by(PAGE as usize) {
        set(table, direct(small), 1, small | DATA);
    }
    set(upper, direct(frame), 2, table | PRESENT | WRITABLE);
    Some(table)
}

/// Whether a table says what one large page from `first` on would say.
fn is_whole(table: u64, first: u64) -> bool {
    let says = |small: u64| entry(table, direct(small), 1) & !SET_BY_PROCESSOR == small | DATA;
    (first..first + LARGE_PAGE).step_by(PAGE as usize).all(says)
}
