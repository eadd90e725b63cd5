//! The interrupt flag.

use x86_64::instructions::interrupts;

/// Turns interrupts off and says whether they were on.
pub(crate) fn disable() -> bool {
    let were = interrupts::are_enabled();
    interrupts::disable();
    were
}

/// Turns interrupts on if `enabled`.
pub(crate) fn restore(enabled: bool) {
    if enabled {
        interrupts::enable();
    }
}

/// Whether interrupts are on.
pub(crate) fn enabled() -> bool {
    interrupts::are_enabled()
}

/// Runs `f` with interrupts off.
pub(crate) fn without<T>(f: impl FnOnce() -> T) -> T {
    let were = disable();
    let result = f();
    restore(were);
    result
}
