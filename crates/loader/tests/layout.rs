//! What is loaded, where it is put, and what is known of it afterwards.

#[expect(dead_code, reason = "shared by all tests")]
mod support;

use loader::{Object, PAGE, Part};
use support::{ALLOC, SH_ALIGN, SH_FLAGS, SH_SIZE, SH_TYPE, WRITE, sample};

const BASE: u64 = 0x10_0000;

#[test]
fn parts_are_whole_pages_one_after_another() {
    let image = sample(&[]);
    let object = Object::parse(&image.bytes).unwrap();
    let parts: Vec<_> = object.parts().iter().map(|s| (s.part, s.offset, s.size)).collect();
    assert_eq!(parts, [(Part::Text, 0, PAGE), (Part::ReadOnly, PAGE, PAGE), (Part::Data, 2 * PAGE, PAGE)]);
    assert_eq!(object.size(), 3 * PAGE);
}

#[test]
fn each_section_is_in_the_part_with_its_protection() {
    let image = sample(&[]);
    let linked = Object::parse(&image.bytes).unwrap().link(BASE, &mut |_| None).unwrap();
    let sections: Vec<_> = linked.sections().map(|s| (s.name, s.part, s.address - BASE, s.size)).collect();
    let expected = [
        (".text", Part::Text, 0, 60),
        (".rodata", Part::ReadOnly, PAGE, 17),
        (".data", Part::Data, 2 * PAGE, 32),
        (".bss", Part::Data, 2 * PAGE + 32, 100),
        (".data.rel.ro.tables", Part::ReadOnly, PAGE + 24, 16),
        (".kprobes.text", Part::Text, 60, 3),
    ];
    assert_eq!(sections, expected);
}

#[test]
fn bytes_come_from_the_file_zeros_where_it_has_none_and_breakpoints_between_functions() {
    let image = sample(&[]);
    let linked = Object::parse(&image.bytes).unwrap().link(BASE, &mut |_| None).unwrap();
    assert_eq!(linked.read(BASE + 58, 6).unwrap(), [0x90, 0x90, 0xc3, 0xc3, 0xc3, 0xcc]);
    assert_eq!(linked.read(BASE + PAGE, 9).unwrap(), b"constants");
    assert_eq!(linked.read(BASE + 2 * PAGE + 31, 3).unwrap(), [0x11, 0, 0]);
    let lengths: Vec<_> = linked.parts().iter().map(|part| linked.bytes(part).len() as u64).collect();
    assert_eq!(lengths, [PAGE; 3]);
}

#[test]
fn only_the_modules_own_bytes_can_be_read() {
    let image = sample(&[]);
    let linked = Object::parse(&image.bytes).unwrap().link(BASE, &mut |_| None).unwrap();
    assert_eq!(linked.range(), BASE..BASE + 3 * PAGE);
    for (address, len) in [(BASE - 1, 2), (BASE + 3 * PAGE - 1, 2), (0, 1), (u64::MAX, 1), (BASE, usize::MAX)] {
        assert_eq!(linked.read(address, len), None, "{address:#x} {len}");
    }
}

#[test]
fn symbols_are_found_by_name_and_private_ones_are_not() {
    let image = sample(&[]);
    let object = Object::parse(&image.bytes).unwrap();
    let linked = object.link(BASE, &mut |_| None).unwrap();
    assert_eq!(linked.symbol("entry"), Some(BASE));
    assert_eq!(linked.symbol("variable"), Some(BASE + 2 * PAGE + 8));
    assert_eq!(linked.symbol("zeros"), Some(BASE + 2 * PAGE + 32 + 64));
    assert_eq!(linked.symbol("ABSOLUTE"), Some(0x1234));
    assert_eq!((linked.symbol("helper"), linked.symbol("host"), linked.symbol("")), (None, None, None));
    assert!(object.defines("entry") && !object.defines("helper") && !object.defines("host"));
}

#[test]
fn functions_are_found_by_address_private_ones_too() {
    let image = sample(&[]);
    let linked = Object::parse(&image.bytes).unwrap().link(BASE, &mut |_| None).unwrap();
    let names: Vec<_> = linked.functions().map(|f| (f.name, f.address - BASE, f.size)).collect();
    assert_eq!(names, [("entry", 0, 32), ("helper", 32, 8)]);
    let at = |offset| linked.function_at(BASE + offset).map(|f| f.name);
    assert_eq!((at(31), at(32), at(39), at(40)), (Some("entry"), Some("helper"), Some("helper"), None));
    assert_eq!(linked.function_at(BASE - 1), None);
}

#[test]
fn a_part_without_sections_takes_no_page() {
    let image = sample(&[]).section(".data", SH_FLAGS, ALLOC).section(".bss", SH_FLAGS, ALLOC);
    let object = Object::parse(&image.bytes).unwrap();
    let parts: Vec<_> = object.parts().iter().map(|s| s.part).collect();
    assert_eq!(parts, [Part::Text, Part::ReadOnly]);
}

#[test]
fn an_alignment_of_a_page_is_kept() {
    let image = sample(&[]).section(".kprobes.text", SH_ALIGN, PAGE);
    let linked = Object::parse(&image.bytes).unwrap().link(BASE, &mut |_| None).unwrap();
    let section = linked.sections().find(|s| s.name == ".kprobes.text").unwrap();
    assert_eq!(section.address, BASE + PAGE);
}

#[test]
fn notes_that_take_memory_are_not_loaded() {
    let image = sample(&[]).section(".rodata", SH_TYPE, 7);
    let linked = Object::parse(&image.bytes).unwrap().link(BASE, &mut |_| None).unwrap();
    assert!(linked.sections().all(|s| s.name != ".rodata"));
}

#[test]
fn an_empty_list_of_constructors_asks_for_nothing() {
    let image = sample(&[]).section(".data", SH_TYPE, 14).section(".data", SH_SIZE, 0);
    let image = image.section(".data", SH_FLAGS, ALLOC | WRITE).symbol(support::VARIABLE, support::ST_SHNDX, 2);
    assert!(Object::parse(&image.bytes).is_ok());
}
