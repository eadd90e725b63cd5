//! Which unwinder is inside an object.
#![forbid(unsafe_code)]

mod support;

use support::{Bench, GO, HELLO, PANICS, THROWS, found, system_object};
use symbols::{Flavor, Object, Unwinder, UnwinderStatus};

fn identified(object: &Object) -> Unwinder {
    match object.unwinder() {
        UnwinderStatus::Identified(unwinder) => unwinder,
        other => panic!("{other:?}"),
    }
}

#[test]
fn gccs_shared_unwinder_is_known_by_its_symbols() {
    let Some(object) = system_object("libgcc_s.so.1") else { return };
    let unwinder = identified(&object);
    assert_eq!((unwinder.flavor, unwinder.set_ip_cfa_offset), (Flavor::Libgcc, Some(0x90)));
    assert_eq!(unwinder.raise, [found(&object, "_Unwind_RaiseException").addr]);
    assert_eq!(unwinder.backtrace, Some(found(&object, "_Unwind_Backtrace").addr));
    assert_eq!(unwinder.entries().len(), 4);
}

#[test]
fn stripping_hides_no_entry_of_gccs_unwinder() {
    let bench = Bench::new(&[("t.cpp", THROWS)]);
    let Some(full) = bench.build("g++", &["-O1", "-static", "t.cpp", "-o", "p"], "p") else { return };
    let Some(stripped) = bench.build("strip", &["p", "-o", "q"], "q") else { return };
    assert!(stripped.functions().is_empty());
    let named = identified(&full);
    assert_eq!(named.raise, [found(&full, "_Unwind_RaiseException").addr]);
    assert_eq!(named.flavor, Flavor::Libgcc);
    assert_eq!(identified(&stripped), named);
}

#[test]
fn a_static_c_program_of_glibc_has_gccs_unwinder() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    let Some(stripped) = bench.build("gcc", &["-static", "-s", "h.c", "-o", "p"], "p") else { return };
    assert_eq!(identified(&stripped).entries().len(), 4);
}

#[test]
fn a_plug_in_with_its_own_stripped_unwinder_is_seen() {
    let bench = Bench::new(&[("t.cpp", THROWS)]);
    let args = [
        "-shared",
        "-fPIC",
        "-static-libgcc",
        "-static-libstdc++",
        "-Wl,--exclude-libs,ALL",
        "-s",
        "t.cpp",
        "-o",
        "t.so",
    ];
    let Some(object) = bench.build("g++", &args, "t.so") else { return };
    assert_eq!(identified(&object).set_ip_cfa_offset, Some(0x90));
}

#[test]
fn what_only_imports_an_unwinder_has_none() {
    let bench = Bench::new(&[("t.cpp", THROWS)]);
    let Some(object) = bench.build("g++", &["t.cpp", "-o", "p"], "p") else { return };
    assert_eq!(object.unwinder(), UnwinderStatus::None);
    // Rust for glibc links libgcc_s: this test is such a program.
    let this = Object::read(&std::env::current_exe().expect("a path")).expect("this test is an object");
    assert_eq!(this.unwinder(), UnwinderStatus::None);
}

#[test]
fn glibc_itself_has_none_though_its_profiling_hooks_save_rax() {
    for file in ["libc.so.6", "ld-linux-x86-64.so.2"] {
        let Some(object) = system_object(file) else { return };
        assert_eq!(object.unwinder(), UnwinderStatus::None, "{file}");
    }
}

#[test]
fn a_static_c_program_of_musl_has_none() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    for strip in ["-g", "-s"] {
        let Some(object) = bench.build("musl-gcc", &["-static", strip, "h.c", "-o", "p"], "p") else { return };
        assert_eq!(object.unwinder(), UnwinderStatus::None);
    }
}

#[test]
fn rust_for_musl_has_llvms_unwinder() {
    let bench = Bench::new(&[("r.rs", PANICS)]);
    let args = ["--target", "x86_64-unknown-linux-musl", "r.rs", "-o", "p"];
    let Some(object) = bench.build("rustc", &args, "p") else { return };
    let unwinder = identified(&object);
    assert_eq!((unwinder.flavor, unwinder.set_ip_cfa_offset), (Flavor::Llvm, Some(0x48)));
    assert_eq!(unwinder.set_ip, Some(found(&object, "_Unwind_SetIP").addr));
    let Some(stripped) = bench.build("strip", &["p", "-o", "q"], "q") else { return };
    assert!(matches!(stripped.unwinder(), UnwinderStatus::Unidentifiable { .. }));
}

#[test]
fn go_has_none() {
    let bench = Bench::new(&[("g.go", GO)]);
    let Some(object) = bench.build("go", &["build", "-o", "p", "g.go"], "p") else { return };
    assert_eq!(object.unwinder(), UnwinderStatus::None);
}

#[test]
fn nongnus_unwinder_is_named_without_an_offset() {
    let Some(object) = system_object("libunwind.so.8") else { return };
    let unwinder = identified(&object);
    assert_eq!((unwinder.flavor, unwinder.set_ip_cfa_offset), (Flavor::Nongnu, None));
    assert!(!unwinder.raise.is_empty());
}

#[test]
fn what_stands_before_an_unwinder_is_none() {
    // As sanitizers do.
    let source = "void _Unwind_Resume(void);\nvoid _Unwind_RaiseException(void) { _Unwind_Resume(); }\n";
    let bench = Bench::new(&[("u.c", source)]);
    let args = ["-shared", "-fPIC", "u.c", "-o", "u.so"];
    let Some(object) = bench.build("gcc", &args, "u.so") else { return };
    assert_eq!(object.unwinder(), UnwinderStatus::None);
}

#[test]
fn an_unknown_unwinder_is_not_taken_for_a_known_one() {
    // `_Unwind_SetIP` stores elsewhere and does more: no unwinder that is known.
    let source =
        "void _Unwind_RaiseException(void) {}\nvoid _Unwind_SetIP(long *c, long ip) { c[3] = ip; c[4] = 1; }\n";
    let bench = Bench::new(&[("u.c", source)]);
    let Some(object) = bench.build("gcc", &["-O1", "-shared", "-fPIC", "u.c", "-o", "u.so"], "u.so") else { return };
    assert!(matches!(object.unwinder(), UnwinderStatus::Unidentifiable { .. }));
}
