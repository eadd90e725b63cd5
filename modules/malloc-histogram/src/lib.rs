//! Shows how large the blocks are that are allocated: a kprobe at the allocator's entry, and a count for each power of two.

#![no_std]

use core::sync::atomic::{AtomicU64, Ordering};
use module::{Error, Handler, Hit, KERNEL, Kprobe, Next, PerCpu, Registered, Slot, println, register};

module::module! {
    name: "malloc-histogram",
    description: "Shows how large the blocks are that are allocated",
    parameters: [
        /// The function that allocates.
        SYMBOL: str = if KERNEL { "__rustc::__rust_alloc" } else { "libc.so.6:malloc" },
        /// Which of its arguments is the size, counted from 1.
        ARGUMENT: u64 = 1,
    ],
    init: init,
    exit: exit,
}

/// One for each number of bits that a size may have, and one for 0.
const ROWS: usize = 65;
/// The longest bar.
const BAR: u64 = 40;

static SIZES: PerCpu<[AtomicU64; ROWS]> = PerCpu::new();
static PROBE: Slot<Registered> = Slot::new();

fn init() -> Result<(), Error> {
    if !(1..=6).contains(&ARGUMENT.get()) {
        return Err(Error::Other("argument= is a number from 1 to 6"));
    }
    // SAFETY: it reads a register and counts.
    let allocates = unsafe { Handler::new(allocates as _) };
    PROBE.put(register(Kprobe::symbol(SYMBOL.get()).pre(allocates))?);
    Ok(())
}

extern "C" fn allocates(hit: &mut Hit<'_>) -> Next {
    let size = hit.regs().argument(ARGUMENT.get() as usize);
    let row = (u64::BITS - size.leading_zeros()) as usize;
    if let Some(count) = SIZES.get().get(row) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    Next::Step
}

fn exit() {
    if let Some(probe) = PROBE.take() {
        let missed = probe.nmissed().unwrap_or(0);
        if let Err(error) = probe.unregister() {
            println!("malloc-histogram: {error}");
        }
        show(missed);
    }
}

/// Prints a row for each power of two between the least and the greatest that occurred.
fn show(missed: u64) {
    let mut counts = [0; ROWS];
    for sizes in SIZES.iter() {
        counts.iter_mut().zip(sizes).for_each(|(sum, count)| *sum += count.load(Ordering::Relaxed));
    }
    let all: u64 = counts.iter().sum();
    println!("{}: {all} calls, {missed} missed", SYMBOL.get());
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let is_used = |count: &u64| *count > 0;
    let Some(first) = counts.iter().position(is_used) else { return };
    let last = counts.iter().rposition(is_used).unwrap_or(first);
    println!("{:>20}   {:>12}", "bytes, less than", "calls");
    for (bits, &count) in counts.iter().enumerate().take(last + 1).skip(first) {
        let stars = (u128::from(count) * u128::from(BAR)).div_ceil(u128::from(most)) as usize;
        println!("{:>20} | {count:>12} |{:*<stars$}", 1_u128 << bits, "");
    }
}
