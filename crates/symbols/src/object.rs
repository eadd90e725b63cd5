//! An object file and what can be asked of it.

use crate::frames::Frames;
use crate::function::{Binding, Function, Name};
use crate::image::Image;
use crate::lookup::{self, Lookup, Names, Paths};
use crate::reader::{self, Part};
use crate::table::Table;
use crate::{Load, ObjectError, UnwinderStatus, debug_file, golang, unwinder};
use core::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// What the file is to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A program.
    Executable {
        /// Whether it can be loaded anywhere.
        pie: bool,
        /// Whether it needs neither a dynamic linker nor another object.
        static_linked: bool,
    },
    /// A shared object; the dynamic linker itself is one.
    Shared,
}

/// One ELF file, read.
///
/// All addresses are the file's own: add the load bias for those of a process.
///
/// ```
/// use symbols::{Object, ObjectKind, UnwinderStatus};
///
/// let path = std::env::current_exe()?;
/// let object = Object::read(&path)?;
/// assert_eq!(object.kind(), ObjectKind::Executable { pie: true, static_linked: false });
/// assert!(!object.is_static() && object.interpreter().is_some());
/// // Others do not link to a program, and the unwinder that it uses is in one of those that it needs.
/// assert_eq!(object.soname(), None);
/// assert!(object.needed().iter().any(|name| name == "libc.so.6"));
/// assert_eq!(object.unwinder(), UnwinderStatus::None);
/// assert_eq!(object.function_at(object.entry()).map(|function| function.name()), Some("_start"));
///
/// // The same bytes are the same build, wherever they come from.
/// let copy = Object::parse(&std::fs::read(&path)?, "copy")?;
/// assert_eq!(copy.build_id(), object.build_id());
/// assert!(Object::parse(b"#!/bin/sh", "script").is_err());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Object {
    pub(crate) image: Image,
    /// Where it was read from: its debug file is looked for from there.
    path: Option<PathBuf>,
    table: OnceLock<Table>,
    names: OnceLock<Names>,
    paths: OnceLock<Paths>,
    frames: OnceLock<Frames>,
    unnamed: OnceLock<Vec<Function>>,
    unwinder: OnceLock<UnwinderStatus>,
}

impl core::fmt::Debug for Object {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Object").field("path", &self.path).field("kind", &self.kind()).finish_non_exhaustive()
    }
}

