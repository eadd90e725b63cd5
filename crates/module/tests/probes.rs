//! Registering: what reaches the host, and what comes back.

#[expect(dead_code, reason = "shared by all tests")]
mod host;

use host::{PROBES, REFUSAL, REMOVED, SWITCHED};
use module::raw::{NAME_BYTES, kind};
use module::{Batch, Error, Handler, Hit, Jprobe, Kprobe, Kretprobe, Next, Slot, Watch, register, register_all};

extern "C" fn pre(_: &mut Hit<'_>) -> Next {
    Next::Step
}

extern "C" fn post(_: &mut Hit<'_>) {}

extern "C" fn entry(_: &mut Hit<'_>, _: &mut [u64; 3]) -> Watch {
    Watch::Yes
}

extern "C" fn returned(_: &mut Hit<'_>, _: &mut [u64; 3]) {}

extern "C" fn mirror(_: u64) {}

fn handler<F: Copy>(function: F) -> Handler<F> {
    // SAFETY: those here do nothing.
    unsafe { Handler::new(function) }
}

#[test]
fn a_kprobe_reaches_the_host_with_its_handlers() {
    let probe = Kprobe::symbol_offset("libc.so.6:read", 4).pre(handler(pre as _)).post(handler(post as _)).user(9);
    register(probe.disabled()).unwrap().keep();
    let (raw, symbol) = PROBES.take().remove(0);
    assert_eq!((raw.address, symbol.as_str(), raw.offset, raw.kind), (0, "libc.so.6:read", 4, kind::KPROBE));
    assert_eq!((raw.before, raw.after, raw.fault), (pre as *const () as u64, post as *const () as u64, 0));
    assert_eq!((raw.user, raw.disabled), (9, 1));
}

#[test]
fn a_probe_at_an_address_has_no_symbol() {
    register(Kprobe::address(0x1234)).unwrap().keep();
    let (raw, symbol) = PROBES.take().remove(0);
    assert_eq!((raw.address, symbol.as_str(), raw.before), (0x1234, "", 0));
}

#[test]
fn a_jprobe_and_a_kretprobe_reach_the_host() {
    let (entry, returned) = (handler(entry as _), handler(returned as _));
    let returns = Kretprobe::<[u64; 3]>::symbol("f").entry(entry).handler(returned).maxactive(20);
    let mirrors = Jprobe::symbol("g", handler(mirror as extern "C" fn(_)));
    let [first, second] = register_all([returns.into(), mirrors.into()]).unwrap();
    let _ = (first.keep(), second.keep());
    let raw = PROBES.take();
    assert_eq!((raw[0].0.kind, raw[0].0.maxactive, raw[0].0.entry_bytes), (kind::KRETPROBE, 20, 24));
    assert_eq!((raw[1].0.kind, raw[1].0.before), (kind::JPROBE, mirror as *const () as u64));
}

#[test]
fn a_refusal_says_which_probe_and_why() {
    REFUSAL.set(Some((1, "f is no function".into())));
    let error = register_all([Kprobe::symbol("e").into(), Kprobe::symbol("f").into()]).unwrap_err();
    assert!(matches!(error, Error::Refused { index: 1, .. }), "{error:?}");
    assert_eq!(error.to_string(), "f is no function");
    assert!(PROBES.take().is_empty());
}

#[test]
fn a_batch_takes_as_many_as_it_has_room_for() {
    let mut batch = Batch::<2>::new();
    assert!(batch.is_empty());
    for name in ["a", "b"] {
        batch.add(Kprobe::symbol(name)).unwrap();
    }
    assert_eq!(batch.add(Kprobe::symbol("c")), Err(Error::TooMany { limit: 2 }));
    let registered = batch.register().unwrap();
    assert_eq!((registered.iter().count(), PROBES.take().len()), (2, 2));
    registered.keep();
}

#[test]
fn a_name_that_is_too_long_is_refused_before_the_host_sees_it() {
    let name = "x".repeat(NAME_BYTES + 1);
    assert_eq!(register(Kprobe::symbol(&name)).unwrap_err(), Error::NameTooLong);
}

#[test]
fn a_registered_probe_is_asked_switched_and_taken_off() {
    let probe = register(Kprobe::symbol("f")).unwrap();
    assert_eq!((probe.counts().unwrap().hits, probe.nmissed().unwrap()), (7, 3));
    assert_eq!((probe.disable(), probe.enable()), (Ok(()), Ok(())));
    probe.unregister().unwrap();
    assert_eq!(SWITCHED.take(), [(100, 0), (100, 1)]);
    assert_eq!(REMOVED.take(), [vec![100]]);
}

#[test]
fn a_probe_that_the_host_does_not_know_any_more_is_gone() {
    let [first, second] = register_all([Kprobe::symbol("f").into(), Kprobe::symbol("g").into()]).unwrap();
    assert_eq!(second.counts(), Err(Error::Gone));
    let _ = (first.keep(), second.keep());
}

#[test]
fn a_batch_is_taken_off_in_one_call() {
    let mut batch = Batch::<8>::new();
    for name in ["a", "b", "c"] {
        batch.add(Kprobe::symbol(name)).unwrap();
    }
    batch.register().unwrap().unregister().unwrap();
    assert_eq!(REMOVED.take(), [vec![100, 101, 102]]);
}

#[test]
fn a_slot_holds_one_value_at_a_time() {
    let slot = Slot::new();
    assert_eq!((slot.take(), slot.with(|value: &String| value.len())), (None, None));
    assert_eq!(slot.put(String::from("one")), None);
    assert_eq!(slot.put(String::from("two")), Some(String::from("two")));
    assert_eq!(slot.with(|value| (value.len(), slot.with(String::len), slot.take())), Some((3, None, None)));
    assert_eq!((slot.take(), slot.take()), (Some(String::from("one")), None));
}
