//! The behaviours of handlers on the model machine, and worlds that are wrong about them, on which they must fail.
#![cfg(all(target_arch = "x86_64", feature = "suite"))]

use kprobes::Stepping;
use std::sync::{Mutex, MutexGuard, PoisonError};
use testkit::suite::{HANDLER_CASES, ModelWorld, Skill, Spoil, Spoiled, run_handler_case, run_handlers};

/// One case at a time runs in an image.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn behaves(stepping: Stepping, keeps_steps: bool) {
    let _alone = alone();
    let machine = ModelWorld::machine();
    machine.set_keeps_steps(keeps_steps);
    let mut world = ModelWorld::stepping(&machine, stepping);
    let mut failed = Vec::new();
    let totals = run_handlers(&mut world, &mut |case, result| {
        failed.extend(result.clone().err().map(|why| (case.name, why)));
    });
    assert!(failed.is_empty(), "{failed:#?}");
    let skipped = HANDLER_CASES.iter().filter(|case| case.needs == Some(Skill::Vectors)).count();
    assert_eq!((totals.passed, totals.skipped), (HANDLER_CASES.len() - skipped, skipped));
}

#[test]
fn handlers_behave_on_the_model_machine() {
    behaves(Stepping::Best, true);
}

#[test]
fn handlers_behave_where_nothing_is_kept_of_a_step() {
    behaves(Stepping::Best, false);
}

#[test]
fn handlers_behave_without_emulation() {
    behaves(Stepping::Boosted, true);
}

#[test]
fn handlers_behave_with_a_second_breakpoint() {
    behaves(Stepping::SecondBreakpoint, true);
}

#[test]
fn handlers_behave_when_the_machine_steps() {
    behaves(Stepping::SingleStep, true);
}

#[test]
fn every_wrong_world_is_found() {
    let _alone = alone();
    let mut missed = Vec::new();
    for &spoil in Spoil::ALL {
        let machine = ModelWorld::machine();
        let mut world = ModelWorld::new(&machine);
        let mut spoiled = Spoiled::new(&mut world, spoil);
        let cases = HANDLER_CASES.iter().filter(|case| case.needs != Some(Skill::Vectors));
        if !cases.into_iter().any(|case| run_handler_case(case, &mut spoiled).is_err()) {
            missed.push(spoil);
        }
    }
    assert_eq!(missed, [], "not found");
}

#[test]
fn each_case_has_a_name_of_its_own() {
    let mut names: Vec<_> = HANDLER_CASES.iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), HANDLER_CASES.len());
}
