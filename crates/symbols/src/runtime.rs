//! Which C library and which language an object belongs to, and the functions of theirs that a
//! prober must know.

use crate::object::{Object, ObjectKind};
use crate::{demangle, golang};

/// A C library. They differ in how `setjmp` buffers are laid out and in how they hide signals from
/// the program.
///
/// ```
/// use std::path::Path;
/// use symbols::{Libc, Object};
///
/// # let maps = std::fs::read_to_string("/proc/self/maps")?;
/// # let mut mapped = maps.lines().filter_map(|line| line.split(' ').next_back());
/// # let libc = mapped.find(|path| path.ends_with("/libc.so.6")).ok_or("this is not linked to glibc")?;
/// let object = Object::read(Path::new(libc))?;
/// assert_eq!(object.libc(), Some(Libc::Glibc));
/// assert!(object.longjmps().iter().any(|(_, name)| *name == "longjmp"));
///
/// // The program names its dynamic linker, which says when it has loaded something.
/// let program = Object::read(&std::env::current_exe()?)?;
/// let linker = Object::read(Path::new(program.interpreter().ok_or("a static program")?))?;
/// assert!(linker.dynamic_linker_notify().is_some() && program.dynamic_linker_notify().is_none());
/// assert!(program.linker_debug_word().is_some(), "it leaves word of itself in the program");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Libc {
    /// The GNU C library. It mangles the program counter, the stack pointer and the frame pointer
    /// in a `jmp_buf`.
    Glibc,
    /// musl. It keeps a `jmp_buf` plain.
    Musl,
}

/// The language that decides how a program's stacks behave. A hint: objects of several languages
/// exist.
///
/// ```
/// use symbols::{Language, Object};
///
/// let object = Object::read(&std::env::current_exe()?)?;
/// assert!(object.is_rust() && !object.is_go());
/// assert_eq!(object.language(), Language::Rust);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// Go: stacks move, return addresses must stay true.
    Go,
    /// Rust.
    Rust,
    /// C++.
    Cpp,
    /// C, or nothing that tells.
    Other,
}

/// Functions that jump out of others without unwinding them.
const LONGJMPS: [&str; 9] = [
    "longjmp",
    "_longjmp",
    "siglongjmp",
    "__longjmp",
    "__longjmp_cancel",
    "__longjmp_chk",
    "____longjmp_chk",
    "__libc_longjmp",
    "__libc_siglongjmp",
];

/// glibc's `__longjmp`: the stack pointer, frame pointer and program counter are loaded from the
/// buffer, `ror $17,%r8; xor %fs:0x30,%r8`. No other code begins so.
const GLIBC_LONGJMP: &[u8] = &[
    0x4c, 0x8b, 0x47, 0x30, 0x4c, 0x8b, 0x4f, 0x08, 0x48, 0x8b, 0x57, 0x38, 0x49, 0xc1, 0xc8, 0x11, 0x64, 0x4c, 0x33,
    0x04, 0x25, 0x30, 0, 0, 0,
];
/// musl's `longjmp`: `xor %eax,%eax; cmp $1,%esi; adc %esi,%eax; mov (%rdi),%rbx; mov
/// 8(%rdi),%rbp`.
const MUSL_LONGJMP: &[u8] = &[0x31, 0xc0, 0x83, 0xfe, 0x01, 0x11, 0xf0, 0x48, 0x8b, 0x1f, 0x48, 0x8b, 0x6f, 0x08];

/// musl's `crt_arch.h`: `xor %rbp,%rbp; mov %rsp,%rdi; lea _DYNAMIC(%rip),%rsi` and then `and
/// $-16,%rsp`.
const MUSL_START: [&[u8]; 2] =
    [&[0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x8d, 0x35], &[0x48, 0x83, 0xe4, 0xf0, 0xe8]];
/// glibc's `start.S`: `xor %ebp,%ebp; mov %rdx,%r9; pop %rsi; mov %rsp,%rdx; and $-16,%rsp`.
const GLIBC_START: &[u8] = &[0x31, 0xed, 0x49, 0x89, 0xd1, 0x5e, 0x48, 0x89, 0xe2, 0x48, 0x83, 0xe4, 0xf0];
const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];

impl Object {
    /// Whether Go's linker made the program; stripping does not hide it.
    #[must_use]
    pub fn is_go(&self) -> bool {
        golang::is_go(&self.image) || self.has_function("runtime.main")
    }

