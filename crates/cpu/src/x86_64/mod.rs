//! x86-64 under Linux.

mod contained;
mod count;
mod extended;
mod frame;
mod mirrored;
mod syscall;
mod thread;
mod time;

pub use contained::Recovery;
pub use count::add_one;
pub use extended::with_initial_vectors;
pub use frame::{SignalFrame, restorer};
pub use mirrored::call_mirrored;
pub use syscall::{nr, syscall};
pub use thread::{fs_base, thread_word};
pub use time::now;
