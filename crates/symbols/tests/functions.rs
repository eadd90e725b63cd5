//! Functions by name and by address.
#![forbid(unsafe_code)]

mod support;

use support::{Bench, HELLO, THROWS, ambiguous, found, nearest};
use symbols::{Binding, Lookup, Object, ObjectKind};

#[test]
fn static_functions_of_two_files_are_ambiguous() {
    let bench = Bench::new(&[
        (
            "a.c",
            "static __attribute__((noinline)) int twin(int x) { return x + 1; }\nint a(int x) { return twin(x) * 2; }\n",
        ),
        (
            "b.c",
            "static __attribute__((noinline)) int twin(int x) { return x + 2; }\nint a(int);\nint main(int c, char **v) { return twin(c) + a(c); }\n",
        ),
    ]);
    let Some(object) = bench.build("gcc", &["-O1", "a.c", "b.c", "-o", "p"], "p") else { return };
    let twins = ambiguous(&object, "twin");
    assert_eq!(twins.len(), 2);
    for addr in twins {
        let function = object.function_at(addr).expect("a symbol");
        assert_eq!((function.name(), function.binding), ("twin", Binding::Local));
    }
    assert_eq!(found(&object, "a").binding, Binding::Global);
    assert!(object.data_symbol("twin").is_none() && object.data_symbols("twin").len() == 2);
}

#[test]
fn aliases_are_one_function() {
    let source = "int real(int x) { return x + 1; }\nint other(int) __attribute__((alias(\"real\")));\nint main(void) { return 0; }\n";
    let bench = Bench::new(&[("a.c", source)]);
    let Some(object) = bench.build("gcc", &["a.c", "-o", "p"], "p") else { return };
    assert_eq!(found(&object, "real").addr, found(&object, "other").addr);
    let aliases = object.functions().iter().filter(|f| f.addr == found(&object, "real").addr).count();
    assert_eq!(aliases, 2);
}

#[test]
fn cpp_functions_are_found_by_what_the_programmer_wrote() {
    let bench = Bench::new(&[("t.cpp", THROWS)]);
    let Some(object) = bench.build("g++", &["-O1", "t.cpp", "-o", "p"], "p") else { return };
    assert_eq!(ambiguous(&object, "ns::f").len(), 2);
    assert_eq!(found(&object, "ns::f(int)").name(), "_ZN2ns1fEi");
    assert_eq!(found(&object, "ns::f(long)").name(), "_ZN2ns1fEl");
    assert_eq!(found(&object, "_ZN2ns1fEi").demangled(), "ns::f(int)");
    assert_eq!(found(&object, "ns::g<int>").addr, found(&object, "ns::g").addr);
    assert!(object.data_symbol("ns::counter").is_some());
    assert_eq!(object.data_symbol("ns::counter"), object.data_symbol("_ZN2ns7counterE"));
}

#[test]
fn rust_functions_are_found_without_their_hash() {
    let object = Object::read(&std::env::current_exe().expect("a path")).expect("this test is an object");
    assert!(object.is_rust() && !object.is_go());
    // Inlined by no optimisation: it is in the precompiled library.
    assert!(matches!(object.lookup("std::rt::lang_start_internal"), Lookup::Found(_) | Lookup::Ambiguous(_)));
    assert!(nearest(&object, "std::rt::lang_stort_internal").contains(&"std::rt::lang_start_internal".to_owned()));
    assert!(nearest(&object, "rt::lang_start_internal").contains(&"std::rt::lang_start_internal".to_owned()));
}

#[test]
fn misspelt_names_are_answered_with_near_ones() {
    let source = "int connection_open(void) { return 1; }\nint connection_close(void) { return 2; }\nint main(void) { return 0; }\n";
    let bench = Bench::new(&[("a.c", source)]);
    let Some(object) = bench.build("gcc", &["a.c", "-o", "p"], "p") else { return };
    assert_eq!(nearest(&object, "conection_open")[0], "connection_open");
    assert_eq!(nearest(&object, "Connection_Close")[0], "connection_close");
    assert!(nearest(&object, "zzzzzzzzzzzz").is_empty());
    assert!(nearest(&object, "").is_empty());
}

#[test]
fn a_plain_name_means_the_default_version() {
    let source = "int v1(void) { return 1; }\nint v2(void) { return 2; }\n\
        __asm__(\".symver v1,call@OLD_1\");\n__asm__(\".symver v2,call@@NEW_2\");\n";
    let bench = Bench::new(&[("v.c", source), ("v.map", "OLD_1 { global: call; };\nNEW_2 { global: call; } OLD_1;\n")]);
    let args = ["-shared", "-fPIC", "-Wl,--version-script=v.map", "-s", "v.c", "-o", "v.so"];
    let Some(object) = bench.build("gcc", &args, "v.so") else { return };
    let (plain, old, new) = (found(&object, "call"), found(&object, "call@OLD_1"), found(&object, "call@@NEW_2"));
    assert_eq!(plain.addr, new.addr);
    assert_ne!(plain.addr, old.addr);
    assert_eq!(found(&object, "call@NEW_2").addr, new.addr);
    assert_eq!((old.version(), old.is_default_version()), (Some("OLD_1"), false));
    assert_eq!((old.versioned_name(), new.versioned_name()), ("call@OLD_1".into(), "call@@NEW_2".into()));
    assert!(matches!(object.lookup("call@@OLD_1"), Lookup::NotFound { .. }));
    assert_eq!(object.data_symbol("call"), Some(new.addr));
}

