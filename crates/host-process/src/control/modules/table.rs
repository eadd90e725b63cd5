//! The table of modules in a target, and what this tool knows of their probes.

use crate::abi::Home;
use crate::abi::modules::{Entry, FIRST_ID, MODULES, Modules, NAME_BYTES, PROBES, off, state};
use crate::control::memory::Memory;
use crate::control::table::{half_at, word_at};
use crate::control::{HostError, Result};
use core::mem::offset_of;
use kprobes::Handle;
use std::collections::BTreeMap;

/// A module's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) number: u32,
    pub(crate) state: u32,
    pub(crate) off: u32,
    pub(crate) name: String,
    pub(crate) base: u64,
    pub(crate) size: u64,
    pub(crate) exit: u64,
    pub(crate) areas: u64,
    /// Bytes of code at its beginning.
    pub(crate) text: u64,
    /// It ends with the trace that has inserted it.
    pub(crate) guest: bool,
}

impl Stored {
    /// Whether it works.
    pub(crate) fn is_live(&self) -> bool {
        self.state == state::LIVE && self.off == off::NOT
    }
}

/// The address of a field of [`Modules`].
pub(crate) fn field(home: u64, offset: usize) -> u64 {
    home + (offset_of!(Home, modules) + offset) as u64
}

/// The address of a field of an entry.
pub(crate) fn entry_field(home: u64, number: u32, offset: usize) -> u64 {
    field(home, offset_of!(Modules, table) + number as usize * size_of::<Entry>() + offset)
}

/// The modules that are in a process, by number.
pub(crate) fn stored(memory: &Memory, home: u64) -> Result<Vec<Stored>> {
    let entries = entries(memory, home)?;
    Ok(entries.into_iter().filter(|e| e.state != state::FREE).collect())
}

/// All entries of the table. One that is free has the name of the module that was there last.
pub(crate) fn entries(memory: &Memory, home: u64) -> Result<Vec<Stored>> {
    let mut bytes = vec![0; MODULES * size_of::<Entry>()];
    memory.read(field(home, offset_of!(Modules, table)), &mut bytes)?;
    Ok((0..).zip(bytes.chunks_exact(size_of::<Entry>())).map(|(number, b)| decode(number, b)).collect())
}

fn decode(number: u32, b: &[u8]) -> Stored {
    let length = (word_at(b, offset_of!(Entry, name_length)) as usize).min(NAME_BYTES);
    let name = b.get(offset_of!(Entry, name)..).and_then(|n| n.get(..length)).unwrap_or_default();
    Stored {
        number,
        state: half_at(b, offset_of!(Entry, state)),
        off: half_at(b, offset_of!(Entry, off)),
        name: String::from_utf8_lossy(name).into_owned(),
        base: word_at(b, offset_of!(Entry, base)),
        size: word_at(b, offset_of!(Entry, size)),
        exit: word_at(b, offset_of!(Entry, exit)),
        areas: word_at(b, offset_of!(Entry, areas)),
        text: word_at(b, offset_of!(Entry, text)),
        guest: word_at(b, offset_of!(Entry, guest)) != 0,
    }
}

/// Writes an entry that nobody uses, its state last; with `present`, how many are in use then.
pub(crate) fn store(memory: &Memory, home: u64, entry: &Stored) -> Result<()> {
    let word = |offset: usize, value: u64| memory.write(entry_field(home, entry.number, offset), &value.to_le_bytes());
    let mut name = [0; NAME_BYTES];
    name.iter_mut().zip(entry.name.bytes()).for_each(|(to, byte)| *to = byte);
    memory.write(entry_field(home, entry.number, offset_of!(Entry, name)), &name)?;
    word(offset_of!(Entry, name_length), entry.name.len() as u64)?;
    word(offset_of!(Entry, base), entry.base)?;
    word(offset_of!(Entry, size), entry.size)?;
    word(offset_of!(Entry, exit), entry.exit)?;
    word(offset_of!(Entry, areas), entry.areas)?;
    word(offset_of!(Entry, text), entry.text)?;
    word(offset_of!(Entry, guest), u64::from(entry.guest))?;
    memory.write(entry_field(home, entry.number, offset_of!(Entry, off)), &off::NOT.to_le_bytes())?;
    set_state(memory, home, entry.number, entry.state)
}

/// Changes a module's state, and with it how many there are.
pub(crate) fn set_state(memory: &Memory, home: u64, number: u32, state: u32) -> Result<()> {
    memory.write(entry_field(home, number, offset_of!(Entry, state)), &state.to_le_bytes())?;
    // Modules of a process that has restricted its system calls are not to run again.
    let works = |e: &&Stored| matches!(e.state, state::LOADING | state::LIVE) && e.off != off::SILENT;
    let present = stored(memory, home)?.iter().filter(works).count() as u32;
    memory.write(field(home, offset_of!(Modules, present)), &present.to_le_bytes())
}

/// A number that no module has.
pub(crate) fn free_number(modules: &[Stored]) -> Result<u32> {
    let taken = |n: &u32| modules.iter().any(|m| m.number == *n);
    let free = (0..MODULES as u32).find(|n| !taken(n));
    let full = kprobes::Error::Full { what: "modules", limit: MODULES };
    free.ok_or(HostError::Probe(full))
}

/// A probe of a module's.
#[derive(Debug)]
pub(crate) struct Own {
    /// The module's number.
    pub(crate) module: u32,
    pub(crate) handle: Handle,
}

/// The probes of modules that are registered in a process, by the ids of their counters.
#[derive(Debug, Default)]
pub(crate) struct Planted {
    pub(crate) probes: BTreeMap<u32, Own>,
    /// Modules that end with this trace, and their names.
    pub(crate) guests: Vec<(u32, String)>,
    /// What was to be inserted has been.
    pub(crate) is_done: bool,
}

impl Planted {
    /// A probe that an earlier tool has registered.
    pub(crate) fn adopt(&mut self, id: u32, module: u32, handle: Handle) {
        self.probes.insert(id, Own { module, handle });
    }

    /// Ids that are not in use.
    pub(crate) fn free_ids(&self, count: usize) -> Option<Vec<u32>> {
        let all = FIRST_ID..FIRST_ID + PROBES as u32;
        let free: Vec<u32> = all.filter(|id| !self.probes.contains_key(id)).take(count).collect();
        (free.len() == count).then_some(free)
    }

    /// The name of one that ends with this trace.
    pub(crate) fn guest_name(&self, number: u32) -> Option<&str> {
        self.guests.iter().find(|g| g.0 == number).map(|g| g.1.as_str())
    }

    /// Forgets and gives the probes of a module.
    pub(crate) fn take(&mut self, module: u32) -> Vec<Handle> {
        let (gone, kept) = core::mem::take(&mut self.probes).into_iter().partition(|(_, own)| own.module == module);
        self.probes = kept;
        let gone: BTreeMap<u32, Own> = gone;
        gone.into_values().map(|own| own.handle).collect()
    }

    /// The handles of these ids, if all are the module's.
    pub(crate) fn of(&self, module: u32, ids: &[u32]) -> Option<Vec<Handle>> {
        let own = |id: &u32| self.probes.get(id).filter(|own| own.module == module).map(|own| own.handle.clone());
        ids.iter().map(own).collect()
    }
}
