//! A module's file, checked before any process is touched.

use crate::abi::modules::NAME_BYTES;
use crate::control::{HostError, Result};
use core::mem::offset_of;
use isa::x86::Regs;
use kprobes::raw::{ABI, EXPORTS, MAGIC, Module, Parameter, SYMBOL, Text};
use kprobes::{Declared, settings};
use loader::{Linked, Object, Part};
use std::path::Path;
use std::sync::Arc;

/// Files beyond this are no modules.
const MAX_FILE: u64 = 64 << 20;
/// More parameters than that no module has.
const MAX_PARAMETERS: usize = 256;
/// Where it is linked for the checks: any address would do.
const TRIAL_BASE: u64 = 0x7f00_0000_0000;
/// Where the agent's functions are then.
const TRIAL_EXPORT: u64 = TRIAL_BASE - 0x10_0000;

/// A module's file and the values of its parameters, as far as they can be checked without a process.
///
/// ```no_run
/// use host_process::control::modules::ModuleFile;
/// use std::path::Path;
///
/// let path = Path::new("malloc-histogram.ko");
/// let file = ModuleFile::read(path, &["symbol=libc.so.6:calloc".into()])?;
/// assert_eq!(file.name(), "malloc-histogram");
/// assert!(ModuleFile::read(path, &["colour=red".into()]).is_err(), "it has no such parameter");
/// # Ok::<(), host_process::control::HostError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModuleFile {
    name: String,
    bytes: Arc<[u8]>,
    /// What is to be written where, from the module's beginning.
    settings: Vec<(u64, Vec<u8>)>,
}

impl ModuleFile {
    /// Reads a file, with arguments `NAME=VALUE`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is no module for this version and processor, or has no such parameters.
    pub fn read(path: &Path, arguments: &[String]) -> Result<Self> {
        let shown = path.display().to_string();
        let failed = |e| HostError::io(format!("read {shown}"), e);
        let metadata = path.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(HostError::Module { name: shown, why: "not a file".into() });
        }
        if metadata.len() > MAX_FILE {
            let why = format!("{} bytes: no module is that large", metadata.len());
            return Err(HostError::Module { name: shown, why });
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        Self::parse(bytes, arguments).map_err(|why| HostError::Module { name: shown, why })
    }

    fn parse(bytes: Vec<u8>, arguments: &[String]) -> core::result::Result<Self, String> {
        let object = Object::parse(&bytes).map_err(|e| e.to_string())?;
        let trial = |name: &str| EXPORTS.iter().position(|e| *e == name).map(|i| TRIAL_EXPORT + 16 * i as u64);
        let linked = object.link(TRIAL_BASE, &mut |name| trial(name)).map_err(|e| e.to_string())?;
        let about = About::read(&linked)?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let settings = settings(&about.parameters, &arguments)?;
        Ok(Self { name: about.name, bytes: bytes.into(), settings })
    }

    /// The module's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn object(&self) -> core::result::Result<Object<'_>, String> {
        Object::parse(&self.bytes).map_err(|e| e.to_string())
    }

    pub(super) fn settings(&self) -> &[(u64, Vec<u8>)] {
        &self.settings
    }
}

/// What a module says of itself.
#[derive(Debug)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) parameters: Vec<Declared>,
    /// Addresses.
    pub(super) init: u64,
    pub(super) exit: u64,
}

