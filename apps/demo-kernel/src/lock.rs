//! Locks: a spin lock that keeps interrupts off while it is held, and one whose holder may wait.
//!
//! With [`IrqLock`] interrupts are off, so the holder is neither preempted nor interrupted by code that wants the same lock.
//! A processor that waits for a lock goes on answering other processors' calls (`arch::ipi`): the holder may be
//! waiting for our answer.
//!
//! [`Mutex`] leaves interrupts on, and who wants it gives up its processor meanwhile: for threads only.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch::{interrupts, ipi};
use crate::sched;

/// A value behind a spin lock.
pub(crate) struct IrqLock<T> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard only, and there is one guard at a time.
unsafe impl<T: Send> Sync for IrqLock<T> {}

/// The lock, held.
pub(crate) struct IrqGuard<'a, T> {
    lock: &'a IrqLock<T>,
    interrupts: bool,
}

impl<T> IrqLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Turns interrupts off and waits for the lock.
    pub(crate) fn lock(&self) -> IrqGuard<'_, T> {
        let interrupts = interrupts::disable();
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            ipi::service();
            core::hint::spin_loop();
        }
        IrqGuard { lock: self, interrupts }
    }

    /// The value, for who holds the lock by a [leaked](IrqGuard::leak) guard.
    ///
    /// # Safety
    /// This processor holds the lock so, and there is no other reference into the value.
    #[expect(clippy::mut_from_ref, reason = "the lock is the exclusive access")]
    pub(crate) unsafe fn value(&self) -> &mut T {
        // SAFETY: the caller holds the lock and has no other reference.
        unsafe { &mut *self.value.get() }
    }

    /// Releases a lock whose guard was [leaked](IrqGuard::leak).
    ///
    /// # Safety
    /// This processor holds the lock by a leaked guard and keeps no reference into the value.
    pub(crate) unsafe fn release(&self) {
        self.locked.store(false, Ordering::Release);
    }
}

impl<T> IrqGuard<'_, T> {
    /// Keeps the lock without the guard, for a switch of stacks. Says whether interrupts were on before.
    pub(crate) fn leak(self) -> bool {
        let interrupts = self.interrupts;
        core::mem::forget(self);
        interrupts
    }
}

impl<T> Deref for IrqGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard is the only way to the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only way to the value, and it is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for IrqGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
        interrupts::restore(self.interrupts);
    }
}

/// A value behind a lock that threads wait for.
pub(crate) struct Mutex<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard only, and there is one guard at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// The lock, held.
pub(crate) struct MutexGuard<'a, T>(&'a Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock. Its holder must not want it again.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        while self.taken.swap(true, Ordering::Acquire) {
            sched::yield_now();
        }
        MutexGuard(self)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard is the only way to the value.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only way to the value, and it is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}
