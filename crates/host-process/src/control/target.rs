//! A target as control's host: its table, its text, its slots, reached from outside.

mod detours;
mod inside;

use super::ahead::Ahead;
use super::buckets::Buckets;
use super::inject::{Site as AgentSite, map};
use super::maps::{Mapping, gap_near, mappings};
use super::memory::Memory;
use super::objects::Objects;
use super::recent::Recent;
use super::returns;
use super::stop::{Held, Remote, synchronize};
use super::table::{self, StoredProbe, StoredSite};
use super::writes::Writes;
use super::{HostError, Result};
use crate::abi::{ARENAS, Arena, Home, PROBES, PROGRAM_BYTES, SITES, SLOT_BYTES};
use core::mem::offset_of;
use core::ops::Range;
use detours::{far_jump, has_fs_base};
use hit::{Marks, Probe, Site};
use isa::x86::JUMP_LEN;
use kprobes::{Error, Function, Pads, ProbeData, ReturnScheme, SiteData, Stepping};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of an area of slots.
const ARENA_BYTES: u64 = 1 << 18;

/// A target: one process with the agent in it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) pid: i32,
    pub(crate) agent: AgentSite,
    pub(crate) objects: Arc<Objects>,
    memory: Memory,
    /// What is stored and not written yet.
    writes: Writes,
    buckets: Buckets,
    ahead: Ahead,
    /// Sites that were stored a moment ago.
    recent: Recent,
    /// The mappings, while nobody else is expected to change them: until the next flush.
    maps: Option<Vec<Mapping>>,
    used: Used,
    arenas: Vec<(u64, u64, u64)>,
    /// The address of what detours call, if probes can be placed by jumps.
    detours: Option<u64>,
    /// They shall be.
    pub(crate) places_jumps: bool,
    /// All threads are held: nobody leaves a handler.
    pub(crate) stands_still: bool,
    /// Its bank in the shared memory.
    pub(crate) bank: usize,
    pads: Pads,
    /// Where pads can be.
    pad_areas: Vec<Range<u64>>,
    programs_used: u32,
    /// Who makes system calls in the target at the moment; without one, a thread is stopped for each.
    remote: Option<Box<dyn Remote>>,
}

/// How much of the tables is in use, and whether the target is still to be told.
#[derive(Debug, Default)]
struct Used {
    sites: u32,
    probes: u32,
    is_news: bool,
    /// Areas of slots of which more is in use than their entries say.
    arenas: BTreeSet<usize>,
}

impl core::fmt::Debug for dyn Remote {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Remote")
    }
}

impl Target {
    /// The target in `pid`, whose agent is at `agent`. What its home says of arenas and programs is taken over.
    pub(crate) fn open(pid: i32, agent: AgentSite, objects: Objects) -> Result<Self> {
        let memory = Memory::open(pid)?;
        let objects = Arc::new(objects);
        let mut target = Self {
            pid,
            agent,
            objects,
            memory,
            writes: Writes::default(),
            buckets: Buckets::default(),
            ahead: Ahead::default(),
            recent: Recent::default(),
            maps: None,
            used: Used::default(),
            arenas: Vec::new(),
            detours: None,
            stands_still: false,
            bank: 0,
            places_jumps: true,
            pads: Pads::new(JUMP_LEN),
            pad_areas: Vec::new(),
            programs_used: 0,
            remote: None,
        };
        if can_jump() {
            target.set_home_half(offset_of!(Home, has_lanes), 1)?;
            target.detours = Some(target.memory.word(target.home(offset_of!(Home, detour_entry)))?);
        }
        target.used.sites = target.home_half(offset_of!(Home, sites_used))?;
        target.used.probes = target.home_half(offset_of!(Home, probes_used))?;
        target.programs_used = target.home_half(offset_of!(Home, programs_used))?;
        let arenas = target.home_half(offset_of!(Home, arenas_used))?.min(ARENAS as u32);
        for i in 0..u64::from(arenas) {
            let at = target.home(offset_of!(Home, arenas)) + i * size_of::<Arena>() as u64;
            let word = |n: u64| target.memory.word(at + 8 * n);
            target.arenas.push((word(0)?, word(1)?, word(2)?));
        }
        Ok(target)
    }

