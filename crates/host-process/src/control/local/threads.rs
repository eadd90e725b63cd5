//! The threads of the own process, and the signal that is to be ours.
//!
//! A breakpoint ends a process whose thread blocks `SIGTRAP`. From outside a thread can be stopped and unblocked; from
//! inside nobody can change another thread's mask. So such threads are found before anything is planted. The calling
//! thread unblocks it for itself. Others may just be on their way: a C library blocks everything while it creates a
//! thread.

use super::error::{Error, Result};
use super::own::Own;
use crate::control::stop::Remote;
use crate::control::{HostError, process};
use std::time::Duration;

const TRAP: u64 = 1 << (libc::SIGTRAP - 1);
/// How often, and how far apart, threads that block everything are looked at again.
const LOOKS: usize = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// Refuses a process in which a breakpoint cannot be handled, whatever its threads do.
pub(crate) fn check_process(pid: i32) -> Result<()> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    if field("x86_Thread_features:").contains("shstk") {
        return Err(HostError::ShadowStack { pid }.into());
    }
    Ok(())
}

/// Unblocks `SIGTRAP` in the calling thread; whether it was blocked. The kernel must let us change what happens to it.
pub(crate) fn unblock(mut own: Own) -> Result<bool> {
    let mut action = [0u64; 4];
    let (trap, at) = (libc::SIGTRAP as u64, (&raw mut action) as u64);
    own.call("rt_sigaction", libc::SYS_rt_sigaction, [trap, 0, at, 8, 0, 0])?;
    own.call("rt_sigaction", libc::SYS_rt_sigaction, [trap, at, 0, 8, 0, 0])?;
    let blocked = Own::mask() & TRAP != 0;
    change_mask(own, libc::SIG_UNBLOCK).map(|()| blocked)
}

/// Blocks it again: nothing has come of it.
pub(crate) fn block(own: Own) -> Result<()> {
    change_mask(own, libc::SIG_BLOCK)
}

fn change_mask(mut own: Own, how: i32) -> Result<()> {
    let (set, how) = (TRAP, how as u64);
    own.call("rt_sigprocmask", libc::SYS_rt_sigprocmask, [how, (&raw const set) as u64, 0, 8, 0, 0])?;
    Ok(())
}

/// Refuses a process that has threads which block `SIGTRAP` and go on to do so.
pub(crate) fn check_masks(pid: i32) -> Result<()> {
    let mut blocking = blocking(pid);
    for _ in 0..LOOKS {
        if blocking.is_empty() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
        blocking = self::blocking(pid);
    }
    let name = |tid: &i32| format!("{} ({tid})", process::thread_name(pid, *tid));
    let threads = blocking.iter().map(name).collect::<Vec<_>>().join(", ");
    if threads.is_empty() { Ok(()) } else { Err(Error::Blocked { threads }) }
}

fn blocking(pid: i32) -> Vec<i32> {
    let blocks = |tid: &i32| process::blocked_signals(pid, *tid) & TRAP != 0;
    process::threads(pid).into_iter().filter(blocks).collect()
}
