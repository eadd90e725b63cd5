//! Stacks of threads: 32 KiB, below each one 32 KiB that are not mapped, so that an overflow is a fault.
//!
//! A stack given back is kept, mapped, for the next thread.

use alloc::vec::Vec;

use super::{PAGE, frames, paging};
use crate::lock::IrqLock;

const START: u64 = 0xffff_9000_0000_0000;
/// Bytes of a stack, and of the hole below it.
pub(crate) const BYTES: u64 = 32 << 10;

struct Pool {
    /// Tops of stacks that nobody uses.
    free: Vec<u64>,
    made: u64,
}

static POOL: IrqLock<Pool> = IrqLock::new(Pool { free: Vec::new(), made: 0 });

/// Frames of all stacks that were ever made: as many as were needed at once.
pub(crate) fn frames() -> u64 {
    POOL.lock().made * (BYTES / PAGE)
}

/// A thread's stack.
#[derive(Debug)]
pub(crate) struct Stack {
    top: u64,
}

impl Stack {
    /// Takes one.
    ///
    /// # Panics
    /// Without memory.
    pub(crate) fn new() -> Self {
        let mut pool = POOL.lock();
        let top = pool.free.pop().unwrap_or_else(|| {
            pool.made += 1;
            make(START + pool.made * 2 * BYTES)
        });
        Self { top }
    }

    /// The address behind its highest word.
    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// Keeps it for ever.
    pub(crate) fn into_top(self) -> u64 {
        let top = self.top;
        core::mem::forget(self);
        top
    }
}

fn make(top: u64) -> u64 {
    for page in (top - BYTES..top).step_by(PAGE as usize) {
        paging::map(page, frames::take().expect("no memory for a stack"), paging::DATA);
    }
    top
}

impl Drop for Stack {
    fn drop(&mut self) {
        POOL.lock().free.push(self.top);
    }
}
