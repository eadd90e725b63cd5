//! What a prober needs to know of a program, read from its ELF files.
//!
//! A probe is named by symbol, planted at an address, and checked against the code around that
//! address. In an ordinary process all three come from the files that are mapped into it: this
//! crate reads one such file and answers questions on it. It never looks at a running process;
//! addresses are the file's own (*virtual addresses as linked*), and whoever knows where the file
//! is mapped adds the load bias.
//!
//! What is asked, and where the answer comes from:
//!
//! | Question | Source |
//! |---|---|
//! | where is the function `f`, what is at this address | `.symtab`, `.dynsym`, a separate debug file, Go's `.gopclntab` |
//! | where does a function begin and end | `.eh_frame` (compilers write it for every function), else the symbol's size |
//! | what were the bytes before anybody patched them | the file's executable segments |
//! | which functions start unwinding here | symbols, else marks that the unwinders leave in their unwind tables and code |
//! | which instructions enter the kernel to change signals | a scan of the code for system call numbers |
//! | which C library, which language | symbols, names of linked objects, start-up code |
//!
//! # Trust
//!
//! Files are hostile: every offset, count and size may be a lie. Nothing here panics or allocates
//! without bound on a damaged file; damage to what every answer rests on (headers, segments) is an
//! [`ObjectError`], damage to one table makes that table empty.
//!
//! # Cost
//!
//! [`Object::read`] reads the file and its symbol tables. Unwind tables, demangled names and scans
//! are done when first asked for and kept. Names are not copied: a [`Function`] refers to the bytes
//! of the file.

#![forbid(unsafe_code)]

mod debug_file;
mod demangle;
mod error;
mod frames;
mod function;
mod golang;
mod image;
mod lookup;
mod object;
mod pattern;
mod reader;
mod runtime;
mod syscalls;
mod table;
mod unwinder;

pub use demangle::demangle;
pub use error::ObjectError;
pub use function::{Binding, Function};
pub use image::Load;
pub use lookup::Lookup;
pub use object::{Object, ObjectKind};
pub use pattern::{Pattern, matches};
pub use runtime::{Language, Libc};
pub use unwinder::{Flavor, Unwinder, UnwinderStatus};
