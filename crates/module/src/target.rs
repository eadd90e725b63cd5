//! What can be asked about the target.

use crate::{Text, abi};
use core::mem::MaybeUninit;
use kprobes::Zeroed;

/// The running thread's number: in a process that which `gettid` tells.
///
/// ```no_run
/// module::println!("thread {}", module::thread());
/// ```
#[must_use]
pub fn thread() -> u64 {
    abi::kprobes_thread()
}

/// The running process's number.
///
/// ```no_run
/// module::println!("process {}", module::process());
/// ```
#[must_use]
pub fn process() -> u64 {
    abi::kprobes_process()
}

/// The running processor's number. In a process it may be another by the time that this returns.
///
/// ```no_run
/// module::println!("on processor {}", module::cpu());
/// ```
#[must_use]
pub fn cpu() -> u32 {
    abi::kprobes_processor()
}

/// Nanoseconds since some beginning; never less than before on one processor.
///
/// ```no_run
/// let begin = module::now();
/// module::println!("{} ns", module::now() - begin);
/// ```
#[must_use]
pub fn now() -> u64 {
    abi::kprobes_now()
}

/// The running thread's name.
///
/// ```no_run
/// module::println!("{}[{}]", module::comm(), module::thread());
/// ```
#[must_use]
pub fn comm() -> Text<16> {
    let mut bytes = [0; 16];
    // SAFETY: there is room for what the host writes.
    unsafe { abi::kprobes_comm(&raw mut bytes) };
    let used = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    Text::new(bytes, used)
}

/// The address of a symbol of the target's, `[OBJECT:]SYMBOL`. In `init` and `exit`.
///
/// ```no_run
/// let environment: Option<u64> = module::symbol("libc.so.6:environ").and_then(module::read);
/// ```
#[must_use]
pub fn symbol(name: &str) -> Option<u64> {
    // SAFETY: the address and length of a slice.
    match unsafe { abi::kprobes_symbol(name.as_ptr(), name.len()) } {
        0 => None,
        address => Some(address),
    }
}

/// Reads a value at an address of the target's; `None` when not all of it can be read. In handlers, whatever the address
/// is: nothing faults.
///
/// ```no_run
/// # fn handler(hit: &module::Hit<'_>) {
/// // The word on top of the stack: at a function's entry, where it returns to.
/// let caller: Option<u64> = module::read(hit.regs().rsp());
/// # }
/// ```
#[must_use]
pub fn read<T: Zeroed>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: there is room for as many bytes.
    let said = unsafe { abi::kprobes_read(address, value.as_mut_ptr().cast(), size_of::<T>()) };
    // SAFETY: `Zeroed` types are integers at any depth, of which all bytes are values.
    (said == 0).then(|| unsafe { value.assume_init() })
}

/// Fills a slice with what is at an address of the target's; false when not all of it can be read.
///
/// ```no_run
/// # fn handler(hit: &module::Hit<'_>) {
/// let mut code = [0; 16];
/// if module::read_bytes(hit.address(), &mut code) {
///     module::println!("{code:02x?}");
/// }
/// # }
/// ```
#[must_use]
pub fn read_bytes(address: u64, out: &mut [u8]) -> bool {
    // SAFETY: the address and length of a slice.
    unsafe { abi::kprobes_read(address, out.as_mut_ptr(), out.len()) == 0 }
}

/// Reads a C string at an address of the target's, at most `N` bytes of it; `None` when it cannot be read.
///
/// ```no_run
/// # fn handler(hit: &module::Hit<'_>) {
/// if let Some(path) = module::read_string::<128>(hit.regs().argument(2)) {
///     module::println!("opens {path}");
/// }
/// # }
/// ```
#[must_use]
pub fn read_string<const N: usize>(address: u64) -> Option<Text<N>> {
    let mut bytes = [0; N];
    // SAFETY: there is room for as many bytes.
    let length = unsafe { abi::kprobes_read_string(address, bytes.as_mut_ptr(), N) };
    usize::try_from(length).ok().map(|length| Text::new(bytes, length))
}

/// Ends a jprobe's mirror at any depth: the probed function runs, with the arguments and registers that it was called
/// with. To return from the mirror does the same.
///
/// ```no_run
/// extern "C" fn mirror(number: u64) {
///     if number == 0 {
///         // SAFETY: in a mirror, and nothing here waits to be dropped.
///         unsafe { module::jprobe_return() }
///     }
///     module::println!("called with {number}");
/// }
/// ```
///
/// # Safety
///
/// Called in a jprobe's mirror. The functions between that and this end without dropping their variables, so none of
/// them may depend on that (as a guard does).
pub unsafe fn jprobe_return() -> ! {
    // SAFETY: the caller's promise is what the host wants.
    unsafe { abi::kprobes_jprobe_return() }
}
