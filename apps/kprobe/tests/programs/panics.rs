//! `panics SCENARIO`: Rust panics through probed functions.
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static HOP: AtomicU64 = AtomicU64::new(0);

#[unsafe(no_mangle)]
#[inline(never)]
fn hop(next: &mut dyn FnMut()) {
    HOP.fetch_add(1, Relaxed);
    next();
    black_box(());
}

struct Noisy(&'static str);
impl Drop for Noisy {
    fn drop(&mut self) {
        println!("dropped {}", self.0);
    }
}

fn caught(body: &mut dyn FnMut()) -> bool {
    catch_unwind(AssertUnwindSafe(body)).is_err()
}

fn simple() {
    for i in 0..10 {
        let result = caught(&mut || {
            hop(&mut || {
                let _noisy = Noisy("inside");
                if i % 2 == 0 {
                    panic!("even");
                }
            })
        });
        println!("{i} caught={result}");
    }
}

fn nested() {
    let outer = caught(&mut || {
        hop(&mut || {
            let _noisy = Noisy("outer");
            let inner = catch_unwind(AssertUnwindSafe(|| {
                hop(&mut || {
                    let _noisy = Noisy("inner");
                    hop(&mut || panic!("deep"));
                })
            }));
            println!("inner caught={}", inner.is_err());
            hop(&mut || println!("between"));
            resume_unwind(inner.unwrap_err());
        })
    });
    println!("outer caught={outer}");
}

fn threads() {
    let workers: Vec<_> = (0..4u32)
        .map(|seed| {
            std::thread::spawn(move || {
                (0..500).filter(|i| caught(&mut || hop(&mut || hop(&mut || assert!((i + seed) % 3 != 0))))).count()
            })
        })
        .collect();
    let counts: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    println!("caught {counts:?}");
    println!("thread died={}", std::thread::spawn(|| hop(&mut || panic!("thread"))).join().is_err());
}

fn backtraces() {
    for _ in 0..5 {
        hop(&mut || {
            hop(&mut || {
                let text = std::backtrace::Backtrace::force_capture().to_string();
                println!("main seen={} hops={}", text.contains("main"), text.matches("hop").count());
            })
        });
    }
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    match std::env::args().nth(1).as_deref() {
        Some("simple") => simple(),
        Some("nested") => nested(),
        Some("threads") => threads(),
        Some("backtraces") => backtraces(),
        _ => std::process::exit(2),
    }
    println!("calls hop={}", HOP.load(Relaxed));
}
