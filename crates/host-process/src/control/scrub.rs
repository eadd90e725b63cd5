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
    take_jumps_out(&memory, home, &standing_jumps(&memory, home)?, held)?;
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

/// A jump that stands in a process's text.
struct Standing {
    site: u64,
    address: u64,
    jump: [u8; 8],
    original: [u8; 8],
    /// Not 0 for each byte at which an instruction begins inside the jump.
    boundaries: [u8; 8],
    length: usize,
}

/// The jumps that the table of a process says to stand.
fn standing_jumps(memory: &Memory, home: u64) -> Result<Vec<Standing>> {
    let used = memory.half(home + offset_of!(Home, sites_used) as u64)?;
    let mut found = Vec::new();
    for index in 0..u64::from(used) {
        let site = home + offset_of!(Home, sites) as u64 + index * size_of::<Site>() as u64;
        let word = |offset: usize| memory.word(site + offset as u64);
        let how = memory.half(site + offset_of!(Site, how) as u64)?;
        if how & Site::JUMP == 0 || memory.half(site + offset_of!(Site, state) as u64)? != Site::ARMED {
            continue;
        }
        found.push(Standing {
            site,
            address: word(offset_of!(Site, address))?,
            jump: word(offset_of!(Site, op))?.to_le_bytes(),
            original: word(offset_of!(Site, original))?.to_le_bytes(),
            boundaries: word(offset_of!(Site, op) + 8)?.to_le_bytes(),
            length: Site::lengths(how).0.min(8) as usize,
        });
    }
    Ok(found)
}

/// Makes breakpoints of jumps, as [`kprobes`] does it: the first byte, then the others, then the boundaries inside, and
/// after each step all threads see it. One of these bytes that is neither the jump's nor the text's is somebody else's
/// work: that jump stays as it is.
fn take_jumps_out(memory: &Memory, home: u64, jumps: &[Standing], held: &mut Held) -> Result<()> {
    if jumps.is_empty() {
        return Ok(());
    }
    held.keep(home)?;
    let is_ours = |jump: &&Standing| {
        let mut now = [0; 8];
        let Some(now) = now.get_mut(..jump.length) else { return false };
        let same = |(at, &byte): (usize, &u8)| jump.jump.get(at) == Some(&byte) || jump.original.get(at) == Some(&byte);
        memory.read(jump.address, now).is_ok() && now.iter().enumerate().skip(1).all(same)
    };
    let ours: Vec<&Standing> = jumps.iter().filter(is_ours).collect();
    for jump in &ours {
        let mut first = [0];
        if memory.read(jump.address, &mut first).is_ok() && jump.jump.first() == first.first() {
            memory.write(jump.address, &[BREAKPOINT])?;
        }
    }
    synchronize(held)?;
    for boundaries in [false, true] {
        for jump in &ours {
            let bytes = jump.original.iter().zip(jump.boundaries).enumerate().take(jump.length).skip(1);
            for (at, (byte, _)) in bytes.filter(|(_, (_, inside))| (*inside != 0) == boundaries) {
                memory.write(jump.address + at as u64, &[*byte])?;
            }
        }
        synchronize(held)?;
    }
    jumps.iter().try_for_each(|jump| memory.write(jump.site + offset_of!(Site, state) as u64, &[0; 4]))
}

/// Puts the original bytes back wherever a breakpoint of ours stands, but at sites whose first probe says to keep it.
fn restore_text(memory: &Memory, home: u64, keep: impl Fn(u32) -> bool) -> Result<()> {
    let used = memory.half(home + offset_of!(Home, sites_used) as u64)?;
    for index in 0..u64::from(used) {
        let site = home + offset_of!(Home, sites) as u64 + index * size_of::<Site>() as u64;
        let is_jump = memory.half(site + offset_of!(Site, how) as u64)? & Site::JUMP != 0;
        if is_jump || memory.half(site + offset_of!(Site, state) as u64)? != Site::ARMED {
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

/// The first probe (its index + 1) at an address where a breakpoint of ours stands.
fn first_probe(memory: &Memory, home: u64, address: u64) -> Option<u32> {
    let used = memory.half(home + offset_of!(Home, sites_used) as u64).ok()?;
    let site = |index: u32| home + offset_of!(Home, sites) as u64 + u64::from(index) * size_of::<Site>() as u64;
    let half = |site: u64, offset: usize| memory.half(site + offset as u64).unwrap_or(0);
    let is_it = |&site: &u64| {
        let armed = half(site, offset_of!(Site, state)) == Site::ARMED;
        armed && half(site, offset_of!(Site, how)) & Site::JUMP == 0 && memory.word(site).is_ok_and(|at| at == address)
    };
    (0..used).map(site).find(is_it).map(|site| half(site, offset_of!(Site, first)))
}

fn scrub_child(pid: i32, shared: u64) -> Result<()> {
    let memory = Memory::open(pid)?;
    let home = memory.word(shared + offset_of!(Shared, home) as u64)?;
    // Modules that an earlier tool has inserted stay, and with them what protects their probes.
    let inhabited = modules::dismiss_guests(&memory, home)?;
    let mut jumps = standing_jumps(&memory, home)?;
    if inhabited {
        let first = |address: u64| first_probe(&memory, home, address);
        jumps.retain(|jump| !first(jump.address).is_some_and(|first| is_kept(&memory, home, first)));
    }
    if !jumps.is_empty() && process::is_alive(pid) {
        let mut held = Held::any(pid)?;
        take_jumps_out(&memory, home, &jumps, &mut held)?;
        held.release()?;
    }
    restore_text(&memory, home, |first| inhabited && is_kept(&memory, home, first))?;
    if !process::is_alive(pid) {
        return Ok(());
    }
    let mut held = Held::any(pid)?;
    held.keep(home)?;
    synchronize(&mut held)?;
    held.release()
}
