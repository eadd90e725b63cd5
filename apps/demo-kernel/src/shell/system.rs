//! Commands on the machine.

use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::Ordering;

use super::FAILURES;
use super::files::needed;
use crate::arch::cpu;
use crate::ksyms::{self, Symbol};
use crate::{console, log, mm, println, sched, workload};

/// What the kernel leaves with when a command has failed.
const FAILED: u8 = 1;
/// Greater ones are the console's own.
const GREATEST_CODE: u8 = 15;
const WORK_USAGE: &str = "THREADS and TIMES are numbers above 0";

pub(super) fn symbol(argument: &str) -> Result<(), String> {
    let argument = needed(argument, "NAME|ADDRESS")?;
    if let Some(address) = argument.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
        println!("{}", ksyms::describe(address));
        return Ok(());
    }
    let Symbol { address, size, kind, name } =
        ksyms::lookup(argument).map_err(|error| format!("{argument}: {error}"))?;
    println!("{address:#x} {size:#x} {kind} {name}");
    Ok(())
}

pub(super) fn cpus(_: &str) -> Result<(), String> {
    println!("cpu apic    ticks     nmis");
    for id in 0..cpu::count() {
        let block = cpu::block(id);
        let [apic, ticks, nmis] =
            [&block.apic_id, &block.ticks, &block.nmis].map(|count| count.load(Ordering::Relaxed));
        println!("{id:3} {apic:4} {ticks:8} {nmis:8}");
    }
    Ok(())
}

pub(super) fn threads(_: &str) -> Result<(), String> {
    println!("{} threads; this is {}, number {}", sched::thread_count(), sched::current_name(), sched::current());
    Ok(())
}

/// Runs the workload: once, or in several threads, and in each several times.
pub(super) fn work(arguments: &str) -> Result<(), String> {
    /// More threads than there is memory for stacks for would end the kernel.
    const MOST: usize = 500;
    let number = |word: &str| word.parse().ok().filter(|number| (1..=MOST).contains(number));
    let mut words = arguments.split_whitespace().map(number);
    match (words.next(), words.next(), words.next()) {
        (None, ..) => println!("{}", workload::run()?),
        (Some(Some(threads)), times, None) => {
            let times = times.unwrap_or(Some(1)).ok_or(WORK_USAGE)?;
            workload::run_in_threads(threads, times)?;
            println!("{threads} threads, {times} times each: all right");
        }
        _ => return Err(WORK_USAGE.to_string()),
    }
    Ok(())
}

/// All mappings by their protection, and the proof that none can be written and executed.
pub(super) fn pages(_: &str) -> Result<(), String> {
    const KINDS: [&str; 4] = ["r--", "rw-", "r-x", "rwx"];
    let (mut mappings, mut bytes) = ([0_u64; 4], [0_u64; 4]);
    mm::walk(|_, _, size, writable, executable| {
        let kind = usize::from(writable) + 2 * usize::from(executable);
        mappings[kind] += 1;
        bytes[kind] += size;
    });
    for ((kind, mappings), bytes) in KINDS.iter().zip(mappings).zip(bytes) {
        println!("{kind} {mappings:8} mappings {:9} KiB", bytes >> 10);
    }
    let audit = mm::audit();
    println!("writable and executable: {} pages", audit.writable_and_executable);
    println!("writable elsewhere while executable: {} pages", audit.writable_aliases_of_executable);
    if audit.writable_and_executable + audit.writable_aliases_of_executable > 0 {
        return Err("memory that is executed can be written".to_string());
    }
    Ok(())
}

pub(super) fn halt(code: &str) -> Result<(), String> {
    log::drain();
    match code {
        "" => end(),
        "0" => console::shutdown(true),
        code => match code.parse() {
            Ok(code @ 1..=GREATEST_CODE) => console::exit(code),
            _ => Err(format!("{code} is no code: 0 to {GREATEST_CODE}")),
        },
    }
}

/// Ends the machine, with success if no command has failed.
pub(super) fn end() -> ! {
    match FAILURES.load(Ordering::Relaxed) {
        0 => console::shutdown(true),
        1 => println!("halt: a command has failed"),
        failures => println!("halt: {failures} commands have failed"),
    }
    console::exit(FAILED)
}
