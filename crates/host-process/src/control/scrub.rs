//! What an earlier trace left behind is taken away: by a tool that was killed, or in children that were not followed.

use super::maps::mappings;
use super::memory::Memory;
use super::stop::{Held, synchronize};
use super::table::{self, StoredProbe, StoredSite};
use super::{HostError, Result};
use super::{modules, process};
use crate::abi::{ACTIVE, Home, Shared};
use core::mem::offset_of;
use hit::returns::Pool;
use hit::{Kind, ORIGINAL_BYTES, Probe, Site};
use isa::x86::BREAKPOINT;
use kprobes::SiteData;
use std::collections::BTreeSet;

/// Refuses a process that another tool traces right now.
pub(crate) fn check_free(pid: i32, shared: u64) -> Result<()> {
    if is_attended(&Memory::open(pid)?, shared)? { Err(HostError::Busy { pid }) } else { Ok(()) }
}

/// Whether probes stand in a process that nobody traces.
pub(crate) fn is_due(pid: i32, home: u64) -> Result<bool> {
    Ok(table::sites(&Memory::open(pid)?, home)?.iter().any(|site| site.armed))
}

/// Restores the text of a held process whose agent is at `home`, and empties its table of probes.
pub(crate) fn scrub(held: &mut Held, pid: i32, home: u64) -> Result<()> {
    let memory = Memory::open(pid)?;
    let sites = table::sites(&memory, home)?;
    let jumps: Vec<_> = sites.iter().filter(|site| site.armed && site.is_jump()).collect();
    if !is_guarded(&memory, home, &sites)? {
        // The tool has not come so far, or farther: what it has noted of threads' masks need not be true.
        memory.write(home + offset_of!(Home, blocked) as u64, &[0; 8 * ACTIVE])?;
    }
    take_jumps_out(&memory, home, &jumps, held)?;
    restore_text(&memory, home, sites.iter())?;
    synchronize(held)?;
    forget_probes(&memory, home)
}

/// Whether guards stand.
fn is_guarded(memory: &Memory, home: u64, sites: &[StoredSite]) -> Result<bool> {
    let probes = table::probes(memory, home)?;
    let chains = sites.iter().filter(|site| site.armed).flat_map(|site| table::chain(&probes, site.first));
    let mut chained = chains.filter_map(|index| probes.get(index as usize));
    Ok(chained.any(|probe| probe.kind == Some(Kind::Internal)))
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

/// Makes breakpoints of jumps, as [`kprobes`] does it: the first byte, then the others, then the boundaries inside, and
/// after each step all threads see it. One of these bytes that is neither the jump's nor the text's is somebody else's
/// work: that jump stays as it is.
fn take_jumps_out(memory: &Memory, home: u64, jumps: &[&StoredSite], held: &mut Held) -> Result<()> {
    if jumps.is_empty() {
        return Ok(());
    }
    held.keep(home)?;
    let ours: Vec<Jump> = jumps.iter().map(|site| Jump::of(site)).filter(|jump| jump.is_ours(memory)).collect();
    for jump in &ours {
        let mut first = [0];
        if memory.read(jump.address, &mut first).is_ok() && jump.bytes.first() == first.first() {
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
    jumps.iter().try_for_each(|jump| clear(memory, home, jump, offset_of!(Site, state)))
}

/// What a detour's own site tells of its jump: [`Site::JUMP`].
struct Jump {
    address: u64,
    bytes: [u8; 8],
    original: [u8; ORIGINAL_BYTES],
    /// Not 0 for each byte at which an instruction begins inside the jump.
    boundaries: [u8; 8],
    length: usize,
}

impl Jump {
    fn of(site: &StoredSite) -> Self {
        let SiteData { address, original, how, op, .. } = site.data;
        let [bytes, boundaries] = op.map(u64::to_le_bytes);
        Self { address, bytes, original, boundaries, length: Site::lengths(how).0.min(8) as usize }
    }

    fn is_ours(&self, memory: &Memory) -> bool {
        let mut now = [0; 8];
        let Some(now) = now.get_mut(..self.length) else { return false };
        let same =
            |(at, &byte): (usize, &u8)| self.bytes.get(at) == Some(&byte) || self.original.get(at) == Some(&byte);
        memory.read(self.address, now).is_ok() && now.iter().enumerate().skip(1).all(same)
    }
}

/// Sets a field of a site to zero.
fn clear(memory: &Memory, home: u64, site: &StoredSite, field: usize) -> Result<()> {
    let at = home + offset_of!(Home, sites) as u64 + u64::from(site.index) * size_of::<Site>() as u64;
    memory.write(at + field as u64, &[0; 4])
}

/// Puts the original bytes back wherever a breakpoint of ours stands at one of these sites.
fn restore_text<'s>(memory: &Memory, home: u64, sites: impl Iterator<Item = &'s StoredSite>) -> Result<()> {
    for site in sites.filter(|site| site.armed && !site.is_jump()) {
        let mut now = [0];
        if memory.read(site.data.address, &mut now).is_ok() && now == [BREAKPOINT] {
            memory.write(site.data.address, &site.data.original[..1])?;
        }
        clear(memory, home, site, offset_of!(Site, state))?;
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
fn is_kept(probes: &[StoredProbe], first: u32) -> bool {
    let chain = table::chain(probes, first);
    let mut chain = chain.iter().filter_map(|&index| probes.get(index as usize));
    chain.any(|probe| probe.owner != 0 || probe.kind == Some(Kind::Internal))
}

fn scrub_child(pid: i32, shared: u64) -> Result<()> {
    let memory = Memory::open(pid)?;
    let home = memory.word(shared + offset_of!(Shared, home) as u64)?;
    // Modules that an earlier tool has inserted stay, and with them what protects their probes.
    let inhabited = modules::dismiss_guests(&memory, home)?;
    let probes = if inhabited { table::probes(&memory, home)? } else { Vec::new() };
    let sites = table::sites(&memory, home)?;
    let is_probed = |site: &&StoredSite| site.armed && !site.is_jump();
    let kept = sites.iter().filter(is_probed).filter(|site| is_kept(&probes, site.first)).map(|site| site.data.address);
    let kept: BTreeSet<u64> = kept.collect();
    let leaving = || sites.iter().filter(|site| !kept.contains(&site.data.address));
    let jumps: Vec<_> = leaving().filter(|site| site.armed && site.is_jump()).collect();
    if !jumps.is_empty() && process::is_alive(pid) {
        let mut held = Held::any(pid)?;
        take_jumps_out(&memory, home, &jumps, &mut held)?;
        held.release()?;
    }
    restore_text(&memory, home, leaving())?;
    if !process::is_alive(pid) {
        return Ok(());
    }
    let mut held = Held::any(pid)?;
    held.keep(home)?;
    synchronize(&mut held)?;
    held.release()
}
