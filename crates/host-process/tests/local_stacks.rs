//! Handlers have a stack of their own, whatever the thread has that hits the probe.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use host_process::local::{Counts, Handler, Hit, Kprobe, Kretprobe, Next, Process, Registered};
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! probed {
    ($($name:ident)*) => { $(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $name(n: u64) -> u64 {
            // Of its own: functions that are alike are made one.
            std::hint::black_box(stringify!($name));
            std::hint::black_box(n).wrapping_mul(2)
        }
    )* };
}

probed!(has_a_large_handler overflows_here overflows_at_its_return is_hit_in_a_handler keeps_signal_stack);

/// What std gives its threads.
const SMALL: usize = 8 << 10;
/// `SS_AUTODISARM` (Linux `include/uapi/linux/signal.h`).
const AUTODISARM: i32 = i32::MIN;

/// A handler that keeps the rules: those below use atomics and registers only; those that fault hold nothing.
fn handler<F: Copy>(function: F) -> Handler<F> {
    // SAFETY: see above.
    unsafe { Handler::new(function) }
}

fn counts(probe: &Registered) -> Counts {
    Process::start().unwrap().counts_of(probe).unwrap()
}

/// The thread's alternate signal stack: address, flags, bytes.
fn signal_stack() -> (usize, i32, usize) {
    // SAFETY: the kernel writes a `stack_t` to a local variable.
    let stack = unsafe {
        let mut stack: libc::stack_t = core::mem::zeroed();
        assert_eq!(libc::sigaltstack(core::ptr::null(), &raw mut stack), 0);
        stack
    };
    (stack.ss_sp as usize, stack.ss_flags, stack.ss_size)
}

/// Runs `f` in a thread whose alternate signal stack has so many bytes (0: it has none) and these flags.
fn with_signal_stack(bytes: usize, flags: i32, f: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut memory = vec![0u64; bytes / 8];
            let disabled = if bytes == 0 { libc::SS_DISABLE } else { 0 };
            let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: flags | disabled, ss_size: bytes };
            // SAFETY: the memory stays until the stack that was there before is set again.
            unsafe {
                let mut before: libc::stack_t = core::mem::zeroed();
                assert_eq!(libc::sigaltstack(&raw const stack, &raw mut before), 0);
                f();
                assert_eq!(libc::sigaltstack(&raw const before, core::ptr::null_mut()), 0);
            }
        });
    });
}

/// All that a thread may have.
const STACKS: [(usize, i32); 4] = [(0, 0), (SMALL, 0), (SMALL, AUTODISARM), (256 << 10, 0)];

static FILLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn fills_sixteen_kilobytes(hit: &mut Hit<'_>) -> Next {
    let mut room = [0u8; 16 << 10];
    room.fill(hit.regs().gpr[7] as u8);
    let sum: u64 = std::hint::black_box(&room).iter().map(|&byte| u64::from(byte)).sum();
    FILLED.fetch_add(sum, Ordering::Relaxed);
    Next::Step
}

#[test]
fn a_handler_may_use_more_than_a_signal_stack_has() {
    let process = Process::start().unwrap();
    let probe = Kprobe::symbol("has_a_large_handler").pre(handler(fills_sixteen_kilobytes));
    let probe = process.register(probe).unwrap();
    for (bytes, flags) in STACKS {
        with_signal_stack(bytes, flags, || assert_eq!((0_u64..100).map(|_| has_a_large_handler(3)).sum::<u64>(), 600));
    }
    let expected = STACKS.len() as u64 * 100 * 3 * (16 << 10);
    assert_eq!((FILLED.load(Ordering::Relaxed), counts(&probe).hits, counts(&probe).faults), (expected, 400, 0));
    process.unregister(probe).unwrap();
}

#[expect(unconditional_recursion, reason = "until the stack is full")]
fn recurses(n: u64) -> u64 {
    let mut room = [n; 128];
    std::hint::black_box(&mut room)[0] = recurses(std::hint::black_box(n + 1));
    room[0] + room[1]
}

extern "C" fn overflows(_: &mut Hit<'_>) -> Next {
    recurses(0);
    Next::Step
}

extern "C" fn overflows_after(_: &mut Hit<'_>, (): &mut ()) {
    recurses(0);
}

#[test]
fn a_handler_that_overflows_its_stack_is_ended_and_switched_off() {
    let process = Process::start().unwrap();
    for (bytes, flags) in STACKS {
        let probes = vec![
            Kprobe::symbol("overflows_here").pre(handler(overflows)).into(),
            Kretprobe::<()>::symbol("overflows_at_its_return").handler(handler(overflows_after)).into(),
        ];
        let probes = process.register_all(probes).unwrap();
        with_signal_stack(bytes, flags, || {
            let stack = signal_stack();
            assert_eq!((0_u64..3).map(|n| overflows_here(n) + overflows_at_its_return(n)).sum::<u64>(), 12);
            assert_eq!(signal_stack(), stack);
        });
        let faults: Vec<_> = probes.iter().map(|probe| counts(probe).faults).collect();
        assert_eq!(faults, [1, 1], "{bytes} {flags}");
        process.unregister_all(probes).unwrap();
    }
}

extern "C" fn hits_a_probe(hit: &mut Hit<'_>) -> Next {
    is_hit_in_a_handler(hit.regs().gpr[7]);
    Next::Step
}

static DELIVERED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

extern "C" fn notes_stack(_: i32) {
    let here = 0u8;
    DELIVERED[0].fetch_add(1, Ordering::Relaxed);
    DELIVERED[1].store(&raw const here as u64, Ordering::Relaxed);
}

#[test]
fn the_program_s_signal_stack_is_its_own_after_a_handler() {
    // SAFETY: the handler touches atomics only.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = notes_stack as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, core::ptr::null_mut()), 0);
    }
    let process = Process::start().unwrap();
    let outer = Kprobe::symbol("keeps_signal_stack").pre(handler(hits_a_probe));
    let probes = process.register_all(vec![outer.into(), Kprobe::symbol("is_hit_in_a_handler").into()]).unwrap();
    for (bytes, flags) in STACKS {
        with_signal_stack(bytes, flags, || {
            let stack = signal_stack();
            for _ in 0..20 {
                assert_eq!(keeps_signal_stack(4), 8);
                assert_eq!(signal_stack(), stack);
                let before = DELIVERED[0].load(Ordering::Relaxed);
                // SAFETY: a signal that has a handler.
                unsafe { libc::raise(libc::SIGUSR1) };
                assert_eq!(DELIVERED[0].load(Ordering::Relaxed), before + 1);
                let at = DELIVERED[1].load(Ordering::Relaxed) as usize;
                assert_eq!((stack.0..stack.0 + stack.2).contains(&at), bytes != 0, "{at:#x} {stack:x?}");
            }
        });
    }
    let all: Vec<_> = probes.iter().map(|p| (counts(p).hits, counts(p).missed)).collect();
    assert_eq!(all, [(80, 0), (0, 80)], "a probe that a handler hits is missed");
    process.unregister_all(probes).unwrap();
}
