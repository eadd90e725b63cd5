//! A forked child finds out that it is one.
//!
//! `fork` copies the probes together with the text, so a child hits them at once, and nobody has told it anything. The
//! kernel has zeroed its [`Identity`](crate::abi::Identity) page (`MADV_WIPEONFORK`). The first hit gives the child an
//! identity and, if the trace follows children, a bank of its own; otherwise its hits are stepped over, uncounted.
//! A `vfork` child shares its parent's memory, page and bank included, and counts as its parent.

use super::{Memory, debuggee, lanes, mailbox, modules, stacks};
use crate::abi::{Bank, FLAG_FOLLOW, NO_BANK, Shared};
use cpu::{nr, syscall};
use sync::primitive::Ordering;

/// [`Identity::bank`](crate::abi::Identity::bank) while a thread sets the identity up.
const BUSY: u64 = u64::MAX - 1;
/// [`Identity::pid`](crate::abi::Identity::pid) of a child whose hits nobody wants: it makes no system call for them,
/// since it may be in a sandbox that ends it for one.
pub(crate) const UNCOUNTED: u64 = u64::MAX;

/// Gives this process its identity if it has none. False when this thread is doing that already, and was interrupted by a
/// signal whose handler has come here: it has none yet.
#[inline(always)]
pub(crate) fn notice(memory: Memory) -> bool {
    memory.identity().pid.load(Ordering::Acquire) != 0 || introduce(memory)
}

#[cold]
#[inline(never)]
fn introduce(memory: Memory) -> bool {
    let identity = memory.identity();
    let own = lanes::thread(memory.home);
    match identity.adopter.compare_exchange(0, own, Ordering::AcqRel, Ordering::Relaxed) {
        Ok(_) => {
            identity.bank.store(BUSY, Ordering::Relaxed);
            adopt(memory);
            return true;
        }
        Err(adopter) if adopter == own && identity.pid.load(Ordering::Acquire) == 0 => return false,
        Err(_) => {}
    }
    while identity.pid.load(Ordering::Acquire) == 0 {
        // SAFETY: `sched_yield` has no argument.
        unsafe { syscall(nr::SCHED_YIELD, [0; 6]) };
    }
    true
}

fn adopt(memory: Memory) {
    // The other threads of the parent do not exist here: whatever they were doing, nobody does it any more.
    memory.home.active.iter().for_each(|w| w.store(0, Ordering::Relaxed));
    super::host::returns(memory.home).adopt();
    stacks::adopt(memory.home);
    lanes::adopt(memory.home);
    let identity = memory.identity();
    let (bank, pid) = if is_followed(memory) {
        claim_own(memory)
    } else if modules::are_here(memory.home) {
        (NO_BANK, own_pid())
    } else {
        (NO_BANK, UNCOUNTED)
    };
    identity.bank.store(bank, Ordering::Relaxed);
    identity.pid.store(pid, Ordering::Release);
}

fn is_followed(memory: Memory) -> bool {
    let listening = memory.shared_header().listening.load(Ordering::Relaxed) != 0;
    listening && memory.home.flags.load(Ordering::Relaxed) & FLAG_FOLLOW != 0
}

/// A bank for this process, and its id.
fn claim_own(memory: Memory) -> (u64, u64) {
    let pid = own_pid();
    (claim(memory, pid).unwrap_or(NO_BANK), pid)
}

/// The id of the process whose memory this is.
///
/// It may be a `vfork` child of a process that has not hit a probe itself: the memory, and with it the identity, is its
/// parent's.
fn own_pid() -> u64 {
    let call = if debuggee::shares_memory_with_parent() { nr::GETPPID } else { nr::GETPID };
    // SAFETY: neither call has an argument.
    unsafe { syscall(call, [0; 6]) }.cast_unsigned()
}

/// Takes a free bank for `pid`; its index + 1.
fn claim(memory: Memory, pid: u64) -> Option<u64> {
    let header = memory.shared_header();
    let mapped = header.banks_mapped.load(Ordering::Relaxed) as usize;
    let free = |bank: &&Bank| bank.pid.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    // SAFETY: `Memory`'s invariant: the shared mapping stays, with as many banks as its header says.
    let mut banks = (0..mapped).filter_map(|i| Some((i, unsafe { Shared::bank(memory.shared(), i) }?)));
    let Some((index, _)) = banks.find(|(_, b)| free(b)) else {
        header.unbanked.fetch_add(1, Ordering::Relaxed);
        return None;
    };
    mailbox::ring_doorbell(memory);
    Some(index as u64 + 1)
}
