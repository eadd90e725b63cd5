//! What a host finds in a module that `module!` declares.

#[expect(dead_code, reason = "shared by all tests")]
mod host;

use core::ptr::slice_from_raw_parts;
use module::raw::{self, Module, Parameter};
use std::sync::Mutex;

module::module! {
    name: "sample",
    description: "A sample",
    parameters: [
        /// Which function.
        SYMBOL: str = "openat,  open,,",
        LIMIT: u64 = 10,
        /// May be
        /// negative.
        SHIFT: i64 = -3,
        VERBOSE: bool = true,
    ],
    init: init,
    exit: exit,
}

unsafe extern "C" {
    #[link_name = "kprobes_module"]
    safe static DECLARED: Module;
}

/// Whether `init` shall fail.
static FAILS: Mutex<bool> = Mutex::new(false);

fn init() -> Result<(), module::Error> {
    if *FAILS.lock().expect("nobody panics with it") {
        return Err(module::Error::Other("it does not want to"));
    }
    module::println!("begins");
    Ok(())
}

fn exit() {
    module::println!("ends");
}

fn text(text: raw::Text) -> &'static str {
    // SAFETY: a declaration's texts are those of string literals.
    str::from_utf8(unsafe { core::slice::from_raw_parts(text.bytes, text.length) }).expect("from a literal")
}

fn parameters() -> &'static [Parameter] {
    // SAFETY: a declaration's parameters are an array of so many.
    unsafe { &*slice_from_raw_parts(DECLARED.parameters, DECLARED.parameter_count) }
}

#[test]
fn the_declaration_says_who_it_is_and_for_which_host() {
    assert_eq!((DECLARED.magic, DECLARED.abi), (raw::MAGIC, raw::ABI));
    assert_eq!(DECLARED.regs_bytes as usize, size_of::<module::Regs>());
    assert_eq!((text(DECLARED.name), text(DECLARED.description)), ("sample", "A sample"));
}

#[test]
fn parameters_are_listed_in_small_letters_with_their_documentation() {
    let listed: Vec<_> = parameters().iter().map(|p| (text(p.name), text(p.description), p.kind)).collect();
    let expected = [
        ("symbol", "Which function.", raw::parameter::TEXT),
        ("limit", "", raw::parameter::UNSIGNED),
        ("shift", "May be negative.", raw::parameter::SIGNED),
        ("verbose", "", raw::parameter::FLAG),
    ];
    assert_eq!(listed, expected);
}

#[test]
fn parameters_have_room_for_what_the_host_writes() {
    let capacities: Vec<_> = parameters().iter().map(|p| p.capacity as usize).collect();
    assert_eq!(capacities, [8 + module::TEXT_BYTES, 8, 8, 1]);
    assert!(parameters().iter().zip([8, 8, 8, 1]).all(|(p, align)| p.value.addr() % align == 0));
}

#[test]
fn defaults_are_read_by_name() {
    assert_eq!((SYMBOL.get(), LIMIT.get(), SHIFT.get(), VERBOSE.get()), ("openat,  open,,", 10, -3, true));
    assert_eq!(SYMBOL.list().collect::<Vec<_>>(), ["openat", "open"]);
}

#[test]
fn values_that_the_host_writes_are_read() {
    static TEXT: module::Parameter<str> = module::Parameter::<str>::new("x");
    static NUMBER: module::Parameter<u64> = module::Parameter::<u64>::new(1);
    static FLAG: module::Parameter<bool> = module::Parameter::<bool>::new(true);
    let value = |parameter: Parameter| parameter.value.cast::<u8>();
    let name = raw::Text::new("");
    // SAFETY: what a host does before the module's code runs: nobody reads them yet.
    unsafe {
        value(TEXT.declare(name, "")).cast::<u64>().write(4);
        value(TEXT.declare(name, "")).add(8).cast::<[u8; 4]>().write(*b"free");
        value(NUMBER.declare(name, "")).cast::<u64>().write(u64::MAX);
        value(FLAG.declare(name, "")).write(0);
    }
    assert_eq!((TEXT.get(), NUMBER.get(), FLAG.get()), ("free", u64::MAX, false));
}

#[test]
fn a_text_that_is_none_is_empty() {
    static LONG: module::Parameter<str> = module::Parameter::<str>::new("x");
    static BINARY: module::Parameter<str> = module::Parameter::<str>::new("x");
    // SAFETY: as above; the values are what a wrong host might write.
    unsafe {
        LONG.declare(raw::Text::new(""), "").value.cast::<u64>().write(module::TEXT_BYTES as u64 + 1);
        BINARY.declare(raw::Text::new(""), "").value.cast::<u8>().add(8).write(0xff);
    }
    assert_eq!((LONG.get(), BINARY.get()), ("", ""));
}

#[test]
fn init_and_exit_are_called_and_an_error_is_printed() {
    assert_eq!((DECLARED.init)(), 0);
    (DECLARED.exit)();
    assert_eq!(host::printed(), "begins\nends\n");
    *FAILS.lock().expect("nobody panics with it") = true;
    assert_ne!((DECLARED.init)(), 0);
    assert_eq!(host::printed(), "sample: it does not want to\n");
}
