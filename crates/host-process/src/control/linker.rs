//! Whether a target's dynamic linker is at work: then objects that are still mapped may be gone in an instant.
//!
//! Before it maps or unmaps anything the linker says so in its `r_debug`, and it calls `_dl_debug_state` then and when it
//! is done (`<link.h>`; glibc `elf/dl-debug.c`, `elf/dl-close.c`). A probe stands on that function, so once it stands no
//! object goes unnoticed. But a thread may be past the first call and before the second one when we come. It is waited
//! for: a probe must not be written into an object that is just going, or what is mapped in its place would be hurt.

use super::memory::Memory;
use super::objects::Objects;
use std::time::{Duration, Instant};

/// `r_state` when nothing is going on.
const RT_CONSISTENT: u32 = 0;
/// Offsets in `struct r_debug`, and in the `r_debug_extended` of glibc 2.35 that says so by its version.
const VERSION: u64 = 0;
const STATE: u64 = 24;
const NEXT: u64 = 40;
/// As many name spaces as glibc has (`DL_NNS`).
const NAME_SPACES: usize = 16;
/// How long the linker is waited for, and how often it is looked at. Between its two calls it only unmaps, or reads files.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_micros(200);

/// Whether the linker is between its two calls. A program without one, or whose linker has not begun, has none at work.
pub(crate) fn is_at_work(memory: &Memory, objects: &Objects) -> bool {
    // The program is the first, unless the linker was called to execute it.
    let word = |object: &super::Mapped| Some(object.to_target(object.object.linker_debug_word()?));
    let debug = |object| memory.word(word(object)?).ok().filter(|&at| at != 0);
    let Some(mut at) = objects.all.iter().find_map(debug) else { return false };
    for _ in 0..NAME_SPACES {
        let half = |offset: u64| memory.half(at.wrapping_add(offset)).ok();
        let (Some(version), Some(state)) = (half(VERSION), half(STATE)) else { return false };
        if state != RT_CONSISTENT {
            return true;
        }
        let next = if version >= 2 { memory.word(at.wrapping_add(NEXT)).unwrap_or(0) } else { 0 };
        if next == 0 {
            return false;
        }
        at = next;
    }
    false
}

/// Tries until `done`, with pauses in which the target goes on, or until it has taken too long: a program may be stopped
/// in the middle, or its linker have left it so.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> T, mut done: impl FnMut(&T) -> bool) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        let got = attempt();
        if done(&got) || Instant::now() > end {
            return got;
        }
        drop(got);
        std::thread::sleep(LOOK);
    }
}
