//! Modules that go: because somebody says so, because `init` has failed, or because a handler has faulted.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use host_bare::{Kernel, Regs};

use super::{Error, MODULES, Module};
use crate::arch::trap::fault::Place;
use crate::probes::{Demo, with_control};
use crate::{ksyms, log};

/// A handler has faulted since [`reap`] has looked.
static FAULTED: AtomicBool = AtomicBool::new(false);

/// Removes a module.
///
/// # Errors
///
/// When there is none of the name, or its probes cannot be taken off.
pub(super) fn remove(name: &str) -> Result<(), Error> {
    let mut modules = MODULES.lock();
    let index = modules.iter().position(|module| module.name == name);
    let mut module = modules.remove(index.ok_or_else(|| Error::NotThere(name.to_string()))?);
    // One that could not be removed before has ended already.
    if !module.is_silenced() {
        module.stop();
    }
    take_down(&mut modules, module)
}

/// Takes a module's probes off and everything of it away. One whose probes cannot be taken off becomes one of `modules`
/// (again), for it must stay where it is.
///
/// # Errors
///
/// When they cannot.
pub(super) fn take_down(modules: &mut Vec<Module>, mut module: Module) -> Result<(), Error> {
    if let Err(why) = module.unregister() {
        let name = module.name.clone();
        modules.push(Module { stuck: true, ..module });
        return Err(Error::Stuck(name, why));
    }
    forget(&module);
    ksyms::modules::remove(&module.name);
    module.free();
    Ok(())
}

/// What others have planted in the module's text goes with it.
fn forget(module: &Module) {
    let names = with_control(|control| {
        control.silence(module.owner, false);
        control.forget(module.memory.text())
    });
    for name in names.unwrap_or_default() {
        log::print(format_args!("{name}: removed, its place was in {}\n", module.name));
    }
}

impl Module {
    /// Whether its handlers are called no more.
    pub(super) fn is_silenced(&self) -> bool {
        Demo::engine().is_some_and(|engine| engine.is_silenced(self.owner))
    }

    /// Takes all its probes off; when this returns, no handler of it runs.
    fn unregister(&mut self) -> Result<(), alloc::string::String> {
        with_control(|control| {
            control.silence(self.owner, true);
            let probes = core::mem::take(&mut self.probes);
            // Not those that have gone with another module's text.
            let there = probes.into_iter().filter(|probe| control.counts_of(probe).is_some()).collect();
            control.unregister_all(there).map(drop).map_err(|(left, error)| {
                self.probes = left;
                error.to_string()
            })
        })?
    }
}

/// A handler has faulted, with these registers: kprobes has ended it. From its trap.
pub(crate) fn handler_faulted(regs: &Regs) {
    log::print(format_args!("kprobes: a handler has faulted at {}\n", Place(regs.rip)));
    FAULTED.store(true, Ordering::Release);
}

/// Removes the modules whose handlers have faulted. In a thread that may wait.
pub(crate) fn reap() {
    if !FAULTED.swap(false, Ordering::Acquire) {
        return;
    }
    let mut modules = MODULES.lock();
    while let Some(index) = modules.iter().position(|module| module.is_silenced() && !module.stuck) {
        let module = modules.remove(index);
        let name = module.name.clone();
        match take_down(&mut modules, module) {
            Ok(()) => log::print(format_args!("{name}: removed, since a handler of it has faulted\n")),
            Err(error) => log::print(format_args!("{error}\n")),
        }
    }
}
