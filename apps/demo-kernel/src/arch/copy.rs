//! Guarded accesses to memory: those of kprobes, which a kernel can use for everything.

use super::trap::Frame;
use host_bare::guarded;

pub(crate) use host_bare::guarded::{read, read_word as read_u64, write_word as write_u64};

/// Whether the faulting instruction has an entry in the exception table; if so, the frame goes on where that says.
#[unsafe(link_section = ".kprobes.text")]
pub(crate) fn fix_up(frame: &mut Frame) -> bool {
    guarded::fix_up(&mut frame.regs)
}
