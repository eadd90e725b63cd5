//! Writing text: through another address, which exists for the moment of the write.
//!
//! Text is never mapped writable. Its frame is mapped a second time, rw-, at one reserved page; the bytes are copied;
//! the mapping goes again (Linux: `text_poke`, with a separate address space). Interrupts are off meanwhile and the
//! page is used by one processor at a time, which forgets what it remembers of it before and after: should another
//! processor have it in its translation buffer, it never uses it.
//!
//! What other processors execute meanwhile is the caller's business: this writes bytes in order of address, aligned
//! groups of 8 as one store, and a single byte atomically.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU64};

use super::{PAGE, exec, modules, paging};
use crate::lock::IrqLock;

/// Why text was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The address is neither in the kernel's text, nor in a module's, nor in executable memory that was handed out.
    NotText {
        /// The first such address.
        address: u64,
    },
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self::NotText { address } = self;
        write!(f, "{address:#x} is no executable text of the kernel")
    }
}

/// The alias; 0 until the first write.
static ALIAS: IrqLock<u64> = IrqLock::new(0);

unsafe extern "C" {
    static __kprobes_text_start: [u8; 0];
    static __text_end: [u8; 0];
}

/// The kernel's own text, `.kprobes.text` included.
pub(crate) fn text() -> core::ops::Range<u64> {
    (&raw const __kprobes_text_start) as u64..(&raw const __text_end) as u64
}

/// Whether an address is in the kernel's text or in a module's. Trap context may ask.
pub(crate) fn is_text(address: u64) -> bool {
    text().contains(&address) || modules::is_text(address)
}

/// The frame of an executable page of ours.
fn frame_of_text(address: u64) -> Result<u64, Error> {
    let ours = is_text(address) || exec::contains(address);
    match paging::translate(address) {
        Some(page) if ours && page.executable() && !page.writable() => Ok(page.physical() & !(PAGE - 1)),
        _ => Err(Error::NotText { address }),
    }
}

/// Writes text at `address`.
///
/// # Errors
/// When any of it is no text of ours; then nothing is written.
pub(crate) fn write(address: u64, bytes: &[u8]) -> Result<(), Error> {
    if bytes.is_empty() {
        return Ok(());
    }
    let last = address.checked_add(bytes.len() as u64 - 1).ok_or(Error::NotText { address })?;
    for page in (paging::page_of(address)..=last).step_by(PAGE as usize) {
        frame_of_text(page.max(address))?;
    }
    frame_of_text(last)?;
    let mut alias = ALIAS.lock();
    reserve(&mut alias);
    let mut at = address;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min((PAGE - at % PAGE) as usize));
        write_page(*alias, at, now)?;
        at += now.len() as u64;
        rest = later;
    }
    Ok(())
}

fn reserve(alias: &mut u64) {
    if *alias == 0 {
        *alias = super::reserve_device_page();
    }
}

/// Runs `f` as in the middle of a write to the page of `address`, for whoever wants to see that the alias is noticed.
///
/// # Errors
/// As [`write`].
pub(crate) fn during_write<T>(address: u64, f: impl FnOnce() -> T) -> Result<T, Error> {
    let frame = frame_of_text(address)?;
    let mut alias = ALIAS.lock();
    reserve(&mut alias);
    paging::replace(*alias, frame | paging::DATA);
    let result = f();
    paging::replace(*alias, 0);
    Ok(result)
}

fn write_page(alias: u64, address: u64, bytes: &[u8]) -> Result<(), Error> {
    let frame = frame_of_text(address)?;
    paging::replace(alias, frame | paging::DATA);
    store(alias + address % PAGE, bytes);
    paging::replace(alias, 0);
    Ok(())
}

/// Stores bytes so that no group of 8, aligned, is seen half written.
fn store(mut at: u64, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        if at.is_multiple_of(8)
            && let Some((group, rest)) = bytes.split_first_chunk::<8>()
        {
            // SAFETY: the alias is mapped and ours while the lock is held; `at` is aligned. Other processors only
            // fetch instructions from the frame.
            unsafe { (*(at as *const AtomicU64)).store(u64::from_le_bytes(*group), Relaxed) };
            (at, bytes) = (at + 8, rest);
        } else {
            // SAFETY: as above; a byte is always aligned.
            unsafe { (*(at as *const AtomicU8)).store(bytes[0], Relaxed) };
            (at, bytes) = (at + 1, &bytes[1..]);
        }
    }
}
