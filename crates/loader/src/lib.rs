//! Loads a *relocatable* ELF file: what a compiler or `ld -r` writes, and the form of a kernel module.
//!
//! A probe module is such a file, in a process and in a kernel: it is code without an address, and a list of the places
//! in it that depend on one. Loading it is a linker's last step, done late: the sections are laid out in one range of
//! memory, what the file leaves undefined is looked up in the host, and each listed place gets its value.
//!
//! This crate does that and nothing else. It maps nothing and runs nothing: [`Object::link`] gives the bytes as they
//! have to stand at an address, and the host puts them there, the tool through `/proc/PID/mem` and system calls made in
//! the target, a kernel by copying. So there is one loader for all hosts, and it contains no `unsafe`.
//!
//! # The two steps
//!
//! [`Object::parse`] checks everything that does not depend on the address: that the file is what it should be, that
//! nothing in it points out of it, that each section can be loaded and each relocation is of a kind that is known. A
//! host needs [`Object::size`] before it can choose an address. [`Object::link`] then gets the address and a function
//! that resolves names; what may still fail is a name that nobody defines, and a distance that does not fit.
//!
//! # The range
//!
//! All sections with equal protection are one [`Part`], each part begins on a page, and the parts follow each other:
//! code, constants, data. Protections are final from the start, since relocations are applied before anything is
//! mapped; so data which only relocations write (`.data.rel.ro`) is constant here. What is reached through a table of
//! addresses (the `GOTPCREL` relocations, with which a compiler reaches symbols that may be further away than 2 GiB)
//! gets a table at the end of the constants. Gaps between functions hold breakpoints.
//!
//! # What is not loaded
//!
//! Sections that take no memory (symbols, debug information), notes, and unwind tables: nothing unwinds through a
//! handler, it must not panic. Relocations for these are not looked at, so a name that only they use need not exist.
//!
//! Things that would need somebody to run code before or after the module's own, or memory for each thread, are
//! refused: constructors, thread-local storage, indirect functions. So are sections that can be written and executed.
//!
//! A file is not trusted. Whatever its bytes are, an answer or an [`Error`] comes back, after time and memory in
//! proportion to its length and [`MAX_SIZE`]; memory that cannot be had is an error as well.
//!
//! # Example
//!
//! ```
//! # fn host_symbol(_: &str) -> Option<u64> { None }
//! # fn load(file: &[u8]) -> Result<(), loader::Error> {
//! let object = loader::Object::parse(file)?;
//! let base = 0x7f00_0000_0000; // where `object.size()` bytes are free
//! let linked = object.link(base, &mut |name| host_symbol(name))?;
//! for segment in linked.parts() {
//!     println!("{:?} at {:#x}: {} bytes", segment.part, base + segment.offset, linked.bytes(segment).len());
//! }
//! # Ok(())
//! # }
//! # assert_eq!(load(b"#!/bin/sh"), Err(loader::Error::NotElf));
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
mod header;
mod layout;
mod linked;
mod names;
mod object;
mod relocate;
mod relocations;
mod sections;
mod symbols;

pub use error::Error;
pub use layout::{PAGE, Part, Segment};
pub use linked::{Function, Linked, LoadedSection};
pub use object::Object;

/// The most memory that a module may take: 16 MiB.
pub const MAX_SIZE: u64 = 16 << 20;
/// The most sections in a file.
pub const MAX_SECTIONS: u64 = 16 << 10;
/// The most symbols in a file.
pub const MAX_SYMBOLS: u64 = 256 << 10;
/// The most relocations in what is loaded of a file.
pub const MAX_RELOCATIONS: u64 = 1 << 20;

/// An empty vector with room for `count`, for counts that a file names.
pub(crate) fn with_room<T>(count: usize) -> Result<alloc::vec::Vec<T>, Error> {
    let mut vector = alloc::vec::Vec::new();
    vector.try_reserve_exact(count).map_err(|_| Error::OutOfMemory)?;
    Ok(vector)
}