    pub(crate) fn set_remote(&mut self, remote: Option<Box<dyn Remote>>) -> Option<Box<dyn Remote>> {
        core::mem::replace(&mut self.remote, remote)
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What stands in its table of sites.
    pub(crate) fn sites(&self) -> Result<Vec<StoredSite>> {
        table::sites(&self.memory, self.agent.home)
    }

    /// What stands in its table of probes.
    pub(crate) fn probes(&self) -> Result<Vec<StoredProbe>> {
        table::probes(&self.memory, self.agent.home)
    }

    /// The string at `address`, if it is one of sensible length.
    pub(crate) fn text(&self, address: u64) -> Option<String> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while bytes.len() < libc::PATH_MAX as usize {
            self.memory.read(address + bytes.len() as u64, &mut byte).ok()?;
            if byte == [0] {
                return String::from_utf8(bytes).ok();
            }
            bytes.extend(byte);
        }
        None
    }

    /// Lets whoever can make system calls in the target make some.
    pub(crate) fn with_remote<T>(&mut self, f: impl FnOnce(&mut dyn Remote) -> Result<T>) -> Result<T> {
        if let Some(remote) = self.remote.as_mut() {
            return f(remote.as_mut());
        }
        let mut held = Held::any(self.pid)?;
        held.keep(self.agent.home)?;
        let result = f(&mut held);
        held.release()?;
        result
    }

    pub(crate) fn home(&self, offset: usize) -> u64 {
        self.agent.home + offset as u64
    }

    pub(crate) fn home_half(&self, offset: usize) -> Result<u32> {
        self.memory.half(self.home(offset))
    }

    pub(crate) fn set_home_half(&self, offset: usize, value: u32) -> Result<()> {
        self.memory.write(self.home(offset), &value.to_le_bytes())
    }

    /// The thread that is held for us at the moment.
    pub(crate) fn held(&mut self) -> Result<&mut Held> {
        let pid = self.pid;
        let none = || HostError::Unexpected { pid, what: "no thread is held".into() };
        self.remote.as_mut().and_then(|remote| remote.held()).ok_or_else(none)
    }

    /// No fetch program is in use: their places are used again.
    pub(crate) fn forget_programs(&mut self) -> Result<()> {
        self.programs_used = 0;
        self.set_home_half(offset_of!(Home, programs_used), 0)
    }

    /// Whether a breakpoint, or a jump that is none of the text's own, stands at an address.
    pub(crate) fn is_planted(&self, address: u64, jumps: bool) -> bool {
        let mut byte = [0];
        let planted = |byte| byte == isa::x86::BREAKPOINT || jumps && byte == isa::x86::JUMP;
        self.memory.read(address, &mut byte).is_ok() && planted(byte[0])
    }

    /// Nothing stands at a site any more: its table entry says so, and its chain is empty.
    pub(crate) fn abandon(&self, site: &StoredSite, chain: &[u32]) -> Result<()> {
        let at = self.home(offset_of!(Home, sites)) + u64::from(site.index) * size_of::<Site>() as u64;
        self.memory.write(at + offset_of!(Site, state) as u64, &[0; 4])?;
        self.memory.write(at + offset_of!(Site, first) as u64, &[0; 4])?;
        for &index in chain {
            let at = self.home(offset_of!(Home, probes)) + u64::from(index) * size_of::<Probe>() as u64;
            self.memory.write(at + offset_of!(Probe, state) as u64, &[0; 4])?;
        }
        Ok(())
    }

    /// Every processor that runs the target sees what was written to its text.
    pub(crate) fn synchronize(&mut self) -> Result<()> {
        self.with_remote(synchronize)
    }

    /// Whether `address` is in the agent's own memory: in one of its areas, or near its code in no file's mapping.
    fn is_ours(&self, address: u64) -> bool {
        const IMAGE: u64 = 0x20000;
        let gadget = self.memory.word(self.home(offset_of!(Home, gadget))).unwrap_or(0);
        let anonymous = || {
            let maps = mappings(self.pid).unwrap_or_default();
            maps.iter().any(|m| m.contains(address) && m.file.2 == 0)
        };
        self.arenas.iter().any(|&(base, size, _)| (base..base + size).contains(&address))
            || (self.agent.home..self.agent.home + size_of::<Home>() as u64).contains(&address)
            || gadget.abs_diff(address) < IMAGE && anonymous()
    }

