//! Control of a process from outside: in the tool.
//!
//! A trace begins with one thread of the target, held for a millisecond: at the program's first instruction, or
//! wherever it happens to be. In that time the agent is mapped (`inject`), the objects are looked at (`objects`),
//! places are resolved ([`resolve`]), and breakpoints planted by the registry of `kprobes` through its host
//! (`target`). Then the thread goes on, and nothing is traced by `ptrace` any more: a debugger can attach as ever.
//!
//! What happens later reaches the tool through the shared memory: records in rings, and events in mailboxes, whose
//! thread waits and makes system calls for us meanwhile.

mod ahead;
mod buckets;
mod catalogue;
mod check;
mod clock;
mod depart;
mod drain;
mod error;
mod families;
mod follow;
mod groups;
mod guards;
mod hooks;
mod image;
mod inject;
mod launch;
mod linker;
#[cfg(feature = "local")]
pub mod local;
mod mail;
mod maps;
mod member;
mod memory;
pub mod modules;
mod notice;
mod objects;
mod process;
mod ptrace;
mod recent;
mod resolve;
mod returns;
mod scrub;
mod settle;
mod shared;
mod spread;
mod stop;
mod table;
mod tally;
mod target;
mod trace;
mod writes;

pub use catalogue::title;
pub use check::{Verdict, View};
pub use clock::Clock;
pub use error::{HostError, Result};
pub use image::Image;
pub use member::DEFAULT_MAXACTIVE;
pub use notice::{Notice, Options, Progress, Record};
pub use objects::{Cache, Mapped, Objects};
pub use process::{executable, is_alive, thread_name};
pub use resolve::{Resolved, resolve};
pub use tally::{FunctionTally, Tally};
pub use trace::Trace;
