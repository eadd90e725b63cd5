//! The host fails: at each of its calls, once. The target's text stays consistent, the failure is reported, and the
//! registry goes on as if nothing had been asked.
#![cfg(all(target_arch = "x86_64", feature = "kretprobes"))]

mod model;

use kprobes::{Handle, Registry, Request};
use model::{ADD, LEA, MOV, NOP, RET, entry, hits, machine, registry, returns, value};
use testkit::model::{Call, Control, Machine};

/// A batch with a new site, a known one, a return probe, a program.
fn batch(machine: &Machine) -> Vec<Request> {
    let leaf = machine.address("leaf");
    vec![entry(leaf + ADD, 2), entry(leaf, 3), returns(leaf, 4, 8), entry(leaf + MOV, 5)]
}

/// A machine with one probe, id 1, which must not notice what happens to others.
fn with_first<'m>(machine: &'m Machine) -> (Registry, Control<'m>, Vec<Handle>) {
    let (mut r, mut c) = (registry(), Control::new(machine));
    let first = r.register(&mut c, &[entry(machine.address("leaf"), 1)]).expect("nothing fails now");
    c.calls.clear();
    (r, c, first)
}

/// How many calls a batch's registration and its removal make.
fn calls() -> (usize, usize) {
    let (machine, _) = machine();
    let (mut r, mut c, _) = with_first(&machine);
    let handles = r.register(&mut c, &batch(&machine)).expect("nothing fails now");
    let registration = c.calls.len();
    r.unregister(&mut c, &handles).expect("nothing fails now");
    (registration, c.calls.len() - registration)
}

/// Fails call `n` of a registration, after `patched` bytes if it is a patch; gives the call.
fn fail_registration(n: usize, patched: usize) -> Call {
    let (machine, top) = machine();
    let (mut r, mut c, first) = with_first(&machine);
    let before = machine.text();
    c.fail = n..n + 1;
    c.patched_before_failure = patched;
    let result = r.register(&mut c, &batch(&machine));
    let call = c.calls[n];
    c.calm();
    let why = format!("call {n}, {call:?}, {patched} bytes patched");
    // Where the host cannot read sixteen bytes, fewer are read: no failure.
    if let Ok(handles) = result {
        assert!(matches!(call, Call::Read), "{why} was not reported");
        r.unregister(&mut c, &handles).expect("nothing fails now");
        return call;
    }
    assert!(machine.text() == before, "{why}: the text is not as before");
    assert_eq!(value(&machine, "main", top), 8, "{why}");
    assert_eq!([1, 2, 3, 4, 5].map(|id| hits(&machine, id)), [1, 0, 0, 0, 0], "{why}: a probe of the batch is live");

    let again = r.register(&mut c, &batch(&machine)).unwrap_or_else(|e| panic!("{why}: registering again: {e:?}"));
    assert_eq!(value(&machine, "main", top), 8, "{why}");
    assert_eq!([1, 2, 3, 4, 5].map(|id| hits(&machine, id)), [2, 1, 1, 1, 1], "{why}: registered again");
    r.unregister(&mut c, &again).expect("nothing fails now");
    r.unregister(&mut c, &first).expect("nothing fails now");
    assert_eq!(machine.text(), machine.pristine(), "{why}");
    assert_eq!(value(&machine, "main", top), 8, "{why}");
    assert_eq!([1, 2, 3, 4, 5].map(|id| hits(&machine, id)), [2, 1, 1, 1, 1], "{why}: all are off");
    call
}

/// Fails call `n` of a removal.
fn fail_removal(n: usize, patched: usize) -> Call {
    let (machine, top) = machine();
    let (mut r, mut c, first) = with_first(&machine);
    let handles = r.register(&mut c, &batch(&machine)).expect("nothing fails now");
    c.calls.clear();
    c.fail = n..n + 1;
    c.patched_before_failure = patched;
    let result = r.unregister(&mut c, &handles);
    let call = c.calls[n];
    c.calm();
    let why = format!("call {n}, {call:?}, {patched} bytes patched");
    assert!(result.is_err() || matches!(call, Call::Grace | Call::Read), "{why} was not reported");
    if matches!(call, Call::Read) && result.is_ok() {
        // A site whose byte cannot be read is not there any more: nothing to restore, and nobody comes to it.
        return call;
    }
    assert_eq!(value(&machine, "main", top), 8, "{why}: the program goes on whatever is left");
    if result.is_ok() {
        return call;
    }
    r.unregister(&mut c, &handles).unwrap_or_else(|e| panic!("{why}: once more: {e:?}"));
    let counted: Vec<u64> = (1..6).map(|id| hits(&machine, id)).collect();

    let leaf = machine.address("leaf");
    let others = [entry(leaf + ADD, 12), entry(leaf, 13), returns(leaf, 14, 8), entry(leaf + MOV, 15), entry(leaf, 16)];
    let others = r.register(&mut c, &others).expect("nothing fails now");
    assert_eq!(value(&machine, "main", top), 8, "{why}");
    assert_eq!([12, 13, 14, 15, 16].map(|id| hits(&machine, id)), [1; 5], "{why}: new probes count once each");
    let now: Vec<u64> = (1..6).map(|id| hits(&machine, id)).collect();
    assert_eq!(now[1..], counted[1..], "{why}: old probes do not count");
    assert_eq!(now[0], counted[0] + 1, "{why}: the first one does");
    r.unregister(&mut c, &others).expect("nothing fails now");
    r.unregister(&mut c, &first).expect("nothing fails now");
    assert!(machine.text() == machine.pristine(), "{why}");
    assert_eq!(value(&machine, "main", top), 8, "{why}");
    call
}

