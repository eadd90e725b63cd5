//! Time, from the time stamp counter, which QEMU keeps equal on all processors.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{apic, pic};

const CALIBRATION_MS: u64 = 10;

/// Bits behind the point of [`SCALE`].
const SHIFT: u32 = 32;
/// Nanoseconds in a time stamp, as a fixed-point number: a division in every record would be dear.
static SCALE: AtomicU64 = AtomicU64::new(1 << SHIFT);
/// The time stamp at calibration.
static START: AtomicU64 = AtomicU64::new(0);
/// Counts of the local timer in a second.
static TIMER_HZ: AtomicU64 = AtomicU64::new(0);

/// The time stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: every processor of long mode has the instruction, and CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds since the kernel started.
pub(crate) fn now_ns() -> u64 {
    let ticks = tsc().saturating_sub(START.load(Ordering::Relaxed));
    let nanoseconds = u128::from(ticks) * u128::from(SCALE.load(Ordering::Relaxed));
    (nanoseconds >> SHIFT) as u64
}

/// Measures both clocks against the 8254. Three times, as a host that takes the processor away in the middle makes a
/// clock seem fast: the slowest measurement counts.
pub(crate) fn calibrate() {
    let (tsc_per_ms, timer_per_ms) = (0..3)
        .map(|_| {
            let mut start = 0;
            pic::wait(CALIBRATION_MS, || {
                apic::start_counting();
                start = tsc();
            });
            (u64::from(apic::counted()) / CALIBRATION_MS, (tsc() - start) / CALIBRATION_MS)
        })
        .fold((u64::MAX, u64::MAX), |best, (timer, tsc)| (best.0.min(tsc), best.1.min(timer)));
    apic::stop_timer();
    SCALE.store((1_000_000 << SHIFT) / tsc_per_ms.max(1), Ordering::Relaxed);
    TIMER_HZ.store(timer_per_ms * 1000, Ordering::Relaxed);
    START.store(tsc(), Ordering::Relaxed);
}

/// Starts this processor's periodic interrupt.
pub(crate) fn start_ticking() {
    apic::start_timer(TIMER_HZ.load(Ordering::Relaxed));
}

/// Busy for `microseconds`.
pub(crate) fn spin_us(microseconds: u64) {
    let end = now_ns() + microseconds * 1000;
    while now_ns() < end {
        core::hint::spin_loop();
    }
}
