//! The agent goes into the target.
//!
//! All that is mapped has its final protection from the start; the bytes are written through `/proc/PID/mem`, so no
//! page is ever writable and executable. The target makes the shared memory and the tool opens it, not the other way
//! round: the target may have fewer rights than the tool, or another root directory.
//!
//! A target that was traced before still has the agent: it is found by the name of the shared mapping, and used again.

use super::image::Image;
use super::maps::{Mapping, gap_near, mappings};
use super::memory::Memory;
use super::shared::SharedMap;
use super::stop::{Remote, Servant};
use super::{HostError, Result, modules};
use crate::abi::{
    BANKS, Home, Identity, MAGIC, MEMFD_NAME, NO_BANK, STUB_BYTES, Shared, VERSION, shared_bytes, stacks,
};
use core::mem::offset_of;
use std::fs::OpenOptions;
use std::sync::Arc;
use sync::primitive::Ordering;

const PAGE: u64 = 0x1000;
/// The agent's start runs on a stack of its own.
const STACK_BYTES: u64 = 4 * PAGE;
const MADV_WIPEONFORK: u64 = 18;
const MEMBARRIER_REGISTER_SYNC_CORE: u64 = 1 << 6;
const NO_FILE: u64 = u64::MAX;
const NONE: u64 = libc::PROT_NONE as u64;
const READ: u64 = libc::PROT_READ as u64;
const WRITE: u64 = libc::PROT_WRITE as u64;
const EXEC: u64 = libc::PROT_EXEC as u64;
const PRIVATE: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;

/// The shared mapping's name in a process that probes itself.
pub(crate) const OWN_MEMFD_NAME: &str = "kprobe-self";

/// Where the agent is in a target.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) home: u64,
    pub(crate) shared: Arc<SharedMap>,
}

/// Maps private memory in the target.
pub(crate) fn map(remote: &mut dyn Remote, at: u64, size: u64, protection: u64, flags: u64) -> Result<u64> {
    remote.call("mmap", libc::SYS_mmap, [at, size, protection, PRIVATE | flags, NO_FILE, 0])
}

/// Finds the agent that an earlier trace left in `pid`: the addresses of its `Home` and of the shared mapping.
pub(crate) fn find(pid: i32) -> Result<Option<(u64, u64)>> {
    let memory = Memory::open(pid)?;
    let maps = mappings(pid)?;
    let named = |m: &Mapping, name: &str| m.file_path().is_some_and(|p| p.strip_prefix("/memfd:") == Some(name));
    if maps.iter().any(|m| named(m, OWN_MEMFD_NAME)) {
        let why = "it probes itself (`host_process::local`), and two cannot plant probes in one program".into();
        return Err(HostError::NotPermitted { pid, why });
    }
    for mapping in maps.into_iter().filter(|m| named(m, MEMFD_NAME)) {
        let home = memory.word(mapping.start + offset_of!(Shared, home) as u64)?;
        if home == 0 {
            // A tool was killed while it made this.
            continue;
        }
        let field = |offset: usize| memory.word(home + offset as u64).unwrap_or(0);
        if field(offset_of!(Home, magic)) != MAGIC || field(offset_of!(Home, version)) != VERSION {
            return Err(HostError::OtherVersion { pid });
        }
        // What a trace with fewer banks had may still be mapped, for a thread that was in a handler then.
        if field(offset_of!(Home, shared)) == mapping.start {
            return Ok(Some((home, mapping.start)));
        }
    }
    Ok(None)
}

/// Puts the agent into a target that has none. The shared memory is called `name` in the target's list of mappings.
pub(crate) fn inject(servant: &mut dyn Servant, pid: i32, image: &Image, name: &str, banks: usize) -> Result<Site> {
    let memory = Memory::open(pid)?;
    let base = load(servant, pid, &memory, image)?;
    let gadget = base + image.symbol("agent_syscall")?;
    let home = map(servant, 0, size_of::<Home>() as u64, READ | WRITE, 0)?;
    let identity = map(servant, 0, PAGE, READ | WRITE, 0)?;
    servant.call("madvise", libc::SYS_madvise, [identity, PAGE, MADV_WIPEONFORK, 0, 0, 0])?;
    let store = |offset: usize, value: u64| memory.write(home + offset as u64, &value.to_le_bytes());
    store(offset_of!(Home, identity), identity)?;
    store(offset_of!(Home, gadget), gadget)?;
    let stacks_at = map(servant, 0, stacks::AREA_BYTES, NONE, 0)?;
    store(offset_of!(Home, stacks) + offset_of!(stacks::Stacks, area), stacks_at)?;
    for (offset, name) in modules::exports() {
        store(offset, base + image.symbol(name)?)?;
    }
    start(servant, pid, home, base + image.symbol("agent_entry")?)?;

    let stubs = map(servant, 0, STUB_BYTES + PAGE, READ | EXEC, 0)?;
    store(offset_of!(Home, stubs), stubs)?;
    let (at, shared) = share(servant, pid, &memory, home, name, 0, banks)?;
    store(offset_of!(Home, shared), at)?;
    Ok(Site { home, shared })
}

