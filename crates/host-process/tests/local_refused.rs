//! Places that are refused, each with its reason; and text that is as it was before.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use host_process::local::{Error, Process};

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn left_as_it_was(n: u64) -> u64 {
    std::hint::black_box(n).rotate_left(3) + 7
}

fn refusal(line: &str) -> String {
    Process::start().unwrap().define(line).unwrap_err().to_string()
}

fn text() -> [u8; 16] {
    // SAFETY: functions are longer, or followed by others.
    unsafe { (left_as_it_was as *const [u8; 16]).read_volatile() }
}

#[test]
fn what_cannot_be_probed_is_refused_with_its_reason() {
    let address = left_as_it_was as *const () as u64;
    let place = |offset| format!("p:x left_as_it_was+{offset}");
    let inside = (1..16).map(|o| refusal_or_remove(&place(o))).find(|r| r.contains("no instruction boundary"));
    assert!(inside.is_some());
    for (line, reason) in [
        ("p:x no_such_function".to_owned(), "no function `no_such_function`"),
        ("p:x libnone.so.1:f".to_owned(), "no object `libnone.so.1` is loaded"),
        ("p:x left_as_it_was+4096".to_owned(), "beyond the end"),
        ("p:x 0x10".to_owned(), "not in the target's code"),
        (format!("p:x {address:#x} n=$arg"), "^"),
        ("-:x".to_owned(), "use `remove`"),
        ("p:x /lib/x.so:16(32)".to_owned(), "not supported"),
    ] {
        let said = refusal(&line);
        assert!(said.contains(reason), "{line}: {said}");
    }
}

fn refusal_or_remove(line: &str) -> String {
    let process = Process::start().unwrap();
    match process.define(line) {
        Ok(()) => process.remove("x").map(|()| String::new()).unwrap(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_batch_with_one_that_is_refused_plants_nothing() {
    let process = Process::start().unwrap();
    let before = text();
    let batch = ["p:first left_as_it_was", "p:second left_as_it_was", "p:third no_such_function"];
    process.define_all(&batch).unwrap_err();
    assert_eq!(text(), before);
    assert!(matches!(process.counts("first"), Err(Error::Unknown { .. })));
    process.define("p:first left_as_it_was").unwrap();
    assert!(matches!(process.define("p:first left_as_it_was"), Err(Error::Exists { .. })));
    assert!(matches!(process.define_all(&["p:two main", "p:two main"]), Err(Error::Exists { .. })));
    assert_ne!(text(), before);
    process.remove("first").unwrap();
    assert_eq!(text(), before);
    assert!(matches!(process.remove("first"), Err(Error::Unknown { .. })));
}
