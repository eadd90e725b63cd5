//! The heap: 64 MiB of the direct map, behind a lock that keeps interrupts off.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use linked_list_allocator::Heap;

use super::{direct, frames};
use crate::lock::IrqLock;

const BYTES: u64 = 64 << 20;

struct Kernel(IrqLock<Heap>);

#[global_allocator]
static HEAP: Kernel = Kernel(IrqLock::new(Heap::empty()));

// SAFETY: `Heap` keeps the contract of an allocator, one caller at a time by the lock.
unsafe impl GlobalAlloc for Kernel {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller gives back what `alloc` gave, with the same layout.
            unsafe { self.0.lock().deallocate(block, layout) }
        }
    }
}

/// Takes the memory.
pub(super) fn init() {
    let start = direct(frames::consecutive(BYTES)) as *mut u8;
    // SAFETY: the frames are consecutive, mapped by the direct map, and the heap's for ever; called once, at boot.
    unsafe { HEAP.0.lock().init(start, BYTES as usize) }
}

/// Bytes of the heap that are in use.
pub(crate) fn used() -> usize {
    HEAP.0.lock().used()
}
