//! x86-64 under Linux.

mod contained;
mod frame;
mod mirrored;
mod syscall;
mod thread;
mod time;

pub use contained::Recovery;
pub use frame::{SignalFrame, restorer};
pub use mirrored::call_mirrored;
pub use syscall::{nr, syscall};
pub use thread::{fs_base, thread_word};
pub use time::now;
