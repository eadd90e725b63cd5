//! Files that lie. Whatever is in them, an answer or an error comes back.
#![forbid(unsafe_code)]

mod support;

use proptest::prelude::{ProptestConfig, any, prop, proptest};
use std::path::Path;
use std::sync::OnceLock;
use support::{Bench, HELLO};
use symbols::{Object, ObjectError};

/// Small files with all that is read: versions, unwind tables, both symbol tables; and Go's table.
fn samples() -> &'static [Vec<u8>] {
    static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let source = "int v1(void) { return 1; }\nint v2(void) { return 2; }\n\
            __asm__(\".symver v1,call@OLD_1\");\n__asm__(\".symver v2,call@@NEW_2\");\n\
            __asm__(\".text; .globl sys; sys: mov $13, %eax; syscall; ret\");\n";
        let bench = Bench::new(&[
            ("v.c", source),
            ("h.c", HELLO),
            ("v.map", "OLD_1 { global: call; };\nNEW_2 { global: call; } OLD_1;\n"),
        ]);
        let shared = bench.run("gcc", &["-shared", "-fPIC", "-Wl,--version-script=v.map", "v.c", "-o", "v.so"]);
        let program = bench.run("gcc", &["h.c", "-o", "p"]);
        let made = [(shared, "v.so"), (program, "p")].into_iter().filter(|(output, _)| output.is_some());
        made.map(|(_, name)| std::fs::read(bench.path(name)).expect("just built")).collect()
    })
}

/// Asks everything.
fn exercise(bytes: &[u8]) -> Result<(), ObjectError> {
    let object = Object::parse(bytes, "hostile")?;
    let _ = (object.kind(), object.interpreter(), object.soname(), object.build_id(), object.needed());
    let _ = (object.language(), object.libc(), object.unwinder(), object.longjmps(), object.dynamic_linker_notify());
    let _ = object.linker_debug_word();
    let _ = (
        object.signal_syscall_sites(&[13, 14]),
        object.raw_syscall_sites(),
        object.lookup("call"),
        object.lookup("no such"),
    );
    for function in object.functions().iter().take(100) {
        let _ = (
            function.demangled(),
            function.versioned_name(),
            object.function_bounds(function.addr),
            object.code(function.addr, 16),
        );
        let _ = (object.function_at(function.end()), object.data_symbol(function.name()), object.is_plt(function.addr));
    }
    for load in object.loads() {
        for addr in [load.vaddr, load.vaddr.wrapping_add(load.memsz), load.vaddr.wrapping_sub(1), u64::MAX] {
            let _ = (
                object.function_at(addr),
                object.function_bounds(addr),
                object.code(addr, 1),
                object.is_executable(addr),
            );
            let _ = (object.offset_of_vaddr(addr), object.vaddr_of_offset(addr));
        }
    }
    Ok(())
}

#[test]
fn a_cut_file_is_an_error_that_says_so() {
    for bytes in samples() {
        for len in (0..bytes.len()).step_by(64) {
            let error = exercise(&bytes[..len]).expect_err("the section headers are at the end");
            let right = match len {
                0..4 => matches!(error, ObjectError::NotElf { .. }),
                _ => matches!(error, ObjectError::Truncated { .. } | ObjectError::Corrupt { .. }),
            };
            assert!(right, "{len}: {error}");
        }
        exercise(bytes).expect("the whole file is right");
    }
}

#[test]
fn every_header_field_may_be_extreme() {
    for bytes in samples() {
        let headers = 64 + 56 * usize::from(bytes[56]);
        let sections = bytes.len() - 64 * usize::from(bytes[60])..bytes.len();
        for at in (0..headers).chain(sections).step_by(4) {
            for value in [0u32, 1, 0x7fff_ffff, 0xffff_ffff] {
                let mut bytes = bytes.clone();
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
                let _ = exercise(&bytes);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn corrupted_bytes_are_survived(hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        for bytes in samples() {
            let mut bytes = bytes.clone();
            for (at, value) in &hits {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            let _ = exercise(&bytes);
        }
    }

    #[test]
    fn any_bytes_behind_a_good_header_are_survived(junk in prop::collection::vec(any::<u8>(), 0..2000)) {
        if let Some(bytes) = samples().first() {
            let mut bytes = bytes[..64].to_vec();
            bytes.extend(junk);
            let _ = exercise(&bytes);
        }
    }
}

#[test]
fn files_that_are_no_programs_are_named_for_what_they_are() {
    let error = |bytes: &[u8]| Object::parse(bytes, "x").expect_err("no program").to_string();
    assert_eq!(error(b"#!/bin/sh\n"), "x: not an ELF file");
    assert_eq!(error(b""), "x: not an ELF file");
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[18] = 183; // EM_AARCH64
    assert_eq!(error(&header), "x: made for AArch64, not for x86-64");
    header[4] = 1; // ELFCLASS32
    header[18] = 3; // EM_386
    assert_eq!(error(&header), "x: a 32-bit ELF file (i386); only 64-bit programs are supported");
    header[4] = 2;
    header[5] = 2; // ELFDATA2MSB
    (header[18], header[19]) = (0, 22); // EM_S390
    assert_eq!(error(&header), "x: made for S/390, not for x86-64");
}

#[test]
fn files_that_cannot_be_read_are_errors() {
    assert!(matches!(Object::read(Path::new("no/such/file")), Err(ObjectError::NotFound(_))));
    let bench = Bench::new(&[]);
    assert!(matches!(Object::read(&bench.path("")), Err(ObjectError::Io { .. })));
    let _ = bench.run("mkfifo", &["pipe"]);
    assert!(Object::read(&bench.path("pipe")).is_err());
}

#[test]
fn what_is_not_linked_is_refused() {
    let bench = Bench::new(&[("h.c", HELLO)]);
    if bench.run("gcc", &["-c", "h.c", "-o", "h.o"]).is_some() {
        let error = Object::read(&bench.path("h.o")).expect_err("no program");
        assert!(matches!(error, ObjectError::NotLoadable { .. }), "{error}");
    }
}

#[test]
fn objects_can_be_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Object>();
}
