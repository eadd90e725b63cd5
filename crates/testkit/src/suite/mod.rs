//! One suite of behaviours for every host of kprobes.
//!
//! What a probe does must not depend on where it is planted. So the behaviour is stated once, here, and each place
//! where the engine runs shows that it holds there: the model machine ([`ModelWorld`]), an ordinary process that the
//! tool traces, a kernel. The suite is `no_std`, allocates, and has no `unsafe`: it can run *inside* the system that it
//! tests.
//!
//! # The three parts
//!
//! * [`program`]: small functions of every shape that matters to probes (loops, recursion, tail calls, each class of
//!   first instruction, …) as position-independent machine code, with what calls of them must give and how often each
//!   instruction must run ([`SAMPLES`]). [`assembly`] is the same as a text that any assembler for the target takes.
//! * [`World`]: what a host must be able to do for the suite. Probes are defined by the lines of Linux's
//!   `kprobe_events`, which every host takes.
//! * [`CASES`]: the behaviours, each named by what it says. A case knows nothing but its world.
//!
//! # How a host takes part
//!
//! 1. It brings the program into executable memory, with a symbol and a size for each function: by assembling
//!    [`assembly`], or by copying [`Program::code`] and naming [`Program::functions`].
//! 2. It implements [`World`].
//! 3. It calls [`run`], and expects that nothing failed.
//! 4. It calls [`run`] on [`Broken`] worlds of each [`Fault`], and expects that something fails: the control that the
//!    cases look at this host at all.
//!
//! Cases leave the world as they found it; [`run`] checks that, and cleans up after one that did not.
//!
//! # Handlers
//!
//! What a probe's own handlers see and do is for hosts in whose image they can be: [`Handlers`] is what such a world can
//! do besides, [`HANDLER_CASES`] are the behaviours, [`run_handlers`] runs them, and [`Spoiled`] worlds are the control.

#![cfg_attr(
    feature = "std",
    expect(redundant_imports, reason = "without `std` the prelude has neither `String` nor `Vec`")
)]

mod assembler;
mod broken;
mod cases;
#[cfg(target_arch = "x86_64")]
mod handlers;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod model;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod model_handlers;
mod program;
mod samples;
mod steps;
mod world;

pub use broken::{Broken, Fault};
pub use cases::CASES;
#[cfg(target_arch = "x86_64")]
pub use handlers::{
    HANDLER_CASES, HandlerCase, Handlers, Skill, Spoil, Spoiled, Tools, call_directly, fault_directly,
    run_handler_case, run_handlers,
};
#[cfg(all(feature = "std", target_arch = "x86_64"))]
pub use model::ModelWorld;
pub use program::{Function, Instruction, Program, VECTORS, assembly, program};
pub use samples::{SAMPLES, Sample};
pub use world::{Ability, Counts, Record, Refusal, World};

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A behaviour.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it says.
    pub name: &'static str,
    /// What a world must be able to do, besides what all can.
    pub needs: Option<Ability>,
    /// Tries it; the reason when it is not so.
    pub run: fn(&mut dyn World) -> Result<(), String>,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The world behaves so.
    Passed,
    /// It does not.
    Failed(String),
    /// The world cannot do what the case needs.
    Skipped(Ability),
}

/// How many cases came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
}

/// Runs all cases, and tells of each.
///
/// ```
/// # #[cfg(all(feature = "std", target_arch = "x86_64"))] {
/// use testkit::suite::{CASES, ModelWorld, Verdict, run};
///
/// let machine = ModelWorld::machine();
/// let mut world = ModelWorld::new(&machine);
/// let mut failed = Vec::new();
/// let totals = run(&mut world, &mut |case, verdict| {
///     if let Verdict::Failed(why) = verdict {
///         failed.push(format!("{}: {why}", case.name));
///     }
/// });
/// assert!(failed.is_empty(), "{failed:#?}");
/// assert_eq!(totals.passed, CASES.len());
/// # }
/// ```
pub fn run(world: &mut dyn World, report: &mut dyn FnMut(&Case, &Verdict)) -> Totals {
    let mut totals = Totals::default();
    for case in CASES {
        let verdict = run_case(case, world);
        match verdict {
            Verdict::Passed => totals.passed += 1,
            Verdict::Failed(_) => totals.failed += 1,
            Verdict::Skipped(_) => totals.skipped += 1,
        }
        report(case, &verdict);
    }
    totals
}

