//! Probe modules: relocatable files from the RAM disk that plant probes while they are inserted.
//!
//! A module is linked against the kernel's [`exports`](crate::exports), put into memory of its own
//! ([`crate::mm::modules`]), and says in a [`raw::Module`](kprobes::raw::Module) what it is. Its `init` plants probes by
//! calling what [`exports`] gives it, its `exit` ends. It is code of the kernel's like any other: what the kernel can be
//! kept from is what a damaged *file* would do, and what a fault in a handler would; a fault in `init` or `exit` is the
//! kernel's own.
//!
//! # The life of a module
//!
//! 1. [`insert`]: the file is read, linked, checked, and sealed; its symbols are added; `init` runs, and may register
//!    probes, all of which bear the module's number ([`HandlerData::owner`](kprobes::HandlerData::owner)).
//! 2. It is *live*. Its handlers run in traps, and print into the [log](crate::log).
//! 3. [`remove`]: `exit` runs; what it leaves registered is unregistered, which returns when no handler of it runs; what
//!    others have planted in its text is forgotten; symbols and memory go.
//!
//! A module is taken down the same way when its `init` fails, but for `exit`, and when a handler has faulted. Then
//! kprobes has switched all its probes off in the very trap ([`host_bare::Engine::is_silenced`]). A trap can do no more,
//! so it leaves a note ([`handler_faulted`]); the shell after a command, or `klogd`, removes the module ([`reap`]), and does
//! not run `exit`, which would find what the handler has left half done.
//!
//! # Locks
//!
//! [`MODULES`] is held while a module is inserted or removed, `init` and `exit` included; then control's lock, for each
//! call of kprobes'. Neither is taken in a trap. What `init` and `exit` register is kept in [`caller`] meanwhile.

mod caller;
mod commands;
mod descriptor;
mod error;
mod exports;
mod removal;
mod tests;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use host_bare::{OWNERS, Registered};
use kprobes::settings;
use loader::{Linked, Object, Part};

use crate::exports::find;
use crate::ksyms::modules::New;
use crate::lock::Mutex;
use crate::mm::modules::{Draft, Memory, Sizes};
use crate::{fs, ksyms};

use descriptor::Descriptor;
pub(super) use error::Error;

pub(crate) use commands::COMMANDS;
pub(crate) use removal::{handler_faulted, reap};
pub(super) use tests::TESTS;

/// Where modules are on the RAM disk.
const FOLDER: &str = "/lib/modules";

/// Those that are inserted.
static MODULES: Mutex<Vec<Module>> = Mutex::new(Vec::new());

/// A module that is inserted.
#[derive(Debug)]
struct Module {
    name: String,
    description: String,
    memory: Memory,
    /// Address of its `exit`.
    exit: u64,
    /// What its probes bear: from 1 to [`OWNERS`].
    owner: u32,
    probes: Vec<Registered>,
    /// It could not be removed, since its probes could not: it is as good as gone.
    stuck: bool,
}

/// Reads a module's file: `NAME`, or a path.
///
/// # Errors
///
/// When there is none.
fn read(file: &str) -> Result<Vec<u8>, Error> {
    let path = if file.contains('/') { file.to_string() } else { alloc::format!("{FOLDER}/{file}.ko") };
    fs::read(&path).map_err(|errno| Error::NoFile(path, errno))
}

/// Inserts a module from its file's bytes, with parameters; gives its name.
///
/// # Errors
///
/// Why not. Nothing is left of it then.
fn insert(file: &[u8], arguments: &[&str]) -> Result<String, Error> {
    let object = Object::parse(file)?;
    let mut draft = Draft::new(sizes(&object))?;
    let linked = object.link(draft.address(), &mut find)?;
    let descriptor = Descriptor::read(&linked)?;
    fill(&mut draft, &linked);
    for (address, value) in settings(&descriptor.parameters, arguments).map_err(Error::Parameter)? {
        put(&mut draft, address, &value);
    }
    let mut modules = MODULES.lock();
    let owner = owner_for(&modules, &descriptor.name)?;
    let memory = draft.seal()?;
    let Descriptor { name, description, init, exit, .. } = descriptor;
    let mut module = Module { name, description, memory, exit, owner, probes: Vec::new(), stuck: false };
    if let Err(error) = add_symbols(&module, &linked) {
        module.free();
        return Err(error);
    }
    let code = module.start(init);
    if code == 0 {
        let name = module.name.clone();
        modules.push(module);
        return Ok(name);
    }
    let name = module.name.clone();
    removal::take_down(&mut modules, module)?;
    Err(Error::Init(name, code))
}

