//! The objects that are mapped in a target: its program and its libraries, with their symbols.

use super::Result;
use super::catalogue::Catalogue;
use super::hooks::Needs;
use super::maps::{Mapping, mappings};
use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use symbols::{Function, Object, Pattern};

/// ELF files that were read, by device and inode: processes of one trace mostly share them.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    files: HashMap<FileId, Option<Arc<Object>>>,
    /// Where the host's own probes belong in a file: addresses of the file, and what to do there.
    pub(crate) hooks: HashMap<(FileId, Needs), Arc<Vec<Hook>>>,
    /// Which functions patterns match.
    pub(crate) catalogue: Catalogue,
}

/// Device and inode.
pub(crate) type FileId = (i32, i32, u64);
/// Where a probe of the host's own belongs, and the action word of it.
pub(crate) type Hook = (u64, u64);

/// An object as it is mapped.
///
/// ```
/// use host_process::control::{Cache, Objects};
///
/// let objects = Objects::read(std::process::id().cast_signed(), &mut Cache::default())?;
/// let atoi = libc::atoi as *const () as u64;
/// let library = objects.at(atoi).ok_or("atoi is in no object")?;
/// assert_eq!(library.base_name(), "libc.so.6");
/// assert!(["libc", "libc.so.6", &library.path].iter().all(|name| library.is_called(name)));
/// assert!(library.holds(atoi));
///
/// let in_file = library.to_file(atoi);
/// assert_eq!(library.to_target(in_file), atoi);
/// assert_eq!(library.function_at(atoi + 1).map(|function| function.addr), Some(in_file));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mapped {
    /// The path that the target knows it by.
    pub path: String,
    /// Its symbols.
    pub object: Arc<Object>,
    /// What to add to an address of the file.
    pub bias: u64,
    /// Its executable mappings.
    pub code: Vec<Range<u64>>,
    /// Its file.
    pub(crate) file: FileId,
}

impl Mapped {
    /// The last component of the path.
    #[must_use]
    pub fn base_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Whether `name` means this object: its path, its soname, or its base name; these two also without what is from
    /// `.so` on (`libc` for `libc.so.6`).
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let short = |full: &str| full.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(".so"));
        self.path == name
            || short(self.base_name())
            || self.object.soname().is_some_and(short)
            || name.contains('/') && same_file(Path::new(name), Path::new(&self.path))
    }

    /// Whether a pattern means this object: it matches its path, its base name or its soname.
    ///
    /// ```
    /// # use host_process::control::{Cache, Objects};
    /// use symbols::Pattern;
    ///
    /// let objects = Objects::read(std::process::id().cast_signed(), &mut Cache::default())?;
    /// assert!(objects.all.iter().all(|object| object.is_matched_by(&Pattern::new("*"))));
    /// assert!(objects.all.iter().any(|object| object.is_matched_by(&Pattern::new("libc.so.?"))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_matched_by(&self, pattern: &Pattern) -> bool {
        let names = [Some(self.path.as_str()), Some(self.base_name()), self.object.soname()];
        names.into_iter().flatten().any(|name| pattern.is_match(name))
    }

    /// Whether `address` is in its code.
    #[must_use]
    pub fn holds(&self, address: u64) -> bool {
        self.code.iter().any(|r| r.contains(&address))
    }

    /// An address of the target as one of the file.
    #[must_use]
    pub fn to_file(&self, address: u64) -> u64 {
        address.wrapping_sub(self.bias)
    }

    /// An address of the file as one of the target.
    #[must_use]
    pub fn to_target(&self, address: u64) -> u64 {
        address.wrapping_add(self.bias)
    }

    /// The function at an address of the target.
    #[must_use]
    pub fn function_at(&self, address: u64) -> Option<&Function> {
        self.object.function_at(self.to_file(address))
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    let id = |p: &Path| p.metadata().ok().map(|m| (m.dev(), m.ino()));
    id(a).is_some() && id(a) == id(b)
}

