//! Panics go through functions whose returns are probed, and every activation is accounted for.

use host_process::local::Process;
use std::panic::catch_unwind;

#[inline(never)]
fn fails_at(depth: u64) -> u64 {
    assert!(std::hint::black_box(depth) > 0, "the bottom is reached");
    fails_at(depth - 1) + 1
}

#[inline(never)]
fn catches(depth: u64) -> bool {
    catch_unwind(|| fails_at(depth)).is_err()
}

#[test]
fn a_panic_through_probed_functions_is_caught() {
    let process = Process::start().unwrap();
    process.define_all(&["r:fails local_unwind::fails_at", "r:catches local_unwind::catches"]).unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    assert!((0..10).all(catches));
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(|| (0..10).all(catches))).collect();
    assert!(threads.into_iter().all(|t| t.join().unwrap()));
    let _ = std::panic::take_hook();
    let (fails, catches) = (process.counts("fails").unwrap(), process.counts("catches").unwrap());
    assert_eq!((fails.hits, fails.returned, fails.unwound), (4 * 55, 0, 4 * 55));
    assert_eq!((catches.hits, catches.returned, catches.unwound), (40, 40, 0));
    process.remove_all().unwrap();
}
