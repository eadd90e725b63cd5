//! Memory: the address space's plan, and access to physical memory.
//!
//! | Virtual | What |
//! |---|---|
//! | `0xffff_8000_0000_0000` | direct map of physical memory, rw-; r-- where a frame is executable elsewhere |
//! | `0xffff_9000_0000_0000` | stacks, with unmapped pages between ([`stacks`]) |
//! | `0xffff_a000_0000_0000` | demand-zero memory ([`lazy`]) |
//! | `0xffff_ffff_4000_0000` | 1 GiB for pages of code at given addresses ([`exec::PADS`]) |
//! | `0xffff_ffff_8000_0000` | the image, which begins at 1 MiB and ends below 8 MiB |
//! | `0xffff_ffff_8080_0000` | 8 MiB of executable memory ([`exec`]), backed by the frames from 8 MiB on |
//! | `0xffff_ffff_8100_0000` | devices; the alias through which text is written ([`alias`]) |
//! | `0xffff_ffff_a000_0000` | 64 MiB for modules ([`modules`]) |
//!
//! No page is writable and executable, and no frame is executable at one address and writable at another, but for the
//! moment of a write through the alias. [`audit`] walks the live tables to prove it.

pub(crate) mod alias;
pub(crate) mod audit;
pub(crate) mod exec;
pub(crate) mod frames;
mod heap;
pub(crate) mod lazy;
pub(crate) mod modules;
pub(crate) mod paging;
pub(crate) mod stacks;

use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) use audit::{audit, walk};
pub(crate) use heap::used as heap_used;

/// Of the direct map.
const DIRECT: u64 = 0xffff_8000_0000_0000;
/// Where the image is linked: physical address 0.
pub(crate) const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// The image ends below; `entry.s` and `link.ld` know it too.
const IMAGE_LIMIT: u64 = 0x80_0000;
const DEVICES: u64 = 0xffff_ffff_8100_0000;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

static NEXT_DEVICE: AtomicU64 = AtomicU64::new(DEVICES);

/// Where a physical address is in the direct map.
pub(crate) fn direct(physical: u64) -> u64 {
    DIRECT + physical
}

/// Reads a value of the loader's or the firmware's. They are trusted: a kernel has nobody else.
pub(crate) fn read_physical<T: Copy>(physical: u64) -> T {
    // SAFETY: the direct map covers all of memory, `T` is plain data of the loader's, and need not be aligned.
    unsafe { (direct(physical) as *const T).read_unaligned() }
}

/// Bytes of the loader's or the firmware's, which nobody writes any more.
pub(crate) fn physical_slice(physical: u64, bytes: usize) -> &'static [u8] {
    // SAFETY: the direct map covers all of memory, and the frame allocator leaves out what the loader handed over.
    unsafe { core::slice::from_raw_parts(direct(physical) as *const u8, bytes) }
}

/// Writes bytes into a frame that the frame allocator does not own.
fn write_frame(physical: u64, bytes: &[u8]) {
    // SAFETY: the callers own the frame: below 1 MiB nobody else allocates.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), direct(physical) as *mut u8, bytes.len()) }
}

/// Writes bytes below 1 MiB, where only the start of processors writes.
pub(crate) fn write_physical(physical: u64, bytes: &[u8]) {
    assert!(physical + bytes.len() as u64 <= 0xa_0000, "only conventional memory is written by address");
    write_frame(physical, bytes);
}

/// Sets frames and heap up.
pub(crate) fn init() {
    frames::init();
    heap::init();
}

/// Maps a page of device registers, uncached; gives its address.
pub(crate) fn map_device(physical: u64) -> u64 {
    let address = NEXT_DEVICE.fetch_add(PAGE, Ordering::Relaxed);
    paging::map(address, physical, paging::DEVICE);
    address
}

/// Reserves an address in the devices' window without a mapping, for the alias.
fn reserve_device_page() -> u64 {
    let address = NEXT_DEVICE.fetch_add(PAGE, Ordering::Relaxed);
    paging::prepare(address);
    address
}
