//! A program that probes itself: how much does it allocate? `cargo run --release -p host-process --example self_probe`

use host_process::local::{Error, Handler, Hit, Kprobe, Next, Process};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static BYTES: AtomicU64 = AtomicU64::new(0);

extern "C" fn allocates(hit: &mut Hit<'_>) -> Next {
    BYTES.fetch_add(hit.regs().argument(1), Relaxed);
    Next::Step
}

fn main() -> Result<(), Error> {
    let process = Process::start()?;
    // SAFETY: the handler reads a register and adds to an atomic.
    let probe = process.register(Kprobe::symbol("libc.so.6:malloc").pre(unsafe { Handler::new(allocates) }))?;
    let texts: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let counts = process.unregister(probe).map_err(|(_, error)| error)?;
    println!("{} strings: {} calls of malloc, {} bytes", texts.len(), counts.hits, BYTES.load(Relaxed));
    Ok(())
}
