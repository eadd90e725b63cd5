//! What calls cost, in counts of the time stamp counter.

use core::hint::black_box;

use x86_64::instructions::interrupts::without_interrupts;

use super::targets::Function;
use super::{BURSTS, CALLS};
use crate::arch::time::tsc;

/// What [`CALLS`] calls of a function cost: the cheapest of several bursts.
pub(super) fn cheapest(function: Function) -> u64 {
    (0..BURSTS).map(|_| burst(function)).min().unwrap_or(0)
}

/// Not inlined, so that whatever is measured is called by the same instructions.
#[inline(never)]
fn burst(function: Function) -> u64 {
    without_interrupts(|| {
        let start = tsc();
        for x in 0..CALLS {
            black_box(function.call(x));
        }
        tsc() - start
    })
}

/// Whether a count is an instruction: then so many more instructions are so many more counts, and nothing else is.
pub(super) fn counts_instructions() -> bool {
    const MORE: u64 = 1000;
    (0..3).all(|_| without_interrupts(|| turns(2 * MORE) - turns(MORE)) == 2 * MORE)
}

/// What turns of a loop of two instructions cost.
#[inline(never)]
fn turns(count: u64) -> u64 {
    let start = tsc();
    // SAFETY: counts a register down.
    unsafe { core::arch::asm!("2: dec {0}", "jnz 2b", inout(reg) count => _, options(nomem, nostack)) };
    tsc() - start
}
