//! Handlers that fault: the agent's own handlers of signals run in this very process.

use super::*;
use crate::abi::{Identity, Shared, shared_bytes};
use crate::trap::actions::UNBLOCKABLE;
use crate::trap::{Memory, signals};
use arch::x86::handlers::Around;
use cpu::Recovery;
use std::sync::OnceLock;
use sync::ActiveSet;

/// Zeroed memory that stays, of a type for which that is a value.
fn zeroed(bytes: usize) -> u64 {
    let layout = std::alloc::Layout::from_size_align(bytes, 4096).unwrap();
    // SAFETY: the size is not 0.
    unsafe { std::alloc::alloc_zeroed(layout) as u64 }
}

/// The agent, started in this process. It counts, into a bank that nobody reads.
fn agent() -> Memory {
    static HOME: OnceLock<u64> = OnceLock::new();
    let home = *HOME.get_or_init(|| {
        let at = zeroed(size_of::<Home>());
        // SAFETY: a `Home` of zero bytes is one with nothing in it.
        let home = unsafe { &*(at as *const Home) };
        let (identity, shared) = (zeroed(size_of::<Identity>()), zeroed(shared_bytes(1)));
        home.identity.store(identity, Ordering::Relaxed);
        home.shared.store(shared, Ordering::Relaxed);
        // SAFETY: both are as large, and all zeroes are valid.
        let (identity, shared) = unsafe { (&*(identity as *const Identity), &*(shared as *const Shared)) };
        shared.banks_mapped.store(1, Ordering::Relaxed);
        identity.bank.store(1, Ordering::Relaxed);
        identity.pid.store(u64::from(std::process::id()), Ordering::Release);
        // SAFETY: the memory is never freed, and has what `Home` says.
        assert_eq!(unsafe { start(home) }, 0);
        at
    });
    // SAFETY: as above.
    Memory { home: unsafe { &*(home as *const Home) } }
}

/// Calls `function` as a probe's handler is called, in a thread whose interrupted program has masked `mask`.
fn handle(mask: u64, function: extern "C" fn(*mut u8) -> u64, argument: u64) -> Option<u64> {
    let memory = agent();
    let mut context = [0u64; 128];
    context[296 / 8] = mask;
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
    let said = host.calling(|| call(running.recovery()));
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
