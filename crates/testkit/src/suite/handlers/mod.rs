//! Behaviours of probes with handlers.
//!
//! A case registers probes whose handlers are functions of this crate, calls functions of the program, and looks at what
//! the handlers have noted ([`notes`]). So the world must run in the same image as the program: the model machine, a
//! process that probes itself, a kernel.
//!
//! Handlers have no place for what they note but statics. So one case runs at a time in an image; one that begins while
//! another runs fails.

mod cases;
mod mirrors;
mod notes;
mod spoiled;
mod steps;

pub use cases::HANDLER_CASES;
pub use mirrors::fault_directly;
pub use notes::call_directly;
pub use spoiled::{Spoil, Spoiled};

use super::steps::text_is_clean;
use super::{Refusal, Totals, World};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use isa::x86::Regs;
use kprobes::raw::Counts;
use kprobes::{Registered, Spec};

/// A world in whose image handlers are.
pub trait Handlers: World {
    /// Registers probes: all of them, or none. Symbols are the program's functions.
    ///
    /// # Errors
    ///
    /// Which of them is refused first, and why.
    fn register(&mut self, probes: Vec<Spec<'_, Regs>>) -> Result<Vec<Registered>, Refusal>;
    /// Takes probes off, and returns when no handler can see them.
    ///
    /// # Errors
    ///
    /// Why they cannot be taken off.
    fn unregister(&mut self, probes: Vec<Registered>) -> Result<(), String>;
    /// Switches a probe on or off.
    ///
    /// # Errors
    ///
    /// Why it cannot be switched.
    fn enable(&mut self, probe: &Registered, on: bool) -> Result<(), String>;
    /// What was counted for a probe since it was registered; `None` when it is none any more.
    fn counts_of(&mut self, probe: &Registered) -> Option<Counts>;
    /// How many probes are registered.
    fn registered(&self) -> usize;
    /// Takes off what is registered.
    fn unregister_all(&mut self);

    /// What handlers need of this host.
    fn tools(&self) -> Tools;
    /// Calls `suite_wait` in a thread of its own, with the addresses of two words that are 0. When the function has
    /// written to the second one, does something; then writes 42 into the first one, and gives what the function
    /// returns.
    ///
    /// # Errors
    ///
    /// Those of `meanwhile`.
    fn call_waiting(
        &mut self,
        meanwhile: &mut dyn FnMut(&mut dyn Handlers) -> Result<(), String>,
    ) -> Result<u64, String>;
    /// Whether the world can do more than what all can.
    fn has(&self, skill: Skill) -> bool {
        let _ = skill;
        false
    }
    /// For [`Skill::Faults`]: calls a function that ends in a fault which nobody cures, and gives where whoever is told
    /// of it has seen the program counter. `None`: it has returned.
    fn call_faulting(&mut self, function: &str, arguments: [u64; 2]) -> Option<u64> {
        let _ = (function, arguments);
        None
    }
    /// An address that nothing can be read from.
    fn bad_address(&self) -> u64 {
        16
    }
    /// What [`Hit::trap`](kprobes::Hit::trap) says when an instruction has read from there.
    fn bad_trap(&self) -> u64;
    /// An address in kprobes' own code, which must not be probed.
    fn own_code(&self) -> u64;
}

/// What some worlds can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skill {
    /// Execute instructions on vector registers, and give them to the mirrors of jprobes.
    Vectors,
    /// Go on after a fault that nobody cures.
    Faults,
}

/// Functions that handlers call.
#[derive(Clone, Copy, Debug)]
pub struct Tools {
    /// Ends a jprobe's mirror from within: the host's `jprobe_return`.
    pub jprobe_return: unsafe extern "C" fn(),
    /// Calls the function of the program's that begins at an address, with two arguments, and gives its result: where
    /// the program is executed by the processor itself, [`call_directly`].
    pub call: unsafe extern "C" fn(u64, u64, u64) -> u64,
    /// Faults in a handler, by an instruction of three bytes that reads from an address: where the processor itself
    /// executes handlers, [`fault_directly`].
    pub fault: unsafe extern "C" fn(u64),
}

/// A behaviour of handlers.
#[derive(Clone, Copy, Debug)]
pub struct HandlerCase {
    /// What it says.
    pub name: &'static str,
    /// What a world must be able to do, besides what all can.
    pub needs: Option<Skill>,
    /// Tries it; the reason when it is not so.
    pub run: fn(&mut dyn Handlers) -> Result<(), String>,
}

/// Runs all cases that the world can run, and tells of each: the reason when it has failed. How many were skipped is
/// told by the totals.
///
/// ```
/// # #[cfg(all(feature = "std", target_arch = "x86_64"))] {
/// use testkit::suite::{HANDLER_CASES, ModelWorld, Skill, run_handlers};
///
/// let machine = ModelWorld::machine();
/// let mut failed = Vec::new();
/// let totals = run_handlers(&mut ModelWorld::new(&machine), &mut |case, result| {
///     if let Err(why) = result {
///         failed.push(format!("{}: {why}", case.name));
///     }
/// });
/// assert!(failed.is_empty(), "{failed:#?}");
/// // The model machine has no vector registers.
/// assert_eq!(totals.skipped, HANDLER_CASES.iter().filter(|case| case.needs == Some(Skill::Vectors)).count());
/// # }
/// ```
pub fn run_handlers(world: &mut dyn Handlers, report: &mut dyn FnMut(&HandlerCase, &Result<(), String>)) -> Totals {
    let mut totals = Totals::default();
    for case in HANDLER_CASES {
        if case.needs.is_some_and(|skill| !world.has(skill)) {
            totals.skipped += 1;
            continue;
        }
        let result = run_handler_case(case, world);
        *if result.is_ok() { &mut totals.passed } else { &mut totals.failed } += 1;
        report(case, &result);
    }
    totals
}

/// Runs one case, which the world must be able to run. Whatever it does, no probe is left.
///
/// # Errors
///
/// Why it has failed.
///
/// ```
/// # #[cfg(all(feature = "std", target_arch = "x86_64"))] {
/// use testkit::suite::{HANDLER_CASES, ModelWorld, run_handler_case};
///
/// let machine = ModelWorld::machine();
/// let case = HANDLER_CASES.iter().find(|case| case.needs.is_none()).unwrap();
/// assert_eq!(run_handler_case(case, &mut ModelWorld::new(&machine)), Ok(()), "{}", case.name);
/// # }
/// ```
pub fn run_handler_case(case: &HandlerCase, world: &mut dyn Handlers) -> Result<(), String> {
    let Some(_running) = notes::begin(world.tools(), world.bad_address()) else {
        return Err("another case runs in this image".into());
    };
    let result = (case.run)(world).and_then(|()| leaves_nothing(world));
    world.unregister_all();
    result
}

/// A case has unregistered what it registered, and the program's text is as it was.
fn leaves_nothing(world: &mut dyn Handlers) -> Result<(), String> {
    match world.registered() {
        0 => text_is_clean(world),
        left => Err(format!("{left} probes are still registered at the end")),
    }
}
