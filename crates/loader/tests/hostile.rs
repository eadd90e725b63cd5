//! Files that are wrong, each in one way, and what is said about them.

#[expect(dead_code, reason = "shared by all tests")]
mod support;

use loader::{Error, MAX_RELOCATIONS, MAX_SECTIONS, MAX_SIZE, MAX_SYMBOLS, Object};
use support::*;

fn refusal(image: &Image) -> Error {
    Object::parse(&image.bytes).expect_err("this file must be refused")
}

/// One relocation, with type and symbol to be changed.
fn relocated() -> Image {
    sample(&[(".text", 8, 2, HOST, -4)])
}

/// A test for each wrong file: the file, the refusal, and what its sentence must contain.
macro_rules! refused {
    ($($name:ident: $image:expr => $pattern:pat, $text:expr;)*) => {$(
        #[test]
        fn $name() {
            let error = refusal(&$image);
            assert!(matches!(error, $pattern), "{error:?}");
            let sentence = error.to_string();
            assert!(sentence.contains($text), "{sentence}");
        }
    )*};
}

// The file as a whole.
refused! {
    not_elf: sample(&[]).patch(0, 1, 0) => Error::NotElf, "not an ELF file";
    thirty_two_bits: sample(&[]).patch(4, 1, 1) => Error::Not64Bit, "32-bit";
    big_endian: sample(&[]).patch(5, 1, 2) => Error::BigEndian, "big-endian";
    unknown_endianness: sample(&[]).patch(5, 1, 9) => Error::BigEndian, "x86_64";
    another_processor: sample(&[]).patch(18, 2, 183) => Error::OtherMachine { .. }, "EM_AARCH64";
    an_unknown_processor: sample(&[]).patch(18, 2, 0xfffe) => Error::OtherMachine { .. }, "65534";
    another_version_of_the_identity: sample(&[]).patch(6, 1, 2) => Error::OtherVersion { version: 2 }, "version 2";
    another_version: sample(&[]).patch(20, 4, 3) => Error::OtherVersion { version: 3 }, "version 3";
    an_executable: sample(&[]).patch(16, 2, 2) => Error::NotRelocatable { .. }, "an executable, already linked";
    a_shared_object: sample(&[]).patch(16, 2, 3) => Error::NotRelocatable { .. }, "a relocatable file is wanted";
    a_core_dump: sample(&[]).patch(16, 2, 4) => Error::NotRelocatable { .. }, "a core dump";
    a_file_of_unknown_type: sample(&[]).patch(16, 2, 0xfe00) => Error::NotRelocatable { .. }, "unknown type";
    no_sections: sample(&[]).patch(40, 8, 0).patch(60, 2, 0) => Error::NoSections, "no sections";
    sections_counted_elsewhere: sample(&[]).patch(60, 2, 0) =>
        Error::TooMany { what: "sections", .. }, "too many sections";
    too_many_sections: sample(&[]).patch(60, 2, MAX_SECTIONS + 1) =>
        Error::TooMany { what: "sections", .. }, "16385, at most 16384";
    section_headers_of_another_size: sample(&[]).patch(58, 2, 40) =>
        Error::EntrySize { size: 40, expected: 64, .. }, "the table of sections";
    a_section_table_beyond_the_end: sample(&[]).patch(40, 8, 1 << 40) =>
        Error::Truncated { .. }, "the table of sections should end at";
    a_section_table_at_the_end_of_all_numbers: sample(&[]).patch(40, 8, u64::MAX) =>
        Error::Truncated { .. }, "0xffffffffffffffff";
    a_section_table_over_the_header: sample(&[]).patch(40, 8, 8).patch(60, 2, 1).patch(62, 2, 0) =>
        Error::BadLink { .. }, "table of section names";
    names_of_sections_that_are_none: sample(&[]).patch(62, 2, 1) => Error::BadLink { .. }, "section 1 as its";
    names_of_sections_nowhere: sample(&[]).patch(62, 2, 0xffff) => Error::BadLink { .. }, "section 65535";
}

