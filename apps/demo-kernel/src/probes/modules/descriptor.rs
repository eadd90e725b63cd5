//! What a module says of itself: a [`raw::Module`], read from the file as it was linked.
//!
//! Nothing in it is believed. What it points at must lie in the module, in the part where such a thing belongs;
//! afterwards `init` and `exit` can still do what they like, as any code of a kernel's can.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem::offset_of;

use host_bare::Regs;
use kprobes::Declared;
use kprobes::raw::{self, Parameter, Text};
use loader::{Linked, Part};

use super::error::Error;

/// The longest name of a module.
const NAME_BYTES: usize = 64;
/// The longest description, and the longest name of a parameter.
const TEXT_BYTES: usize = 4096;
/// The most parameters.
const PARAMETERS: u64 = 256;

/// A module's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) parameters: Vec<Declared>,
    /// Address of a function in the module's text.
    pub(super) init: u64,
    /// As `init`.
    pub(super) exit: u64,
}

impl Descriptor {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When there is none, it is for another kernel, or it points elsewhere.
    pub(super) fn read(linked: &Linked) -> Result<Self, Error> {
        let at = linked.symbol(raw::SYMBOL).ok_or(Error::NoDescriptor)?;
        let module = Struct { linked, at };
        if module.word(offset_of!(raw::Module, magic))? != raw::MAGIC {
            return Err(Error::Descriptor("does not begin with the magic word"));
        }
        match module.half(offset_of!(raw::Module, abi))? {
            raw::ABI => {}
            abi => return Err(Error::Abi(abi)),
        }
        match module.half(offset_of!(raw::Module, regs_bytes))? {
            bytes if bytes as usize == size_of::<Regs>() => {}
            bytes => return Err(Error::Registers(bytes)),
        }
        let name = module.text(offset_of!(raw::Module, name), NAME_BYTES)?;
        if !is_name(&name) {
            return Err(Error::Descriptor("has a name that is none: letters, digits, `-` and `_`"));
        }
        Ok(Self {
            name,
            description: module.text(offset_of!(raw::Module, description), TEXT_BYTES)?,
            parameters: module.parameters()?,
            init: module.function(offset_of!(raw::Module, init))?,
            exit: module.function(offset_of!(raw::Module, exit))?,
        })
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A structure in the module's memory.
#[derive(Clone, Copy)]
struct Struct<'a> {
    linked: &'a Linked,
    at: u64,
}

impl Struct<'_> {
    fn array<const N: usize>(&self, offset: usize) -> Result<[u8; N], Error> {
        let bytes = self.at.checked_add(offset as u64).and_then(|at| self.linked.read(at, N));
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(Error::Descriptor("does not lie in the module"))
    }

    fn word(&self, offset: usize) -> Result<u64, Error> {
        self.array(offset).map(u64::from_le_bytes)
    }

    fn half(&self, offset: usize) -> Result<u32, Error> {
        self.array(offset).map(u32::from_le_bytes)
    }

    /// A [`Text`], of at most so many bytes.
    fn text(&self, offset: usize, most: usize) -> Result<String, Error> {
        let bytes = self.word(offset + offset_of!(Text, bytes))?;
        let length = self.word(offset + offset_of!(Text, length))?;
        let length = usize::try_from(length).ok().filter(|length| *length <= most);
        let length = length.ok_or(Error::Descriptor("has a text that is too long"))?;
        // An empty text has no place.
        let text = if length == 0 { Some(&[] as &[u8]) } else { self.linked.read(bytes, length) };
        let text = text.ok_or(Error::Descriptor("has a text that does not lie in the module"))?;
        core::str::from_utf8(text)
            .map(ToString::to_string)
            .map_err(|_| Error::Descriptor("has a text that is no UTF-8"))
    }

    fn function(&self, offset: usize) -> Result<u64, Error> {
        let address = self.word(offset)?;
        let inside = lies_in(self.linked, Part::Text, address, 1);
        inside.then_some(address).ok_or(Error::Descriptor("has an init or exit that does not lie in the module's text"))
    }

    fn parameters(&self) -> Result<Vec<Declared>, Error> {
        let first = self.word(offset_of!(raw::Module, parameters))?;
        let count = self.word(offset_of!(raw::Module, parameter_count))?;
        if count > PARAMETERS {
            return Err(Error::Descriptor("has too many parameters"));
        }
        let one = |index: u64| {
            let at = first.checked_add(index * size_of::<Parameter>() as u64);
            let at = at.ok_or(Error::Descriptor("has parameters that do not lie in the module"))?;
            Struct { at, ..*self }.parameter()
        };
        (0..count).map(one).collect()
    }

    fn parameter(&self) -> Result<Declared, Error> {
        let name = self.text(offset_of!(Parameter, name), NAME_BYTES)?;
        let kind = self.half(offset_of!(Parameter, kind))?;
        let capacity = self.half(offset_of!(Parameter, capacity))? as usize;
        let value = self.word(offset_of!(Parameter, value))?;
        let room = match kind {
            raw::parameter::UNSIGNED | raw::parameter::SIGNED => 8,
            raw::parameter::FLAG => 1,
            // With the word that holds its length.
            raw::parameter::TEXT if capacity >= 8 => capacity,
            raw::parameter::TEXT => return Err(Error::Descriptor("has a parameter without room for a text")),
            _ => return Err(Error::Descriptor("has a parameter of a kind that there is not")),
        };
        if !is_name(&name) {
            return Err(Error::Descriptor("has a parameter whose name is none"));
        }
        if !lies_in(self.linked, Part::Data, value, room as u64) {
            return Err(Error::Descriptor("has a parameter whose value does not lie among the module's data"));
        }
        Ok(Declared { name, kind, capacity: room, at: value })
    }
}

/// Whether so many bytes lie in a part of the module.
fn lies_in(linked: &Linked, part: Part, address: u64, bytes: u64) -> bool {
    let Some(end) = address.checked_add(bytes) else { return false };
    linked.parts().iter().filter(|segment| segment.part == part).any(|segment| {
        let start = linked.base() + segment.offset;
        start <= address && end <= start + segment.size
    })
}
