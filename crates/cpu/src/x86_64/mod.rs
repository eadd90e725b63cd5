//! x86-64 under Linux.

mod contained;
mod extended;
mod frame;
mod mirrored;
mod syscall;
mod thread;
mod time;
mod unlocked;

pub use contained::Recovery;
pub use extended::with_initial_vectors;
pub use frame::{SignalFrame, restorer};
pub use mirrored::call_mirrored;
pub use syscall::{nr, syscall};
pub use thread::{fs_base, thread_word};
pub use time::now;
pub use unlocked::{add_one, replace};
