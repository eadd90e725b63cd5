//! Probe definitions, fetch programs, records and their text.
//!
//! A probe is defined by the line that Linux's `kprobe_events` and `uprobe_events` files take, verbatim:
//!
//! ```text
//! p[:[GRP/][EVENT]] PLACE [[NAME=]FETCH[:TYPE]]…      a probe
//! r[MAXACTIVE][:[GRP/][EVENT]] PLACE [ARGS]           a return probe (so is PLACE%return)
//! -:[GRP/][EVENT] [PLACE]                             removes events
//!
//! PLACE: [OBJECT:]SYMBOL[+OFFSET] | [OBJECT:]0xADDRESS | PATH:FILEOFFSET[(REFERENCE)]
//! FETCH: %REG $argN $retval $stack $stackN $comm @ADDR @SYM[+-OFF] @+FILEOFF +|-[u]OFF(FETCH) \IMM \"text"
//! TYPE:  u8…u64 s8…s64 x8…x64 char string ustring symbol symstr bWIDTH@OFFSET/CONTAINER, each TYPE[COUNT]
//! ```
//!
//! The crate has two halves, because definitions are read in one place and executed in another:
//!
//! | Half | Where it runs | May |
//! |---|---|---|
//! | [`fetch`], [`record`]'s layout and [`wire`], always | in trap context: a signal handler of the probed process, a kernel's `#BP` handler | neither allocate nor panic nor block |
//! | the rest, feature `text` | in the tool | allocate |
//!
//! A line is `parse`d to a `Definition`, `compile`d to a `Program` whose code is plain bytes, copied to where the probe is
//! hit and executed there by [`run`](fn@run); what it writes is `decode`d to `Value`s and printed by `write_text` or
//! `write_json`.
//!
//! ```
//! # #[cfg(feature = "text")] {
//! use events::{Line, Location, Resolve, Site, Source, compile, decode, parse, run, write_text};
//!
//! struct Target;
//! impl Resolve for Target {
//!     fn symbol(&self, _object: Option<&str>, _name: &str) -> Option<u64> { None }
//!     fn file_offset(&self, _offset: u64) -> Option<u64> { None }
//! }
//!
//! struct Thread;
//! impl Source for Thread {
//!     fn register(&self, index: u8) -> u64 { if index == 7 { 3 } else { 0 } }
//!     fn return_value(&self) -> u64 { 0 }
//!     fn comm(&self, out: &mut [u8; 16]) { out[..4].copy_from_slice(b"demo") }
//!     fn read(&self, _addr: u64, _out: &mut [u8]) -> bool { false }
//!     fn read_string(&self, _addr: u64, _out: &mut [u8]) -> Option<usize> { None }
//! }
//!
//! let definition = parse("p:close libc.so.6:close fd=$arg1:s32 +0(%si):string")?;
//! let program = compile(&definition, &Target)?;
//!
//! let mut payload = [0; 256];
//! let len = run(&program.code, &Thread, &mut payload);
//!
//! let values = decode(&program.schema, &payload[..len]);
//! let names = program.schema.fields.iter().map(|field| field.name.as_str());
//! let site = Site { addr: 0x401000, symbol: Some("close"), offset: 0, size: Some(0x20) };
//! let line = Line {
//!     comm: "demo", tid: 7, pid: 7, cpu: 0, time_ns: 1_500_000_000,
//!     event: &definition.event_name(), group: &definition.group_name(),
//!     location: Location::Entry(site), values: &names.zip(values).collect::<Vec<_>>(),
//! };
//! assert_eq!(
//!     write_text(&line, &|_| None),
//!     "            demo-7       [000]      1.500000: close: (close+0x0/0x20) fd=3 arg2=(fault)",
//! );
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # What Linux's rules mean here
//!
//! `PATH:FILEOFFSET` lines follow `uprobe_events`, all others follow `kprobe_events`: what Linux refuses is refused with
//! its error code, its message and its column. Differences, each on purpose:
//!
//! - Names may be quoted (`p "operator new(unsigned long)"`, `@"crate::STATIC"`): inside quotes nothing is special but
//!   `\"` and `\\`. Names with spaces, `+`, `-`, `%`, `#` or a leading digit need it; `::` does not in a place, and does
//!   after `@`. Quoted text does not count towards the 63 bytes of an argument.
//! - `OBJECT` is a path, a soname or a base name of a loaded object, as a module's name is in the kernel.
//! - Registers have their `pt_regs` names (`%di`, `%flags`) or their full ones (`%rdi`). `%orig_ax`, `%cs` and `%ss` are refused.
//! - Types `symbol` and `symstr` and arrays under `+u` are allowed in user space too; `r 0xADDR` may use `$retval`.
//! - Text that Linux silently ignores is refused (`pfoo`, `+0(%di)junk`, `$retvalx`).
//! - Columns are exact also where Linux loses count (after `+u`, `+-`, and for a type behind a dereference).
//! - `r10 PATH:FILEOFFSET` is checked as `r10 SYMBOL` is; Linux does not look at that number.
//! - `$argN` goes up to 255, and all arithmetic has 64 bits where Linux cuts offsets to 32.
//! - There is no BTF: variable names and `$arg*` are `NOSUP_BTFARG`.
//! - A number that could not be read prints `(fault)`, as Linux does for strings only.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "text")]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(feature = "text")]
pub mod definition;
#[cfg(feature = "text")]
pub mod error;
pub mod fetch;
#[cfg(feature = "text")]
mod json;
#[cfg(feature = "text")]
mod parse;
pub mod record;
#[cfg(feature = "text")]
pub mod text;
#[cfg(feature = "text")]
pub mod value;
pub mod wire;

pub use fetch::run::{Source, run};
#[cfg(feature = "text")]
pub use {
    definition::{Arg, Base, Column, Definition, Fetch, Kind, Place, Register, Type, Width},
    error::{ErrorCode, SyntaxError},
    fetch::compile::{Field, Program, Resolve, Schema, compile},
    json::write_json,
    parse::{parse, parse_file, place_column},
    text::{Line, Location, Site, write_text},
    value::{Value, decode},
};
