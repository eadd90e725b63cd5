//! Calling a jprobe's mirror.

use super::{Around, guarded};
use cpu::call_mirrored;
use hit::Probe;
use isa::x86::Regs;
use kprobes::STACK_BYTES;

/// Calls a jprobe's mirror with the arguments of the function that was just entered. Apart from the others, since it has
/// a copy of the stack on its own.
#[cold]
#[inline(never)]
pub(super) fn mirror<A: Around>(around: &A, probe: &Probe, function: u64, regs: &Regs) {
    let mut stack = [0; STACK_BYTES];
    let length = readable(around, regs.rsp().wrapping_add(RETURN_ADDRESS), &mut stack);
    let vectors = around.vectors();
    guarded(around, probe, function, |recovery| {
        let stack = stack.get(..length).unwrap_or_default();
        // SAFETY: the mirror takes the arguments of the probed function, and may end anywhere: that was promised when
        // its `Handler` was made.
        unsafe { call_mirrored(recovery, function, regs, vectors.as_ref(), stack) }
    });
}

/// The return address is below the arguments on the stack.
const RETURN_ADDRESS: u64 = 8;

/// Reads as much of the stack as there is; how many bytes.
fn readable<A: Around>(around: &A, address: u64, stack: &mut [u8; STACK_BYTES]) -> usize {
    if around.read(address, stack) {
        return STACK_BYTES;
    }
    // It ends at a page's end.
    const PAGE: u64 = 4096;
    let length = ((PAGE - address % PAGE) as usize).min(STACK_BYTES);
    if stack.get_mut(..length).is_some_and(|part| around.read(address, part)) { length } else { 0 }
}
