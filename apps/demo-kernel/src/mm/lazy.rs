//! Demand-zero memory: addresses without frames, backed on the first touch.

use alloc::vec::Vec;
use core::ops::Range;

use super::{PAGE, paging};
use crate::lock::IrqLock;

const START: u64 = 0xffff_a000_0000_0000;
const END: u64 = START + (1 << 40);

/// What was reserved, in ascending order.
static RESERVED: IrqLock<Vec<Range<u64>>> = IrqLock::new(Vec::new());

/// Reserves addresses for `bytes`, with an unreserved page behind. The addresses are never used again.
///
/// # Panics
/// When a tebibyte is reserved.
pub(crate) fn reserve(bytes: u64) -> u64 {
    let mut reserved = RESERVED.lock();
    let start = reserved.last().map_or(START, |range| range.end + PAGE);
    let bytes = bytes.next_multiple_of(PAGE);
    assert!(bytes < END - start, "the addresses of demand-zero memory are used up");
    reserved.push(start..start + bytes);
    start
}

/// Whether all of the range is part of one reservation.
fn is_reserved(start: u64, end: u64) -> bool {
    let reserved = RESERVED.lock();
    let before = reserved.partition_point(|range| range.start <= start);
    before.checked_sub(1).and_then(|at| reserved.get(at)).is_some_and(|range| start < range.end && end <= range.end)
}

/// Gives the frames of a reserved range back; touched again, it begins as zeros.
///
/// # Safety
/// The caller has reserved it, and nobody uses it meanwhile.
pub(crate) unsafe fn release(start: u64, bytes: u64) {
    assert!(is_reserved(start, start + bytes), "{start:#x} was not reserved");
    // SAFETY: only `demand_zero` maps anything here, and the caller says that nobody uses it.
    unsafe { paging::unmap_range(paging::page_of(start), start + bytes) };
}

/// Whether an address lies in the window.
pub(crate) fn contains(address: u64) -> bool {
    (START..END).contains(&address)
}

/// Backs the page of `address` with zeros; from the page fault. False where nothing is reserved, or without memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demand_zero(address: u64) -> bool {
    is_reserved(address, address) && paging::map_zeroed(paging::page_of(address))
}