/// The name of the module whose probes bear a number. Not while control is held: see the locks above.
pub(super) fn name_of(owner: u32) -> Option<String> {
    MODULES.lock().iter().find(|module| module.owner == owner).map(|module| module.name.clone())
}

/// How much memory a module takes.
fn sizes(object: &Object<'_>) -> Sizes {
    let of = |part: Part| object.parts().iter().filter(|s| s.part == part).map(|s| s.size as usize).sum();
    Sizes { text: of(Part::Text), rodata: of(Part::ReadOnly), data: of(Part::Data) }
}

/// Copies a module to its place. Its parts are in the order of a draft's, and of whole pages, so they coincide.
fn fill(draft: &mut Draft, linked: &Linked) {
    for segment in linked.parts() {
        put(draft, linked.base() + segment.offset, linked.bytes(segment));
    }
}

/// Writes bytes at an address in a draft.
fn put(draft: &mut Draft, address: u64, bytes: &[u8]) {
    let start = (address - draft.address()) as usize;
    draft.bytes()[start..start + bytes.len()].copy_from_slice(bytes);
}

/// A number for a new module, if there is none of its name.
fn owner_for(modules: &[Module], name: &str) -> Result<u32, Error> {
    if modules.iter().any(|module| module.name == name) {
        return Err(Error::Twice(name.to_string()));
    }
    let free = |owner: &u32| modules.iter().all(|module| module.owner != *owner);
    (1..=OWNERS as u32).find(free).ok_or(Error::Full)
}

fn add_symbols(module: &Module, linked: &Linked) -> Result<(), Error> {
    let functions: Vec<_> = linked.functions().collect();
    let names: Vec<String> =
        functions.iter().map(|function| alloc::format!("{:#}", rustc_demangle::demangle(function.name))).collect();
    let new = |(function, name)| {
        let loader::Function { address, size, .. } = function;
        New { address, size, kind: 't', name }
    };
    let symbols: Vec<New<'_>> = functions.into_iter().zip(names.iter().map(String::as_str)).map(new).collect();
    Ok(ksyms::modules::add(&module.name, module.memory.range(), &symbols)?)
}

impl Module {
    /// Runs `init` and keeps what it has registered.
    fn start(&mut self, init: u64) -> i32 {
        // SAFETY: an address in the module's text, where the module says that this function is; a module that lies is
        // code of the kernel's that does not do what it should.
        let init = unsafe { core::mem::transmute::<u64, extern "C" fn() -> i32>(init) };
        let (code, probes) = caller::run(self.owner, self.memory.text(), Vec::new(), || init());
        self.probes = probes;
        code
    }

    /// Runs `exit` and keeps what it has left.
    fn stop(&mut self) {
        // SAFETY: as for `init`.
        let exit = unsafe { core::mem::transmute::<u64, extern "C" fn()>(self.exit) };
        let probes = core::mem::take(&mut self.probes);
        ((), self.probes) = caller::run(self.owner, self.memory.text(), probes, || exit());
    }

    /// Gives the memory back.
    fn free(self) {
        debug_assert!(self.probes.is_empty());
        // SAFETY: `init` and `exit` have returned or never run; the module has no probes any more, and unregistering them
        // has waited for its handlers; what others had in its text was forgotten. Nobody else knows its code.
        unsafe { self.memory.free() }
    }
}
