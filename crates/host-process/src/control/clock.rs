//! Time stamps: from the processor's counter to the monotonic clock.

/// Converts time stamp counters to nanoseconds of `CLOCK_MONOTONIC`, the clock of ftrace's `mono` and of `dmesg`.
///
/// Between two readings of both clocks the counter is taken to run evenly; the readings are as far apart as the tool
/// looks at its rings, so the result is never further off than the clocks drift in that time.
///
/// ```
/// use host_process::control::Clock;
/// use std::time::Duration;
///
/// let mut clock = Clock::start();
/// let begin = Clock::counter();
/// std::thread::sleep(Duration::from_millis(5));
/// let end = Clock::counter();
/// clock.advance();
/// let slept = clock.nanoseconds(end) - clock.nanoseconds(begin);
/// assert!(slept > 4_900_000, "{slept} ns");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    before: (u64, u64),
    after: (u64, u64),
}

impl Clock {
    /// Reads both clocks for the first time.
    #[must_use]
    pub fn start() -> Self {
        let first = read();
        // A first estimate of the rate, from half a millisecond.
        std::thread::sleep(core::time::Duration::from_micros(500));
        Self { before: first, after: read() }
    }

    /// Reads both clocks again.
    pub fn advance(&mut self) {
        let now = read();
        if now.0.wrapping_sub(self.before.0) > 1 << 20 {
            (self.before, self.after) = (self.after, now);
        }
    }

    /// The counter now.
    #[must_use]
    pub fn counter() -> u64 {
        cpu::now().0
    }

    /// A counter as nanoseconds.
    #[must_use]
    pub fn nanoseconds(&self, counter: u64) -> u64 {
        let (tsc, ns) = self.before;
        let ticks = u128::from(self.after.0.wrapping_sub(tsc)).max(1);
        let span = u128::from(self.after.1.saturating_sub(ns));
        let scale = |d: u64| (u128::from(d) * span / ticks) as u64;
        if counter >= tsc { ns.saturating_add(scale(counter - tsc)) } else { ns.saturating_sub(scale(tsc - counter)) }
    }
}

/// Counter and clock, read as close together as they can be.
fn read() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..5 {
        let start = Clock::counter();
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid timespec.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        let end = Clock::counter();
        let ns = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
        best = best.min((end.wrapping_sub(start), start + end.wrapping_sub(start) / 2, ns));
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converted_times_agree_with_the_clock_and_never_go_back() {
        let mut clock = Clock::start();
        let mut last = 0;
        for _ in 0..5 {
            std::thread::sleep(core::time::Duration::from_millis(2));
            let (tsc, ns) = read();
            clock.advance();
            let converted = clock.nanoseconds(tsc);
            assert!(converted.abs_diff(ns) < 50_000, "{converted} {ns}");
            assert!(converted >= last);
            last = converted;
        }
    }
}