/// The objects of a process at one moment, its program first.
///
/// ```
/// use host_process::control::{Cache, Objects};
///
/// let objects = Objects::read(std::process::id().cast_signed(), &mut Cache::default())?;
/// assert_eq!(objects.all[0].path, std::env::current_exe()?.to_string_lossy());
/// assert!(objects.is_dynamic(), "its C library is a shared one");
///
/// let atoi = libc::atoi as *const () as u64;
/// assert!(objects.at(atoi).is_some_and(|object| object.is_called("libc")));
/// let (name, offset, _) = objects.symbolize(atoi + 1).ok_or("no function is there")?;
/// assert_eq!((name.as_str(), offset), ("atoi", 1));
/// assert!(objects.at(0).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// In the order of their addresses, but for the program.
    pub all: Vec<Mapped>,
}

impl Objects {
    /// Reads what is mapped in `pid` now. Files that are no ELF objects for this machine are passed over.
    ///
    /// # Errors
    ///
    /// When the process has gone.
    pub fn read(pid: i32, cache: &mut Cache) -> Result<Self> {
        let mut all: Vec<Mapped> = Vec::new();
        let program = std::fs::read_link(super::process::executable(pid)).unwrap_or_default();
        for mapping in mappings(pid)?.iter().filter(|m| m.is_executable()) {
            let Some(path) = mapping.file_path() else { continue };
            let range = mapping.start..mapping.end;
            if let Some(known) = all.iter_mut().find(|o| o.path == path && bias(&o.object, mapping) == Some(o.bias)) {
                known.code.push(range);
                continue;
            }
            let Some(object) = cache.object(pid, mapping, &path) else { continue };
            let Some(bias) = bias(&object, mapping) else { continue };
            all.push(Mapped { path, object, bias, code: vec![range], file: mapping.file });
        }
        all.sort_by_key(|o| Path::new(&o.path) != program);
        Ok(Self { all })
    }

    /// The object whose code holds `address`.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<&Mapped> {
        self.all.iter().find(|o| o.holds(address))
    }

    /// `SYMBOL`, its offset and its size, for an address.
    #[must_use]
    pub fn symbolize(&self, address: u64) -> Option<(String, u64, u64)> {
        let object = self.at(address)?;
        let function = object.function_at(address)?;
        let name = match function.name() {
            "" => format!("{}@{:#x}", object.base_name(), function.addr),
            _ => function.demangled(),
        };
        Some((name, object.to_file(address).wrapping_sub(function.addr), function.size))
    }

    /// Whether a dynamic linker will map more: the program has an interpreter.
    #[must_use]
    pub fn is_dynamic(&self) -> bool {
        self.all.first().is_some_and(|o| o.object.interpreter().is_some())
    }
}

/// What the loader added, from where it mapped which part of the file.
fn bias(object: &Object, mapping: &Mapping) -> Option<u64> {
    let page = |a: u64| a & !0xfff;
    let covers = |l: &&symbols::Load| {
        l.is_executable() && page(l.offset) <= mapping.offset && mapping.offset < l.offset + l.filesz.max(1)
    };
    let load = object.loads().iter().find(covers)?;
    let vaddr = page(load.vaddr).wrapping_add(mapping.offset - page(load.offset));
    Some(mapping.start.wrapping_sub(vaddr))
}

impl Cache {
    /// The object of a mapping, if its file can be had unchanged.
    fn object(&mut self, pid: i32, mapping: &Mapping, path: &str) -> Option<Arc<Object>> {
        let key = mapping.file;
        if let Some(known) = self.files.get(&key) {
            return known.clone();
        }
        let candidates = [
            PathBuf::from(format!("/proc/{pid}/root{path}")),
            super::process::executable(pid),
            PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end)),
        ];
        let same = |p: &&PathBuf| p.metadata().is_ok_and(|m| m.ino() == key.2);
        let object = candidates.iter().find(same).and_then(|p| Object::read(p).ok()).map(Arc::new);
        self.files.insert(key, object.clone());
        object
    }
}
