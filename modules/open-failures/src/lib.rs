//! Reports every open that fails, with its error: the return probe that kprobes' documentation begins with.
//!
//! In a kernel `sys_open returns -2`, in a process `openat returns -2`, with who has tried it and the path.

#![no_std]

use core::sync::atomic::{AtomicU64, Ordering};
use module::{
    Batch, Counter, Errno, Error, Handler, Hit, KERNEL, Kretprobe, Registrations, Slot, Watch, comm, println,
    read_string, thread,
};

module::module! {
    name: "open-failures",
    description: "Reports every open that fails, with its error",
    parameters: [
        /// The functions, separated by commas.
        SYMBOLS: str = if KERNEL { "sys_open" } else { "libc.so.6:open,libc.so.6:openat" },
        /// Which of their arguments is the path, counted from 1; 0: the second of a function whose name ends with `at` or `at64`, of
        /// others the first.
        ARGUMENT: u64 = 0,
        /// After so many nothing is printed any more, only counted; 0: never.
        LIMIT: u64 = 0,
    ],
    init: init,
    exit: exit,
}

/// The most functions.
const FUNCTIONS: usize = 16;

static ERRNO: Errno = Errno::new();
static FAILURES: Counter = Counter::new();
static PRINTED: AtomicU64 = AtomicU64::new(0);
static PROBES: Slot<Registrations<FUNCTIONS>> = Slot::new();

fn init() -> Result<(), Error> {
    if !KERNEL {
        ERRNO.find();
    }
    // SAFETY: they read registers and memory by way of the host, count and print.
    let (entered, returned) = unsafe { (Handler::new(entered as _), Handler::new(returned as _)) };
    let mut batch = Batch::<FUNCTIONS>::new();
    for (index, symbol) in SYMBOLS.list().enumerate() {
        batch.add(Kretprobe::<u64>::symbol(symbol).entry(entered).handler(returned).user(index as u64))?;
    }
    if batch.is_empty() {
        return Err(Error::Other("symbols= names no function"));
    }
    PROBES.put(batch.register()?);
    Ok(())
}

extern "C" fn entered(hit: &mut Hit<'_>, path: &mut u64) -> Watch {
    let argument = match ARGUMENT.get() {
        0 if name(hit.user()).trim_end_matches("64").ends_with("at") => 2,
        0 => 1,
        number => number as usize,
    };
    *path = hit.regs().argument(argument);
    Watch::Yes
}

extern "C" fn returned(hit: &mut Hit<'_>, path: &mut u64) {
    let Some(error) = ERRNO.of(hit.regs().return_value()) else { return };
    FAILURES.add(1);
    if LIMIT.get() != 0 && PRINTED.fetch_add(1, Ordering::Relaxed) >= LIMIT.get() {
        return;
    }
    match read_string::<128>(*path) {
        Some(path) => println!("{} returns -{error}: {path} ({}[{}])", name(hit.user()), comm(), thread()),
        None => println!("{} returns -{error} ({}[{}])", name(hit.user()), comm(), thread()),
    }
}

/// The name of a probed function, without its object's.
fn name(index: u64) -> &'static str {
    let symbol = SYMBOLS.list().nth(index as usize).unwrap_or("?");
    symbol.rsplit(':').next().unwrap_or(symbol)
}

fn exit() {
    if let Some(probes) = PROBES.take() {
        let missed = probes.nmissed();
        println!("open-failures: {} failures, {missed} calls missed", FAILURES.sum());
        if let Err(error) = probes.unregister() {
            println!("open-failures: {error}");
        }
    }
}
