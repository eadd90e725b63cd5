//! A module goes into the target.

use super::file::{About, ModuleFile};
use super::run::run;
use super::table::{self, Stored};
use crate::abi::Home;
use crate::abi::modules::{Entry, Modules, off, state};
use crate::control::inject::map;
use crate::control::maps::{gap_near, mappings};
use crate::control::member::Member;
use crate::control::{HostError, Result};
use core::mem::offset_of;
use kprobes::raw::EXPORTS;
use loader::{Linked, Part};

/// Inserts a module, while a thread is held; its number. With an error the target is as before.
pub(super) fn insert(member: &mut Member, file: &ModuleFile, guest: bool) -> Result<u32> {
    let refused = |why: String| HostError::Module { name: file.name().to_owned(), why };
    let modules = table::stored(member.target.memory(), member.target.agent.home)?;
    if let Some(same) = modules.iter().find(|m| m.name == file.name()) {
        let state = super::list::state_text(same);
        return Err(refused(format!("a module of this name is in process {} already ({state})", member.pid())));
    }
    let number = table::free_number(&modules)?;
    let object = file.object().map_err(refused)?;
    let base = place(member, object.size())?;
    let placed = link(member, &object, base).map_err(refused).and_then(|linked| {
        let about = About::read(&linked).map_err(refused)?;
        write(member, &linked, file)?;
        Ok((linked, about))
    });
    let (linked, about) = match placed {
        Ok(placed) => placed,
        Err(error) => {
            unmap(member, base, object.size())?;
            return Err(error);
        }
    };
    let text = linked.parts().iter().filter(|s| s.part == Part::Text).map(|s| s.offset + s.size).max();
    let entry = Stored {
        number,
        state: state::LOADING,
        off: off::NOT,
        name: about.name,
        base,
        size: object.size(),
        exit: about.exit,
        areas: 0,
        text: text.unwrap_or(0),
        guest,
    };
    table::store(member.target.memory(), member.target.agent.home, &entry)?;
    let begun = begin(member, number, about.init);
    if let Ok(Ok(())) = begun {
        return Ok(number);
    }
    let undone = super::remove::remove(member, number, false);
    match begun? {
        Ok(()) => Ok(number),
        Err(why) => {
            undone?;
            Err(refused(why))
        }
    }
}

/// Runs `init`; why the module cannot stay.
fn begin(member: &mut Member, number: u32, init: u64) -> Result<core::result::Result<(), String>> {
    let said = match run(member, number, init)? {
        Ok(result) => result as i32,
        Err(why) => return Ok(Err(format!("its init {why}"))),
    };
    if said != 0 {
        return Ok(Err(format!("its init has failed ({said})")));
    }
    let (memory, home) = (member.target.memory(), member.target.agent.home);
    if memory.half(table::entry_field(home, number, offset_of!(Entry, off)))? != off::NOT {
        return Ok(Err("a handler of it has faulted".into()));
    }
    table::set_state(memory, home, number, state::LIVE)?;
    Ok(Ok(()))
}

/// Reserves memory near the agent.
fn place(member: &mut Member, size: u64) -> Result<u64> {
    let gadget = member.target.memory().word(member.target.home(offset_of!(Home, gadget)))?;
    let place = gap_near(&mappings(member.pid())?, gadget, size);
    let why = "no free address space within 1 GiB of the agent".into();
    let place = place.ok_or(HostError::Unexpected { pid: member.pid(), what: why })?;
    member.target.with_remote(|remote| map(remote, place, size, 0, libc::MAP_FIXED_NOREPLACE as u64))
}

/// The module as it has to be at `base`.
fn link(member: &Member, object: &loader::Object<'_>, base: u64) -> core::result::Result<Linked, String> {
    let (memory, home) = (member.target.memory(), member.target.agent.home);
    let export = |name: &str| {
        let index = EXPORTS.iter().position(|e| *e == name)?;
        memory.word(table::field(home, offset_of!(Modules, exports) + 8 * index)).ok().filter(|&at| at != 0)
    };
    object.link(base, &mut |name| export(name)).map_err(|e| e.to_string())
}

/// Maps the parts with their final protection, and fills them.
fn write(member: &mut Member, linked: &Linked, file: &ModuleFile) -> Result<()> {
    let base = linked.base();
    for segment in linked.parts() {
        let protection = match segment.part {
            Part::Text => libc::PROT_READ | libc::PROT_EXEC,
            Part::ReadOnly => libc::PROT_READ,
            Part::Data => libc::PROT_READ | libc::PROT_WRITE,
        };
        let (at, fixed) = (base + segment.offset, libc::MAP_FIXED as u64);
        member.target.with_remote(|remote| map(remote, at, segment.size, protection as u64, fixed))?;
        member.target.memory().write(at, linked.bytes(segment))?;
    }
    for (offset, bytes) in file.settings() {
        member.target.memory().write(base + offset, bytes)?;
    }
    // Code is where something else may have been.
    member.target.synchronize()
}

pub(super) fn unmap(member: &mut Member, at: u64, size: u64) -> Result<()> {
    member.target.with_remote(|remote| remote.call("munmap", libc::SYS_munmap, [at, size, 0, 0, 0, 0])).map(drop)
}
