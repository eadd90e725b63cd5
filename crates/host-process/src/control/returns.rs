//! Which scheme a return probe uses, and why.
//!
//! The default replaces the return address by a stub and relies on hooks in every unwinder that is mapped. Where that
//! would harm the program, the function's return instructions are probed instead:
//!
//! * Go: its runtime moves stacks and checks every return address on them.
//! * A program with an unwinder whose entries cannot be found: an exception would end it at the stub.
//!
//! And where the ways out of the function cannot be enumerated, the probe is refused, with the reason.

use super::objects::{Mapped, Objects};
use isa::x86::{Exit, exits};
use kprobes::{Error, Function, ReturnScheme};
use symbols::UnwinderStatus;

/// Chooses the scheme for a function.
pub(crate) fn scheme(objects: &Objects, function: &Function) -> Result<ReturnScheme, Error> {
    if let Some(why) = never(objects, function.start) {
        return Err(Error::NoReturns { address: function.start, why });
    }
    let Some(why) = why_not_stubs(objects, function.start) else { return Ok(ReturnScheme::Stub) };
    let refused = |reason: String| Error::NoReturns { address: function.start, why: format!("{why}, and {reason}") };
    let found = exits(&function.code, function.start);
    let mut sites = Vec::new();
    for way in &found.ways {
        match way {
            Exit::Ret { addr } => sites.push(*addr),
            Exit::FallsOff { after_call: true, .. } => {}
            other => return Err(refused(describe(other))),
        }
    }
    if let Some(at) = found.misaligned.first() {
        return Err(refused(format!("a jump goes into the middle of an instruction at {at:#x}")));
    }
    if sites.is_empty() {
        return Err(refused("it has no return instruction: it does not return".into()));
    }
    Ok(ReturnScheme::Sites(sites, why))
}

/// Functions that return more than once from one call: the second return would find the first one's instance gone.
const TWICE: [&str; 14] = [
    "vfork",
    "__vfork",
    "__libc_vfork",
    "setjmp",
    "_setjmp",
    "__setjmp",
    "sigsetjmp",
    "__sigsetjmp",
    "savectx",
    "getcontext",
    "__getcontext",
    "clone",
    "__clone",
    "__clone_internal",
];
/// Functions that are not called: where others have their return address, these have something else. Beginnings of names, since
/// the dynamic linker has one for each way to save registers.
const NOT_CALLED: [&str; 5] =
    ["_dl_runtime_resolve", "_dl_runtime_profile", "_dl_start_user", "__restore_rt", "__start_context"];
/// Functions that look at their own return address.
const LOOKING: [&str; 8] =
    ["dlsym", "dlvsym", "dlopen", "dlmopen", "__libc_dlsym", "__libc_dlopen_mode", "dl_iterate_phdr", "_dl_addr"];

/// Why no return of the function at `address` can be probed at all.
fn never(objects: &Objects, address: u64) -> Option<String> {
    let object = objects.at(address)?;
    if object.to_file(address) == object.object.entry() {
        return Some("it is where the program begins: it has no caller".into());
    }
    if let Some(name) = names(object, address).find(|name| NOT_CALLED.iter().any(|start| name.starts_with(start))) {
        return Some(format!("`{name}` is not called: it has no return address"));
    }
    let twice = names(object, address).find(|n| TWICE.contains(n))?;
    Some(format!("`{twice}` can return more than once from one call"))
}

/// The names of the function at `address`.
fn names(object: &Mapped, address: u64) -> impl Iterator<Item = &str> {
    let vaddr = object.to_file(address);
    let functions = object.object.functions();
    let first = functions.partition_point(|f| f.addr < vaddr);
    let same = functions.get(first..).unwrap_or_default().iter().take_while(move |f| f.addr == vaddr);
    same.map(symbols::Function::name)
}

fn why_not_stubs(objects: &Objects, address: u64) -> Option<String> {
    if objects.at(address).is_some_and(|o| o.object.is_go()) {
        return Some("Go moves its stacks, so return addresses must stay true".into());
    }
    if let Some(name) = objects.at(address).and_then(|o| names(o, address).find(|n| LOOKING.contains(n))) {
        return Some(format!("`{name}` looks at its return address to learn who calls it"));
    }
    objects.all.iter().find_map(unhookable)
}

/// Why an object's unwinder cannot be hooked.
fn unhookable(object: &Mapped) -> Option<String> {
    match object.object.unwinder() {
        UnwinderStatus::None => None,
        UnwinderStatus::Unidentifiable { why } => {
            Some(format!("the unwinder in {} cannot be hooked ({why})", object.base_name()))
        }
        UnwinderStatus::Identified(unwinder) => {
            let blind = unwinder.set_ip.is_some() && unwinder.set_ip_cfa_offset.is_none();
            blind.then(|| {
                format!("the unwinder in {} keeps its frame address where we cannot find it", object.base_name())
            })
        }
    }
}

fn describe(exit: &Exit) -> String {
    match exit {
        Exit::TailJump { addr, target } | Exit::ConditionalTailJump { addr, target } => {
            format!("it leaves by a jump at {addr:#x} to {target:#x} (a tail call), where no return value exists")
        }
        Exit::Indirect { addr } | Exit::IndirectTailJump { addr, .. } => {
            format!("it leaves by an indirect jump at {addr:#x}")
        }
        Exit::Far { addr } => format!("it leaves by a far transfer at {addr:#x}"),
        Exit::FallsOff { addr, .. } => format!("its code runs on past its end at {addr:#x}"),
        Exit::Undecodable { addr } => format!("its code cannot be decoded at {addr:#x}"),
        Exit::Ret { addr } => format!("it returns at {addr:#x}"),
    }
}
