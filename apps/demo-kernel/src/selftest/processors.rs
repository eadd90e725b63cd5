//! Several processors: calls, from all of them at once.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Check, ensure};
use crate::arch::{cpu, interrupts, ipi};
use crate::lock::IrqLock;
use crate::sched;

pub(super) const CHECKS: &[Check] = &[
    ("every processor is reached by a thread", all_processors_run_threads),
    ("a call runs once on every other processor", call_reaches_all),
    ("calls from all processors at once", calls_from_all),
    ("a lock that all processors want, with calls between", lock_excludes),
];

const ROUNDS: u64 = 1000;
static COUNT: AtomicU64 = AtomicU64::new(0);
static LOCKED: IrqLock<u64> = IrqLock::new(0);

fn count() {
    COUNT.fetch_add(1, Relaxed);
}

/// Runs `f` on all processors at once.
fn everywhere(f: fn(usize)) {
    let spawn = |id| sched::spawn_on(Some(id), "check", f, id);
    let threads: alloc::vec::Vec<_> = (0..cpu::count()).map(spawn).collect();
    threads.into_iter().for_each(sched::join);
}

fn all_processors_run_threads() -> Result<(), &'static str> {
    COUNT.store(0, Relaxed);
    everywhere(|id| {
        if cpu::id() == id {
            COUNT.fetch_add(1, Relaxed);
        }
    });
    ensure(COUNT.load(Relaxed) == cpu::count() as u64, "one was not reached, or a thread ran elsewhere")
}

fn call_reaches_all() -> Result<(), &'static str> {
    COUNT.store(0, Relaxed);
    ipi::on_each_cpu(count);
    ensure(COUNT.load(Relaxed) == cpu::count() as u64 - 1, "not once on each")
}

fn calls_from_all() -> Result<(), &'static str> {
    COUNT.store(0, Relaxed);
    everywhere(|_| (0..ROUNDS).for_each(|_| ipi::on_each_cpu(count)));
    let cpus = cpu::count() as u64;
    ensure(COUNT.load(Relaxed) == ROUNDS * cpus * (cpus - 1), "calls were lost")
}

fn lock_excludes() -> Result<(), &'static str> {
    *LOCKED.lock() = 0;
    everywhere(|_| {
        for round in 0..ROUNDS {
            let mut value = LOCKED.lock();
            let read = *value;
            if round % 16 == 0 {
                ipi::on_each_cpu(count);
            }
            *value = read + 1;
        }
    });
    ensure(interrupts::enabled(), "interrupts are off")?;
    ensure(*LOCKED.lock() == ROUNDS * cpu::count() as u64, "an update was lost")
}