    /// Whether Rust code is in it: by its symbols, or, stripped, by the paths of the standard
    /// library's sources in panic messages.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        self.functions().iter().any(|f| demangle::is_rust(f.name()) || f.name() == "rust_eh_personality")
            || self.read_only_data().any(|bytes| contains(bytes, b"/rustc/") || contains(bytes, b"library/std/src/"))
    }

    /// The language that decides how its stacks behave.
    #[must_use]
    pub fn language(&self) -> Language {
        if self.is_go() {
            Language::Go
        } else if self.is_rust() {
            Language::Rust
        } else if self.is_cpp() {
            Language::Cpp
        } else {
            Language::Other
        }
    }

    fn is_cpp(&self) -> bool {
        let imported = self.table().imports.iter().any(|n| n.as_str() == "__gxx_personality_v0");
        imported || self.functions().iter().any(|f| f.name().starts_with("_ZN") || f.name() == "__gxx_personality_v0")
    }

    /// The C library that this object is, is linked to, or contains; none for programs without one
    /// (pure Go).
    #[must_use]
    pub fn libc(&self) -> Option<Libc> {
        let dynamic = &self.image.dynamic;
        let names = dynamic.soname.iter().chain(&dynamic.needed).chain(&self.image.interpreter);
        names
            .map(String::as_str)
            .find_map(libc_by_name)
            .or_else(|| self.libc_by_start())
            .or_else(|| self.libc_by_content())
    }

    /// By the first instructions of the program, which come from the C library's start file.
    fn libc_by_start(&self) -> Option<Libc> {
        let start = self.image.mapped(self.entry(), 32)?;
        let start = start.strip_prefix(ENDBR64).unwrap_or(start);
        if start.starts_with(GLIBC_START) {
            return Some(Libc::Glibc);
        }
        let tail = start.strip_prefix(MUSL_START[0])?;
        tail.get(4..)?.starts_with(MUSL_START[1]).then_some(Libc::Musl)
    }

    fn libc_by_content(&self) -> Option<Libc> {
        let glibc = ["__libc_freeres_fn", "__libc_IO_vtables"].iter().any(|n| self.image.section(n).is_some());
        if glibc || self.has_function("__libc_setup_tls") {
            return Some(Libc::Glibc);
        }
        if ["__init_libc", "static_init_tls", "__dls3"].iter().any(|n| self.has_function(n)) {
            return Some(Libc::Musl);
        }
        if self.is_go() || self.kind() == ObjectKind::Shared {
            return None;
        }
        let says = |text: &[u8]| self.read_only_data().any(|bytes| contains(bytes, text));
        if says(b"GLIBC_TUNABLES") {
            return Some(Libc::Glibc);
        }
        // The first of musl's error messages; glibc's is "Success".
        says(b"No error information\0").then_some(Libc::Musl)
    }

    /// The functions of the `longjmp` family that are defined here, by address.
    ///
    /// A `jmp_buf` holds the stack pointer in its seventh word: plain in musl, rotated by 17 and
    /// xored with `fs:0x30` in glibc ([`libc`](Self::libc)). In stripped static programs they are
    /// known by their code.
    #[must_use]
    pub fn longjmps(&self) -> Vec<(u64, &str)> {
        let named = LONGJMPS.iter().flat_map(|name| self.functions_named(name));
        let mut found: Vec<_> = named.map(|f| (f.addr, f.name())).collect();
        if found.is_empty() && self.is_static() {
            found = self.stripped_longjmps();
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// By their code: assembly that has been the same for years.
    fn stripped_longjmps(&self) -> Vec<(u64, &str)> {
        let marks = [(GLIBC_LONGJMP, "__longjmp"), (MUSL_LONGJMP, "longjmp")];
        let mut found = Vec::new();
        for range in self.image.code_ranges(false) {
            let Some(bytes) = self.image.mapped(range.start, range.end - range.start) else { continue };
            for (mark, name) in marks {
                let places = find_all(bytes, mark).map(|at| (range.start + at as u64, name));
                found.extend(places);
            }
        }
        found
    }

    /// The function that the dynamic linker calls after it has mapped or unmapped objects
    /// (`r_brk`): `_dl_debug_state`, in glibc's `ld.so` and musl's `libc.so`.
    #[must_use]
    pub fn dynamic_linker_notify(&self) -> Option<u64> {
        let is_linker = self.kind() == ObjectKind::Shared;
        is_linker.then(|| self.functions_named("_dl_debug_state").first().map(|f| f.addr))?
    }

    /// Where a program has the value of `DT_DEBUG`, before the load bias: there the dynamic linker leaves the address of
    /// its `r_debug` (`<link.h>`).
    #[must_use]
    pub fn linker_debug_word(&self) -> Option<u64> {
        self.image.dynamic.debug_word
    }

    fn has_function(&self, name: &str) -> bool {
        !self.functions_named(name).is_empty()
    }

    /// The segments where constants and strings are: what cannot be written, code included (old
    /// linkers put both into one).
    pub(crate) fn read_only_data(&self) -> impl Iterator<Item = &[u8]> {
        let segments = self.image.loads.iter().filter(|l| !l.is_writable());
        segments.filter_map(|l| self.image.file(l.offset, l.filesz))
    }
}

fn libc_by_name(name: &str) -> Option<Libc> {
    let file = name.rsplit('/').next().unwrap_or(name);
    if file.starts_with("ld-musl") || file.starts_with("libc.musl") || file == "libc.so" {
        Some(Libc::Musl)
    } else if file.starts_with("libc.so.6") || file.starts_with("ld-linux") {
        Some(Libc::Glibc)
    } else {
        None
    }
}

/// Whether `text` occurs in `bytes`.
pub(crate) fn contains(bytes: &[u8], text: &[u8]) -> bool {
    find_all(bytes, text).next().is_some()
}

/// Where `text` occurs in `bytes`.
pub(crate) fn find_all<'a>(bytes: &'a [u8], text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = text.first().copied().unwrap_or(0);
    let starts = bytes.iter().enumerate().filter(move |&(_, &b)| b == first).map(|(at, _)| at);
    starts.filter(move |&at| bytes[at..].starts_with(text))
}
