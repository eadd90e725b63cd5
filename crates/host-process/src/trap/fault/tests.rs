//! Handlers that fault: the agent's own handlers of signals run in this very process.

use super::*;
use crate::abi::{Identity, Shared, shared_bytes, stacks};
use crate::trap::actions::UNBLOCKABLE;
use crate::trap::{Memory, signals};
use arch::x86::handlers::Around;
use cpu::Recovery;
use hit::{Counters, Next, Watch};
use std::sync::OnceLock;
use sync::ActiveSet;

/// Zeroed memory that stays, of a type for which that is a value.
fn zeroed(bytes: usize) -> u64 {
    let layout = std::alloc::Layout::from_size_align(bytes, 4096).unwrap();
    // SAFETY: the size is not 0.
    unsafe { std::alloc::alloc_zeroed(layout) as u64 }
}

/// Memory without any right of access, as the tool maps it.
fn mapped(bytes: u64) -> u64 {
    const MMAP: u64 = 9;
    const PRIVATE_ANONYMOUS_NORESERVE: u64 = 0x4022;
    // SAFETY: maps memory where nothing is.
    let at = unsafe { cpu::syscall(MMAP, [0, bytes, 0, PRIVATE_ANONYMOUS_NORESERVE, u64::MAX, 0]) };
    assert!(at > 0, "mmap: {at}");
    at.cast_unsigned()
}

/// What the agent needs, for a process that counts, into a bank that nobody reads.
fn home() -> &'static Home {
    let at = zeroed(size_of::<Home>());
    // SAFETY: a `Home` of zero bytes is one with nothing in it.
    let home = unsafe { &*(at as *const Home) };
    let (identity, shared) = (zeroed(size_of::<Identity>()), zeroed(shared_bytes(1)));
    home.identity.store(identity, Ordering::Relaxed);
    home.shared.store(shared, Ordering::Relaxed);
    home.stacks.area.store(mapped(stacks::AREA_BYTES), Ordering::Relaxed);
    // SAFETY: both are as large, and all zeroes are valid.
    let (identity, shared) = unsafe { (&*(identity as *const Identity), &*(shared as *const Shared)) };
    shared.banks_mapped.store(1, Ordering::Relaxed);
    identity.bank.store(1, Ordering::Relaxed);
    identity.pid.store(u64::from(std::process::id()), Ordering::Release);
    home
}

/// The agent, started in this process.
fn agent() -> Memory {
    static HOME: OnceLock<&'static Home> = OnceLock::new();
    let home = HOME.get_or_init(|| {
        let home = home();
        // SAFETY: the memory is never freed, and has what `Home` says.
        assert_eq!(unsafe { start(home) }, 0);
        home
    });
    Memory { home }
}

/// A frame of a signal that has interrupted a program with this mask, and no alternate signal stack.
fn context(mask: u64) -> [u64; 128] {
    let mut context = [0u64; 128];
    context[296 / 8] = mask;
    context
}

/// Calls `function` as a probe's handler is called, in a thread whose interrupted program has masked `mask`.
fn handle(mask: u64, function: extern "C" fn(*mut u8) -> u64, argument: u64) -> Option<u64> {
    let memory = agent();
    let mut context = context(mask);
    // SAFETY: as large as the kernel's, and nobody else knows it.
    let mut frame = unsafe { SignalFrame::new(context.as_mut_ptr().cast()) };
    let before = signals::set_mask(mask);
    let host = TrapHost::new(memory, &mut frame);
    let place = host.enter().expect("nothing else runs in this thread");
    // SAFETY: the tests' functions take these arguments, and hold nothing that must be dropped.
    let call = |recovery: &Recovery| unsafe {
        recovery.call(function as *const () as u64, argument as *mut u8, core::ptr::null_mut())
    };
    let running = host.running().expect("it has a place");
    let said = host.calling(|| call(running.recovery())).expect("there are stacks for all tests");
    assert!(super::place(&host).is_some_and(|running| !running.is_calling()));
    ActiveSet::leave(place);
    assert_eq!(signals::set_mask(before), mask & !UNBLOCKABLE, "the mask is as it was");
    said
}

extern "C" fn loads(argument: *mut u8) -> u64 {
    let value: u64;
    // SAFETY: the tests pass a word's address, or one that faults before anything is read.
    unsafe { core::arch::asm!("mov {}, [{}]", out(reg) value, in(reg) argument) };
    value
}

