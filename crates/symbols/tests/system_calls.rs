//! Instructions that enter the kernel, and what a C library shows of itself.
#![forbid(unsafe_code)]

mod support;

use support::{Bench, GO, HELLO, found, system_object};
use symbols::{Language, Libc, Object, ObjectKind};

const SIGACTION: u32 = 13;
const SIGPROCMASK: u32 = 14;

/// The numbers found in a function made of `body`, `syscall`s being where its local labels `1`..
/// are.
fn numbers(body: &str) -> Option<Vec<u32>> {
    let source = format!(
        "    .globl f\n    .type f, @function\nf:\n{body}\n    ret\n    .size f, .-f\n    .section .note.GNU-stack, \"\", @progbits\n"
    );
    let bench = Bench::new(&[("f.s", source.as_str())]);
    let object = bench.build("gcc", &["-shared", "-nostdlib", "f.s", "-o", "f.so"], "f.so")?;
    Some(checked(&object, object.signal_syscall_sites(&[SIGACTION, SIGPROCMASK])))
}

/// Every site must be a `syscall`.
fn checked(object: &Object, sites: Vec<(u64, u32)>) -> Vec<u32> {
    for &(site, number) in &sites {
        assert_eq!(object.code(site, 2), Some([0x0f, 0x05].as_slice()), "{site:#x} {number}");
    }
    sites.into_iter().map(|(_, number)| number).collect()
}

#[test]
fn a_constant_before_the_call_is_found_in_all_encodings() {
    for load in ["mov $13, %eax", "mov $13, %rax", "push $13; pop %rax", "movabs $13, %rax", "lea 13, %eax"] {
        let Some(found) = numbers(&format!("{load}; mov $8, %r10d; syscall")) else { return };
        assert_eq!(found, [SIGACTION], "{load}");
    }
}

#[test]
fn a_constant_held_in_a_register_is_found_across_calls_that_keep_it() {
    let Some(found) = numbers("mov $14, %r15d; syscall; call g; mov %r15d, %eax; syscall; ret; g: nop") else { return };
    assert_eq!(found, [SIGPROCMASK]);
    let Some(lost) = numbers("mov $14, %r8d; call g; mov %r8d, %eax; syscall; ret; g: nop") else { return };
    assert!(lost.is_empty(), "a call destroys r8");
}

#[test]
fn every_way_in_counts() {
    let Some(found) = numbers("mov $13, %eax; test %edi, %edi; je 1f; mov $14, %eax; 1: syscall") else { return };
    assert_eq!(found, [SIGACTION, SIGPROCMASK]);
    let Some(jumped) = numbers("mov $14, %eax; jmp 1f; ud2; 1: syscall") else { return };
    assert_eq!(jumped, [SIGPROCMASK]);
}

#[test]
fn other_numbers_are_left_alone() {
    for body in [
        "mov $13, %eax; mov $1, %eax; syscall",
        "mov $13, %eax; ret; syscall",
        "mov $13, %eax; xor %eax, %eax; syscall",
        "mov $13, %eax; call g; syscall; ret; g: nop",
        "mov $269, %eax; syscall",
        "mov $13, %eax; mov (%rdi), %eax; syscall",
        "mov $13, %al; syscall",
    ] {
        let Some(found) = numbers(body) else { return };
        assert!(found.is_empty(), "{body}: {found:?}");
    }
}

#[test]
fn calls_deep_in_code_without_any_symbol_are_found() {
    // As in a large stripped program of musl, which has no unwind tables.
    let source = ".text; .fill 3000000, 1, 0x90; mov $13, %eax; syscall; ret; .fill 100, 1, 0x90\n\
        .section .note.GNU-stack, \"\", @progbits\n";
    let bench = Bench::new(&[("f.s", source)]);
    let args = ["-shared", "-nostdlib", "-s", "f.s", "-o", "f.so"];
    let Some(object) = bench.build("gcc", &args, "f.so") else { return };
    assert_eq!(checked(&object, object.signal_syscall_sites(&[SIGACTION, SIGPROCMASK])), [SIGACTION]);
}

#[test]
fn bytes_inside_an_instruction_are_no_system_call() {
    // movabs $0x050f, %rcx: the bytes 0f 05 are its operand.
    let Some(found) = numbers("mov $13, %eax; movabs $0x050f, %rcx") else { return };
    assert!(found.is_empty());
}

#[test]
fn glibcs_signal_calls_are_found() {
    let Some(libc) = system_object("libc.so.6") else { return };
    let sites = libc.signal_syscall_sites(&[SIGACTION, SIGPROCMASK]);
    for name in ["sigprocmask", "pthread_sigmask", "abort", "posix_spawn"] {
        assert!(matches!(libc.lookup(name), symbols::Lookup::Found(_)), "{name}");
    }
    let mask = found(&libc, "pthread_sigmask");
    assert!(sites.iter().any(|&(site, number)| mask.contains(site) && number == SIGPROCMASK));
    assert!(sites.iter().any(|&(_, number)| number == SIGACTION));
    let numbers = checked(&libc, sites);
    assert!((10..60).contains(&numbers.len()), "{numbers:?}");
    assert!(libc.raw_syscall_sites().iter().any(|&site| found(&libc, "syscall").contains(site)));
}

