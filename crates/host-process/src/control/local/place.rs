//! From the place of a probe to an address in this process.

use super::error::{Error, Result};
use crate::control::objects::{FileId, Mapped, Objects};
use core::ffi::{CStr, c_void};
use kprobes::Place;
use std::collections::HashMap;
use std::ffi::CString;
use symbols::Lookup;

/// Which objects have which symbols, as far as it was asked: not to have one takes as long as to find its like.
#[derive(Debug, Default)]
pub(crate) struct Places {
    known: HashMap<(FileId, String), bool>,
}

impl Places {
    /// The address of a place. A symbol that several objects have must be given with one of them.
    pub(crate) fn address(&mut self, objects: &Objects, place: &Place<'_>) -> Result<u64> {
        let (name, offset) = match place {
            Place::Address(address) => return Ok(*address),
            Place::Symbol { name, offset } => (*name, *offset),
        };
        let (object, symbol) = place.names().unwrap_or((None, name));
        let among = |o: &&Mapped| object.is_none_or(|wanted| o.is_called(wanted));
        let among: Vec<&Mapped> = objects.all.iter().filter(among).collect();
        if among.is_empty() {
            let wanted = object.unwrap_or_default();
            return Err(Error::Place(format!("no object `{wanted}` is loaded now: load it first (dlopen)")));
        }
        let found: Vec<&Mapped> = among.iter().copied().filter(|o| self.has(o, symbol)).collect();
        match *found.as_slice() {
            [] => Err(Error::Place(not_found(&among, symbol, object))),
            [one] => in_object(objects, one, symbol, offset),
            ref several => {
                let names: Vec<String> = several.iter().map(|o| format!("{}:{symbol}", o.base_name())).collect();
                Err(Error::Place(format!("`{symbol}` is in several objects: say which, {}", names.join(" or "))))
            }
        }
    }

    fn has(&mut self, object: &Mapped, symbol: &str) -> bool {
        let look = || !matches!(object.object.lookup(symbol), Lookup::NotFound { .. });
        *self.known.entry((object.file, symbol.to_owned())).or_insert_with(look)
    }
}

fn not_found(among: &[&Mapped], symbol: &str, object: Option<&str>) -> String {
    let nearest = |o: &&Mapped| match o.object.lookup(symbol) {
        Lookup::NotFound { nearest } => nearest,
        _ => Vec::new(),
    };
    let mut nearest: Vec<String> = among.iter().flat_map(nearest).collect();
    nearest.truncate(5);
    let place = object.unwrap_or("the program and its libraries");
    let hint = if nearest.is_empty() { String::new() } else { format!("; the nearest names: {}", nearest.join(", ")) };
    format!("no function `{symbol}` in {place}{hint}")
}

fn in_object(objects: &Objects, object: &Mapped, symbol: &str, offset: u64) -> Result<u64> {
    let function = match object.object.lookup(symbol) {
        Lookup::Found(function) => function,
        Lookup::Ambiguous(all) => {
            let places: Vec<String> = all.iter().take(8).map(|f| format!("{:#x}", object.to_target(f.addr))).collect();
            let (name, places) = (object.base_name(), places.join(", "));
            return Err(Error::Place(format!("`{symbol}` is ambiguous in {name}: give one of the addresses {places}")));
        }
        Lookup::NotFound { .. } => return Err(Error::Place(not_found(&[object], symbol, None))),
    };
    if offset != 0 && offset >= function.size && !function.ifunc {
        let size = function.size;
        let why = format!("offset {offset:#x} is beyond the end of `{symbol}`, which has {size:#x} bytes");
        return Err(Error::Place(why));
    }
    Ok(implementation(objects, object.to_target(function.addr)) + offset)
}

/// Where a function really is: one that is chosen when the program starts (`memcpy` and its like: an IFUNC) is asked of
/// the dynamic linker, which has called the resolver. Any other address is itself.
pub(crate) fn implementation(objects: &Objects, address: u64) -> u64 {
    let chosen = || {
        let object = objects.at(address)?;
        let function = object.function_at(address)?;
        let asked = function.ifunc && object.to_target(function.addr) == address;
        let (path, name) = (CString::new(object.path.as_str()).ok()?, CString::new(function.name()).ok()?);
        asked.then(|| linked(&path, &name)).flatten()
    };
    chosen().unwrap_or(address)
}

/// What the dynamic linker says of a symbol of an object that is loaded.
fn linked(path: &CStr, name: &CStr) -> Option<u64> {
    // SAFETY: with `RTLD_NOLOAD` nothing is loaded, so no constructor runs; the handle is closed again, which leaves
    // the
    // object as it was; both strings live across the calls.
    let found = unsafe {
        let object: *mut c_void = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if object.is_null() {
            return None;
        }
        let found = libc::dlsym(object, name.as_ptr());
        libc::dlclose(object);
        found
    };
    (!found.is_null()).then_some(found as u64)
}
