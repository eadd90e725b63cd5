//! What a kernel supplies.

use crate::{Engine, Regs, guarded};
use alloc::string::String;
use core::fmt::Debug;
use core::ops::Range;

/// A symbol of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub address: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Whether it is a function.
    pub is_function: bool,
}

/// A kernel, as kprobes sees it. Functions and no object: a kernel is one.
///
/// Those of the first group are called in trap context, with interrupts off, possibly in an interrupt that cannot be
/// masked: they must not allocate, lock, or be probed themselves.
///
/// # Safety
///
/// kprobes writes text and stacks through these functions, and trusts what they say: `processor` gives no number to two
/// processors at once, `read_word` and `write_word` access what they are told or refuse, `allocate_code` and
/// `allocate_code_at` give memory that nobody else uses, `write_text` writes nothing but what it is told, and the registers that the kernel gives to
/// kprobes are those that execution goes on with.
pub unsafe trait Kernel: Copy + Debug + Send + Sync + 'static {
    /// Whether the breakpoint's stub leaves [`crate::STACK_GAP`] bytes below the interrupted stack.
    const STACK_GAP: bool = true;

    /// The engine, once it is made.
    fn engine() -> Option<&'static Engine<Self>>;
    /// The running processor, from 0.
    fn processor() -> usize;
    /// The running thread's identity, not 0.
    fn thread() -> u64;
    /// The number by which people know it, in records.
    fn thread_number() -> u32 {
        Self::thread() as u32
    }
    /// Its name, padded with zeros; none, if it cannot be had without a lock.
    fn thread_name(out: &mut [u8; 16]) {
        *out = [0; 16];
    }
    /// Nanoseconds since some beginning.
    fn now() -> u64;
    /// Reads memory, whatever the address is; false when not all of it can be read.
    fn read(address: u64, out: &mut [u8]) -> bool {
        guarded::read(address, out)
    }
    /// Reads a word of memory, whatever the address is.
    fn read_word(address: u64) -> Option<u64> {
        guarded::read_word(address)
    }
    /// Writes a word of memory, whatever the address is; false when it cannot be written.
    ///
    /// # Safety
    ///
    /// If memory is there, it is the caller's to change.
    unsafe fn write_word(address: u64, value: u64) -> bool {
        // SAFETY: the same promise.
        unsafe { guarded::write_word(address, value) }
    }

    /// How many processors there are. Called when the engine is made.
    fn processors() -> usize;
    /// The symbol that holds `address`.
    fn symbol_at(address: u64) -> Option<Symbol>;
    /// The symbol of this name.
    ///
    /// # Errors
    ///
    /// Why not, as a sentence that helps: the nearest names, or all of that name.
    fn symbol(name: &str) -> Result<Symbol, String>;
    /// Whether `address` is in the kernel's text.
    fn is_text(address: u64) -> bool;
    /// Whether no probe may be placed at `address`: code that runs before kprobes knows that it runs, and text that the
    /// kernel itself changes while it runs (static keys, tracepoints).
    fn is_noprobe(address: u64) -> bool;
    /// Executable memory that nobody may write, within 1 GiB of the kernel's text, at a multiple of
    /// [`hit::SLOT_BYTES`]; never given back.
    fn allocate_code(bytes: usize) -> Option<u64>;
    /// Where [`allocate_code_at`](Kernel::allocate_code_at) can give memory: within 2 GiB of the text, and better 1 GiB
    /// below it. Jumps over several instructions can lead to few addresses only. Where there is nothing to give, such
    /// probes are placed by breakpoints.
    fn code_range() -> Range<u64> {
        0..0
    }
    /// Makes the page at `page`, in [`code_range`](Kernel::code_range), memory as [`allocate_code`](Kernel::allocate_code)
    /// gives it. False when that is impossible. Asked for once for each page.
    fn allocate_code_at(page: u64) -> bool {
        let _ = page;
        false
    }
    /// Writes to text or to what [`allocate_code`](Kernel::allocate_code) gave, one byte after the other in the order
    /// of their addresses, through a mapping of the kernel's choice. False when that is impossible.
    fn write_text(address: u64, bytes: &[u8]) -> bool;
    /// Returns when every processor has executed a serializing instruction.
    fn sync_processors();
    /// Called when a handler has faulted and was ended, with the registers of the fault. In trap context.
    fn handler_faulted(regs: &Regs) {
        let _ = regs;
    }
}
