//! One processor asks another.
//!
//! There is one call at a time. Whoever wants to make one takes the call with interrupts off, and while it waits,
//! for the call or for the answers, answers others' calls itself ([`service`]): so two processors that call at the
//! same moment finish one after the other. Waiting for any [`crate::lock::IrqLock`] answers calls too. What may not be
//! done is to wait with interrupts off for another processor in any other way.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::trap::vector;
use super::{apic, cpu, interrupts};

/// A call is being made.
static BUSY: AtomicBool = AtomicBool::new(false);
/// Its function. Written by the owner of `BUSY` before any block's `called`.
static FUNCTION: AtomicUsize = AtomicUsize::new(0);

/// Runs `f` on every other processor, with interrupts off, and waits until all are done. `f` must not wait for
/// anything and must not take a lock: it may run inside the wait for one.
pub(crate) fn on_each_cpu(f: fn()) {
    let enabled = interrupts::disable();
    while BUSY.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        service();
        core::hint::spin_loop();
    }
    FUNCTION.store(f as usize, Ordering::Relaxed);
    let me = cpu::id();
    let others = || (0..cpu::MAX).filter(move |&id| id != me && cpu::online(id));
    for id in others() {
        cpu::block(id).answered.store(false, Ordering::Relaxed);
        cpu::block(id).called.store(true, Ordering::Release);
        apic::send(id, vector::CALL);
    }
    for id in others() {
        while !cpu::block(id).answered.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
    }
    BUSY.store(false, Ordering::Release);
    interrupts::restore(enabled);
}

/// Runs `f` on every processor, this one included. Interrupts are off in between: else the thread might go on elsewhere,
/// and leave out the processor that it has come to.
pub(crate) fn on_all(f: fn()) {
    interrupts::without(|| {
        f();
        on_each_cpu(f);
    });
}

/// Answers a call if there is one for this processor. Interrupts are off; an NMI that waits for a lock may come in
/// between, and finds the call taken.
pub(crate) fn service() {
    let block = cpu::this();
    if !block.called.load(Ordering::Relaxed) || !block.called.swap(false, Ordering::Acquire) {
        return;
    }
    // SAFETY: `called` is set only after a function, which is an `fn()`, was stored, and the caller waits for us
    // before another one is.
    let f: fn() = unsafe { core::mem::transmute::<usize, fn()>(FUNCTION.load(Ordering::Relaxed)) };
    f();
    block.answered.store(true, Ordering::Release);
}

/// Sends processor `cpu` a non-maskable interrupt; it may be this one.
pub(crate) fn nmi(cpu: usize) {
    apic::send_nmi(cpu);
}
