//! Prints the registers before and after one instruction: a kprobe with a pre-handler and a post-handler.

#![no_std]

use core::sync::atomic::{AtomicU64, Ordering};
use module::{Error, Handler, Hit, KERNEL, Kprobe, Next, Registered, Regs, Slot, cpu, println, register, thread};

module::module! {
    name: "single-step-log",
    description: "Prints registers before and after one instruction",
    parameters: [
        /// The function.
        SYMBOL: str = if KERNEL { "sys_read" } else { "libc.so.6:read" },
        /// How many bytes behind its start the instruction is.
        OFFSET: u64 = 0,
        /// How many times it is printed; 0: always.
        LIMIT: u64 = 10,
    ],
    init: init,
    exit: exit,
}

/// The general registers as the processor numbers them.
const NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

static STEPS: AtomicU64 = AtomicU64::new(0);
static PROBE: Slot<Registered> = Slot::new();

fn init() -> Result<(), Error> {
    // SAFETY: they read registers, count and print.
    let (before, after) = unsafe { (Handler::new(before as _), Handler::new(after as _)) };
    PROBE.put(register(Kprobe::symbol_offset(SYMBOL.get(), OFFSET.get()).pre(before).post(after))?);
    Ok(())
}

extern "C" fn before(hit: &mut Hit<'_>) -> Next {
    if is_printed(STEPS.load(Ordering::Relaxed)) {
        print("before", hit);
    }
    Next::Step
}

extern "C" fn after(hit: &mut Hit<'_>) {
    if is_printed(STEPS.fetch_add(1, Ordering::Relaxed)) {
        print("after", hit);
    }
}

fn is_printed(step: u64) -> bool {
    LIMIT.get() == 0 || step < LIMIT.get()
}

/// Prints all registers, a row of them in one piece: other processors print as well.
fn print(when: &str, hit: &Hit<'_>) {
    let Regs { gpr, rip, flags } = hit.regs();
    let (thread, cpu) = (thread(), cpu());
    println!("[{thread}] {when} {:#x}: rip={rip:016x} flags={flags:08x} cpu={cpu}", hit.address());
    for (names, values) in NAMES.chunks_exact(4).zip(gpr.chunks_exact(4)) {
        if let (&[a, b, c, d], &[va, vb, vc, vd]) = (names, values) {
            println!("[{thread}]   {a:>3}={va:016x} {b:>3}={vb:016x} {c:>3}={vc:016x} {d:>3}={vd:016x}");
        }
    }
}

fn exit() {
    if let Some(probe) = PROBE.take() {
        let counts = probe.counts().unwrap_or_default();
        if let Err(error) = probe.unregister() {
            println!("single-step-log: {error}");
        }
        println!("single-step-log: {} hits, {} missed", counts.hits, counts.missed);
    }
}
