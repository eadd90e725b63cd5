//! Handlers of a program's own, called when it hits its own probes.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use host_process::local::{
    Counts, Cure, Error, Handler, Hit, Jprobe, Kprobe, Kretprobe, Next, Process, Registered, Watch, jprobe_return,
};
use std::sync::atomic::{AtomicU64, Ordering};

const RAX: usize = 0;
const RDI: usize = 7;

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

probed!(has_handlers is_switched has_a_mirror calls_probed_code inner has_a_bad_handler is_in_a_handler often_called);

/// A handler that keeps the rules: those below use atomics and registers only.
fn handler<F: Copy>(function: F) -> Handler<F> {
    // SAFETY: see above; the one that faults holds nothing.
    unsafe { Handler::new(function) }
}

fn counts(probe: &Registered) -> Counts {
    Process::start().unwrap().counts_of(probe).unwrap()
}

fn unregister(probe: Registered) {
    Process::start().unwrap().unregister(probe).unwrap();
}

static SEEN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

extern "C" fn adds_user_to_argument(hit: &mut Hit<'_>) -> Next {
    SEEN[0].store(hit.regs().gpr[RDI], Ordering::Relaxed);
    hit.regs_mut().gpr[RDI] += hit.user();
    Next::Step
}

extern "C" fn notes_address(hit: &mut Hit<'_>) {
    SEEN[1].store(hit.address(), Ordering::Relaxed);
}

#[test]
fn handlers_before_and_after_see_and_change_registers() {
    let process = Process::start().unwrap();
    let probe = Kprobe::symbol("has_handlers").pre(handler(adds_user_to_argument)).post(handler(notes_address)).user(5);
    let probe = process.register(probe).unwrap();
    assert_eq!(has_handlers(10), 30);
    let seen = SEEN.each_ref().map(|s| s.load(Ordering::Relaxed));
    assert_eq!(seen, [10, has_handlers as *const () as u64]);
    assert_eq!((counts(&probe).hits, process.nmissed(&probe).unwrap()), (1, 0));
    unregister(probe);
    assert_eq!(has_handlers(10), 20);
}

#[test]
fn a_probe_is_switched_off_and_on() {
    let process = Process::start().unwrap();
    let text = || {
        // SAFETY: code can be read.
        unsafe { (is_switched as *const u8).read_volatile() }
    };
    let before = text();
    let probe = process.register(Kprobe::symbol("is_switched").disabled()).unwrap();
    is_switched(1);
    assert_eq!((counts(&probe).hits, text()), (0, before));
    process.enable(&probe, true).unwrap();
    is_switched(1);
    assert!(counts(&probe).hits == 1 && text() != before);
    process.enable(&probe, false).unwrap();
    is_switched(1);
    assert_eq!((counts(&probe).hits, text()), (1, before));
    let listed = process.list().unwrap().into_iter().find(|p| p.name == "kprobes/p_is_switched_0").unwrap();
    assert!(listed.disabled && listed.place.ends_with("is_switched+0x0"), "{listed}");
    let copy = Registered::new(probe.id(), probe.serial());
    unregister(probe);
    assert!(matches!(process.enable(&copy, true), Err(Error::Gone)));
    assert!(matches!(process.unregister(copy), Err((_, Error::Gone))));
}

extern "C" fn keeps_depth(hit: &mut Hit<'_>, depth: &mut u64) -> Watch {
    *depth = hit.regs().gpr[RDI];
    if depth.is_multiple_of(2) { Watch::Yes } else { Watch::No }
}

extern "C" fn sums_differences(hit: &mut Hit<'_>, depth: &mut u64) {
    // The function returns n + (n - 1) + … for n calls.
    let expected = *depth * (*depth + 1) / 2;
    WRONG.fetch_add(u64::from(hit.regs().gpr[RAX] != expected), Ordering::Relaxed);
}

static WRONG: AtomicU64 = AtomicU64::new(0);

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn recurses(n: u64) -> u64 {
    if n == 0 { 0 } else { std::hint::black_box(n) + recurses(n - 1) }
}

