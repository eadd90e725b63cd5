//! A program that probes itself: how often does it allocate, and what?
//!
//! `cargo run -p host-process --example self_trace`

use host_process::local::{Error, Process};

#[inline(never)]
fn compute(n: u64) -> u64 {
    std::hint::black_box(vec![n; 100]).iter().sum()
}

fn main() -> Result<(), Error> {
    let process = Process::start()?;
    process.define_all(&[
        "p:alloc libc.so.6:malloc size=$arg1",
        "p:entry self_trace::compute n=$arg1",
        "r:result self_trace::compute sum=$retval",
    ])?;
    let total: u64 = (1..=3).map(compute).sum();
    println!("computed {total}");
    process.list()?.iter().for_each(|probe| println!("{probe}"));
    process.remove_all()?;
    for record in process.take_records()?.iter().filter(|r| r.event() != "alloc") {
        println!("{record}");
    }
    Ok(())
}
