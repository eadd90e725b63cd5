//! What the kernel's own machinery must be able to do before anything is built on it: the word `selftest` on the
//! command line runs it at boot. Each check is a function that says what went wrong.

mod memory;
mod modules;
mod processors;
mod reporting;
mod threads;
mod traps;

use crate::{console, mm, println};

/// A check: its name, and a function that says what is wrong.
type Check = (&'static str, fn() -> Result<(), &'static str>);

fn ensure(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Runs all checks; a kernel that fails one ends, with failure.
pub(crate) fn run() {
    let suites =
        [traps::CHECKS, memory::CHECKS, modules::CHECKS, processors::CHECKS, threads::CHECKS, reporting::CHECKS];
    let mut failed = 0;
    for (name, check) in suites.iter().copied().flatten() {
        match check() {
            Ok(()) => println!("selftest: {name}: ok"),
            Err(why) => {
                failed += 1;
                println!("selftest: {name}: FAILED: {why}");
            }
        }
    }
    println!("selftest: {:?}", mm::audit());
    println!("selftest: {} checks, {failed} failed", suites.iter().map(|suite| suite.len()).sum::<usize>());
    if failed > 0 {
        console::shutdown(false);
    }
}
