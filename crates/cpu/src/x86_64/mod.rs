//! x86-64 under Linux.

mod frame;
mod syscall;
mod thread;
mod time;

pub use frame::{SignalFrame, restorer};
pub use syscall::{nr, syscall};
pub use thread::thread_word;
pub use time::now;
