//! Probes come and go while threads run through them.
//!
//! Four threads call a function as fast as they can. A probe that stays counts all of their calls; another one, with a
//! handler, comes to the same address and to the next instruction and goes again, so that chains change under fire and
//! text as well. At the end nothing is missing: the probe that stays has hits + missed = calls, and what the other one has
//! counted in all its lives is how often its handler ran.
//!
//! `cargo test -p host-process --release --test local_fire -- --ignored --nocapture` does it a million times.

use host_process::local::{Handler, Hit, Kprobe, Kretprobe, Next, Process, Regs, Watch};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

const THREADS: usize = 4;

static RAN: AtomicU64 = AtomicU64::new(0);
static ENTERED: AtomicU64 = AtomicU64::new(0);
static RETURNED: AtomicU64 = AtomicU64::new(0);

/// `push`; `lea`; `pop`; `ret`: an instruction of one byte, and one of four.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn local_fire_target(x: u64) -> u64 {
    core::arch::naked_asm!("push rbx", "lea rax, [rdi + 7]", "pop rbx", "ret")
}

extern "C" fn pre(_: &mut Hit<'_>) -> Next {
    RAN.fetch_add(1, Ordering::Relaxed);
    Next::Step
}

extern "C" fn entered(hit: &mut Hit<'_>, argument: &mut u64) -> Watch {
    ENTERED.fetch_add(1, Ordering::Relaxed);
    *argument = hit.regs().argument(1);
    Watch::Yes
}

extern "C" fn returned(hit: &mut Hit<'_>, argument: &mut u64) {
    let regs: &Regs = hit.regs();
    // Wrong data would be another call's.
    if regs.return_value() == *argument + 7 {
        RETURNED.fetch_add(1, Ordering::Relaxed);
    }
}

/// One at a time: they share what they count.
static FIRE: Mutex<()> = Mutex::new(());

fn fire(cycles: u64) {
    let _alone = FIRE.lock().unwrap_or_else(PoisonError::into_inner);
    [&RAN, &ENTERED, &RETURNED].iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    let process = Process::start().expect("kprobes starts");
    let entry = local_fire_target as *const () as u64;
    let stays = process.register(Kprobe::address(entry + 1)).expect("a counting probe");
    let calls = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let (mut hits, mut missed, mut watched, mut closed) = (0, 0, 0, 0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for x in 0..50 {
                        assert_eq!(black_box(local_fire_target)(x), x + 7);
                    }
                    calls.fetch_add(50, Ordering::Relaxed);
                }
            });
        }
        for cycle in 0..cycles {
            // SAFETY: it adds to an atomic.
            let pre = unsafe { Handler::new(pre as _) };
            // SAFETY: they use their data, atomics and the registers.
            let (entered, returned) = unsafe { (Handler::new(entered as _), Handler::new(returned as _)) };
            let probe = match cycle % 3 {
                0 => process.register(Kprobe::address(entry).pre(pre)),
                1 => process.register(Kprobe::address(entry + 1).pre(pre)),
                _ => process.register(Kretprobe::<u64>::address(entry).entry(entered).handler(returned)),
            };
            let probe = probe.expect("it registers");
            let counts = process.unregister(probe).map_err(|(_, error)| error).expect("it unregisters");
            missed += counts.missed;
            if cycle % 3 == 2 {
                (watched, closed) = (watched + counts.hits, closed + counts.returned);
            } else {
                hits += counts.hits;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let stayed = process.counts_of(&stays).expect("it is registered");
    assert_eq!(stayed.hits + stayed.missed, calls.load(Ordering::Relaxed), "calls of the probe that stays");
    assert_eq!(stayed.missed + missed, 0, "nothing here is hit in a handler");
    assert_eq!(hits, RAN.load(Ordering::Relaxed), "runs of the pre-handler");
    assert_eq!(watched, ENTERED.load(Ordering::Relaxed), "runs of the entry handler");
    assert_eq!(closed, RETURNED.load(Ordering::Relaxed), "runs of the return handler, with the data of their call");
    println!(
        "{cycles} cycles under {THREADS} threads: {} calls, {hits} hits and {watched} returns of probes that came and went",
        calls.load(Ordering::Relaxed)
    );
    process.unregister(stays).map_err(|(_, error)| error).expect("it unregisters");
}

#[test]
fn probes_come_and_go_under_fire() {
    fire(3_000);
}

#[test]
#[ignore = "takes some minutes"]
fn probes_come_and_go_under_fire_a_million_times() {
    fire(1_000_000);
}
