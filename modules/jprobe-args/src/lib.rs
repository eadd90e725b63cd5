//! Prints the arguments that a function is called with, as a function with the same prototype sees them: a jprobe.

#![no_std]

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use module::{Error, Handler, Jprobe, KERNEL, Registered, Slot, comm, println, read_string, register, thread};

module::module! {
    name: "jprobe-args",
    description: "Prints the arguments of a function, seen by a jprobe",
    parameters: [
        /// The function.
        SYMBOL: str = if KERNEL { "sys_open" } else { "libc.so.6:openat" },
        /// How many arguments it has, up to 8; they are integers or pointers.
        COUNT: u64 = if KERNEL { 2 } else { 3 },
        /// Which of them, counted from 1, is a string; 0: none.
        STRING: u64 = if KERNEL { 1 } else { 2 },
        /// After so many calls nothing is printed any more; 0: never.
        LIMIT: u64 = 0,
    ],
    init: init,
    exit: exit,
}

/// As many as the mirror has parameters.
const ARGUMENTS: usize = 8;

static CALLS: AtomicU64 = AtomicU64::new(0);
static PROBE: Slot<Registered> = Slot::new();

fn init() -> Result<(), Error> {
    if COUNT.get() > ARGUMENTS as u64 || STRING.get() > COUNT.get() {
        return Err(Error::Other("count= is 8 at most, and string= one of the arguments"));
    }
    // SAFETY: it counts, reads memory by way of the host, and prints.
    let mirror = unsafe { Handler::new(mirror as extern "C" fn(_, _, _, _, _, _, _, _)) };
    PROBE.put(register(Jprobe::symbol(SYMBOL.get(), mirror))?);
    Ok(())
}

/// Called with the registers and the stack that the probed function was called with: the first six integers of a C
/// function are in registers, the others above the return address. Whatever of that is no argument is not looked at.
extern "C" fn mirror(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64) {
    let calls = CALLS.fetch_add(1, Ordering::Relaxed);
    if LIMIT.get() == 0 || calls < LIMIT.get() {
        let arguments = Arguments([a, b, c, d, e, f, g, h]);
        println!("{}({arguments}) in {}[{}]", SYMBOL.get(), comm(), thread());
    }
    // SAFETY: in a mirror, and nothing here waits to be dropped.
    unsafe { module::jprobe_return() }
}

struct Arguments([u64; ARGUMENTS]);

impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &argument) in self.0.iter().enumerate().take(COUNT.get() as usize) {
            let separator = if index == 0 { "" } else { ", " };
            let is_string = index as u64 + 1 == STRING.get();
            match if is_string { read_string::<128>(argument) } else { None } {
                Some(text) => write!(f, "{separator}\"{text}\"")?,
                None => write!(f, "{separator}{argument:#x}")?,
            }
        }
        Ok(())
    }
}

fn exit() {
    if let Some(probe) = PROBE.take() {
        let missed = probe.nmissed().unwrap_or(0);
        if let Err(error) = probe.unregister() {
            println!("jprobe-args: {error}");
        }
        println!("jprobe-args: {} calls, {missed} missed", CALLS.load(Ordering::Relaxed));
    }
}
