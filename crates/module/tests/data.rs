//! Output, and data of processors, threads and the target.

#[expect(dead_code, reason = "shared by all tests")]
mod host;

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use host::{ERRNO, PRINTED, PROCESSOR, THREAD, printed};
use module::{Counter, Errno, LINE_BYTES, PROCESSORS, PerCpu, PerThread, println, read, read_bytes, read_string};
use std::collections::BTreeSet;
use std::env::current_exe;
use std::process::Command;

#[test]
fn a_line_reaches_the_host_in_one_piece() {
    let name = "it";
    println!("{name} has {} of {0:#x}", 16);
    println!();
    module::print!("no end");
    assert_eq!(PRINTED.take(), ["it has 16 of 0x10\n", "\n", "no end"]);
}

#[test]
fn longer_output_is_whole_and_its_pieces_are_text() {
    let long = "aé€".repeat(LINE_BYTES);
    println!("{long}");
    let pieces = PRINTED.take();
    assert!(pieces.iter().all(|piece| piece.len() <= LINE_BYTES));
    assert_eq!(pieces.concat(), format!("{long}\n"));
}

#[test]
fn a_counter_is_the_sum_of_all_processors() {
    static HITS: Counter = Counter::new();
    for processor in 0..1000 {
        PROCESSOR.set(processor);
        HITS.add(2);
    }
    assert_eq!(HITS.sum(), 2000);
}

#[test]
fn each_processor_has_its_own_value_in_lines_of_its_own() {
    static VALUES: PerCpu<AtomicU64> = PerCpu::new();
    let of = |processor| {
        PROCESSOR.set(processor);
        core::ptr::from_ref(VALUES.get()) as usize
    };
    let addresses: BTreeSet<_> = (0..PROCESSORS as u32).map(of).collect();
    assert_eq!(addresses.len(), PROCESSORS);
    assert!(addresses.iter().zip(addresses.iter().skip(1)).all(|(a, b)| b - a >= 128));
    assert_eq!(of(3), of(3 + PROCESSORS as u32));
}

#[test]
fn each_thread_finds_its_own_value_again() {
    static DEPTHS: PerThread<AtomicU64, 100> = PerThread::new();
    for thread in 1..=100 {
        THREAD.set(thread * 1000);
        assert!(DEPTHS.peek().is_none());
        DEPTHS.get().unwrap().store(thread, Relaxed);
    }
    for thread in 1..=100 {
        THREAD.set(thread * 1000);
        assert_eq!(DEPTHS.get().unwrap().load(Relaxed), thread);
    }
    THREAD.set(7);
    assert!(DEPTHS.get().is_none(), "all places are taken");
    assert_eq!(DEPTHS.iter().filter(|(thread, value)| *thread == value.load(Relaxed) * 1000).count(), 100);
}

#[test]
fn a_place_that_is_left_is_used_again_and_those_behind_it_are_found() {
    static DEPTHS: PerThread<AtomicU64, 4> = PerThread::new();
    let get = |thread| {
        THREAD.set(thread);
        DEPTHS.get()
    };
    for thread in 1..=4 {
        get(thread).unwrap().store(thread, Relaxed);
    }
    assert!(get(5).is_none());
    THREAD.set(2);
    DEPTHS.leave(|depth| depth.store(0, Relaxed));
    DEPTHS.leave(|_| panic!("there is no place any more"));
    assert_eq!([1, 3, 4].map(|thread| get(thread).unwrap().load(Relaxed)), [1, 3, 4]);
    assert_eq!(get(5).unwrap().load(Relaxed), 0);
}

#[test]
fn numbers_of_threads_that_look_like_marks_are_threads() {
    static DEPTHS: PerThread<AtomicU64, 4> = PerThread::new();
    for thread in [0, u64::MAX - 2] {
        THREAD.set(thread);
        DEPTHS.get().unwrap().store(thread, Relaxed);
        assert_eq!(DEPTHS.peek().unwrap().load(Relaxed), thread);
    }
}

#[test]
fn a_table_without_places_has_none() {
    static NONE: PerThread<AtomicU64, 0> = PerThread::new();
    assert!(NONE.get().is_none() && NONE.peek().is_none());
}

#[test]
fn threads_that_run_at_once_get_places_of_their_own() {
    static DEPTHS: PerThread<AtomicU64, 64> = PerThread::new();
    let counts = |thread: u64| {
        THREAD.set(thread);
        (0..1000).for_each(|_| _ = DEPTHS.get().unwrap().fetch_add(1, Relaxed));
        DEPTHS.get().unwrap().load(Relaxed)
    };
    let totals: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=16).map(|thread| scope.spawn(move || counts(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(totals, [1000; 16]);
}

#[test]
fn memory_is_read_or_not() {
    let value = [1_u32, 2];
    let address = value.as_ptr() as u64;
    assert_eq!((read::<[u32; 2]>(address), read::<u64>(8)), (Some([1, 2]), None));
    let mut bytes = [9; 4];
    assert!(read_bytes(address, &mut bytes) && !read_bytes(8, &mut bytes));
    assert_eq!(bytes, [1, 0, 0, 0]);
}

#[test]
fn strings_are_cut_and_shown_without_control_characters() {
    let string = c"path\n\xffend";
    let address = string.as_ptr() as u64;
    let read = read_string::<64>(address).unwrap();
    assert_eq!((read.to_string().as_str(), read.as_bytes()), ("path\\n\u{fffd}end", &b"path\n\xffend"[..]));
    assert_eq!(read_string::<4>(address).unwrap().to_string(), "path");
    assert!(read_string::<64>(8).is_none());
    assert_eq!(module::comm().to_string(), "worker\\n\u{fffd}");
}

#[test]
fn what_is_asked_of_the_host_is_what_it_says() {
    THREAD.set(5);
    PROCESSOR.set(6);
    assert_eq!((module::thread(), module::process(), module::cpu(), module::now()), (5, 4711, 6, 12));
    assert_eq!(module::symbol("nothing"), None);
    assert_eq!(printed(), "");
}

#[test]
fn a_kernels_results_are_error_numbers() {
    let errno = Errno::new();
    let of = |result: i64| errno.of(result as u64);
    assert_eq!((of(-2), of(-4095), of(-4096), of(0), of(7)), (Some(2), Some(4095), None, None, None));
}

#[test]
fn a_c_library_tells_its_error_number_when_asked_in_the_thread() {
    let errno = Errno::new();
    errno.find();
    ERRNO.set(28);
    assert_eq!((errno.of(-1_i64 as u64), errno.of(0xffff_ffff), errno.of(3)), (Some(28), Some(28), None));
}

module::nokprobe! {
    fn unprobed(x: u64) -> u64 {
        x + 1
    }
}

/// Looks into this program's own file.
#[test]
fn functions_are_put_where_no_probe_may_be() {
    assert_eq!(std::hint::black_box(unprobed as fn(u64) -> u64)(1), 2);
    let Ok(listed) = Command::new("objdump").args(["-t", "-j", ".kprobes.text"]).arg(current_exe().unwrap()).output()
    else {
        eprintln!("SKIPPED: no objdump");
        return;
    };
    let symbols = String::from_utf8_lossy(&listed.stdout);
    assert!(symbols.contains("unprobed"), "{symbols}");
    assert!(!symbols.contains("memory_is_read"), "{symbols}");
}