#[test]
fn activations_keep_their_data_and_may_be_declined() {
    const THREADS: u64 = 3;
    const ROUNDS: u64 = 200;
    let process = Process::start().unwrap();
    let probe = Kretprobe::<u64>::symbol("recurses").entry(handler(keeps_depth)).handler(handler(sums_differences));
    let probe = process.register(probe).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..ROUNDS).for_each(|_| assert_eq!(recurses(9), 45)));
        }
    });
    let Counts { hits, returned, declined, missed, faults, .. } = counts(&probe);
    let half = THREADS * ROUNDS * 5;
    assert_eq!((hits, returned, declined, missed, faults), (half, half, half, 0, 0));
    assert_eq!(WRONG.load(Ordering::Relaxed), 0);
    unregister(probe);
}

extern "C" fn mirror(n: u64) {
    MIRRORED.fetch_add(n, Ordering::Relaxed);
    // SAFETY: in a mirror; nothing on the stack wants to be dropped.
    unsafe { jprobe_return() };
    MIRRORED.fetch_add(1 << 32, Ordering::Relaxed);
}

static MIRRORED: AtomicU64 = AtomicU64::new(0);

#[test]
fn a_mirror_sees_arguments_and_ends_where_it_likes() {
    let process = Process::start().unwrap();
    let mirror = handler(mirror as extern "C" fn(_));
    let probe = process.register(Jprobe::symbol("has_a_mirror", mirror)).unwrap();
    assert_eq!((0_u64..5).map(|n| has_a_mirror(n)).sum::<u64>(), 20);
    assert_eq!(MIRRORED.load(Ordering::Relaxed), 10);
    unregister(probe);
    let inside = has_a_mirror as *const () as u64 + 1;
    process.register(Jprobe::address(inside, mirror)).unwrap_err();
    // SAFETY: no handler runs: it comes back.
    unsafe { jprobe_return() };
}

extern "C" fn calls_inner(_: &mut Hit<'_>) -> Next {
    inner(1);
    Next::Step
}

#[test]
fn a_probe_that_a_handler_hits_is_missed() {
    let process = Process::start().unwrap();
    let outer = Kprobe::symbol("calls_probed_code").pre(handler(calls_inner));
    let probes = vec![outer.into(), Kprobe::symbol("inner").into(), Kretprobe::<()>::symbol("inner").into()];
    let probes = process.register_all(probes).unwrap();
    calls_probed_code(1);
    inner(1);
    let all: Vec<_> = probes.iter().map(|p| (counts(p).hits, counts(p).missed)).collect();
    assert_eq!(all, [(1, 0), (1, 1), (1, 1)]);
    process.unregister_all(probes).unwrap();
}

extern "C" fn writes_to_nowhere(_: &mut Hit<'_>) -> Next {
    // SAFETY: none; the fault ends the handler.
    unsafe { core::arch::asm!("mov qword ptr [{0}], 1", in(reg) 0x10_u64) };
    Next::Step
}

extern "C" fn cures_nothing(_: &mut Hit<'_>) -> Cure {
    Cure::No
}

#[test]
fn a_handler_that_faults_is_ended_and_switched_off() {
    let process = Process::start().unwrap();
    let probe = Kprobe::symbol("has_a_bad_handler").pre(handler(writes_to_nowhere)).fault(handler(cures_nothing));
    let probe = process.register(probe).unwrap();
    assert_eq!((0_u64..3).map(|n| has_a_bad_handler(n)).sum::<u64>(), 6);
    assert!(counts(&probe).faults >= 1, "{:?}", counts(&probe));
    unregister(probe);
}

extern "C" fn asks_control(_: &mut Hit<'_>) -> Next {
    let refused = Process::start().and_then(|process| process.list().map(drop));
    IN_HANDLER.fetch_add(u64::from(matches!(refused, Err(Error::InHandler))), Ordering::Relaxed);
    Next::Step
}

static IN_HANDLER: AtomicU64 = AtomicU64::new(0);

#[test]
fn a_handler_cannot_use_control() {
    let process = Process::start().unwrap();
    let probe = process.register(Kprobe::symbol("is_in_a_handler").pre(handler(asks_control))).unwrap();
    is_in_a_handler(1);
    assert_eq!(IN_HANDLER.load(Ordering::Relaxed), 1);
    unregister(probe);
}