    fn place<T>(
        &self,
        offset: usize,
        index: u32,
        what: &'static str,
        limit: usize,
    ) -> core::result::Result<u64, Error> {
        if index as usize >= limit {
            return Err(Error::Full { what, limit });
        }
        Ok(self.home(offset) + u64::from(index) * size_of::<T>() as u64)
    }

    fn store(&mut self, at: u64, bytes: &[u8]) -> core::result::Result<(), Error> {
        self.writes.put(&self.memory, at, bytes).map_err(failed)
    }

    /// Changes a field of a site.
    fn set_site(&mut self, index: u32, offset: usize, value: u32) -> core::result::Result<(), Error> {
        let at = self.place::<Site>(offset_of!(Home, sites), index, "sites", SITES)?;
        if self.recent.set(index, offset, value) {
            Ok(())
        } else {
            self.store(at + offset as u64, &value.to_le_bytes())
        }
    }

    /// Frees what is kept for the next registrations, after a large one.
    pub(crate) fn relax(&mut self) {
        self.recent = Recent::default();
        give_back();
    }

    /// Makes all writes that were kept back. First what the tables hold, then how much of it is in use, and where it is found.
    fn write_all(&mut self) -> Result<()> {
        self.ahead.forget();
        self.maps = None;
        let sites = self.home(offset_of!(Home, sites));
        for (index, site) in self.recent.changed() {
            let at = sites + u64::from(index) * size_of::<Site>() as u64;
            self.writes.put(&self.memory, at, site)?;
        }
        let arenas = core::mem::take(&mut self.used.arenas);
        for index in arenas {
            let Some(&(base, size, used)) = self.arenas.get(index) else { continue };
            let at = self.home(offset_of!(Home, arenas)) + (index * size_of::<Arena>()) as u64;
            let bytes: Vec<u8> = [base, size, used].iter().flat_map(|w| w.to_le_bytes()).collect();
            self.writes.put(&self.memory, at, &bytes)?;
        }
        self.writes.flush(&self.memory)?;
        if core::mem::take(&mut self.used.is_news) {
            self.set_home_half(offset_of!(Home, sites_used), self.used.sites)?;
            self.set_home_half(offset_of!(Home, probes_used), self.used.probes)?;
        }
        self.buckets.flush(&self.memory, self.agent.home)
    }

    fn maps(&mut self) -> Result<&[Mapping]> {
        let maps = match self.maps.take() {
            Some(maps) => maps,
            None => mappings(self.pid)?,
        };
        Ok(self.maps.insert(maps))
    }

    fn new_arena(&mut self, address: u64) -> Result<u64> {
        let Some(place) = gap_near(self.maps()?, address, ARENA_BYTES) else {
            let what = format!("no free address space within 1 GiB of {address:#x} for copies of instructions");
            return Err(HostError::Unexpected { pid: self.pid, what });
        };
        let protection = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        let exact = libc::MAP_FIXED_NOREPLACE as u64;
        self.maps = None;
        let base = self.with_remote(|remote| map(remote, place, ARENA_BYTES, protection, exact))?;
        let index = self.arenas.len();
        if index >= ARENAS {
            return Err(Error::Full { what: "areas of slots", limit: ARENAS }.into());
        }
        if let Some(entry) = self.detours {
            self.memory.write(base, &far_jump(entry))?;
        }
        self.arenas.push((base, ARENA_BYTES, SLOT_BYTES));
        self.set_home_half(offset_of!(Home, arenas_used), index as u32 + 1)?;
        self.used.arenas.insert(index);
        Ok(base)
    }