/// Runs one case. Whatever it does, no probe is left, and no record.
///
/// ```
/// # #[cfg(all(feature = "std", target_arch = "x86_64"))] {
/// use testkit::suite::{Case, ModelWorld, Verdict, World, run_case};
///
/// let machine = ModelWorld::machine();
/// let mut world = ModelWorld::new(&machine);
/// let add = |world: &mut dyn World| match world.call("suite_leaf", [41, 0]) {
///     42 => Ok(()),
///     other => Err(format!("41 and 1 are {other}")),
/// };
/// let case = Case { name: "suite_leaf adds one", needs: None, run: add };
/// assert_eq!(run_case(&case, &mut world), Verdict::Passed);
///
/// let forgets = |world: &mut dyn World| world.define(&["p:mine suite_leaf"]).map_err(|refusal| refusal.why);
/// let case = Case { name: "forgets its event", needs: None, run: forgets };
/// let why = "the event mine is still there at the end".into();
/// assert_eq!(run_case(&case, &mut world), Verdict::Failed(why));
/// assert!(world.events().is_empty(), "it was cleaned up");
/// # }
/// ```
pub fn run_case(case: &Case, world: &mut dyn World) -> Verdict {
    if let Some(ability) = case.needs.filter(|&a| !world.can(a)) {
        return Verdict::Skipped(ability);
    }
    let result = (case.run)(world).and_then(|()| leaves_nothing(world));
    let left = world.events();
    if !left.is_empty() {
        // What cannot be removed shows in the cases that follow.
        let _ = world.remove(&left.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let _ = world.records();
    result.map_or_else(Verdict::Failed, |()| Verdict::Passed)
}

/// A case has removed what it defined, and the program's text is as it was.
fn leaves_nothing(world: &mut dyn World) -> Result<(), String> {
    if let Some(event) = world.events().first() {
        return Err(format!("the event {event} is still there at the end"));
    }
    steps::text_is_clean(world)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    /// A world with the program, and no probes.
    struct Bare(Vec<String>);

    impl World for Bare {
        fn address(&self, function: &str) -> u64 {
            program().find(function).map_or(0, |f| f.offset)
        }
        fn text(&mut self, address: u64, out: &mut [u8]) {
            let at = address as usize;
            out.copy_from_slice(&program().code[at..at + out.len()]);
        }
        fn call(&mut self, _: &str, _: [u64; 2]) -> u64 {
            0
        }
        fn define(&mut self, lines: &[&str]) -> Result<(), Refusal> {
            self.0.extend(lines.iter().map(|l| String::from(*l)));
            Ok(())
        }
        fn remove(&mut self, events: &[&str]) -> Result<(), String> {
            self.0.retain(|e| !events.contains(&e.as_str()));
            Ok(())
        }
        fn events(&self) -> Vec<String> {
            self.0.clone()
        }
        fn counts(&mut self, _: &str) -> Option<Counts> {
            None
        }
        fn records(&mut self) -> Vec<Record> {
            Vec::new()
        }
    }

    #[test]
    fn each_case_has_a_name_of_its_own() {
        let names: BTreeSet<_> = CASES.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), CASES.len());
    }

    #[test]
    fn a_case_that_leaves_an_event_fails_and_is_cleaned_up_after() {
        let mut world = Bare(Vec::new());
        let case = Case { name: "leaves one", needs: None, run: |w| w.define(&["x"]).map_err(|r| r.why) };
        assert_eq!(run_case(&case, &mut world), Verdict::Failed("the event x is still there at the end".into()));
        assert!(world.0.is_empty());
    }

    #[test]
    fn a_case_that_needs_what_a_world_cannot_is_skipped() {
        let case = Case { name: "", needs: Some(Ability::Threads), run: |_| Err("ran".into()) };
        assert_eq!(run_case(&case, &mut Bare(Vec::new())), Verdict::Skipped(Ability::Threads));
    }

    #[test]
    fn a_world_that_does_nothing_passes_next_to_nothing() {
        let mut passed = Vec::new();
        let totals = run(&mut Bare(Vec::new()), &mut |case, verdict| {
            if *verdict == Verdict::Passed {
                passed.push(case.name);
            }
        });
        assert_eq!(passed, Vec::<&str>::new());
        assert_eq!(totals.passed + totals.failed + totals.skipped, CASES.len());
    }
}