extern "C" fn counts_calls(hit: &mut Hit<'_>) -> Next {
    // SAFETY: the address of a static, by the tests below.
    unsafe { &*(hit.user() as *const AtomicU64) }.fetch_add(1, Ordering::Relaxed);
    Next::Step
}

#[test]
fn functions_of_the_c_library_call_handlers() {
    static CALLS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    let process = Process::start().unwrap();
    let names = ["libc.so.6:malloc", "libc.so.6:memmove", "free"];
    let probe = |(name, calls): (&'static str, &AtomicU64)| {
        Kprobe::symbol(name).pre(handler(counts_calls)).user((&raw const *calls) as u64).into()
    };
    let probes = process.register_all(names.into_iter().zip(&CALLS).map(probe).collect()).unwrap();
    for n in 0..100_usize {
        let mut bytes = vec![n as u8; 4096];
        bytes.copy_within(n..2048, n + 100);
        drop(std::hint::black_box(bytes));
    }
    for (probe, calls) in probes.iter().zip(&CALLS) {
        let calls = calls.load(Ordering::Relaxed);
        let counts = counts(probe);
        assert!(calls >= 100 && counts.hits >= calls && counts.faults == 0, "{calls} {counts:?}");
    }
    process.unregister_all(probes).unwrap();
}

#[test]
fn a_thousand_registrations_under_running_threads() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let process = Process::start().unwrap();
    let stop = AtomicU64::new(0);
    let hits = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    assert_eq!(often_called(2), 4);
                }
            });
        }
        let mut hits = 0;
        for round in 0..1000 {
            let probe = Kprobe::symbol("often_called").pre(handler(counts_calls)).user((&raw const CALLS) as u64);
            let probe = process.register(probe).unwrap();
            while round % 100 == 0 && counts(&probe).hits == 0 {
                std::thread::yield_now();
            }
            let last = Registered::new(probe.id(), probe.serial());
            process.enable(&last, false).unwrap();
            // Handlers that ran when it was switched off end before it is unregistered; nobody counts after that.
            let before = counts(&last);
            unregister(probe);
            hits += before.hits;
            assert_eq!(before.missed, 0);
        }
        stop.store(1, Ordering::Relaxed);
        hits
    });
    assert!(hits.abs_diff(CALLS.load(Ordering::Relaxed)) <= 3000 && hits > 0, "{hits} {CALLS:?}");
}

#[test]
fn a_batch_is_registered_whole_or_not_at_all() {
    let process = Process::start().unwrap();
    let batch = vec![Kprobe::symbol("recurses").into(), Kprobe::symbol("no_such_function").into()];
    let (index, error) = process.register_all(batch).unwrap_err();
    assert!(index == 1 && error.to_string().contains("no_such_function"), "{error}");
    assert!(process.list().unwrap().iter().all(|p| p.name != "kprobes/p_recurses_0"));
}

#[unsafe(link_section = ".kprobes.text")]
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn forbids_probes(n: u64) -> u64 {
    std::hint::black_box(n) + 1
}

#[test]
fn functions_that_forbid_probes_are_refused_and_listed() {
    let process = Process::start().unwrap();
    forbids_probes(1);
    let refused = process.register(Kprobe::symbol("forbids_probes")).unwrap_err();
    assert!(matches!(&refused, Error::Forbidden { name, .. } if name == "forbids_probes"), "{refused}");
    assert!(matches!(process.define("p forbids_probes"), Err(Error::Forbidden { .. })));
    let listed = process.blacklist().unwrap();
    let address = forbids_probes as *const () as u64;
    assert!(listed.iter().any(|f| f.range.start == address && f.name.ends_with(":forbids_probes")), "{listed:?}");
}

#[test]
fn a_symbol_of_several_objects_must_be_given_with_one() {
    let process = Process::start().unwrap();
    // The dynamic linker and the C library have one each.
    let refused = process.register(Kprobe::symbol("_dl_catch_error")).unwrap_err().to_string();
    assert!(refused.contains("several objects") && refused.contains("libc.so.6:_dl_catch_error"), "{refused}");
    let refused = process.register(Kprobe::symbol("libnone.so:f")).unwrap_err().to_string();
    assert!(refused.contains("no object `libnone.so`"), "{refused}");
}