    /// Two slots that follow each other, or one.
    fn slots(&mut self, address: u64, count: u64) -> core::result::Result<u64, Error> {
        const REACH: u64 = 1 << 30;
        let bytes = count * SLOT_BYTES;
        let fits = |&(base, size, used): &(u64, u64, u64)| used + bytes <= size && base.abs_diff(address) < REACH;
        let index = match self.arenas.iter().position(fits) {
            Some(index) => index,
            None => {
                self.new_arena(address).map_err(failed)?;
                self.arenas.len() - 1
            }
        };
        let arena = self.arenas.get_mut(index).ok_or(Error::Full { what: "areas of slots", limit: ARENAS })?;
        let slot = arena.0 + arena.2;
        arena.2 += bytes;
        self.used.arenas.insert(index);
        Ok(slot)
    }
}

/// Gives the memory back that the allocator keeps for itself: after a large batch that is more than what the batch has left.
#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: it looks at what is free, and takes it from nobody.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
const fn give_back() {}

/// The function of an object's that holds `address`, with its code as the file has it.
pub(crate) fn function_in(objects: &Objects, address: u64) -> core::result::Result<Function, Error> {
    let object = objects.at(address).ok_or(Error::NotText { address })?;
    let bounds = object.object.function_bounds(object.to_file(address)).filter(|&(start, end)| start < end);
    let (start, end) = bounds.ok_or(Error::UnknownFunction { address })?;
    let code = object.object.code(start, (end - start) as usize).ok_or(Error::UnknownFunction { address })?;
    Ok(Function { start: object.to_target(start), code: code.to_vec() })
}

/// Whether the processor and the kernel have what detours need.
pub(crate) fn can_jump() -> bool {
    has_fs_base() && std::arch::is_x86_feature_detected!("xsave")
}

/// Whether a detour may run where this code does. A goroutine's stack has room for what its function needs, and little else.
pub(crate) fn may_displace(objects: &Objects, range: &Range<u64>) -> bool {
    objects.at(range.start).is_some_and(|object| !object.object.is_go())
}

/// A failure of the host's, as control reports it.
pub(crate) fn failed(error: HostError) -> Error {
    match error {
        HostError::Probe(error) => error,
        other => Error::Host(other.to_string()),
    }
}

impl kprobes::Host for Target {
    type Isa = arch::x86::X86<arch::x86::User>;

    fn read(&mut self, address: u64, out: &mut [u8]) -> core::result::Result<(), Error> {
        self.ahead.read(&self.memory, &self.objects, address, out).map_err(failed)
    }

    fn function(&mut self, address: u64) -> core::result::Result<Function, Error> {
        match function_in(&self.objects, address) {
            Err(Error::NotText { .. }) if self.is_ours(address) => Err(Error::Ours { address }),
            found => found,
        }
    }

    fn return_scheme(&mut self, start: u64) -> core::result::Result<ReturnScheme, Error> {
        let function = self.function(start)?;
        let scheme = returns::scheme(&self.objects, &function)?;
        if scheme == ReturnScheme::Stub {
            self.write_stubs().map_err(failed)?;
        }
        Ok(scheme)
    }

    fn publishes_slots(&self) -> bool {
        true
    }

    fn slot(&mut self, address: u64) -> core::result::Result<u64, Error> {
        self.slots(address, 1)
    }

    fn stepping(&self) -> Stepping {
        Stepping::Jump
    }

    fn has_detours(&self) -> bool {
        self.detours.is_some() && self.places_jumps
    }

    fn detour_entry(&mut self, slot: u64) -> core::result::Result<u64, Error> {
        let arena = self.arenas.iter().find(|&&(base, size, _)| (base..base + size).contains(&slot));
        arena.map(|&(base, ..)| base).ok_or(Error::NoDetours { address: slot })
    }

    fn may_displace(&mut self, range: Range<u64>) -> bool {
        may_displace(&self.objects, &range)
    }

    fn detour_slot(&mut self, address: u64, site: u32) -> core::result::Result<u64, Error> {
        // The last quarter is for probes: they work without a jump.
        const LIMIT: usize = SITES / 4 * 3;
        if site as usize >= LIMIT {
            return Err(Error::Full { what: "sites with jumps", limit: LIMIT });
        }
        self.slots(address, 2)
    }

