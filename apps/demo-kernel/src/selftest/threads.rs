//! Threads.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Check, ensure};
use crate::arch::{cpu, interrupts, time};
use crate::{mm, sched};

pub(super) const CHECKS: &[Check] = &[
    ("busy threads are preempted", preemption),
    ("a thread with preemption off is not", preemption_off),
    ("pinned threads stay", pinned_stay),
    ("sleeping takes its time", sleeping),
    ("threads have numbers and names of their own", identity),
    ("a thousand threads, their stacks used again", many_threads),
];

const BUSY: usize = 4;
static PROGRESS: [AtomicU64; BUSY] = [const { AtomicU64::new(0) }; BUSY];
static STOP: AtomicBool = AtomicBool::new(false);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn preemption() -> Result<(), &'static str> {
    STOP.store(false, Relaxed);
    let busy = |index: usize| {
        while !STOP.load(Relaxed) {
            PROGRESS[index].fetch_add(1, Relaxed);
        }
    };
    let threads: alloc::vec::Vec<_> = (0..BUSY).map(|i| sched::spawn("busy", busy, i)).collect();
    let all = (0..100).any(|_| {
        sched::sleep_ms(20);
        PROGRESS.iter().all(|progress| progress.load(Relaxed) > 1000)
    });
    STOP.store(true, Relaxed);
    threads.into_iter().for_each(sched::join);
    ensure(all, "one of them made no progress")
}

fn preemption_off() -> Result<(), &'static str> {
    SEEN.store(0, Relaxed);
    sched::preempt_disable();
    let me = cpu::id();
    let other = sched::spawn_on(Some(me), "other", |_| SEEN.store(1, Relaxed), 0);
    let ticks = cpu::block(me).ticks.load(Relaxed);
    while cpu::block(me).ticks.load(Relaxed) < ticks + 4 {
        core::hint::spin_loop();
    }
    let undisturbed = SEEN.load(Relaxed) == 0 && cpu::id() == me;
    sched::preempt_enable();
    sched::join(other);
    ensure(undisturbed, "another thread ran")?;
    ensure(SEEN.load(Relaxed) == 1, "the other thread never ran")
}

fn pinned_stay() -> Result<(), &'static str> {
    let stays = (0..cpu::count()).all(|id| {
        sched::pin(id);
        (0..10).all(|_| {
            sched::yield_now();
            cpu::id() == id
        })
    });
    sched::unpin();
    ensure(stays, "one moved")
}

fn sleeping() -> Result<(), &'static str> {
    let before = time::now_ns();
    sched::sleep_ms(30);
    ensure(time::now_ns() - before >= 30_000_000, "it woke too early")?;
    ensure(interrupts::enabled(), "it woke with interrupts off")
}

fn identity() -> Result<(), &'static str> {
    SEEN.store(0, Relaxed);
    let id = sched::spawn(
        "somebody",
        |_| {
            if sched::current_name() == "somebody" {
                SEEN.store(sched::current(), Relaxed);
            }
        },
        0,
    );
    sched::join(id);
    ensure(SEEN.load(Relaxed) == id && id != sched::current(), "not its number or name")
}

fn add(amount: usize) {
    SEEN.fetch_add(amount as u64, Relaxed);
}

fn many_threads() -> Result<(), &'static str> {
    SEEN.store(0, Relaxed);
    let (alive, frames, heap) = (sched::thread_count(), mm::frames::in_use(), mm::heap_used());
    for _ in 0..100 {
        let spawn = |i| sched::spawn("one of many", add, i);
        let threads: alloc::vec::Vec<_> = (0..10).map(spawn).collect();
        threads.into_iter().for_each(sched::join);
    }
    ensure(SEEN.load(Relaxed) == 100 * 45, "some did not run")?;
    ensure(sched::thread_count() == alive, "some are left")?;
    ensure(mm::frames::in_use() - frames < 10 * 16, "stacks are not used again")?;
    ensure(mm::heap_used() < heap + 100_000, "threads are not freed")
}