// Sections.
refused! {
    a_section_beyond_the_end: sample(&[]).section(".data", SH_SIZE, 1 << 20) =>
        Error::Truncated { .. }, "section .data should end at";
    a_section_whose_end_wraps_around: sample(&[]).section(".text", SH_OFFSET, u64::MAX - 3) =>
        Error::Truncated { .. }, "section .text";
    an_unloaded_section_beyond_the_end: sample(&[]).section(".debug_info", SH_SIZE, 1 << 30) =>
        Error::Truncated { .. }, ".debug_info";
    sections_that_overlap: sample(&[]).section(".rodata", SH_OFFSET, 72) =>
        Error::Overlap { .. }, "section .text and section .rodata overlap";
    a_section_over_the_header: sample(&[]).section(".rodata", SH_OFFSET, 0) =>
        Error::Overlap { .. }, "the file's header";
    a_section_over_the_table_of_sections: over_the_table() => Error::Overlap { .. }, "the table of sections";
    a_section_name_outside_the_table: sample(&[]).section(".data", SH_NAME, 5000) =>
        Error::BadName { what: "section", .. }, "number 3 lies outside";
    a_section_name_that_is_no_text: binary_name() => Error::BadName { .. }, "is no UTF-8";
    writable_code: sample(&[]).section(".text", SH_FLAGS, ALLOC | EXEC | WRITE) =>
        Error::WritableAndExecutable { .. }, ".text is both writable and executable";
    thread_local_storage: sample(&[]).section(".bss", SH_FLAGS, ALLOC | WRITE | 0x400) =>
        Error::ThreadLocal { .. }, "section .bss is thread-local";
    constructors: sample(&[]).section(".data", SH_TYPE, 14) => Error::Constructors { .. }, "init and exit";
    destructors: sample(&[]).section(".data", SH_TYPE, 15) => Error::Constructors { .. }, ".data lists";
    early_constructors: sample(&[]).section(".data", SH_TYPE, 16) => Error::Constructors { .. }, ".data lists";
    old_constructors: renamed(".data", b".ctors") => Error::Constructors { .. }, ".ctors";
    initialization_code: renamed(".text", b".init") => Error::Constructors { .. }, ".init";
    a_compressed_section: sample(&[]).section(".rodata", SH_FLAGS, ALLOC | 0x800) =>
        Error::Compressed { .. }, ".rodata is compressed";
    a_dynamic_section: sample(&[]).section(".rodata", SH_TYPE, 6) => Error::SectionKind { .. }, "SHT_DYNAMIC";
    a_section_of_unknown_type: sample(&[]).section(".rodata", SH_TYPE, 0x1234) =>
        Error::SectionKind { .. }, "0x1234";
    an_alignment_that_is_no_power_of_two: sample(&[]).section(".data", SH_ALIGN, 24) =>
        Error::Alignment { align: 24, .. }, "24";
    an_alignment_beyond_a_page: sample(&[]).section(".data", SH_ALIGN, 8192) =>
        Error::Alignment { align: 8192, .. }, "up to 4096";
    zeros_without_end: sample(&[]).section(".bss", SH_SIZE, u64::MAX) =>
        Error::TooLarge { end: u64::MAX, .. }, "more memory than a module may have: .bss";
    more_zeros_than_there_may_be: sample(&[]).section(".bss", SH_SIZE, MAX_SIZE) =>
        Error::TooLarge { .. }, "0x1000000";
    nothing_to_load: unloaded() => Error::Empty, "neither code nor data";
}