extern "C" fn stores(argument: *mut u8) -> u64 {
    let value: u64;
    // SAFETY: as in `loads`; what is written is what stands there.
    unsafe { core::arch::asm!("mov {0}, [{1}]", "mov [{1}], {0}", out(reg) value, in(reg) argument) };
    value
}

extern "C" fn undefined(_: *mut u8) -> u64 {
    // SAFETY: the processor raises an exception, nothing else.
    unsafe { core::arch::asm!("ud2") };
    0
}

extern "C" fn divides(argument: *mut u8) -> u64 {
    let quotient: u64;
    // SAFETY: divides by a number, which may be 0: an exception then.
    unsafe {
        core::arch::asm!("div {}", in(reg) argument, inout("rax") 12u64 => quotient, inout("rdx") 0u64 => _);
    }
    quotient
}

#[test]
fn a_handler_that_faults_ends_and_nothing_else() {
    let word = 5u64;
    for _ in 0..20 {
        assert_eq!(handle(0, loads, (&raw const word) as u64), Some(5));
        assert_eq!(handle(0, loads, 0), None);
        assert_eq!(handle(0, loads, 1 << 60), None, "no canonical address");
        assert_eq!(handle(0, stores, (&raw const word) as u64), Some(5));
        assert_eq!(handle(0, stores, stores as *const () as u64), None, "text");
        assert_eq!(handle(0, undefined, 0), None);
        assert_eq!(handle(0, divides, 4), Some(3));
        assert_eq!(handle(0, divides, 0), None);
    }
}

/// Calls itself for ever, with a frame of a kilobyte.
#[expect(unconditional_recursion, reason = "until the stack is full")]
extern "C" fn recurses(argument: *mut u8) -> u64 {
    let mut room = [0u64; 128];
    core::hint::black_box(&mut room)[0] = recurses(core::hint::black_box(argument));
    room[0] + room[1]
}

/// Writes to all of a stack but what was used already.
extern "C" fn fills(_: *mut u8) -> u64 {
    let mut room = [1u8; 60 << 10];
    core::hint::black_box(&mut room).iter().map(|&byte| u64::from(byte)).sum()
}

#[test]
fn a_handler_has_a_large_stack_and_ends_when_it_leaves_it() {
    for _ in 0..3 {
        assert_eq!(handle(0, fills, 0), Some(60 << 10));
        assert_eq!(handle(0, recurses, 0), None);
        assert_eq!(handle(FAULT_BITS, recurses, 0), None);
    }
}

#[test]
fn without_a_stack_a_handler_is_not_called_and_its_probe_is_missed() {
    let memory = Memory { home: home() };
    let mut context = context(0);
    // SAFETY: as large as the kernel's, and nobody else knows it.
    let mut frame = unsafe { SignalFrame::new(context.as_mut_ptr().cast()) };
    let host = TrapHost::new(memory, &mut frame);
    let owners = &memory.home.stacks.owners;
    assert_eq!(host.calling(|| owners.iter().filter(|o| o.load(Ordering::Relaxed) == host.tid()).count()), Some(1));
    owners.iter().for_each(|o| assert_eq!(o.swap(1, Ordering::Relaxed), 0));
    let probe = &memory.home.probes[0];
    probe.handlers.before.store(8, Ordering::Relaxed);
    probe.handlers.after.store(8, Ordering::Relaxed);
    let counters = host.counters(0).expect("it counts");
    Counters::add(&counters.hits);
    let mut regs = Regs::default();
    assert_eq!(host.handle(probe, &mut regs), Next::Step);
    assert_eq!(host.entered(probe, 0, &mut regs), Watch::No);
    host.returned(probe, 0, 0, &mut regs);
    assert!(!host.faulted(probe, &mut regs, 14));
    let [hits, missed] = [&counters.hits, &counters.missed].map(|c| c.load(Ordering::Relaxed));
    assert_eq!((hits, missed), (0, 3));
    owners[77].store(0, Ordering::Relaxed);
    assert_eq!(host.calling(|| 5), Some(5), "the last one that is free");
    assert_eq!(owners[77].load(Ordering::Relaxed), 0);
}

#[test]
fn a_program_that_masks_the_signals_of_faults_is_no_worse_off() {
    for mask in [FAULT_BITS, !0, bit(signal::SEGV)] {
        assert_eq!(handle(mask, loads, 8), None);
        assert_eq!(handle(mask, divides, 0), None);
    }
}

#[test]
fn handlers_fault_in_several_threads_at_once() {
    let thread = || (0..200).for_each(|i| assert_eq!(handle(0, divides, i % 2), (i % 2 != 0).then_some(12)));
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(thread))));
}
