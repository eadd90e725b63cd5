//! Executable memory, within reach of the kernel's text: 8 MiB behind the image.
//!
//! The frames are those from 8 MiB on, reserved since boot and never writable in the direct map. A page is mapped,
//! r-x, when it is handed out, and is full of `int3` then. [`super::alias::write`] is the only way to write it.
//!
//! Single pages can be had at given addresses too, in [`PADS`]: jumps that displace several instructions can lead to few
//! addresses only. Their frames are the last ones of the same reserve.

use alloc::collections::BTreeSet;
use core::ops::Range;

use super::{IMAGE_LIMIT, KERNEL_BASE, PAGE, alias, paging};
use crate::lock::IrqLock;

/// Bytes of the window; `entry.s` knows it too.
pub(super) const BYTES: u64 = 8 << 20;
const START: u64 = KERNEL_BASE + IMAGE_LIMIT;

/// Where [`alloc_at`] gives pages: 1 GiB below the kernel, where nothing else is.
pub(crate) const PADS: Range<u64> = KERNEL_BASE - (1 << 30)..KERNEL_BASE;

/// How much was handed out.
static USED: IrqLock<u64> = IrqLock::new(0);
/// The pages in [`PADS`] that were.
static AT: IrqLock<BTreeSet<u64>> = IrqLock::new(BTreeSet::new());

/// The frame for one more page in [`PADS`], if there is one.
fn last_frame(pages: &BTreeSet<u64>) -> Option<u64> {
    let taken = (pages.len() as u64 + 1) * PAGE;
    (*USED.lock() + taken <= BYTES).then(|| IMAGE_LIMIT + BYTES - taken)
}

/// A page of code at `page`, in [`PADS`]; false when it was handed out, or the reserve is used up.
pub(crate) fn alloc_at(page: u64) -> bool {
    let mut pages = AT.lock();
    let free = PADS.contains(&page) && page.is_multiple_of(PAGE) && !pages.contains(&page);
    let Some(frame) = free.then(|| last_frame(&pages)).flatten() else { return false };
    paging::map(page, frame, paging::CODE);
    pages.insert(page);
    drop(pages);
    fill(page);
    true
}

fn fill(page: u64) {
    alias::write(page, &[0xcc; PAGE as usize]).expect("the page was just mapped");
}

/// Whole pages for `bytes` of code; `None` when the window is used up. Never given back: the owner divides them up.
pub(crate) fn try_alloc(bytes: usize) -> Option<u64> {
    let bytes = (bytes as u64).max(1).checked_next_multiple_of(PAGE)?;
    let start = {
        let pads = AT.lock();
        let mut used = USED.lock();
        if bytes + pads.len() as u64 * PAGE > BYTES - *used {
            return None;
        }
        let start = START + *used;
        *used += bytes;
        start
    };
    for page in (start..start + bytes).step_by(PAGE as usize) {
        paging::map(page, page - KERNEL_BASE, paging::CODE);
        fill(page);
    }
    Some(start)
}

/// Whole pages for `bytes` of code.
///
/// # Panics
/// When the window is used up; [`try_alloc`] says so instead.
pub(crate) fn alloc(bytes: usize) -> u64 {
    try_alloc(bytes).expect("executable memory is used up")
}

/// Whether an address was handed out.
pub(crate) fn contains(address: u64) -> bool {
    (START..START + *USED.lock()).contains(&address) || AT.lock().contains(&(address & !(PAGE - 1)))
}