/// Collects what fails, so that a bug shows at every call where it does.
fn all(count: usize, patched: &[usize], one: impl Fn(usize, usize) -> Call + std::panic::RefUnwindSafe, only: &[Call]) {
    let mut failures = Vec::new();
    for n in 0..count {
        for &patched in patched {
            match std::panic::catch_unwind(|| one(n, patched)) {
                Ok(_) => {}
                Err(why) => failures.push(why.downcast::<String>().map_or_else(|_| format!("call {n}"), |s| *s)),
            }
        }
    }
    // One that does not say which call it was is everybody's.
    let named = |f: &str, call: &Call| f.contains(&format!("{call:?}"));
    let relevant: Vec<_> = failures
        .iter()
        .filter(|f| only.is_empty() || only.iter().any(|c| named(f, c)) || !f.contains("call "))
        .collect();
    assert!(relevant.is_empty(), "{} of {count} calls:\n{relevant:#?}", relevant.len());
}

/// The calls with which a batch is checked and prepared.
const PREPARING: [Call; 8] = [
    Call::Read,
    Call::Function,
    Call::ReturnScheme,
    Call::Slot,
    Call::WriteSlot,
    Call::StoreProgram,
    Call::StoreSite,
    Call::Publish,
];

#[test]
fn a_registration_that_fails_while_it_prepares_changes_nothing() {
    all(calls().0, &[0], fail_registration, &PREPARING);
}

#[test]
fn a_registration_that_fails_while_it_chains_or_arms_changes_nothing() {
    all(calls().0, &[0], fail_registration, &[Call::StoreProbe, Call::SetFirst, Call::SetNext, Call::SetArmed]);
}

#[test]
fn a_registration_whose_patch_fails_changes_nothing() {
    all(calls().0, &[0, 1], fail_registration, &[Call::Patch]);
}

#[test]
fn a_removal_that_fails_before_the_grace_period_can_be_repeated() {
    all(calls().1, &[0, 1], fail_removal, &[Call::Read, Call::Patch, Call::SetState, Call::SetArmed, Call::Grace]);
}

#[test]
fn a_removal_that_fails_while_it_unlinks_can_be_repeated() {
    all(calls().1, &[0], fail_removal, &[Call::SetFirst, Call::SetNext]);
}

#[test]
fn full_tables_are_reported_and_leave_the_rest_working() {
    let (machine, top) = machine();
    let (mut r, mut c) = (registry(), Control::new(&machine));
    let leaf = machine.address("leaf");
    let room = machine.tables.probes.len();
    let places = [NOP, ADD, LEA, MOV, RET].into_iter().cycle();
    let many: Vec<Request> = places.take(room + 1).map(|offset| entry(leaf + offset, 2)).collect();
    let first = r.register(&mut c, &[entry(leaf, 1)]).unwrap();
    let (_, error) = r.register(&mut c, &many).unwrap_err();
    assert!(matches!(error, kprobes::Error::Full { what: "probes", .. }), "{error:?}");
    assert_eq!(value(&machine, "main", top), 8);
    assert_eq!((hits(&machine, 1), hits(&machine, 2)), (1, 0));
    r.unregister(&mut c, &first).unwrap();
    assert_eq!(machine.text(), machine.pristine());
}

/// Fails all calls of a registration from call `n` on, also those that should undo it; then the target is well again.
fn fail_from(n: usize, patched: usize) -> Call {
    let (machine, top) = machine();
    let (mut r, mut c, first) = with_first(&machine);
    c.fail = n..usize::MAX;
    c.patched_before_failure = patched;
    let failed = r.register(&mut c, &batch(&machine)).is_err();
    let call = c.calls[n];
    c.calm();
    let why = format!("calls from {n}, {call:?}, {patched} bytes patched");
    assert!(failed, "{why}");
    assert_eq!(value(&machine, "main", top), 8, "{why}");
    r.unregister(&mut c, &first).expect("nothing fails now");
    assert_eq!(value(&machine, "main", top), 8, "{why}");
    call
}

#[test]
fn a_target_that_fails_for_good_in_a_registration_is_not_harmed() {
    all(calls().0, &[0, 1], fail_from, &[]);
}

#[test]
fn a_breakpoint_that_could_not_be_taken_out_goes_with_the_next_removal() {
    let (machine, top) = machine();
    let (mut r, mut c, first) = with_first(&machine);
    let handles = r.register(&mut c, &batch(&machine)).unwrap();
    c.calls.clear();
    c.patched_before_failure = 1;
    // The bytes at the two sites that nobody else needs are read, then written.
    c.fail = 2..3;
    r.unregister(&mut c, &handles).unwrap_err();
    assert_eq!(c.calls[..3], [Call::Read, Call::Read, Call::Patch]);
    c.calm();
    assert_ne!(machine.text(), machine.pristine());
    assert_eq!(value(&machine, "main", top), 8);
    assert_eq!([2, 3, 4, 5].map(|id| hits(&machine, id)), [0; 4], "the probes are off all the same");
    r.unregister(&mut c, &first).unwrap();
    assert_eq!(machine.text(), machine.pristine());
}
