//! Output.

use crate::abi::kprobes_print;
use core::fmt::{self, Write as _};

/// The most bytes that reach the host in one piece. Longer output is told in several, between which there may be that of
/// others.
pub const LINE_BYTES: usize = 256;

/// Prints to the tool, or to the kernel's console: `print!("{}", …)` as in the standard library.
#[macro_export]
macro_rules! print {
    ($($arguments:tt)*) => { $crate::print(::core::format_args!($($arguments)*)) };
}

/// Prints a line to the tool, or to the kernel's console.
///
/// ```no_run
/// module::println!("thread {} was here", module::thread());
/// ```
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arguments:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($arguments)*)) };
}

/// Formats on the stack, and tells the host.
#[doc(hidden)]
pub fn print(arguments: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; LINE_BYTES], used: 0 };
    // It takes everything; what fails is a value that does not want to be shown.
    let _ = line.write_fmt(arguments);
    line.flush();
}

struct Line {
    bytes: [u8; LINE_BYTES],
    used: usize,
}

impl Line {
    fn flush(&mut self) {
        let text = &self.bytes[..self.used];
        if !text.is_empty() {
            // SAFETY: the address and length of a slice.
            unsafe { kprobes_print(text.as_ptr(), text.len()) };
        }
        self.used = 0;
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while !text.is_empty() {
            let (head, tail) = text.split_at(text.floor_char_boundary(LINE_BYTES - self.used));
            self.bytes[self.used..self.used + head.len()].copy_from_slice(head.as_bytes());
            self.used += head.len();
            text = tail;
            if !text.is_empty() {
                self.flush();
            }
        }
        Ok(())
    }
}
