//! The behaviour suite on the model machine, and worlds with a fault on which it must fail.

use testkit::suite::{Broken, CASES, Fault, ModelWorld, Verdict, run, run_case};

#[test]
fn the_model_machine_behaves() {
    let machine = ModelWorld::machine();
    let mut world = ModelWorld::new(&machine);
    let mut verdicts = Vec::new();
    let totals = run(&mut world, &mut |case, verdict| verdicts.push((case.name, verdict.clone())));
    let failed: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(totals.passed, CASES.len());
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