/// Gives the agent of an earlier trace, which was started again, new shared memory: in the old one's place if that is as
/// large, since a thread may be in a handler and use it.
pub(crate) fn renew(servant: &mut dyn Servant, pid: i32, home: u64, shared_at: u64, banks: usize) -> Result<Site> {
    let memory = Memory::open(pid)?;
    let had = memory.half(shared_at + offset_of!(Shared, banks_mapped) as u64)? as usize;
    let (place, banks) = if had >= banks { (shared_at, had.min(BANKS)) } else { (0, banks) };
    let (at, shared) = share(servant, pid, &memory, home, MEMFD_NAME, place, banks)?;
    memory.write(home + offset_of!(Home, shared) as u64, &at.to_le_bytes())?;
    Ok(Site { home, shared })
}

/// Starts the agent that an earlier trace has left.
pub(crate) fn restart(servant: &mut dyn Servant, pid: i32, home: u64) -> Result<()> {
    let entry = Memory::open(pid)?.word(home + offset_of!(Home, entry) as u64)?;
    start(servant, pid, home, entry)
}

/// Maps the image's segments and fills them.
fn load(servant: &mut dyn Servant, pid: i32, memory: &Memory, image: &Image) -> Result<u64> {
    let maps = mappings(pid)?;
    let near = maps.iter().find(|m| m.is_executable()).map_or(0, |m| m.start);
    let place = gap_near(&maps, near, image.size()).unwrap_or(0);
    let fixed = libc::MAP_FIXED as u64;
    let base = map(servant, place, image.size(), 0, 0)?;
    for &segment in image.segments() {
        map(servant, base + segment.start, segment.size, segment.protection, fixed)?;
        memory.write(base + segment.start, &image.bytes(segment, base))?;
    }
    Ok(base)
}

/// Makes the shared memory: at `at`, or anywhere when that is 0.
fn share(
    servant: &mut dyn Servant,
    pid: i32,
    memory: &Memory,
    home: u64,
    name: &str,
    at: u64,
    banks: usize,
) -> Result<(u64, Arc<SharedMap>)> {
    let bytes = shared_bytes(banks) as u64;
    let name_at = map(servant, 0, PAGE, READ | WRITE, 0)?;
    memory.write(name_at, format!("{name}\0").as_bytes())?;
    let close_on_exec = u64::from(libc::MFD_CLOEXEC);
    let fd = servant.call("memfd_create", libc::SYS_memfd_create, [name_at, close_on_exec, 0, 0, 0, 0])?;
    let made = open_and_map(servant, pid, fd, at, bytes, banks);
    servant.call("close", libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
    servant.call("munmap", libc::SYS_munmap, [name_at, PAGE, 0, 0, 0, 0])?;
    let (at, shared) = made?;
    let header = shared.header();
    header.home.store(home, Ordering::Relaxed);
    header.version.store(VERSION, Ordering::Relaxed);
    header.banks_mapped.store(banks as u32, Ordering::Relaxed);
    header.magic.store(MAGIC, Ordering::Release);
    Ok((at, shared))
}

fn open_and_map(
    servant: &mut dyn Servant,
    pid: i32,
    fd: u64,
    at: u64,
    bytes: u64,
    banks: usize,
) -> Result<(u64, Arc<SharedMap>)> {
    let opened = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/fd/{fd}"));
    let file = opened.map_err(|e| HostError::io("open the target's shared memory", e))?;
    // By the tool, not by the target: its limit for file sizes would end it with SIGXFSZ.
    file.set_len(bytes).map_err(|e| HostError::io("size the shared memory", e))?;
    let shared = Arc::new(SharedMap::new(&file, banks)?);
    let flags = libc::MAP_SHARED as u64 | if at == 0 { 0 } else { libc::MAP_FIXED as u64 };
    let at = servant.call("mmap", libc::SYS_mmap, [at, bytes, READ | WRITE, flags, fd, 0])?;
    Ok((at, shared))
}

/// Runs the agent's entry point and makes the process known to itself.
///
/// As early as can be: once its handler is there, a thread that we hold is given back if we are killed.
fn start(servant: &mut dyn Servant, pid: i32, home: u64, entry: u64) -> Result<()> {
    let memory = Memory::open(pid)?;
    memory.write(home + offset_of!(Home, entry) as u64, &entry.to_le_bytes())?;
    memory.write(home + offset_of!(Home, alone) as u64, &[0; 4])?;
    servant.keep(home)?;
    let identity = memory.word(home + offset_of!(Home, identity) as u64)?;
    let own_pid = servant.call("getpid", libc::SYS_getpid, [0; 6])?;
    memory.write(identity + offset_of!(Identity, bank) as u64, &NO_BANK.to_le_bytes())?;
    memory.write(identity + offset_of!(Identity, pid) as u64, &own_pid.to_le_bytes())?;
    let stack = map(servant, 0, STACK_BYTES, READ | WRITE, 0)?;
    let result = servant.run(entry, home, stack + STACK_BYTES - 16)?;
    servant.call("munmap", libc::SYS_munmap, [stack, STACK_BYTES, 0, 0, 0, 0])?;
    servant.call("membarrier", libc::SYS_membarrier, [MEMBARRIER_REGISTER_SYNC_CORE, 0, 0, 0, 0, 0])?;
    super::stop::checked(pid, "rt_sigaction", result).map(drop)
}

/// The process counts, in the first bank of its shared memory.
pub(crate) fn count(pid: i32, home: u64) -> Result<()> {
    let memory = Memory::open(pid)?;
    let identity = memory.word(home + offset_of!(Home, identity) as u64)?;
    let epoch = home + offset_of!(Home, epoch) as u64;
    memory.write(epoch, &memory.half(epoch)?.wrapping_add(1).to_le_bytes())?;
    memory.write(identity + offset_of!(Identity, bank) as u64, &1u64.to_le_bytes())
}
