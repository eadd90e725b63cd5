//! Executable memory, within reach of the kernel's text: 4 MiB behind the image.
//!
//! The frames are those from 8 MiB on, reserved since boot and never writable in the direct map. A page is mapped,
//! r-x, when it is handed out, and is full of `int3` then. [`super::alias::write`] is the only way to write it.

use super::{IMAGE_LIMIT, KERNEL_BASE, PAGE, alias, paging};
use crate::lock::IrqLock;

/// Bytes of the window; `entry.s` knows it too.
pub(super) const BYTES: u64 = 4 << 20;
const START: u64 = KERNEL_BASE + IMAGE_LIMIT;

/// How much was handed out.
static USED: IrqLock<u64> = IrqLock::new(0);

/// Whole pages for `bytes` of code; `None` when the window is used up. Never given back: the owner divides them up.
pub(crate) fn try_alloc(bytes: usize) -> Option<u64> {
    let bytes = (bytes as u64).max(1).checked_next_multiple_of(PAGE)?;
    let start = {
        let mut used = USED.lock();
        if bytes > BYTES - *used {
            return None;
        }
        let start = START + *used;
        *used += bytes;
        start
    };
    for page in (start..start + bytes).step_by(PAGE as usize) {
        paging::map(page, page - KERNEL_BASE, paging::CODE);
        alias::write(page, &[0xcc; PAGE as usize]).expect("the page was just mapped");
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
    (START..START + *USED.lock()).contains(&address)
}
