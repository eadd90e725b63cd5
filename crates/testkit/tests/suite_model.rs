//! The behaviour suite on the model machine, and worlds with a fault on which it must fail.
#![cfg(all(target_arch = "x86_64", feature = "suite"))]

use kprobes::Stepping;
use testkit::suite::{Broken, CASES, Fault, ModelWorld, Verdict, run, run_case};

fn behaves(stepping: Stepping) {
    let machine = ModelWorld::machine();
    let mut world = ModelWorld::stepping(&machine, stepping);
    let mut verdicts = Vec::new();
    let totals = run(&mut world, &mut |case, verdict| verdicts.push((case.name, verdict.clone())));
    let failed: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(totals.passed, CASES.len());
}

#[test]
fn the_model_machine_behaves() {
    behaves(Stepping::Best);
}

#[test]
fn the_model_machine_behaves_without_emulation() {
    behaves(Stepping::Boosted);
}

#[test]
fn the_model_machine_behaves_with_a_second_breakpoint() {
    behaves(Stepping::SecondBreakpoint);
}

#[test]
fn the_model_machine_behaves_when_it_steps() {
    behaves(Stepping::SingleStep);
}

#[test]
fn cases_do_not_depend_on_each_other() {
    for case in CASES.iter().rev() {
        let machine = ModelWorld::machine();
        assert_eq!(run_case(case, &mut ModelWorld::new(&machine)), Verdict::Passed, "{}", case.name);
    }
}

#[test]
fn every_fault_is_found() {
    for &fault in Fault::ALL {
        let machine = ModelWorld::machine();
        let mut world = ModelWorld::new(&machine);
        let mut broken = Broken::new(&mut world, fault);
        let found = CASES.iter().any(|case| matches!(run_case(case, &mut broken), Verdict::Failed(_)));
        assert!(found, "{fault:?} is not found");
    }
}
