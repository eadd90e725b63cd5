//! What an earlier trace left behind is taken away: by a tool that was killed, or in children that were not followed.

use super::maps::mappings;
use super::memory::Memory;
use super::stop::{Held, synchronize};
use super::{HostError, Result};
use super::{modules, process};
use crate::abi::{Home, Shared};
use core::mem::offset_of;
use hit::returns::Pool;
use hit::{Handlers, Kind, Probe, Site};
use isa::x86::BREAKPOINT;

/// Refuses a process that another tool traces right now.
pub(crate) fn check_free(pid: i32, shared: u64) -> Result<()> {
    if is_attended(&Memory::open(pid)?, shared)? { Err(HostError::Busy { pid }) } else { Ok(()) }
}

/// Restores the text of a held process whose agent is at `home`, and empties its table of probes.
pub(crate) fn scrub(held: &mut Held, pid: i32, home: u64) -> Result<()> {
    let memory = Memory::open(pid)?;
    restore_text(&memory, home, |_| false)?;
    synchronize(held)?;
    forget_probes(&memory, home)
}

/// Whether a tool listens: it says so, and its heart beats.
fn is_attended(memory: &Memory, shared: u64) -> Result<bool> {
    if memory.half(shared + offset_of!(Shared, listening) as u64)? == 0 {
        return Ok(false);
    }
    let beat = || memory.half(shared + offset_of!(Shared, heartbeat) as u64);
    let before = beat()?;
    std::thread::sleep(super::families::HEARTBEAT * 4);
    Ok(beat()? != before)
}

/// Puts the original bytes back wherever a breakpoint of ours stands, but at sites whose first probe says to keep it.
fn restore_text(memory: &Memory, home: u64, keep: impl Fn(u32) -> bool) -> Result<()> {
    let used = memory.half(home + offset_of!(Home, sites_used) as u64)?;
    for index in 0..u64::from(used) {
        let site = home + offset_of!(Home, sites) as u64 + index * size_of::<Site>() as u64;
        if memory.half(site + offset_of!(Site, state) as u64)? != Site::ARMED {
            continue;
        }
        if keep(memory.half(site + offset_of!(Site, first) as u64)?) {
            continue;
        }
        let address = memory.word(site + offset_of!(Site, address) as u64)?;
        let mut now = [0];
        if memory.read(address, &mut now).is_ok() && now == [BREAKPOINT] {
            let original = memory.word(site + offset_of!(Site, original) as u64)?;
            memory.write(address, &original.to_le_bytes()[..1])?;
        }
        memory.write(site + offset_of!(Site, state) as u64, &[0; 4])?;
    }
    Ok(())
}

/// No probe of the earlier trace remains; activations of its return probes will only go home.
fn forget_probes(memory: &Memory, home: u64) -> Result<()> {
    let sites = memory.half(home + offset_of!(Home, sites_used) as u64)?;
    for index in 0..u64::from(sites) {
        let site = home + offset_of!(Home, sites) as u64 + index * size_of::<Site>() as u64;
        memory.write(site + offset_of!(Site, first) as u64, &[0; 4])?;
    }
    let probes = memory.half(home + offset_of!(Home, probes_used) as u64)?;
    for index in 0..u64::from(probes) {
        let probe = home + offset_of!(Home, probes) as u64 + index * size_of::<Probe>() as u64;
        memory.write(probe + offset_of!(Probe, state) as u64, &[0; 4])?;
    }
    let epoch = home + (offset_of!(Home, pool) + offset_of!(Pool, epoch)) as u64;
    memory.write(epoch, &memory.half(epoch)?.wrapping_add(1).to_le_bytes())?;
    memory.write(home + offset_of!(Home, probes_used) as u64, &[0; 4])?;
    memory.write(home + offset_of!(Home, programs_used) as u64, &[0; 4])?;
    Ok(())
}

/// Restores the text of every process that maps one of `files` and is not in `known`: children that were forked from a
/// traced process and not followed. Looks again until nothing new is found, since they may fork meanwhile. What cannot be
/// reached is left as it is: its probes count nothing and harm nothing.
pub(crate) fn scrub_families(files: &[(i32, i32, u64)], known: &[i32]) {
    const PASSES: usize = 5;
    let mut done: Vec<i32> = known.to_vec();
    done.push(std::process::id().cast_signed());
    for _ in 0..PASSES {
        let Ok(entries) = std::fs::read_dir("/proc") else { return };
        let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let before = done.len();
        for pid in pids.filter(|p| !done.contains(p)).collect::<Vec<_>>() {
            let Ok(maps) = mappings(pid) else { continue };
            for shared in maps.iter().filter(|m| files.contains(&m.file)) {
                let _ = scrub_child(pid, shared.start);
                done.push(pid);
            }
        }
        if done.len() == before {
            return;
        }
    }
}

/// Whether a chain has a probe of a module's, or one of the host's own.
fn is_kept(memory: &Memory, home: u64, first: u32) -> bool {
    let mut next = first;
    for _ in 0..hit::MAX_CHAIN {
        let Some(index) = next.checked_sub(1) else { return false };
        let at = home + offset_of!(Home, probes) as u64 + u64::from(index) * size_of::<Probe>() as u64;
        let half = |offset: usize| memory.half(at + offset as u64).unwrap_or(0);
        let owner = half(offset_of!(Probe, handlers) + offset_of!(Handlers, owner));
        if owner != 0 || half(offset_of!(Probe, kind)) == Kind::Internal.code() {
            return true;
        }
        next = half(offset_of!(Probe, next));
    }
    false
}

fn scrub_child(pid: i32, shared: u64) -> Result<()> {
    let memory = Memory::open(pid)?;
    let home = memory.word(shared + offset_of!(Shared, home) as u64)?;
    // Modules that an earlier tool has inserted stay, and with them what protects their probes.
    let inhabited = modules::dismiss_guests(&memory, home)?;
    restore_text(&memory, home, |first| inhabited && is_kept(&memory, home, first))?;
    if !process::is_alive(pid) {
        return Ok(());
    }
    let mut held = Held::any(pid)?;
    held.keep(home)?;
    synchronize(&mut held)?;
    held.release()
}