#[test]
fn glibc_is_known_in_all_its_forms() {
    let Some(libc) = system_object("libc.so.6") else { return };
    assert_eq!((libc.libc(), libc.kind()), (Some(Libc::Glibc), ObjectKind::Shared));
    let names: Vec<&str> = libc.longjmps().into_iter().map(|(_, name)| name).collect();
    for name in ["longjmp", "_longjmp", "siglongjmp", "__longjmp_chk"] {
        assert!(names.contains(&name), "{name}");
    }
    let Some(linker) = system_object("ld-linux-x86-64.so.2") else { return };
    assert_eq!(linker.libc(), Some(Libc::Glibc));
    assert_eq!(linker.dynamic_linker_notify(), Some(found(&linker, "_dl_debug_state").addr));
    assert_eq!(libc.dynamic_linker_notify(), None);
    let bench = Bench::new(&[("h.c", HELLO)]);
    for args in [["-static", "-s"], ["-static", "-g"], ["-static-pie", "-s"], ["-pie", "-s"]] {
        let Some(object) = bench.build("gcc", &[args[0], args[1], "h.c", "-o", "p"], "p") else { continue };
        assert_eq!((object.libc(), object.dynamic_linker_notify()), (Some(Libc::Glibc), None), "{args:?}");
    }
}

#[test]
fn musl_is_known_in_all_its_forms() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    let Some(dynamic) = bench.build("musl-gcc", &["h.c", "-o", "p"], "p") else { return };
    assert_eq!(dynamic.libc(), Some(Libc::Musl));
    for strip in ["-g", "-s"] {
        let Some(object) = bench.build("musl-gcc", &["-static", strip, "h.c", "-o", "q"], "q") else { return };
        assert_eq!(object.libc(), Some(Libc::Musl));
    }
    let libc = Object::read(std::path::Path::new(dynamic.interpreter().expect("musl's linker"))).expect("an object");
    assert_eq!((libc.libc(), libc.kind()), (Some(Libc::Musl), ObjectKind::Shared));
    assert_eq!(libc.dynamic_linker_notify(), Some(found(&libc, "_dl_debug_state").addr));
    assert!(libc.longjmps().iter().any(|&(_, name)| name == "siglongjmp"));
    let numbers = checked(&libc, libc.signal_syscall_sites(&[SIGACTION, SIGPROCMASK]));
    assert!((5..30).contains(&numbers.len()), "{numbers:?}");
}

#[test]
fn stripping_hides_no_long_jump_of_a_static_program() {
    let source =
        "#include <setjmp.h>\njmp_buf b;\nint main(int c, char **v) { if (!setjmp(b)) longjmp(b, c); return 0; }\n";
    let bench = Bench::new(&[("j.c", source), ("h.c", "int main(void) { return 0; }\n")]);
    for compiler in ["gcc", "musl-gcc"] {
        let Some(full) = bench.build(compiler, &["-static", "j.c", "-o", "p"], "p") else { continue };
        let Some(stripped) = bench.build("strip", &["p", "-o", "q"], "q") else { return };
        let named = full.longjmps();
        let found = stripped.longjmps();
        assert!(!found.is_empty(), "{compiler}");
        // glibc's outer functions are C and look like any other; they all end in these.
        assert!(found.iter().all(|f| named.iter().any(|n| n.0 == f.0)), "{found:x?} {named:x?}");
    }
    let Some(without) = bench.build("musl-gcc", &["-static", "-s", "h.c", "-o", "r"], "r") else { return };
    assert!(without.longjmps().is_empty());
}

#[test]
fn go_is_known_stripped_or_not() {
    let bench = Bench::new(&[("g.go", GO)]);
    let Some(full) = bench.build("go", &["build", "-o", "p", "g.go"], "p") else { return };
    let Some(stripped) = bench.build("go", &["build", "-ldflags=-s -w", "-o", "q", "g.go"], "q") else { return };
    for object in [&full, &stripped] {
        assert!(object.is_go() && object.is_static());
        assert_eq!((object.language(), object.libc()), (Language::Go, None));
        assert_eq!(checked(object, object.signal_syscall_sites(&[SIGACTION, SIGPROCMASK])), [SIGPROCMASK, SIGACTION]);
        assert!(!object.raw_syscall_sites().is_empty());
    }
    // Stripping keeps Go's own table of functions.
    assert_eq!(found(&stripped, "main.main").addr, found(&full, "main.main").addr);
    assert!(
        stripped.function_at(found(&full, "runtime.mallocgc").addr + 1).is_some_and(|f| f.name() == "runtime.mallocgc")
    );
}

#[test]
fn go_is_known_without_section_headers() {
    let bench = Bench::new(&[("g.go", GO)]);
    let Some(full) = bench.build("go", &["build", "-ldflags=-s -w", "-o", "p", "g.go"], "p") else { return };
    let mut bytes = std::fs::read(bench.path("p")).expect("just built");
    bytes[0x28..0x30].fill(0); // e_shoff
    bytes[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
    let object = Object::parse(&bytes, "p").expect("segments are enough");
    assert!(object.is_go());
    assert_eq!(found(&object, "main.main").addr, found(&full, "main.main").addr);
}

#[test]
fn c_and_cpp_are_neither_go_nor_rust() {
    let bench = Bench::new(&[("h.c", HELLO), ("t.cpp", support::THROWS)]);
    let Some(c) = bench.build("gcc", &["h.c", "-o", "p"], "p") else { return };
    assert_eq!(c.language(), Language::Other);
    let Some(cpp) = bench.build("g++", &["t.cpp", "-o", "q"], "q") else { return };
    assert_eq!(cpp.language(), Language::Cpp);
}
