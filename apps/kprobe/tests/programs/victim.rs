//! `victim CALLS THREADS [wait]`: calls `work` exactly CALLS * THREADS times, with allocations around it.
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static WORK: AtomicU64 = AtomicU64::new(0);

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn work(a: u64, b: u64) -> u64 {
    WORK.fetch_add(1, Relaxed);
    black_box(a).wrapping_mul(3).wrapping_add(black_box(b))
}

fn run(seed: u64, calls: u64) -> u64 {
    (0..calls).fold(0, |sum, i| {
        let kept = (i % 64 == 0).then(|| vec![i; 1 + i as usize % 100]);
        let sum = sum + work(seed, i);
        sum + black_box(kept).map_or(0, |kept| kept.len() as u64)
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let calls = arguments.next().map_or(1000, |text| text.parse().unwrap());
    let threads = arguments.next().map_or(1, |text| text.parse().unwrap());
    if arguments.next().is_some() {
        println!("ready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
    let parts: Vec<_> = (0..threads).map(|seed| std::thread::spawn(move || run(seed, calls))).collect();
    let sum: u64 = parts.into_iter().map(|part| part.join().unwrap()).sum();
    println!("sum={sum}\ncalls work={}", WORK.load(Relaxed));
    std::process::exit(7);
}
