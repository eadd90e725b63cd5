//! A running program may have `SIGTRAP` blocked already, where no guard has seen it.
//!
//! While the guards are planted, and while they are taken away, all threads stand still ([`hold_others`]): what is noted of
//! their masks is true only between the two. They go on without `SIGTRAP` in their masks ([`unblock_held`]). Before any
//! event is placed, the rest of the past is put right: threads that were missed are stopped one by one, and handlers whose
//! mask has it get a mask that has not. Both are noted, so that the
//! program sees what it set, and gets it back when the trace ends.
//!
//! What remains is a thread that is in a signal handler now, and had `SIGTRAP` blocked before: the handler's end blocks
//! it again.

use super::Result;
use super::process;
use super::stop::{Held, Remote};
use super::target::Target;
use crate::abi::{GUARDED, Home, blocked_thread, window};
use core::mem::offset_of;
use std::time::{Duration, Instant};
use sync::WINDOW;

const TRAP: u64 = 1 << (libc::SIGTRAP - 1);
/// New threads inherit what their parents block: a pass finds them, and the next one what was missed.
const PASSES: usize = 8;
const ACTION_BYTES: u64 = 32;
/// How long threads are waited for that cannot be stopped, and how often they are looked at.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_micros(100);

/// A signal whose handler's mask was changed, and the action as it was.
pub(crate) type Changed = (u64, [u64; 4]);

/// Notes that thread `tid` believes to block `SIGTRAP`.
pub(crate) fn note_blocked(target: &Target, tid: i32) -> Result<()> {
    let tid = tid.cast_unsigned();
    for index in window(u64::from(tid)) {
        let at = target.home(offset_of!(Home, blocked)) + 8 * index as u64;
        let word = target.memory().word(at)?;
        if word == 0 || blocked_thread(word) == u64::from(tid) {
            return target.memory().write(at, &u64::from(tid).to_le_bytes());
        }
    }
    Ok(())
}

/// Whether thread `tid` believes to block `SIGTRAP`.
pub(crate) fn believes_blocked(target: &Target, tid: i32) -> Result<bool> {
    let tid = u64::from(tid.cast_unsigned());
    let window = window(tid).start;
    let mut bytes = [0; 8 * WINDOW];
    target.memory().read(target.home(offset_of!(Home, blocked)) + 8 * window as u64, &mut bytes)?;
    let words = bytes.chunks_exact(8).filter_map(|b| b.try_into().ok()).map(u64::from_le_bytes);
    Ok(words.map(blocked_thread).any(|thread| thread == tid))
}

/// Stops every thread but `held` and those of `others`, and gives them all: while they stand still, guards can be planted
/// and taken away.
///
/// A C library blocks all signals where it creates a thread, forks, spawns or sends a signal, and unblocks them again by
/// a system call that is guarded: a thread that is on its way there must not meet the guard's breakpoint, nor make the call
/// between two guards, when what is noted of its mask would be true no longer. One that waits for its `vfork` child cannot
/// be stopped, and shares its memory with a child that blocks everything too: it is waited for.
pub(crate) fn hold_others(pid: i32, held: i32, mut others: Vec<Held>) -> Vec<Held> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut threads = process::threads(pid);
        threads.retain(|&tid| tid != held && others.iter().all(|other| other.tid() != tid));
        threads.retain(|&tid| !matches!(process::state(pid, tid), Some('Z' | 'X') | None));
        if threads.is_empty() || Instant::now() > end {
            return others;
        }
        for tid in threads {
            if process::state(pid, tid) == Some('D') {
                std::thread::sleep(LOOK);
                continue;
            }
            // One that has ended meanwhile needs nothing.
            others.extend(Held::thread(pid, tid));
        }
    }
}

/// Held threads will go on with `SIGTRAP` unblocked. From here on they must not, before the guards stand.
pub(crate) fn unblock_held(target: &Target, threads: &mut [Held]) -> Result<()> {
    for thread in threads {
        if thread.unblock_trap() {
            note_blocked(target, thread.tid())?;
            thread.apply_mask()?;
        }
    }
    Ok(())
}