// Symbols.
refused! {
    no_symbols: sample(&[]).section(".symtab", SH_TYPE, 1) => Error::NoSymbols, "stripped";
    two_symbol_tables: sample(&[]).section(".debug_info", SH_TYPE, 2) =>
        Error::SeveralSymbolTables, "more than one symbol table";
    symbols_of_another_size: sample(&[]).section(".symtab", SH_ENTSIZE, 16) =>
        Error::EntrySize { size: 16, expected: 24, .. }, "the symbol table";
    part_of_a_symbol: sample(&[]).section(".symtab", SH_SIZE, 25) => Error::PartialEntry { .. }, "no whole number";
    too_many_symbols: many(".symtab", (MAX_SYMBOLS as usize + 1) * 24) =>
        Error::TooMany { what: "symbols", .. }, "262145";
    symbols_without_names: sample(&[]).section(".symtab", SH_LINK, 1) => Error::BadLink { .. }, "table of names";
    symbols_with_names_nowhere: sample(&[]).section(".symtab", SH_LINK, 77) => Error::BadLink { .. }, "section 77";
    a_symbol_name_outside_the_table: sample(&[]).symbol(HOST, ST_NAME, u32::MAX.into()) =>
        Error::BadName { what: "symbol", index: 4, .. }, "symbol number 4";
    an_undefined_symbol_without_name: sample(&[]).symbol(HOST, ST_NAME, 0) =>
        Error::NamelessSymbol { index: 4 }, "symbol 4";
    one_name_defined_twice: twice(ENTRY, VARIABLE) => Error::DuplicateSymbol { .. }, "entry";
    one_name_defined_and_wanted: twice(ENTRY, HOST) => Error::DuplicateSymbol { .. }, "entry is there twice";
    a_common_symbol: sample(&[]).symbol(VARIABLE, ST_SHNDX, 0xfff2) => Error::CommonSymbol { .. }, "-fno-common";
    a_symbol_of_common_type: sample(&[]).symbol(VARIABLE, ST_INFO, 0x15) => Error::CommonSymbol { .. }, "variable";
    a_thread_local_symbol: sample(&[]).symbol(HOST, ST_INFO, 0x16) =>
        Error::ThreadLocal { .. }, "the symbol host is thread-local";
    an_indirect_function: sample(&[]).symbol(ENTRY, ST_INFO, 0x1a) =>
        Error::IndirectFunction { .. }, "entry is an indirect function";
    a_symbol_of_unknown_type: sample(&[]).symbol(ENTRY, ST_INFO, 0x1f) =>
        Error::SymbolKind { what: "type", value: 15, .. }, "type 15";
    a_symbol_of_unknown_binding: sample(&[]).symbol(ENTRY, ST_INFO, 0xf2) =>
        Error::SymbolKind { what: "binding", value: 15, .. }, "binding 15";
    a_symbol_in_a_section_that_does_not_exist: sample(&[]).symbol(ENTRY, ST_SHNDX, 200) =>
        Error::SymbolSection { section: 200, .. }, "entry is in section 0xc8";
    a_symbol_in_a_reserved_section: sample(&[]).symbol(ENTRY, ST_SHNDX, 0xffff) =>
        Error::SymbolSection { section: 0xffff, .. }, "0xffff";
    a_symbol_outside_its_section: sample(&[]).symbol(ENTRY, ST_VALUE, 61) =>
        Error::SymbolOutside { .. }, "is not inside .text, of 0x3c bytes";
    a_symbol_that_leaves_its_section: sample(&[]).symbol(ENTRY, ST_SIZE, 61) => Error::SymbolOutside { .. }, "entry";
    a_symbol_whose_end_wraps_around: sample(&[]).symbol(ENTRY, ST_VALUE, u64::MAX) =>
        Error::SymbolOutside { .. }, "entry";
}

// Relocations.
refused! {
    a_relocation_of_unknown_type: relocated().relocation(".text", 0, R_TYPE, 250) =>
        Error::RelocationKind { .. }, ".text+0x8: relocations of type 250";
    a_thread_local_relocation: relocated().relocation(".text", 0, R_TYPE, 23) =>
        Error::RelocationKind { .. }, "R_X86_64_TPOFF32";
    a_relocation_of_a_dynamic_linker: relocated().relocation(".text", 0, R_TYPE, 8) =>
        Error::RelocationKind { .. }, "R_X86_64_RELATIVE";
    a_relocation_of_a_byte: relocated().relocation(".text", 0, R_TYPE, 14) =>
        Error::RelocationKind { .. }, "R_X86_64_8";
    a_relocation_outside_its_section: relocated().relocation(".text", 0, R_OFFSET, 60) =>
        Error::RelocationOutside { .. }, "R_X86_64_PC32 at .text+0x3c";
    a_relocation_half_outside_its_section: relocated().relocation(".text", 0, R_OFFSET, 57) =>
        Error::RelocationOutside { .. }, "writes outside the section";
    a_relocation_whose_end_wraps_around: relocated().relocation(".text", 0, R_OFFSET, u64::MAX) =>
        Error::RelocationOutside { .. }, "0xffffffffffffffff";
    a_relocation_of_zeros: sample(&[(".bss", 8, 1, ENTRY, 0)]) =>
        Error::RelocationInZeros { offset: 8, .. }, ".bss+0x8";
    a_relocation_with_a_symbol_that_does_not_exist: relocated().relocation(".text", 0, R_SYM, 10) =>
        Error::SymbolIndex { index: 10, count: 10, .. }, "names symbol 10, there are 10";
    a_relocation_that_asks_for_nothing_with_a_symbol_that_does_not_exist:
        sample(&[(".text", 0, 0, u32::MAX, 0)]) => Error::SymbolIndex { .. }, "4294967295";
    a_relocation_to_what_is_not_loaded: sample(&[(".text", 0, 2, UNWIND, 0)]) =>
        Error::NotLoaded { .. }, "in a section that is not loaded";
    relocations_for_a_section_that_does_not_exist: relocated().section(".rela.text", SH_INFO, 99) =>
        Error::RelocationTarget { target: 99, .. }, "section .rela.text relocates section 99";
    relocations_for_no_section: relocated().section(".rela.text", SH_INFO, 0) =>
        Error::RelocationTarget { target: 0, .. }, "section 0";
    relocations_without_addends: relocated().section(".rela.text", SH_TYPE, 9) =>
        Error::RelocationForm { form: "REL", .. }, "section .text are in the form REL";
    packed_relocations: relocated().section(".rela.text", SH_TYPE, 0x4000_0014) =>
        Error::RelocationForm { form: "CREL", .. }, "CREL";
    relocations_with_another_symbol_table: relocated().section(".rela.text", SH_LINK, 1) =>
        Error::BadLink { .. }, "as its symbol table";
    relocations_of_another_size: relocated().section(".rela.text", SH_ENTSIZE, 16) =>
        Error::EntrySize { size: 16, .. }, "section .rela.text";
    part_of_a_relocation: relocated().section(".rela.text", SH_SIZE, 23) =>
        Error::PartialEntry { size: 23, .. }, "section .rela.text";
    too_many_relocations: many(".rela.text", (MAX_RELOCATIONS as usize + 1) * 24) =>
        Error::TooMany { what: "relocations", .. }, "1048577";
}

