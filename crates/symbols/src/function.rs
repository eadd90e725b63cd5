//! One function of an object.

use crate::demangle::demangle;
use std::sync::Arc;

/// How visible a symbol is to the linker (`st_info`'s upper half).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// Visible to other objects.
    Global,
    /// Visible to other objects, and another definition may replace it.
    Weak,
    /// Visible in its own source file only: another function may have the same name.
    Local,
}

/// A string that lies in the bytes of a file.
///
/// # Invariants
/// The range is inside the bytes and is valid UTF-8.
#[derive(Clone)]
pub(crate) struct Name {
    bytes: Arc<Vec<u8>>,
    start: usize,
    len: usize,
}

impl Name {
    /// The string that starts at `start`, ends before the first zero byte, and lies before `end`;
    /// none if it is not UTF-8.
    pub(crate) fn in_file(bytes: &Arc<Vec<u8>>, start: usize, end: usize) -> Option<Self> {
        let tail = bytes.get(start..end.min(bytes.len()))?;
        let len = tail.iter().position(|&b| b == 0)?;
        core::str::from_utf8(&tail[..len]).ok()?;
        // INVARIANT: just checked.
        Some(Self { bytes: Arc::clone(bytes), start, len })
    }

    /// A string of its own, for names that no file holds.
    pub(crate) fn owned(text: &str) -> Self {
        Self { bytes: Arc::new(text.as_bytes().to_vec()), start: 0, len: text.len() }
    }

    /// This name's first `len` bytes and what follows `skip` bytes, if both are strings.
    pub(crate) fn split(&self, len: usize, skip: usize) -> Option<(Self, Self)> {
        let text = self.as_str();
        (text.is_char_boundary(len) && text.is_char_boundary(skip) && skip <= self.len).then(|| {
            let head = Self { len, ..self.clone() };
            let tail = Self { start: self.start + skip, len: self.len - skip, ..self.clone() };
            (head, tail)
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or("")
    }

    /// The string's bytes: for comparing names, which needs no second look at the encoding.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..self.start + self.len).unwrap_or(&[])
    }
}

/// The version of a symbol, `memcpy@GLIBC_2.2.5`.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) name: Name,
    /// The one that new programs are linked to (`@@`).
    pub(crate) is_default: bool,
}

/// A function of an object: one name at one address.
///
/// Several may share an address (aliases). A function that only the unwind tables know has an empty
/// name.
///
/// ```
/// use std::path::Path;
/// use symbols::{Lookup, Object};
///
/// # let maps = std::fs::read_to_string("/proc/self/maps")?;
/// # let mut mapped = maps.lines().filter_map(|line| line.split(' ').next_back());
/// # let libc = mapped.find(|path| path.ends_with("/libc.so.6")).ok_or("this is not linked to glibc")?;
/// let object = Object::read(Path::new(libc))?;
/// // Programs from before glibc 2.14 are linked to this one.
/// let Lookup::Found(old) = object.lookup("memcpy@GLIBC_2.2.5") else { panic!("glibc keeps it") };
/// assert_eq!((old.name(), old.version()), ("memcpy", Some("GLIBC_2.2.5")));
/// assert_eq!(old.versioned_name(), "memcpy@GLIBC_2.2.5");
/// assert!(!old.is_default_version());
///
/// let Lookup::Found(new) = object.lookup("memcpy") else { panic!("glibc has it") };
/// assert!(new.is_default_version() && new.addr != old.addr);
/// assert!(new.contains(new.addr) && !new.contains(new.end()));
/// // C has no mangled names.
/// assert_eq!(new.demangled(), "memcpy");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Function {
    /// The address of its first byte, as linked.
    pub addr: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Whether the symbol told the size; otherwise it was found from what follows.
    pub size_known: bool,
    /// Whether the address is that of a resolver, which the dynamic linker calls to choose the
    /// function (`STT_GNU_IFUNC`).
    pub ifunc: bool,
    /// How visible the symbol is.
    pub binding: Binding,
    pub(crate) name: Name,
    pub(crate) version: Option<Version>,
}

impl Function {
    /// The symbol's name as the file has it, without a version; empty if the function has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The symbol's version (`GLIBC_2.2.5`), if it has one.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_ref().map(|v| v.name.as_str())
    }

    /// Whether a program linked today would get this version of the symbol; true without versions.
    #[must_use]
    pub fn is_default_version(&self) -> bool {
        self.version.as_ref().is_none_or(|v| v.is_default)
    }

    /// The name with its version as the linker writes it: `memcpy@GLIBC_2.2.5`,
    /// `memcpy@@GLIBC_2.14`.
    #[must_use]
    pub fn versioned_name(&self) -> String {
        match &self.version {
            None => self.name().to_owned(),
            Some(v) => format!("{}{}{}", self.name(), if v.is_default { "@@" } else { "@" }, v.name.as_str()),
        }
    }

    /// The name as the programmer wrote it, with parameters in C++; the raw name where it is not
    /// mangled.
    #[must_use]
    pub fn demangled(&self) -> String {
        demangle(self.name())
    }

    /// The address after its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.addr.saturating_add(self.size)
    }

    /// Whether `vaddr` is one of its bytes.
    #[must_use]
    pub fn contains(&self, vaddr: u64) -> bool {
        vaddr >= self.addr && vaddr < self.end()
    }
}

impl core::fmt::Debug for Function {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}+{:#x} {}", self.addr, self.size, self.versioned_name())
    }
}
