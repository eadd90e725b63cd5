//! Which error a call has failed with, in a kernel and in a process.

use crate::{read, symbol};
use core::sync::atomic::{AtomicU64, Ordering};

/// Error numbers of calls that have returned.
///
/// A function in a kernel returns its error number negated. A function of a C library returns -1, and leaves the number
/// in `errno`, which belongs to the thread; where that is, its `__errno_location` knows.
///
/// ```no_run
/// static ERRNO: module::Errno = module::Errno::new();
///
/// extern "C" fn returned(hit: &mut module::Hit<'_>, _: &mut ()) {
///     if let Some(error) = ERRNO.of(hit.regs().return_value()) {
///         module::println!("failed with {error}");
///     }
/// }
/// # fn init() {
/// ERRNO.find(); // in `init`
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Errno {
    /// Address of the function that tells where the running thread has it; 0: results are error numbers.
    location: AtomicU64,
}

/// The greatest error number (Linux: `MAX_ERRNO`).
const MAX: i32 = 4095;

impl Errno {
    /// Results are error numbers, until [`find`](Self::find) has found otherwise.
    #[must_use]
    pub const fn new() -> Self {
        Self { location: AtomicU64::new(0) }
    }

    /// Looks for the C library's `errno`. In `init`.
    pub fn find(&self) {
        let names = ["libc.so.6:__errno_location", "__errno_location"];
        self.location.store(names.into_iter().find_map(symbol).unwrap_or(0), Ordering::Relaxed);
    }

    /// The error number of a call with this result; `None` if it has not failed. To be asked when the function returns, in
    /// its thread.
    #[must_use]
    pub fn of(&self, result: u64) -> Option<i32> {
        // Many return an `int`: what is above is undefined.
        let result = result as i32;
        let location = self.location.load(Ordering::Relaxed);
        if location == 0 {
            return (-MAX..0).contains(&result).then(|| -result);
        }
        if result != -1 {
            return None;
        }
        // SAFETY: C libraries have this function with this prototype. It computes an address from the thread's own and
        // does nothing else, so it can be called anywhere.
        let address = unsafe { core::mem::transmute::<usize, extern "C" fn() -> u64>(location as usize)() };
        read::<i32>(address)
    }
}
