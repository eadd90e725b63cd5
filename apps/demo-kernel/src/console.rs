//! The serial line (16550 at 0x3f8): output in whole calls, input by lines; and the way out of QEMU.
//!
//! One call of `print!` or `println!` is written as a whole: processors do not interleave inside it. A trap or an NMI
//! that prints on the processor that is just printing does not wait for itself; its text lands in the middle.

use alloc::string::String;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use x86_64::instructions::port::Port;

use crate::arch::{cpu, interrupts, ipi, time};
use crate::sched;

const BASE: u16 = 0x3f8;
const LINE_STATUS: u16 = BASE + 5;
const DATA_READY: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// The port of QEMU's `isa-debug-exit`.
const DEBUG_EXIT: u16 = 0xf4;
/// QEMU exits with `2 * code + 1`: 33.
const SUCCESS: u8 = 0x10;
/// 35.
const FAILURE: u8 = 0x11;

/// Who prints: the processor's number, or nobody.
static WRITER: AtomicUsize = AtomicUsize::new(NOBODY);
const NOBODY: usize = usize::MAX;

/// Whether the last character was a carriage return.
static AFTER_RETURN: AtomicBool = AtomicBool::new(false);
/// A function from addresses to names, `fn(u64) -> Option<(&'static str, u64)>`; null until there is one.
static SYMBOLIZER: AtomicUsize = AtomicUsize::new(0);

/// From an address to the name of its function and the offset in it.
pub(crate) type Symbolizer = fn(u64) -> Option<(&'static str, u64)>;

fn inb(port: u16) -> u8 {
    // SAFETY: only the serial line's registers are read, which changes nothing but the line's own state.
    unsafe { Port::<u8>::new(port).read() }
}

fn outb(port: u16, value: u8) {
    // SAFETY: only the serial line's registers and the debug exit are written: neither touches memory.
    unsafe { Port::<u8>::new(port).write(value) }
}

/// Sets the line to 115200 8N1, no interrupts. The FIFOs stay off: switching them on would drop what a script has
/// sent already, and without them QEMU sends one character after the other, as we take them.
pub(crate) fn init() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (4, 3)] {
        outb(BASE + register, value);
    }
}

fn put(byte: u8) {
    while inb(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
        core::hint::spin_loop();
    }
    outb(BASE, byte);
}

struct Line;

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        put_all(text.as_bytes());
        Ok(())
    }
}

fn put_all(bytes: &[u8]) {
    for &byte in bytes {
        if byte == b'\n' {
            put(b'\r');
        }
        put(byte);
    }
}

/// Runs `f` as the one who prints.
fn with_line(f: impl FnOnce()) {
    let enabled = interrupts::disable();
    let me = cpu::id();
    let nested = WRITER.load(Ordering::Relaxed) == me;
    if !nested {
        while WRITER.compare_exchange_weak(NOBODY, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            ipi::service();
            core::hint::spin_loop();
        }
    }
    f();
    if !nested {
        WRITER.store(NOBODY, Ordering::Release);
    }
    interrupts::restore(enabled);
}

/// Writes one call of `print!`.
pub(crate) fn print(args: fmt::Arguments<'_>) {
    with_line(|| {
        // The serial line never fails; an error could only come from a `Display` of the caller's.
        let _ = Line.write_fmt(args);
    });
}

/// Writes bytes, whatever they are.
pub(crate) fn write(bytes: &[u8]) {
    with_line(|| put_all(bytes));
}

/// Takes the serial line from whoever holds it: this processor panics and the others have been stopped.
pub(crate) fn seize() {
    WRITER.store(cpu::id(), Ordering::Relaxed);
}

/// Prints on the serial line.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::print(format_args!($($arg)*)) };
}

/// Prints a line on the serial line.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($arg)*))) };
}

fn echo(text: &str) {
    print(format_args!("{text}"));
}

fn poll() -> Option<u8> {
    (inb(LINE_STATUS) & DATA_READY != 0).then(|| inb(BASE))
}

/// The next character. A script's next character follows at once, and is waited for awake; somebody who types is waited
/// for asleep.
fn next_character() -> u8 {
    const PATIENCE_NS: u64 = 5_000_000;
    let end = time::now_ns() + PATIENCE_NS;
    loop {
        if let Some(byte) = poll() {
            return byte;
        }
        if time::now_ns() < end {
            sched::yield_now();
        } else {
            sched::sleep_ms(1);
        }
    }
}

/// Reads a line into `line`, without its end, and shows what is typed; other threads run while it waits. False at the end of the input
/// (control-D on an empty line).
pub(crate) fn read_line(line: &mut String) -> bool {
    line.clear();
    loop {
        let byte = next_character();
        match byte {
            // Of "\r\n" the line feed belongs to a line that has ended.
            b'\n' if AFTER_RETURN.swap(false, Ordering::Relaxed) && line.is_empty() => continue,
            b'\r' | b'\n' => {
                AFTER_RETURN.store(byte == b'\r', Ordering::Relaxed);
                echo("\n");
                return true;
            }
            4 if line.is_empty() => return false,
            8 | 127 if line.pop().is_some() => echo("\x08 \x08"),
            b' '..=b'~' | b'\t' => {
                let text = [byte];
                line.push(char::from(byte));
                echo(core::str::from_utf8(&text).unwrap_or_default());
            }
            _ => {}
        }
        AFTER_RETURN.store(false, Ordering::Relaxed);
    }
}

/// Ends QEMU with the exit status `2 * code + 1`.
pub(crate) fn exit(code: u8) -> ! {
    outb(DEBUG_EXIT, code);
    // Without the device there is nothing left to do.
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Ends QEMU, with status 33 for success and 35 for failure.
pub(crate) fn shutdown(success: bool) -> ! {
    exit(if success { SUCCESS } else { FAILURE })
}

/// Sets the function that names addresses.
pub(crate) fn set_symbolizer(symbolizer: Symbolizer) {
    SYMBOLIZER.store(symbolizer as usize, Ordering::Release);
}

/// The function's name and the offset in it, if a symbolizer is set and knows.
pub(crate) fn symbolize(address: u64) -> Option<(&'static str, u64)> {
    let symbolizer = SYMBOLIZER.load(Ordering::Acquire);
    if symbolizer == 0 {
        return None;
    }
    // SAFETY: only `set_symbolizer` stores here, and stores a `Symbolizer`.
    let symbolizer: Symbolizer = unsafe { core::mem::transmute::<usize, Symbolizer>(symbolizer) };
    symbolizer(address)
}
