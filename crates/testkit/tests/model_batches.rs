//! Batches on the model machine: of many probes, some of which are refused, by a host that keeps its writes back.
#![cfg(all(target_arch = "x86_64", feature = "kretprobes"))]

mod model;

use kprobes::{Error, Request};
use model::{ADD, LEA, NOP, RET, entry, hits, machine, registry, returns, value};
use testkit::model::{Call, Control, Machine};

/// Probes on all of `leaf`, and in between some that are refused.
fn mixed(machine: &Machine) -> Vec<Request> {
    let leaf = machine.address("leaf");
    vec![
        entry(leaf + NOP, 1),
        entry(leaf + 2, 6),
        returns(leaf, 2, 8),
        entry(leaf + ADD, 3),
        entry(0x10, 6),
        entry(leaf + LEA, 4),
        returns(leaf + LEA, 6, 8),
        entry(leaf + RET, 5),
    ]
}

#[test]
fn what_is_refused_is_left_out_and_says_why() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let placed = r.register_each(&mut c, &mixed(&machine)).expect("the host does not fail");
    let reasons: Vec<_> = placed.iter().map(|placed| placed.as_ref().err().map(Error::reason)).collect();
    let wanted = [
        None,
        Some("inside an instruction"),
        None,
        None,
        Some("no code"),
        None,
        Some("no function begins there"),
        None,
    ];
    assert_eq!(reasons, wanted);
    assert_eq!(value(&machine, "main", top), 8);
    assert_eq!([1, 2, 3, 4, 5, 6].map(|id| hits(&machine, id)), [1, 1, 1, 1, 1, 0]);
    r.unregister(&mut c, placed.iter().flatten()).expect("nothing fails");
    assert_eq!(machine.text(), machine.pristine());
    assert_eq!(value(&machine, "main", top), 8);
    assert_eq!(hits(&machine, 1), 1);
}

#[test]
fn all_of_a_batch_is_patched_at_once_and_waited_for_once() {
    let (machine, _) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let handles = r.register_each(&mut c, &mixed(&machine)).expect("the host does not fail");
    let count = |c: &Control<'_>, call: Call| c.calls.iter().filter(|&&made| made == call).count();
    assert_eq!((count(&c, Call::Patch), count(&c, Call::Grace)), (1, 0));
    r.unregister(&mut c, handles.iter().flatten()).expect("nothing fails");
    assert_eq!((count(&c, Call::Patch), count(&c, Call::Grace)), (2, 1));
}

#[test]
fn a_host_that_keeps_its_writes_back_is_told_when_they_are_due() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    // What is patched, and what is waited for, finds everything flushed: the model's host makes sure of it.
    c.keep_back();
    for round in 1..=3 {
        let placed = r.register_each(&mut c, &mixed(&machine)).expect("the host does not fail");
        let handles: Vec<_> = placed.into_iter().flatten().collect();
        assert_eq!(value(&machine, "main", top), 8);
        assert_eq!([1, 2, 3, 4, 5].map(|id| hits(&machine, id)), [round; 5]);
        r.enable(&mut c, &handles, false).expect("nothing fails");
        assert_eq!(machine.text(), machine.pristine());
        r.enable(&mut c, &handles, true).expect("nothing fails");
        r.unregister(&mut c, &handles).expect("nothing fails");
        assert_eq!(machine.text(), machine.pristine());
    }
}

#[test]
fn a_failing_host_leaves_nothing_of_a_batch() {
    let calls = {
        let (machine, _) = machine();
        let (mut r, mut c) = (registry(), Control::new(&machine));
        let placed = r.register_each(&mut c, &mixed(&machine)).expect("the host does not fail");
        let calls = c.calls.len();
        r.unregister(&mut c, placed.iter().flatten()).expect("nothing fails");
        calls
    };
    for n in 0..calls {
        let (machine, top) = machine();
        let (mut r, mut c) = (registry(), Control::new(&machine));
        c.fail = n..n + 1;
        let result = r.register_each(&mut c, &mixed(&machine));
        let call = c.calls.get(n).copied();
        c.calm();
        match result {
            Ok(placed) => {
                // Where sixteen bytes cannot be read, fewer are.
                assert_eq!(call, Some(Call::Read), "call {n}");
                r.unregister(&mut c, placed.iter().flatten()).expect("nothing fails");
            }
            Err(error) => assert!(matches!(error, Error::Host(_)), "call {n}, {call:?}: {error}"),
        }
        assert_eq!(machine.text(), machine.pristine(), "call {n}, {call:?}");
        assert_eq!(value(&machine, "main", top), 8, "call {n}, {call:?}");
        assert_eq!([1, 2, 3, 4, 5].map(|id| hits(&machine, id)), [0; 5], "call {n}, {call:?}");
    }
}
