//! Reports every write that fails for lack of space, without touching the program: what kprobes' documentation gives as
//! the reason to want them.

#![no_std]

use module::{
    Batch, Counter, Errno, Error, Handler, Hit, KERNEL, Kretprobe, Registrations, Slot, Watch, comm, println, process,
    thread,
};

module::module! {
    name: "disk-full",
    description: "Reports every write that fails for lack of space",
    parameters: [
        /// The functions that write, separated by commas; each has a descriptor as its first argument.
        SYMBOLS: str = if KERNEL {
            "sys_write"
        } else {
            "libc.so.6:write,libc.so.6:pwrite64,libc.so.6:writev,libc.so.6:pwritev,libc.so.6:fallocate,libc.so.6:fsync"
        },
        /// The error that lack of space is.
        ERROR: u64 = 28,
    ],
    init: init,
    exit: exit,
}

/// The most functions.
const FUNCTIONS: usize = 16;

static ERRNO: Errno = Errno::new();
static FAILURES: Counter = Counter::new();
static PROBES: Slot<Registrations<FUNCTIONS>> = Slot::new();

fn init() -> Result<(), Error> {
    if !KERNEL {
        ERRNO.find();
    }
    // SAFETY: they read registers, count and print.
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

/// Keeps the descriptor, which at the return is not known any more.
extern "C" fn entered(hit: &mut Hit<'_>, descriptor: &mut u64) -> Watch {
    *descriptor = hit.regs().argument(1);
    Watch::Yes
}

extern "C" fn returned(hit: &mut Hit<'_>, descriptor: &mut u64) {
    let error = ERRNO.of(hit.regs().return_value());
    if error.is_none_or(|error| error as u64 != ERROR.get()) {
        return;
    }
    FAILURES.add(1);
    let symbol = SYMBOLS.list().nth(hit.user() as usize).unwrap_or("?");
    let name = symbol.rsplit(':').next().unwrap_or(symbol);
    let (descriptor, comm, process, thread) = (*descriptor as i32, comm(), process(), thread());
    println!("no space: {name} to descriptor {descriptor} in {comm}[{process}:{thread}]");
}

fn exit() {
    if let Some(probes) = PROBES.take() {
        let missed = probes.nmissed();
        println!("disk-full: {} writes found no space, {missed} calls missed", FAILURES.sum());
        if let Err(error) = probes.unregister() {
            println!("disk-full: {error}");
        }
    }
}