    fn pad(&mut self, address: u64, fits: &dyn Fn(Range<u64>) -> Option<u64>) -> core::result::Result<u64, Error> {
        self.take_pad(address, fits).ok_or(Error::NoDetours { address })
    }

    fn set_jump(&mut self, site: u32, stands: bool) -> core::result::Result<(), Error> {
        self.set_armed(site, stands)
    }

    fn write_slot(&mut self, slot: u64, code: &[u8]) -> core::result::Result<(), Error> {
        if !self.arenas.iter().any(|&(base, size, _)| (base..base + size).contains(&slot)) {
            return self.store(slot, code);
        }
        // Up to the next one, so that what is written to neighbours can be written at once.
        let mut whole = code.to_vec();
        whole.resize(code.len().next_multiple_of(SLOT_BYTES as usize), 0);
        self.store(slot, &whole)
    }

    fn store_program(&mut self, code: &[u8]) -> core::result::Result<u32, Error> {
        let at = self.programs_used;
        let end = at as usize + code.len().next_multiple_of(8);
        if end > PROGRAM_BYTES {
            return Err(Error::Full { what: "bytes of fetch programs", limit: PROGRAM_BYTES });
        }
        self.store(self.home(offset_of!(Home, programs)) + u64::from(at), code)?;
        self.programs_used = end as u32;
        self.set_home_half(offset_of!(Home, programs_used), self.programs_used).map_err(failed)?;
        Ok(at)
    }

    fn store_site(&mut self, index: u32, site: &SiteData) -> core::result::Result<(), Error> {
        let at = self.place::<Site>(offset_of!(Home, sites), index, "sites", SITES)?;
        let marks = self.place::<Marks>(offset_of!(Home, marks), index, "sites", SITES)?;
        let bytes = table::site_bytes(site);
        self.recent.put(index, &bytes);
        self.store(at, &bytes)?;
        self.store(marks, &table::marks_bytes(site))?;
        (self.used.sites, self.used.is_news) = (self.used.sites.max(index + 1), true);
        Ok(())
    }

    fn publish(&mut self, address: u64, entry: u64) -> core::result::Result<(), Error> {
        self.buckets.put(address, entry)
    }

    fn store_probe(&mut self, index: u32, probe: &ProbeData) -> core::result::Result<(), Error> {
        let at = self.place::<Probe>(offset_of!(Home, probes), index, "probes", PROBES)?;
        self.store(at, &table::probe_bytes(probe))?;
        (self.used.probes, self.used.is_news) = (self.used.probes.max(index + 1), true);
        Ok(())
    }

    fn set_state(&mut self, index: u32, state: u32) -> core::result::Result<(), Error> {
        let at = self.place::<Probe>(offset_of!(Home, probes), index, "probes", PROBES)?;
        self.store(at + offset_of!(Probe, state) as u64, &state.to_le_bytes())
    }

    fn set_first(&mut self, site: u32, first: u32) -> core::result::Result<(), Error> {
        self.set_site(site, offset_of!(Site, first), first)
    }

    fn set_next(&mut self, probe: u32, next: u32) -> core::result::Result<(), Error> {
        let at = self.place::<Probe>(offset_of!(Home, probes), probe, "probes", PROBES)?;
        self.store(at + offset_of!(Probe, next) as u64, &next.to_le_bytes())
    }

    fn set_armed(&mut self, site: u32, armed: bool) -> core::result::Result<(), Error> {
        self.set_site(site, offset_of!(Site, state), if armed { Site::ARMED } else { 0 })
    }

    fn patch(&mut self, bytes: &[(u64, u8)]) -> core::result::Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        // Bytes that follow each other by one system call: the order within a step does not matter.
        for run in bytes.chunk_by(|a, b| a.0 + 1 == b.0) {
            let Some(&(first, _)) = run.first() else { continue };
            let run: Vec<u8> = run.iter().map(|&(_, byte)| byte).collect();
            self.memory.write(first, &run).map_err(failed)?;
        }
        self.synchronize().map_err(failed)
    }

    fn flush(&mut self) -> core::result::Result<(), Error> {
        self.write_all().map_err(failed)
    }

    fn grace(&mut self) -> bool {
        self.wait_for_handlers()
    }
}