impl Object {
    /// Reads the file at `path`, and its debug file if it is stripped and one is installed.
    ///
    /// # Errors
    /// The file cannot be read, or is not a program or shared object for 64-bit x86: see
    /// [`ObjectError`].
    pub fn read(path: &Path) -> Result<Self, ObjectError> {
        let bytes = reader::read(path, Part::Object).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ObjectError::NotFound(path.to_owned()),
            _ => ObjectError::Io { path: path.to_owned(), source },
        })?;
        Self::new(bytes, &path.display().to_string(), Some(path.to_owned()))
    }

    /// Reads an object from its bytes (the vDSO, a deleted file, a test); `name` is for error
    /// messages. Looks at no file.
    ///
    /// # Errors
    /// As [`read`](Self::read), but for the file system's.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, ObjectError> {
        Self::new(bytes.to_vec(), name, None)
    }

    fn new(bytes: Vec<u8>, name: &str, path: Option<PathBuf>) -> Result<Self, ObjectError> {
        Ok(Self {
            image: Image::parse(Arc::new(bytes), name)?,
            path,
            table: OnceLock::new(),
            names: OnceLock::new(),
            paths: OnceLock::new(),
            frames: OnceLock::new(),
            unnamed: OnceLock::new(),
            unwinder: OnceLock::new(),
        })
    }

    /// What the file is to the system.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        let image = &self.image;
        // A shared object may have an interpreter, so that it can be run (libc.so.6); old linkers
        // do not flag position-independent programs.
        let program = image.dynamic.pie_flag || (image.interpreter.is_some() && image.dynamic.soname.is_none());
        if image.is_dyn && !program {
            return ObjectKind::Shared;
        }
        let static_linked = image.interpreter.is_none() && image.dynamic.needed.is_empty();
        ObjectKind::Executable { pie: image.is_dyn, static_linked }
    }

    /// Whether it is a program without dynamic linker and without other objects.
    #[must_use]
    pub fn is_static(&self) -> bool {
        matches!(self.kind(), ObjectKind::Executable { static_linked: true, .. })
    }

    /// The dynamic linker that the program asks for.
    #[must_use]
    pub fn interpreter(&self) -> Option<&str> {
        self.image.interpreter.as_deref()
    }

    /// The name that other objects know it by.
    #[must_use]
    pub fn soname(&self) -> Option<&str> {
        self.image.dynamic.soname.as_deref()
    }

    /// The names of the objects it needs.
    #[must_use]
    pub fn needed(&self) -> &[String] {
        &self.image.dynamic.needed
    }

    /// The build id, which tells two builds apart.
    #[must_use]
    pub fn build_id(&self) -> Option<&[u8]> {
        self.image.build_id.as_deref()
    }

    /// Where the program begins; 0 in most shared objects.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.image.entry
    }

    /// What is mapped into memory.
    #[must_use]
    pub fn loads(&self) -> &[Load] {
        &self.image.loads
    }

    /// The address of a byte of the file; where two segments share it, the executable one's.
    #[must_use]
    pub fn vaddr_of_offset(&self, file_offset: u64) -> Option<u64> {
        let holds = |l: &&Load| file_offset >= l.offset && file_offset - l.offset < l.filesz;
        let load = self.loads().iter().filter(holds).max_by_key(|l| l.is_executable())?;
        Some(load.vaddr + (file_offset - load.offset))
    }

    /// The place in the file of the byte at an address.
    #[must_use]
    pub fn offset_of_vaddr(&self, vaddr: u64) -> Option<u64> {
        let load = self.image.load_of(vaddr)?;
        Some(load.offset + (vaddr - load.vaddr))
    }

    /// All functions by address, aliases by name. In a stripped Go program, those of Go's own
    /// table.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.table().functions
    }

    /// The function that `name` stands for: a symbol, with a version (`memcpy@GLIBC_2.2.5`) or
    /// without, or a demangled name, with parameters or without.
    ///
    /// Symbols come first. A plain name means the version that new programs get.
    ///
    /// ```
    /// use symbols::{Lookup, Object};
    ///
    /// let object = Object::read(&std::env::current_exe()?)?;
    /// let Lookup::Found(main) = object.lookup("main") else { panic!("every program has it") };
    /// assert!(object.functions().iter().any(|function| function.addr == main.addr));
    /// // Any symbol is found so, not functions only.
    /// assert_eq!(object.data_symbol("main"), Some(main.addr));
    /// assert_eq!(object.data_symbols("main"), [main.addr]);
    ///
    /// let Lookup::NotFound { nearest } = object.lookup("rt::lang_stort_internal") else { panic!("a slip") };
    /// assert!(nearest.iter().any(|name| name == "std::rt::lang_start_internal"));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lookup(&self, name: &str) -> Lookup<'_> {
        let nearest = || lookup::nearest(self.functions(), self.paths(), name);
        lookup::judge(self.named(name)).unwrap_or_else(|| Lookup::NotFound { nearest: nearest() })
    }

    /// The address of any symbol defined here, data or function, by symbol or demangled name; none
    /// if there is no such symbol, or several at different addresses
    /// ([`data_symbols`](Self::data_symbols) tells).
    #[must_use]
    pub fn data_symbol(&self, name: &str) -> Option<u64> {
        match self.data_symbols(name)[..] {
            [addr] => Some(addr),
            _ => None,
        }
    }

    /// The addresses of all symbols with this name, data and functions. A visible symbol hides
    /// static ones.
    #[must_use]
    pub fn data_symbols(&self, name: &str) -> Vec<u64> {
        let mut addresses = lookup::data(&self.table().data, name);
        addresses.extend(self.named(name).iter().map(|f| f.addr));
        if addresses.is_empty() {
            addresses = lookup::data_by_path(&self.table().data, name);
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The function that contains `vaddr`: by symbol, else one without a name from the unwind
    /// table. Of several aliases, the most visible one with the fewest underscores.
    #[must_use]
    pub fn function_at(&self, vaddr: u64) -> Option<&Function> {
        let underscores = |f: &Function| f.name().len() - f.name().trim_start_matches('_').len();
        let best = |f: &&Function| (f.binding, underscores(f), f.name().len());
        self.table().at(vaddr).iter().min_by_key(best).or_else(|| {
            let unnamed = self.unnamed();
            let after = unnamed.partition_point(|f| f.addr <= vaddr);
            unnamed[..after].last().filter(|f| f.contains(vaddr))
        })
    }

    /// Where the function around `vaddr` begins and ends, as well as the file tells: by the unwind
    /// table where it has an entry, else by the symbol.
    #[must_use]
    pub fn function_bounds(&self, vaddr: u64) -> Option<(u64, u64)> {
        let in_plt = self.is_plt(vaddr);
        // A linkage table's one entry covers all its stubs.
        let frame = self.frames().at(vaddr).filter(|_| !in_plt).map(|f| (f.start, f.end));
        frame.or_else(|| self.function_at(vaddr).map(|f| (f.addr, f.end())))
    }

    /// The code at `vaddr` as the file has it, before anybody patched it; none unless all `len`
    /// bytes are in one executable segment of the file.
    ///
    /// ```
    /// use symbols::{Lookup, Object};
    ///
    /// let object = Object::read(&std::env::current_exe()?)?;
    /// let Lookup::Found(main) = object.lookup("main") else { panic!("every program has it") };
    /// let length = usize::try_from(main.size)?;
    /// assert_eq!(object.code(main.addr, length).map(<[u8]>::len), Some(length));
    /// assert_eq!(object.code(main.addr, usize::MAX), None);
    ///
    /// assert_eq!(object.function_bounds(main.addr + 1), Some((main.addr, main.end())));
    /// assert!(object.is_executable(main.addr) && !object.is_plt(main.addr));
    /// assert!(object.executable_sections().iter().any(|section| section.contains(&main.addr)));
    ///
    /// let text = object.loads().iter().find(|load| load.is_executable()).ok_or("no code")?;
    /// assert_eq!(object.offset_of_vaddr(text.vaddr), Some(text.offset));
    /// assert_eq!(object.vaddr_of_offset(text.offset), Some(text.vaddr));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[must_use]
    pub fn code(&self, vaddr: u64, len: usize) -> Option<&[u8]> {
        self.image.load_of(vaddr).filter(|l| l.is_executable())?;
        self.image.mapped(vaddr, len as u64)
    }

    /// Whether the byte at `vaddr` is code: in a code section, or, without sections, in an
    /// executable segment.
    #[must_use]
    pub fn is_executable(&self, vaddr: u64) -> bool {
        self.image.load_of(vaddr).is_some_and(|l| l.is_executable()) && self.image.is_code(vaddr)
    }

    /// The address ranges that hold this object's own instructions: code sections but for the
    /// linkage tables; executable segments if there are no sections.
    #[must_use]
    pub fn executable_sections(&self) -> Vec<Range<u64>> {
        self.image.code_ranges(false).cloned().collect()
    }

    /// Whether `vaddr` is in a procedure linkage table: a jump to another object's function.
    #[must_use]
    pub fn is_plt(&self, vaddr: u64) -> bool {
        self.image.sections.iter().any(|s| s.is_plt() && s.contains(vaddr))
    }

    /// Which unwinder is inside this object.
    #[must_use]
    pub fn unwinder(&self) -> UnwinderStatus {
        self.unwinder.get_or_init(|| unwinder::identify(self)).clone()
    }

    /// The functions whose symbol is `name`, all versions.
    pub(crate) fn functions_named(&self, name: &str) -> Vec<&Function> {
        self.names().with_symbol(self.functions(), name)
    }

    /// The functions that `name` stands for: by symbol, else by demangled name.
    fn named(&self, name: &str) -> Vec<&Function> {
        let symbols = self.names().versioned(self.functions(), name);
        if !symbols.is_empty() {
            return symbols;
        }
        lookup::by_path(self.functions(), self.paths(), name)
    }

    pub(crate) fn table(&self) -> &Table {
        self.table.get_or_init(|| {
            let debug = self.path.as_deref().and_then(|path| debug_file::read(&self.image, path));
            let mut table = Table::read(&self.image, debug.as_ref());
            // A stripped Go program that uses C has a few dynamic symbols, and its own functions in its own table.
            if debug.is_none() && self.image.section(".symtab").is_none() {
                table.functions.extend(golang::functions(&self.image));
            }
            table.finish(&self.image, || self.frames());
            table
        })
    }

    pub(crate) fn frames(&self) -> &Frames {
        self.frames.get_or_init(|| Frames::read(&self.image))
    }

    fn names(&self) -> &Names {
        self.names.get_or_init(|| Names::new(self.functions()))
    }

    fn paths(&self) -> &Paths {
        self.paths.get_or_init(|| lookup::paths(self.functions()))
    }

    /// Functions that only the unwind table knows.
    fn unnamed(&self) -> &[Function] {
        self.unnamed.get_or_init(|| {
            let name = Name::owned("");
            let known = |start| !self.table().at(start).is_empty();
            let frames = self.frames().entries.iter().filter(|f| !known(f.start) && !self.is_plt(f.start));
            let function = |frame: &crate::frames::Frame| Function {
                addr: frame.start,
                size: frame.end - frame.start,
                size_known: true,
                ifunc: false,
                binding: Binding::Local,
                name: name.clone(),
                version: None,
            };
            frames.map(function).collect()
        })
    }
}
