//! Symbols' names.

#[path = "../../../../apps/demo-kernel/src/ksyms/name.rs"]
mod name;
#[expect(redundant_imports, reason = "the kernel has no prelude with these")]
#[path = "../../../../apps/demo-kernel/src/ksyms/similar.rs"]
mod similar;

use self::name::last_segment;
use self::similar::similar;

#[test]
fn the_last_part_of_a_path_is_the_functions_own_name() {
    for (path, last) in [
        ("sys_open", "sys_open"),
        ("demo_kernel::fs::sys_open", "sys_open"),
        ("<a::B as core::fmt::Display>::fmt", "fmt"),
        ("<a::B<c::D> as E<fn(u8) -> f::G>>::h", "h"),
        ("a::f::<b::C>", "f"),
        ("core::ptr::drop_in_place<alloc::string::String>", "drop_in_place"),
        ("a::b::{{closure}}", "{{closure}}"),
        ("a::b::{closure#0}", "{closure#0}"),
        ("<a::B>", "<a::B>"),
        ("a>", "a>"),
        ("", ""),
    ] {
        assert_eq!(last_segment(path), last, "{path}");
    }
}

#[test]
fn near_names_are_offered_the_nearest_first() {
    let names = ["a::sys_open", "b::sys_read", "c::sys_close", "d::sys_opens", "e::path_lookup"];
    assert_eq!(similar("sys_opne", names.into_iter(), 5), ["a::sys_open", "d::sys_opens"]);
    assert_eq!(similar("x::sys_opn", names.into_iter(), 1), ["a::sys_open"]);
    assert_eq!(similar("hlep", ["halt", "help"].into_iter(), 1), ["help"]);
    assert_eq!(similar("nothing_of_the_kind", names.into_iter(), 5), [""; 0]);
    assert_eq!(similar("", names.into_iter(), 5), [""; 0]);
}
