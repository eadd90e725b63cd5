//! The agent goes dormant: no stub on any stack, the program's own actions in the kernel.
//!
//! After the probes are removed the handler could stay for ever, and it does when this fails. But a program whose guard
//! is gone may take `SIGTRAP` over, and a function that was entered while it was probed still returns through a stub.
//! So all threads are stopped for a moment; those that are in a handler, or have a trap pending, are let go on and
//! stopped again; then the guards go, every stub on a stack is replaced by the true address, and masks and dispositions
//! are restored. The guards not before: what is noted of a thread's mask is true as long as they stand.

use super::Result;
use super::settle::{self, Changed};
use super::stop::{Held, Remote};
use super::target::Target;
use crate::abi::{ACTIVE, Home, STUB_STRIDE};
use core::mem::offset_of;
use hit::returns::{Instance, Pool, STATE_ARMED, STATE_OFFSET, STATE_PHASE, STATE_RESTORED};
use std::time::{Duration, Instant};

const ATTEMPTS: usize = 50;
/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Offset of a field of `Instance`: they are the first two words.
const RETURN_ADDRESS: u64 = offset_of!(Instance, return_address) as u64;
const SLOT: u64 = offset_of!(Instance, slot) as u64;

/// Takes the guards off and makes the agent dormant; true when it is.
///
/// `teller` is a thread that waits in a mailbox, if one does: it is in a handler, and will only leave it.
pub(crate) fn depart(
    target: &mut Target,
    cleaned: &[Changed],
    teller: Option<i32>,
    take_guards_off: impl FnOnce(&mut Target) -> Result<()>,
) -> Result<bool> {
    let busy = |tid: &u64| teller.is_none_or(|t| *tid != u64::from(t.cast_unsigned()));
    let end = Instant::now() + PATIENCE;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut held = stop_all(target.pid)?;
        let mut inside = target.inside()?;
        inside.handlers.retain(busy);
        let calm = inside.is_empty();
        if calm || attempts == ATTEMPTS || Instant::now() > end {
            leave(target, &mut held, cleaned, calm, take_guards_off)?;
            held.into_iter().try_for_each(Held::release)?;
            return Ok(calm);
        }
        held.into_iter().try_for_each(Held::release)?;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All threads stand still, and if it is calm, none of them in a handler: one of them is our servant.
fn leave(
    target: &mut Target,
    held: &mut Vec<Held>,
    cleaned: &[Changed],
    calm: bool,
    take_guards_off: impl FnOnce(&mut Target) -> Result<()>,
) -> Result<()> {
    let Some(mut servant) = held.pop() else { return Ok(()) };
    servant.keep(target.agent.home)?;
    let before = target.set_remote(Some(Box::new(servant)));
    target.stands_still = true;
    let unguarded = take_guards_off(target);
    target.stands_still = false;
    let servant = target.set_remote(before);
    unguarded?;
    match servant {
        Some(mut servant) if calm => {
            put_returns_back(target)?;
            restore_signals(target, servant.as_mut(), held, cleaned)
        }
        _ => forget_masks(target),
    }
}

/// Stops every thread that can be stopped.
fn stop_all(pid: i32) -> Result<Vec<Held>> {
    let held = settle::hold_others(pid, 0, Vec::new());
    if held.is_empty() { Ok(vec![Held::any(pid)?]) } else { Ok(held) }
}

/// Every stub that stands in a return slot is replaced by the true return address. All threads stand still.
fn put_returns_back(target: &Target) -> Result<()> {
    let memory = target.memory();
    let stubs = memory.word(target.home(offset_of!(Home, stubs)))?;
    let used = memory.half(target.home(offset_of!(Home, pool) + Pool::USED_OFFSET))?;
    let instance = |i: u64| target.home(offset_of!(Home, instances)) + i * size_of::<Instance>() as u64;
    // One slot can belong to several instances, one under the other: repeat until nothing changes.
    for _ in 0..hit::MAX_CHAIN {
        let mut changed = false;
        for i in 0..u64::from(used) {
            let at = instance(i);
            let state = memory.half(at + STATE_OFFSET as u64)? & STATE_PHASE;
            if state != STATE_ARMED && state != STATE_RESTORED {
                continue;
            }
            let slot = memory.word(at + SLOT)?;
            let stub = stubs + i * STUB_STRIDE;
            if state == STATE_ARMED && memory.word(slot).is_ok_and(|now| now == stub) {
                memory.write(slot, &memory.word(at + RETURN_ADDRESS)?.to_le_bytes())?;
                memory.write(at + STATE_OFFSET as u64, &STATE_RESTORED.to_le_bytes())?;
                changed = true;
            }
        }
        if !changed {
            return Ok(());
        }
    }
    Ok(())
}

/// What the program believes of its signals becomes true: the actions of `SIGTRAP` and of faults, which threads block
/// `SIGTRAP`, and which handlers do.
fn restore_signals(target: &Target, servant: &mut dyn Remote, held: &mut [Held], cleaned: &[Changed]) -> Result<()> {
    held.iter_mut().chain(servant.held()).try_for_each(|thread| believe(target, thread))?;
    forget_masks(target)?;
    let scratch = target.home(offset_of!(Home, scratch));
    settle::restore_handlers(servant, target, scratch, cleaned)?;
    settle::restore_actions(servant, target, scratch)
}

/// A thread that believes to block `SIGTRAP` does when it goes on.
fn believe(target: &Target, thread: &mut Held) -> Result<()> {
    if settle::believes_blocked(target, thread.tid())? {
        thread.block_trap();
    }
    Ok(())
}

/// What was noted of threads' masks is true no longer.
fn forget_masks(target: &Target) -> Result<()> {
    target.memory().write(target.home(offset_of!(Home, blocked)), &[0; 8 * ACTIVE])
}
