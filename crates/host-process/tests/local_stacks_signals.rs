//! Signals that are sent to a thread while it calls handlers, on its alternate signal stack.

use host_process::local::{Handler, Hit, Kprobe, Next, Process};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn is_hit_all_the_time(n: u64) -> u64 {
    std::hint::black_box(n) + 1
}

static CALLS: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);

extern "C" fn counts(_: &mut Hit<'_>) -> Next {
    CALLS.fetch_add(1, Ordering::Relaxed);
    Next::Step
}

extern "C" fn on_fault(_: i32) {
    FAULTS.fetch_add(1, Ordering::Release);
}

/// Gives the running thread an alternate signal stack with room for several frames: a signal may come while another's
/// handler runs. The memory stays.
fn use_signal_stack() {
    let memory = vec![0u64; 1 << 17].leak();
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: size_of_val(memory) };
    // SAFETY: nobody else uses the memory, which is never freed.
    assert_eq!(unsafe { libc::sigaltstack(&raw const stack, core::ptr::null_mut()) }, 0);
}

/// The signals of faults are not masked in our own handler, and go to the thread's alternate stack.
#[test]
fn a_signal_at_any_instruction_finds_a_stack_that_nobody_uses() {
    const HITS: u64 = 30_000;
    // SAFETY: the handler touches an atomic only.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGFPE, &raw const action, core::ptr::null_mut()), 0);
    }
    let process = Process::start().unwrap();
    // SAFETY: the handler touches an atomic only.
    let pre = unsafe { Handler::new(counts as extern "C" fn(&mut Hit<'_>) -> Next) };
    let probe = process.register(Kprobe::symbol("is_hit_all_the_time").pre(pre)).unwrap();
    let (tid, done) = (AtomicI32::new(0), AtomicBool::new(false));
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| {
            use_signal_stack();
            // SAFETY: has no argument.
            tid.store(unsafe { libc::gettid() }, Ordering::Release);
            (0..HITS).for_each(|n| assert_eq!(is_hit_all_the_time(n), n + 1));
            done.store(true, Ordering::Release);
        });
        let mut sent = 0u64;
        while tid.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        let tid = tid.load(Ordering::Acquire);
        while !done.load(Ordering::Acquire) {
            let before = FAULTS.load(Ordering::Acquire);
            // So that it comes at other places each time.
            (0..sent % 509).for_each(|_| std::hint::spin_loop());
            // SAFETY: has no memory argument; the thread is joined later.
            if unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGFPE) } == 0 {
                sent += 1;
            }
            // One at a time, or their frames would fill any stack.
            while FAULTS.load(Ordering::Acquire) == before && !done.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        }
        sent
    });
    let faults = FAULTS.load(Ordering::Relaxed);
    assert!(faults > 0 && faults <= sent, "{faults} of {sent}: signals that wait are one");
    assert_eq!((CALLS.load(Ordering::Relaxed), process.counts_of(&probe).unwrap().missed), (HITS, 0));
    process.unregister(probe).unwrap();
}
