//! `insmod`, `rmmod`, `lsmod`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{MODULES, Module, insert, read, removal};
use crate::println;
use crate::probes::with_control;
use crate::shell::Command;

/// All of them.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "insmod",
        usage: "FILE [NAME=VALUE...]",
        help: "inserts a probe module, of /lib/modules or by its path",
        run: insmod,
    },
    super::tests::COMMAND,
    Command { name: "rmmod", usage: "NAME", help: "removes a module", run: rmmod },
    Command { name: "lsmod", usage: "", help: "the modules, and what their probes have counted", run: lsmod },
];

fn insmod(arguments: &str) -> Result<(), String> {
    let mut words = arguments.split_whitespace();
    let file = words.next().ok_or("FILE is missing")?;
    let parameters: Vec<&str> = words.collect();
    let inserted = read(file).and_then(|bytes| insert(&bytes, &parameters));
    inserted.map(drop).map_err(|error| error.to_string())
}

fn rmmod(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("NAME is missing".to_string());
    }
    removal::remove(name).map_err(|error| error.to_string())
}

fn lsmod(_: &str) -> Result<(), String> {
    let modules = MODULES.lock();
    for module in modules.iter() {
        let Module { name, description, memory, owner, .. } = module;
        let bytes = memory.range().end - memory.range().start;
        println!("{name} {bytes} bytes at {:#x}, {}: {description}", memory.range().start, state(module));
        let probes: Vec<_> = with_control(|control| control.list().filter(|one| one.owner == *owner).collect())?;
        probes.iter().for_each(|one| println!("  {one}"));
    }
    println!("{} modules", modules.len());
    Ok(())
}

/// What is the matter with a module.
fn state(module: &Module) -> &'static str {
    match (module.stuck, module.is_silenced()) {
        (true, _) => "stuck",
        (false, true) => "switched off",
        (false, false) => "live",
    }
}
