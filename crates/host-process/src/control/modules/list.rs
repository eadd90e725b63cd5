//! What modules are in a process: read from outside, without stopping anything.

use super::table::{self, Stored};
use crate::abi::Home;
use crate::abi::modules::{FIRST_ID, Modules, PROBES, off, state};
use crate::control::memory::Memory;
use crate::control::table::{half_at, word_at};
use crate::control::{Result, inject, process};
use core::mem::offset_of;
use hit::{Counters, Handlers, Probe};
use std::collections::BTreeSet;

/// A module in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Bytes of memory, without the data of its return probes.
    pub size: u64,
    /// Its address.
    pub address: u64,
    /// `live`, `loading`, `going`, `faulted`, `silent`.
    pub state: &'static str,
    /// Its probes.
    pub probes: usize,
    /// Times that they ran.
    pub hits: u64,
    /// Times that they could not.
    pub missed: u64,
    /// Faults of its handlers.
    pub faults: u64,
}

/// The modules in a process; none if no tool was ever in it.
///
/// # Errors
///
/// When there is no such process, or it may not be looked at.
///
/// ```
/// use host_process::control::modules::list;
///
/// assert_eq!(list(std::process::id().cast_signed())?, []);
/// assert!(list(i32::MAX).is_err(), "there is no such process");
/// # Ok::<(), host_process::control::HostError>(())
/// ```
pub fn list(pid: i32) -> Result<Vec<Module>> {
    process::status(pid)?;
    let Some((home, _)) = inject::find(pid)? else { return Ok(Vec::new()) };
    let memory = Memory::open(pid)?;
    let probes = registered(&memory, home)?;
    let module = |stored: Stored| {
        let ids: BTreeSet<u32> = probes.iter().filter(|p| p.0 == stored.number + 1).map(|p| p.1).collect();
        let mut module = Module {
            state: state_text(&stored),
            name: stored.name,
            size: stored.size,
            address: stored.base,
            probes: ids.len(),
            hits: 0,
            missed: 0,
            faults: 0,
        };
        for id in ids {
            let Some(index) = id.checked_sub(FIRST_ID).filter(|i| (*i as usize) < PROBES) else { continue };
            let at =
                table::field(home, offset_of!(Modules, counters)) + u64::from(index) * size_of::<Counters>() as u64;
            let mut bytes = [0; size_of::<Counters>()];
            memory.read(at, &mut bytes)?;
            module.hits += word_at(&bytes, offset_of!(Counters, hits));
            module.missed += word_at(&bytes, offset_of!(Counters, missed));
            module.faults += word_at(&bytes, offset_of!(Counters, faults));
        }
        Ok(module)
    };
    table::stored(&memory, home)?.into_iter().map(module).collect()
}

/// Owner and id of each probe of a module's.
fn registered(memory: &Memory, home: u64) -> Result<Vec<(u32, u32)>> {
    let used = memory.half(home + offset_of!(Home, probes_used) as u64)? as usize;
    let mut bytes = vec![0; used.min(crate::abi::PROBES) * size_of::<Probe>()];
    memory.read(home + offset_of!(Home, probes) as u64, &mut bytes)?;
    let owner = offset_of!(Probe, handlers) + offset_of!(Handlers, owner);
    let own = |b: &[u8]| (half_at(b, owner), half_at(b, offset_of!(Probe, id)), half_at(b, offset_of!(Probe, state)));
    let all = bytes.chunks_exact(size_of::<Probe>()).map(own);
    Ok(all.filter(|p| p.0 != 0 && p.2 != 0).map(|(owner, id, _)| (owner, id)).collect())
}

pub(super) fn state_text(module: &Stored) -> &'static str {
    match (module.state, module.off) {
        (state::LOADING, off::NOT) => "loading",
        (state::LIVE, off::NOT) => "live",
        (state::LOADING | state::LIVE, off::SILENT) => "silent",
        (state::LOADING | state::LIVE, _) => "faulted",
        _ => "going",
    }
}
