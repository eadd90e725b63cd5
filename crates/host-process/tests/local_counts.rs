//! A program that counts in itself: nothing is lost, under threads and while probes come and go.

use host_process::local::Process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const THREADS: u64 = 3;

macro_rules! probed {
    ($($name:ident)*) => { $(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $name(n: u64) -> u64 {
            // Of its own: functions that are alike are made one.
            std::hint::black_box(stringify!($name));
            std::hint::black_box(n).wrapping_mul(3) ^ 5
        }
    )* };
}

probed!(counted_exactly counted_while_it_comes_and_goes counted_by_many);

/// Calls `f` in some threads until told to stop; how often in all.
fn call_until(stop: &AtomicBool, calls: &AtomicU64, f: extern "C" fn(u64) -> u64) {
    let mut sum = 0;
    while !stop.load(Ordering::Relaxed) {
        sum = f(sum);
        calls.fetch_add(1, Ordering::Relaxed);
    }
    std::hint::black_box(sum);
}

/// The rings are the process's: a test that is sure of its records has no other beside it.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn hits_of_several_threads_are_exact() {
    let _alone = alone();
    const CALLS: u64 = 20_000;
    let process = Process::start().unwrap();
    process.define_all(&["p:entries counted_exactly", "r:returns counted_exactly sum=$retval"]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..CALLS).map(|n| counted_exactly(n)).fold(0, u64::wrapping_add));
        }
    });
    let (entries, returns) = (process.counts("entries").unwrap(), process.counts("returns").unwrap());
    assert_eq!((entries.hits, entries.missed), (THREADS * CALLS, 0));
    assert_eq!((returns.hits + returns.missed, returns.returned), (THREADS * CALLS, returns.hits));
    assert_eq!(returns.missed, 0);
    process.remove("entries").unwrap();
    process.remove("kprobes/returns").unwrap();
    counted_exactly(1);
    assert!(process.counts("entries").is_err() && process.counts("returns").is_err());
}

#[test]
fn a_thousand_probes_come_and_go_under_running_threads() {
    let _alone = alone();
    const ROUNDS: usize = 1000;
    let process = Process::start().unwrap();
    let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    let f = counted_while_it_comes_and_goes;
    let hits = std::thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(|| call_until(&stop, &calls, f))));
        let mut hits = 0;
        for round in 0..ROUNDS {
            let kind = if round % 2 == 0 { "p" } else { "r" };
            process.define(&format!("{kind}:churn counted_while_it_comes_and_goes")).unwrap();
            while process.counts("churn").unwrap().hits == 0 {
                std::thread::yield_now();
            }
            hits += process.counts("churn").unwrap().hits;
            process.remove("churn").unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        hits
    });
    let calls = calls.load(Ordering::Relaxed);
    assert!(hits >= ROUNDS as u64 && hits <= calls, "{hits} hits of {calls} calls");
    assert!(process.list().unwrap().iter().all(|p| p.name != "kprobes/churn"));
}

#[test]
fn every_probe_at_an_address_counts() {
    let _alone = alone();
    let process = Process::start().unwrap();
    // Other tests' records may have filled the rings.
    drop(process.take_records().unwrap());
    let lines: Vec<String> = (0..8).map(|i| format!("p:many{i} counted_by_many n=$arg1")).collect();
    process.define_all(&lines.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    (0_u64..100).map(|n| counted_by_many(n)).for_each(drop);
    for i in 0..8 {
        let counts = process.counts(&format!("many{i}")).unwrap();
        assert_eq!((counts.hits, counts.lost), (100, 0));
        process.remove(&format!("many{i}")).unwrap();
    }
    // Records outlive their probe.
    let records = process.take_records().unwrap();
    let of_first: Vec<String> = records.iter().filter(|r| r.event() == "many0").map(ToString::to_string).collect();
    assert_eq!(of_first.len(), 100);
    assert!((0..100).zip(&of_first).all(|(n, text)| text.ends_with(&format!(" n={n:#x}"))), "{of_first:?}");
}