impl About {
    /// Reads what a linked module says.
    pub(super) fn read(linked: &Linked) -> core::result::Result<Self, String> {
        let at = linked.symbol(SYMBOL).ok_or(format!(
            "not a probe module: it does not define the symbol `{SYMBOL}` (is it a module for Linux, or an ordinary object \
             file? `kprobe build` makes probe modules)"
        ))?;
        let reader = Reader(linked);
        let bytes = reader.bytes(at, size_of::<Module>(), "its description")?;
        let word = |offset: usize| word_at(bytes, offset);
        let half = |offset: usize| word(offset) as u32;
        if word(offset_of!(Module, magic)) != MAGIC {
            return Err(format!("not a probe module: what is at its `{SYMBOL}` is none's description"));
        }
        let abi = half(offset_of!(Module, abi));
        if abi != ABI {
            return Err(format!("built for version {abi} of the interface to modules; this tool has version {ABI}"));
        }
        let regs = half(offset_of!(Module, regs_bytes)) as usize;
        if regs != size_of::<Regs>() {
            let wanted = size_of::<Regs>();
            return Err(format!("its handlers expect registers of {regs} bytes; here they have {wanted}"));
        }
        let name = reader.text(bytes, offset_of!(Module, name), "its name")?;
        check_name(&name)?;
        let (init, exit) = (word(offset_of!(Module, init)), word(offset_of!(Module, exit)));
        for (what, function) in [("init", init), ("exit", exit)] {
            if !reader.is_in(Part::Text, function, 1) {
                return Err(format!("its {what} function is not in its code"));
            }
        }
        let count = word(offset_of!(Module, parameter_count)) as usize;
        if count > MAX_PARAMETERS {
            return Err(format!("it has {count} parameters; {MAX_PARAMETERS} are the most"));
        }
        let first = word(offset_of!(Module, parameters));
        let each = (0..count as u64).map(|i| reader.parameter(first.wrapping_add(i * size_of::<Parameter>() as u64)));
        Ok(Self { name, parameters: each.collect::<core::result::Result<_, _>>()?, init, exit })
    }
}

fn check_name(name: &str) -> core::result::Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(fits) {
        let shown: String = name.chars().take(NAME_BYTES).flat_map(char::escape_default).collect();
        return Err(format!("its name `{shown}` is none: 1 to {NAME_BYTES} letters, digits, `_`, `-` and `.`"));
    }
    Ok(())
}

/// Follows the pointers in a linked module.
struct Reader<'l>(&'l Linked);

impl Reader<'_> {
    fn bytes(&self, at: u64, length: usize, what: &str) -> core::result::Result<&[u8], String> {
        self.0.read(at, length).ok_or_else(|| format!("corrupt: {what} is not inside the module"))
    }

    /// The [`Text`] at `offset` of a structure.
    fn text(&self, structure: &[u8], offset: usize, what: &str) -> core::result::Result<String, String> {
        let at = word_at(structure, offset + offset_of!(Text, bytes));
        let length = word_at(structure, offset + offset_of!(Text, length));
        if length == 0 {
            return Ok(String::new());
        }
        let length = usize::try_from(length).map_err(|_| format!("corrupt: {what} is too long"))?;
        let bytes = self.bytes(at, length, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("corrupt: {what} is no text"))
    }

    fn parameter(&self, at: u64) -> core::result::Result<Declared, String> {
        let bytes = self.bytes(at, size_of::<Parameter>(), "its list of parameters")?;
        let name = self.text(bytes, offset_of!(Parameter, name), "the name of a parameter")?;
        let kind = word_at(bytes, offset_of!(Parameter, kind)) as u32;
        let capacity = (word_at(bytes, offset_of!(Parameter, capacity)) as u32) as usize;
        let value = word_at(bytes, offset_of!(Parameter, value));
        if !self.is_in(Part::Data, value, capacity as u64) {
            return Err(format!("corrupt: the value of its parameter `{name}` is not in its data"));
        }
        Ok(Declared { name, kind, capacity, at: value.wrapping_sub(self.0.base()) })
    }

    /// Whether `length` bytes at an address are in one of its parts.
    fn is_in(&self, part: Part, address: u64, length: u64) -> bool {
        let Some(offset) = address.checked_sub(self.0.base()) else { return false };
        let holds = |s: &&loader::Segment| {
            s.part == part && s.offset <= offset && offset.saturating_add(length) <= s.offset + s.size
        };
        self.0.parts().iter().any(|s| holds(&s))
    }
}

fn word_at(bytes: &[u8], offset: usize) -> u64 {
    let word = bytes.iter().skip(offset).take(8).rev();
    word.fold(0, |word, &byte| word << 8 | u64::from(byte))
}
