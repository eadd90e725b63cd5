//! A small kernel whose own functions are probed while it runs: `ARCHITECTURE.md` of the repository says what for.
//!
//! Booted by PVH on x86_64; everything runs in ring 0, in the highest half of the address space, on up to eight
//! processors. [`boot`] takes over what the loader left, [`mm`] holds the address space, [`arch`] the processors,
//! [`sched`] threads, [`probes`] ties kprobes in.

#![no_std]
#![no_main]

extern crate alloc;

mod arch;
mod boot;
mod console;
mod exports;
mod fs;
mod ksyms;
mod lock;
mod log;
mod mm;
mod panic;
mod probes;
mod sched;
mod selftest;
mod shell;
mod snapshot;
mod workload;

use arch::{apic, cpu, pic, smp, time, trap};

/// The first Rust function, on the first processor; `boot/entry.s` calls it.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u64) -> ! {
    cpu::claim(0);
    console::init();
    trap::load();
    boot::init(start_info);
    mm::init();
    cpu::load_tables();
    pic::silence();
    apic::init();
    time::calibrate();
    sched::adopt("idle");
    cpu::set_online();
    smp::start_others();
    time::start_ticking();
    sched::spawn("main", main_thread, 0);
    sched::idle()
}

/// What runs once there are threads.
fn main_thread(_: usize) {
    fs::init(boot::module());
    let symbols = ksyms::init();
    log::init();
    if let Err(error) = probes::init() {
        panic!("kprobes does not start: {error}");
    }
    println!(
        "demo-kernel: {} processors, {} MiB, {} symbols, {} bytes of RAM disk",
        cpu::count(),
        boot::ram_bytes() >> 20,
        symbols,
        boot::module().len()
    );
    if boot::has_word("selftest") {
        selftest::run();
    }
    shell::run()
}
