//! Tests of modules. Those that need a module take `exercise` (`modules/exercise` beside the kernel's `src`), whose
//! parameters say what it does.

mod damage;
mod files;
mod lives;
mod load;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Error, insert, read, removal};
use crate::mm::{self, frames, paging, stacks};
use crate::probes::tests::{Test, check, same};
use crate::{ksyms, log};

pub(super) use load::COMMAND;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "every module of the disk comes and goes", run: lives::every_module },
    Test { name: "a module's handlers see arguments and results", run: lives::output },
    Test { name: "what a return handler is told is of its own call", run: lives::nested },
    Test { name: "parameters are set before init", run: lives::parameters },
    Test { name: "a parameter that is none is refused", run: lives::bad_parameters },
    Test { name: "an init that fails leaves nothing", run: lives::init_fails },
    Test { name: "probes that exit leaves are taken off", run: lives::exit_leaves },
    Test { name: "probes are not registered in handlers", run: lives::register_in_handler },
    Test { name: "names are unique", run: lives::twice },
    Test { name: "a module's own functions are probed, and the probes go with it", run: lives::own_functions },
    Test { name: "a module's text is neither writable nor left behind", run: lives::protection },
    Test { name: "a fault in a handler removes the module", run: lives::fault },
    Test { name: "a panic in a handler removes the module", run: lives::panic },
    Test { name: "a fault on all processors at once removes the module once", run: load::faults_everywhere },
    Test { name: "hostile files are refused with the reason", run: files::hostile },
    Test { name: "the file that was damaged is a good one", run: files::control },
    Test { name: "modules that come and go under load leave nothing", run: load::short },
    Test { name: "a module that stays would be noticed", run: load::control },
];

const NAME: &str = "exercise";

/// What `exercise` probes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn modules_target(first: u64, second: u64, text: *const u8) -> u64 {
    core::hint::black_box(text);
    core::hint::black_box(first) + core::hint::black_box(second)
}

/// Calls it with a text.
fn call(first: u64, second: u64) -> u64 {
    modules_target(first, second, c"text".as_ptr().cast())
}

/// Inserts `exercise`.
fn start(parameters: &[&str]) -> Result<(), String> {
    let inserted = read(NAME).and_then(|file| insert(&file, parameters));
    inserted.map(drop).map_err(|error: Error| error.to_string())
}

/// Removes it.
fn stop() -> Result<(), String> {
    removal::remove(NAME).map_err(|error| error.to_string())
}

/// The lines that are logged while `f` runs.
fn logged(f: impl FnOnce() -> Result<(), String>) -> Result<Vec<String>, String> {
    let (result, text) = log::captured(f);
    result?;
    Ok(String::from_utf8_lossy(&text).lines().map(ToString::to_string).collect())
}

/// What modules may leave nothing of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    addresses: u64,
    /// But for page tables and stacks, which stay: addresses of demand-zero memory are never used again, stacks are.
    frames: u64,
    executable: u64,
    heap: usize,
    names: (usize, usize),
}

fn state() -> State {
    State {
        addresses: mm::modules::in_use(),
        frames: frames::in_use() - paging::tables() - stacks::frames(),
        executable: mm::audit().executable,
        heap: mm::heap_used(),
        names: ksyms::modules::kept(),
    }
}

/// Runs `f` until it leaves nothing. What is made once and kept (page tables, sites, names, the scheduler's queues), some
/// run makes; what is lost is lost in all of them.
fn leaves_nothing(mut f: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let mut result = Ok(());
    for _ in 0..4 {
        let before = state();
        f()?;
        result = same("what is left", state(), before);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// A refusal, whose words contain some.
fn refused(result: Result<String, Error>, why: &str) -> Result<(), String> {
    let said = match result {
        Ok(name) => {
            removal::remove(&name).map_err(|error| error.to_string())?;
            return Err(format!("inserted, though {why}"));
        }
        Err(error) => error.to_string(),
    };
    check(said.contains(why), || format!("refused with `{said}`, not with `{why}`"))
}