#[test]
fn versions_are_known_with_a_full_symbol_table_too() {
    let source = "int v1(void) { return 1; }\nint v2(void) { return 2; }\n\
        __asm__(\".symver v1,call@OLD_1\");\n__asm__(\".symver v2,call@@NEW_2\");\n";
    let bench = Bench::new(&[("v.c", source), ("v.map", "OLD_1 { global: call; };\nNEW_2 { global: call; } OLD_1;\n")]);
    let args = ["-shared", "-fPIC", "-Wl,--version-script=v.map", "v.c", "-o", "v.so"];
    let Some(object) = bench.build("gcc", &args, "v.so") else { return };
    assert_ne!(found(&object, "call").addr, found(&object, "call@OLD_1").addr);
    assert_eq!(object.functions().iter().filter(|f| f.name() == "call").count(), 2);
}

#[test]
fn indirect_functions_are_marked() {
    let source = "static int one(int x) { return x + 1; }\nstatic void *choose(void) { return one; }\n\
        int pick(int) __attribute__((ifunc(\"choose\")));\nint main(int c, char **v) { return pick(c); }\n";
    let bench = Bench::new(&[("i.c", source)]);
    let Some(object) = bench.build("gcc", &["i.c", "-o", "p"], "p") else { return };
    let pick = found(&object, "pick");
    assert!(pick.ifunc);
    assert_eq!(pick.addr, found(&object, "choose").addr);
    assert!(!found(&object, "main").ifunc);
}

const SIZELESS: &str = "
    .text
    .globl bare, framed, last, untyped
    .type bare, @function
bare: nop; nop; ret
    .type framed, @function
framed: .cfi_startproc
    nop; ret
    .cfi_endproc
    .fill 14, 1, 0xcc
untyped: nop; nop; nop; nop; ret
    .type last, @function
    .section .text.zzz, \"ax\", @progbits
last: nop; ret
    .section .note.GNU-stack, \"\", @progbits
";

#[test]
fn missing_sizes_are_found_from_what_follows() {
    let bench = Bench::new(&[("s.s", SIZELESS)]);
    let args = ["-shared", "-nostdlib", "-Wl,-z,separate-code", "s.s", "-o", "s.so"];
    let Some(object) = bench.build("gcc", &args, "s.so") else { return };
    let sizes: Vec<_> =
        ["bare", "framed", "untyped", "last"].map(|n| (found(&object, n).size, found(&object, n).size_known)).into();
    // The next symbol ends `bare` and `untyped`, the unwind table `framed`, the section `last`.
    assert_eq!(sizes, [(3, false), (2, false), (5, false), (2, false)]);
}

#[test]
fn known_sizes_are_kept() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    let Some(object) = bench.build("gcc", &["h.c", "-o", "p"], "p") else { return };
    let main = found(&object, "main");
    assert!(main.size_known && main.size > 0);
    assert_eq!(object.function_at(main.end() - 1).map(|f| f.name()), Some("main"));
    assert_ne!(object.function_at(main.end()).map(|f| f.name()), Some("main"));
}

#[test]
fn stripped_functions_are_known_by_their_unwind_entries() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    let Some(full) = bench.build("gcc", &["h.c", "-o", "p"], "p") else { return };
    let Some(stripped) = bench.build("strip", &["p", "-o", "q"], "q") else { return };
    let main = found(&full, "main");
    assert!(stripped.functions().iter().all(|f| f.name() != "main"));
    let unnamed = stripped.function_at(main.addr + 4).expect("an unwind entry");
    assert_eq!((unnamed.name(), unnamed.addr, unnamed.size), ("", main.addr, main.size));
    assert_eq!(stripped.function_bounds(main.addr + 4), Some((main.addr, main.end())));
    assert_eq!(full.function_bounds(main.addr), Some((main.addr, main.end())));
}

#[test]
fn code_is_what_the_file_says_and_only_code() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    let Some(object) = bench.build("gcc", &["-fcf-protection=branch", "h.c", "-o", "p"], "p") else { return };
    let main = found(&object, "main");
    assert_eq!(object.code(main.addr, 4), Some([0xf3, 0x0f, 0x1e, 0xfa].as_slice())); // endbr64
    let offset = object.offset_of_vaddr(main.addr).expect("main is in the file");
    assert_eq!(object.vaddr_of_offset(offset), Some(main.addr));
    assert!(object.is_executable(main.addr));
    let stdout = object.data_symbol("__data_start").expect("every program has it");
    assert!(!object.is_executable(stdout) && object.code(stdout, 1).is_none());
    assert!(object.code(main.addr, usize::MAX).is_none() && object.code(u64::MAX, 1).is_none());
    assert!(object.executable_sections().iter().any(|r| r.contains(&main.addr)));
}

