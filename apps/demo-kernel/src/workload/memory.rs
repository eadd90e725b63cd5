//! Demand-zero memory: each page is mapped by the page fault that its first touch raises.
//!
//! So that the workload can be run for hours, all runs together use one window, round and round, and give its pages
//! back, to fault again.

use alloc::format;
use alloc::string::String;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::lock::IrqLock;
use crate::mm::{PAGE, lazy};

/// Touched by each run.
pub(super) const PAGES: u64 = 16;
/// As many runs as may be under way at once.
const RUNS: u64 = 128;

/// Where the window begins; 0 before the first run.
static WINDOW: IrqLock<u64> = IrqLock::new(0);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// How many pages were empty and kept what was written.
pub(super) fn run() -> Result<u64, String> {
    let start = window() + NEXT.fetch_add(1, Ordering::Relaxed) % RUNS * PAGES * PAGE;
    let pages = || (0..PAGES).map(|page| start + page * PAGE);
    if let Some(used) = pages().find(|page| swap(*page, page ^ PAGE) != 0) {
        return Err(format!("the page at {used:#x} was not empty"));
    }
    let kept = pages().filter(|page| swap(*page, 0) == page ^ PAGE).count() as u64;
    // SAFETY: the range is part of the reserved window, and of this run alone.
    unsafe { lazy::release(start, PAGES * PAGE) };
    Ok(kept)
}

#[inline(never)]
fn window() -> u64 {
    let mut window = WINDOW.lock();
    if *window == 0 {
        *window = lazy::reserve(RUNS * PAGES * PAGE);
    }
    *window
}

/// Exchanges the first word of a page of the window.
#[inline(never)]
fn swap(page: u64, value: u64) -> u64 {
    let word = ptr::with_exposed_provenance_mut::<u64>(page as usize);
    // SAFETY: the page was reserved for this window, is mapped when it is touched, and belongs to one run at a time:
    // there are not as many runs at once as would come round to it again.
    unsafe {
        let old = word.read_volatile();
        word.write_volatile(value);
        old
    }
}