#[test]
fn relocations_of_what_is_not_loaded_are_not_looked_at() {
    let image = sample(&[(".eh_frame", 4000, 250, 4000, 0), (".debug_info", 4000, 250, 4000, 0)]);
    assert!(Object::parse(&image.bytes).is_ok());
}

#[test]
fn names_in_messages_are_escaped_and_short() {
    let image = renamed(".data", b"\x1b[2Jx").section(".data", SH_ALIGN, 24);
    let sentence = refusal(&image).to_string();
    assert!(sentence.contains("\\u{1b}[2Jx") && !sentence.contains('\x1b'), "{sentence}");
}

#[test]
fn a_file_that_ends_anywhere_is_refused() {
    let whole = relocated().bytes;
    for end in 0..whole.len() {
        let error = Object::parse(&whole[..end]).expect_err("the table of sections is at the end");
        let expected = if end < 4 { matches!(error, Error::NotElf) } else { matches!(error, Error::Truncated { .. }) };
        assert!(expected, "{end}: {error:?}");
    }
}

#[test]
fn more_text_than_memory_may_hold_is_refused_though_the_file_has_it() {
    let image = many(".text", MAX_SIZE as usize + 1);
    assert!(matches!(refusal(&image), Error::TooLarge { .. }));
}

/// The sample with a section moved to the end of the file and made as long as this, all zeros.
fn many(name: &str, size: usize) -> Image {
    let mut image = relocated();
    let offset = image.bytes.len();
    image.bytes.resize(offset + size, 0);
    image.section(name, SH_OFFSET, offset as u64).section(name, SH_SIZE, size as u64)
}

fn over_the_table() -> Image {
    let image = sample(&[]);
    let end = image.bytes.len() as u64;
    image.section(".debug_info", SH_OFFSET, end - 8)
}

fn renamed(section: &str, name: &[u8]) -> Image {
    let image = sample(&[]);
    let offset = (image.get(".shstrtab", SH_OFFSET) + image.get(section, SH_NAME)) as usize;
    let mut image = image;
    image.bytes[offset..offset + name.len()].copy_from_slice(name);
    image.patch(offset + name.len(), 1, 0)
}

fn binary_name() -> Image {
    renamed(".data", b"\xff\xfe")
}

fn unloaded() -> Image {
    let loaded = [".text", ".rodata", ".data", ".bss", ".data.rel.ro.tables", ".kprobes.text"];
    loaded.iter().fold(sample(&[]), |image, name| image.section(name, SH_FLAGS, 0))
}

/// The sample with the second symbol named like the first.
fn twice(first: u32, second: u32) -> Image {
    let image = sample(&[]);
    let entry = image.get(".symtab", SH_OFFSET) as usize + first as usize * 24;
    let name = u32::from_le_bytes(image.bytes[entry..entry + 4].try_into().expect("four bytes"));
    image.symbol(second, ST_NAME, name.into())
}