#[test]
fn linkage_tables_are_not_the_objects_own_code() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    let Some(object) = bench.build("gcc", &["-Wl,-z,lazy", "h.c", "-o", "p"], "p") else { return };
    let plt = object
        .loads()
        .iter()
        .filter(|l| l.is_executable())
        .flat_map(|l| l.vaddr..l.vaddr + l.filesz)
        .find(|&a| object.is_plt(a));
    let plt = plt.expect("puts is called through it");
    assert!(object.is_executable(plt) && !object.executable_sections().iter().any(|r| r.contains(&plt)));
    assert!(!object.is_plt(found(&object, "main").addr));
}

#[test]
fn kinds_of_programs_are_told_apart() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    let kinds = [
        (["-pie", "-fPIE"], ObjectKind::Executable { pie: true, static_linked: false }),
        (["-no-pie", "-fno-pie"], ObjectKind::Executable { pie: false, static_linked: false }),
        (["-static", "-fno-pie"], ObjectKind::Executable { pie: false, static_linked: true }),
        (["-static-pie", "-fPIE"], ObjectKind::Executable { pie: true, static_linked: true }),
        (["-shared", "-fPIC"], ObjectKind::Shared),
    ];
    for (args, kind) in kinds {
        let Some(object) = bench.build("gcc", &[args[0], args[1], "h.c", "-o", "p"], "p") else { continue };
        assert_eq!(object.kind(), kind, "{args:?}");
        assert_eq!(object.interpreter().is_some(), matches!(kind, ObjectKind::Executable { static_linked: false, .. }));
    }
}

#[test]
fn names_of_shared_objects_are_read() {
    let bench = Bench::new(&[("h.c", "int f(void) { return 1; }\n")]);
    let args = ["-shared", "-fPIC", "-Wl,-soname,libh.so.3", "-Wl,--build-id=0x1234abcd", "h.c", "-o", "h.so"];
    let Some(object) = bench.build("gcc", &args, "h.so") else { return };
    assert_eq!(object.soname(), Some("libh.so.3"));
    assert_eq!(object.build_id(), Some([0x12, 0x34, 0xab, 0xcd].as_slice()));
}

#[test]
fn dynamic_symbols_are_found_without_section_headers() {
    let bench = Bench::new(&[("h.c", "int first(void) { return 1; }\nint second(void) { return 2; }\n")]);
    for hash in ["-Wl,--hash-style=gnu", "-Wl,--hash-style=sysv"] {
        let Some(full) = bench.build("gcc", &["-shared", "-fPIC", hash, "h.c", "-o", "h.so"], "h.so") else { return };
        let mut bytes = std::fs::read(bench.path("h.so")).expect("just built");
        bytes[0x28..0x30].fill(0); // e_shoff
        bytes[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
        let object = Object::parse(&bytes, "h.so").expect("segments are enough");
        for name in ["first", "second"] {
            assert_eq!(found(&object, name).addr, found(&full, name).addr, "{hash}");
            assert_eq!(object.function_bounds(found(&full, name).addr), full.function_bounds(found(&full, name).addr));
        }
    }
}

#[test]
fn the_symbols_of_a_separate_debug_file_are_used() {
    let bench = Bench::new(&[(
        "h.c",
        "static __attribute__((noinline)) int hidden(int x) { return x + 1; }\nint main(int c, char **v) { return hidden(c); }\n",
    )]);
    let Some(full) = bench.build("gcc", &["-O1", "-g", "h.c", "-o", "p"], "p") else { return };
    let split = [["--only-keep-debug", "p", "p.debug"], ["--strip-all", "--add-gnu-debuglink=p.debug", "p"]];
    if bench.run("objcopy", &split[0]).is_none() || bench.run("objcopy", &split[1]).is_none() {
        return;
    }
    assert_eq!(found(&bench.read("p"), "hidden").addr, found(&full, "hidden").addr);
    // A file that is not the one it was made with.
    let mut bytes = std::fs::read(bench.path("p.debug")).expect("just made");
    bytes.push(0);
    std::fs::write(bench.path("p.debug"), bytes).expect("a writable folder");
    assert!(matches!(bench.read("p").lookup("hidden"), Lookup::NotFound { .. }));
}

#[test]
fn files_with_much_debug_information_are_read_in_parts() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    let Some(plain) = bench.build("gcc", &["h.c", "-o", "p"], "p") else { return };
    std::fs::write(bench.path("junk"), vec![0x5a; 1 << 20]).expect("a writable folder");
    let Some(big) = bench.build("objcopy", &["--add-section", ".debug_junk=junk", "p", "q"], "q") else { return };
    let names = |o: &Object| o.functions().iter().map(|f| (f.addr, f.size, f.versioned_name())).collect::<Vec<_>>();
    assert_eq!(names(&plain), names(&big));
}