/// Lets every thread but `held` go on with `SIGTRAP` unblocked.
pub(crate) fn unblock(target: &Target, held: i32) -> Result<()> {
    for _ in 0..PASSES {
        let blocks = |tid: &i32| *tid != held && process::blocked_signals(target.pid, *tid) & TRAP != 0;
        let blocking: Vec<i32> = process::threads(target.pid).into_iter().filter(blocks).collect();
        if blocking.is_empty() {
            return Ok(());
        }
        for tid in blocking {
            // A thread that has ended meanwhile needs nothing.
            let Ok(mut thread) = Held::thread(target.pid, tid) else { continue };
            if thread.unblock_trap() {
                note_blocked(target, tid)?;
            }
            thread.release()?;
        }
    }
    Ok(())
}

/// Takes `SIGTRAP` out of the masks of the program's handlers; gives what was changed.
pub(crate) fn clean_handlers(remote: &mut dyn Remote, target: &Target, scratch: u64) -> Result<Vec<Changed>> {
    let mut changed = Vec::new();
    let caught = process::caught_signals(target.pid) & !TRAP;
    for signal in (1..=64u64).filter(|s| caught & (1 << (s - 1)) != 0) {
        remote.call("rt_sigaction", libc::SYS_rt_sigaction, [signal, 0, scratch, 8, 0, 0])?;
        let action = read_action(target, scratch)?;
        if action[3] & TRAP != 0 {
            let mut cleaned = action;
            cleaned[3] &= !TRAP;
            set_action(remote, target, scratch, signal, cleaned)?;
            changed.push((signal, action));
        }
    }
    Ok(changed)
}

/// What an earlier tool has changed and left so: the handlers of these signals, as they were.
pub(crate) fn changed_before(
    remote: &mut dyn Remote,
    target: &Target,
    scratch: u64,
    signals: u64,
) -> Result<Vec<Changed>> {
    let mut changed = Vec::new();
    for signal in (1..=64u64).filter(|s| signals & (1 << (s - 1)) != 0) {
        remote.call("rt_sigaction", libc::SYS_rt_sigaction, [signal, 0, scratch, 8, 0, 0])?;
        let mut action = read_action(target, scratch)?;
        action[3] |= TRAP;
        changed.push((signal, action));
    }
    Ok(changed)
}

/// Gives handlers their masks back, where the program has not changed them since.
pub(crate) fn restore_handlers(
    remote: &mut dyn Remote,
    target: &Target,
    scratch: u64,
    changed: &[Changed],
) -> Result<()> {
    for &(signal, action) in changed {
        remote.call("rt_sigaction", libc::SYS_rt_sigaction, [signal, 0, scratch, 8, 0, 0])?;
        let mut now = read_action(target, scratch)?;
        now[3] |= TRAP;
        if now == action {
            set_action(remote, target, scratch, signal, action)?;
        }
    }
    Ok(())
}

/// The actions that the program believes it has become the kernel's, where ours stood for them.
pub(crate) fn restore_actions(remote: &mut dyn Remote, target: &Target, scratch: u64) -> Result<()> {
    let entry = target.memory().word(target.home(offset_of!(Home, fault_entry)))?;
    for (signal, index) in GUARDED.into_iter().zip(0u64..) {
        remote.call("rt_sigaction", libc::SYS_rt_sigaction, [signal, 0, scratch, 8, 0, 0])?;
        // What a fault has instead of ours is what the program ignores.
        if signal == libc::SIGTRAP as u64 || read_action(target, scratch)?[0] == entry {
            let believed = target.home(offset_of!(Home, app_actions)) + index * ACTION_BYTES;
            remote.call("rt_sigaction", libc::SYS_rt_sigaction, [signal, believed, 0, 8, 0, 0])?;
        }
    }
    Ok(())
}

fn read_action(target: &Target, at: u64) -> Result<[u64; 4]> {
    let word = |i: u64| target.memory().word(at + 8 * i);
    Ok([word(0)?, word(1)?, word(2)?, word(3)?])
}

fn set_action(remote: &mut dyn Remote, target: &Target, scratch: u64, signal: u64, action: [u64; 4]) -> Result<()> {
    let bytes: Vec<u8> = action.iter().flat_map(|w| w.to_le_bytes()).collect();
    target.memory().write(scratch, bytes.get(..ACTION_BYTES as usize).unwrap_or_default())?;
    remote.call("rt_sigaction", libc::SYS_rt_sigaction, [signal, scratch, 0, 8, 0, 0]).map(drop)
}
