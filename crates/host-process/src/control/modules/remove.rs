//! A module leaves the target.
//!
//! `exit` runs on a held thread. Then the probes that it has left are taken off; from now on no thread comes to the
//! module's code. Some may be there still: threads in handlers. When each that was in one has left it once, the memory
//! is unmapped. If that does not happen in time, the module is *going*: it does nothing any more, and whoever comes next
//! tries to unmap it.

use super::insert::unmap;
use super::run::run;
use super::table::{self, Stored};
use crate::abi::modules::{Area, Entry, off, state};
use crate::control::member::Member;
use crate::control::{HostError, Result, process};
use core::mem::offset_of;
use std::time::{Duration, Instant};

/// How long threads may take to leave their handlers.
const PATIENCE: Duration = Duration::from_secs(2);
/// More areas than that no module has: a chain that is longer is corrupt.
const MAX_AREAS: usize = 1 << 16;

/// What became of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    /// It is gone; with what went wrong in its `exit`.
    Gone(Option<String>),
    /// It does nothing any more, but a thread is still in one of its handlers.
    Going,
}

/// Removes a module that is in the target. With `exit`, a thread is held, and runs it.
pub(super) fn remove(member: &mut Member, number: u32, exit: bool) -> Result<Removed> {
    let wrong = if exit { leave(member, number)? } else { None };
    let planted = member.modules.take(number);
    member.registry.unregister(&mut member.target, &planted).map_err(HostError::Probe)?;
    let (memory, home) = (member.target.memory(), member.target.agent.home);
    table::set_state(memory, home, number, state::GOING)?;
    if !are_out(member)? {
        return Ok(Removed::Going);
    }
    let Some(entry) = find(member, number)? else { return Ok(Removed::Gone(wrong)) };
    free(member, &entry)?;
    Ok(Removed::Gone(wrong))
}

/// Runs `exit` of a module that works; what went wrong.
fn leave(member: &mut Member, number: u32) -> Result<Option<String>> {
    match find(member, number)?.filter(Stored::is_live) {
        Some(entry) => Ok(run(member, number, entry.exit)?.err().map(|why| format!("its exit {why}"))),
        None => Ok(None),
    }
}

pub(super) fn find(member: &Member, number: u32) -> Result<Option<Stored>> {
    let modules = table::stored(member.target.memory(), member.target.agent.home)?;
    Ok(modules.into_iter().find(|m| m.number == number))
}

/// Unmaps what a module has, and frees its entry.
fn free(member: &mut Member, entry: &Stored) -> Result<()> {
    let home = member.target.agent.home;
    let mut next = entry.areas;
    for _ in 0..MAX_AREAS {
        if next == 0 {
            break;
        }
        let at = next;
        next = member.target.memory().word(at + offset_of!(Area, next) as u64)?;
        let size = member.target.memory().word(at + offset_of!(Area, size) as u64)?;
        // First, so that a tool that dies does not leave the address of what is unmapped.
        let first = table::entry_field(home, entry.number, offset_of!(Entry, areas));
        member.target.memory().write(first, &next.to_le_bytes())?;
        unmap(member, at, size)?;
    }
    let memory = member.target.memory();
    memory.write(table::entry_field(home, entry.number, offset_of!(Entry, off)), &off::NOT.to_le_bytes())?;
    table::set_state(memory, home, entry.number, state::FREE)?;
    unmap(member, entry.base, entry.size)
}

/// Whether each thread that is in a handler now has left it once, or does so soon. A thread of ours that waits in a
/// handler is in none of a module's.
fn are_out(member: &Member) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let held = member.teller.map(|tid| u64::from(tid.cast_unsigned()));
    let lives = |tid: &u64| process::threads(member.pid()).contains(&(*tid as i32));
    let mut waiting = member.target.inside()?;
    loop {
        let parked = member.target.parked();
        waiting.handlers.retain(|tid| Some(*tid) != held && Some(*tid) != parked && lives(tid));
        if waiting.is_empty() {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_micros(200));
        waiting.retain(&member.target.inside()?);
    }
}
