//! Frames: what the memory map calls usable, above the executable window, without the loader's module.
//!
//! Handed out in order of address; given back, they wait in a list that is threaded through the frames themselves.

use super::{IMAGE_LIMIT, PAGE, direct, exec};
use crate::boot::{self, Range};
use crate::lock::IrqLock;

/// Ranges of memory the allocator can hold.
const RANGES: usize = 16;

struct Frames {
    /// Never handed out yet.
    fresh: [Range; RANGES],
    /// The first given back, 0 for none; each holds the next one's address.
    free: u64,
    handed_out: u64,
}

static FRAMES: IrqLock<Frames> =
    IrqLock::new(Frames { fresh: [Range { start: 0, end: 0 }; RANGES], free: 0, handed_out: 0 });

/// Notes the usable ranges.
pub(super) fn init() {
    let mut frames = FRAMES.lock();
    let mut slots = frames.fresh.iter_mut();
    for range in boot::ram() {
        for part in usable(range) {
            if part.start < part.end
                && let Some(slot) = slots.next()
            {
                *slot = part;
            }
        }
    }
    let module_in_window = boot::module_range().is_some_and(|m| m.start < lowest() && m.end > IMAGE_LIMIT);
    assert!(!module_in_window, "the loader has put the module where executable memory belongs");
}

fn lowest() -> u64 {
    IMAGE_LIMIT + exec::BYTES
}

/// Of a range of memory what lies above the executable window, below and above the module.
fn usable(range: Range) -> [Range; 2] {
    let start = range.start.max(lowest()).next_multiple_of(PAGE);
    let end = range.end / PAGE * PAGE;
    // What is mapped at boot; more memory is left unused.
    let end = end.min(super::paging::MAPPED_AT_BOOT);
    let module = boot::module_range().unwrap_or(Range { start: 0, end: 0 });
    let before = Range { start, end: end.min((module.start / PAGE * PAGE).max(start)) };
    let behind = Range { start: start.max(module.end.next_multiple_of(PAGE)), end };
    if module.end <= start || module.start >= end {
        [Range { start, end }, Range { start: 0, end: 0 }]
    } else {
        [before, behind]
    }
}

/// Takes `bytes` of consecutive memory that was never handed out; never given back.
///
/// # Panics
/// When no range is long enough: the machine is too small for this kernel.
pub(super) fn consecutive(bytes: u64) -> u64 {
    let mut frames = FRAMES.lock();
    let range = frames.fresh.iter_mut().find(|range| range.end - range.start >= bytes).expect("not enough memory");
    let start = range.start;
    range.start += bytes;
    start
}

/// Takes a frame, with whatever is in it.
pub(super) fn take() -> Option<u64> {
    let mut frames = FRAMES.lock();
    let frame = if frames.free != 0 {
        let frame = frames.free;
        // SAFETY: a frame in the list is nobody's but ours, and holds the next one's address.
        frames.free = unsafe { (direct(frame) as *const u64).read() };
        frame
    } else {
        let range = frames.fresh.iter_mut().find(|range| range.start < range.end)?;
        let frame = range.start;
        range.start += PAGE;
        frame
    };
    frames.handed_out += 1;
    Some(frame)
}

/// Takes a frame of zeros.
pub(super) fn take_zeroed() -> Option<u64> {
    let frame = take()?;
    // SAFETY: the frame was nobody's, and the direct map reaches it writable: executable frames are not the
    // allocator's.
    unsafe { core::ptr::write_bytes(direct(frame) as *mut u8, 0, PAGE as usize) };
    Some(frame)
}

/// Gives a frame back.
///
/// # Safety
/// It came from [`take`], and nothing refers to it any more.
pub(super) unsafe fn give_back(frame: u64) {
    let mut frames = FRAMES.lock();
    // SAFETY: the caller says that the frame is nobody's.
    unsafe { (direct(frame) as *mut u64).write(frames.free) };
    frames.free = frame;
    frames.handed_out -= 1;
}

/// Frames in use, the heap apart.
pub(crate) fn in_use() -> u64 {
    FRAMES.lock().handed_out
}
