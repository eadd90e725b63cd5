//! Each relocation writes what the psABI says, where it says.

#[expect(dead_code, reason = "shared by all tests")]
mod support;

use loader::{Error, Linked, Object, PAGE};
use support::{ABSOLUTE, ENTRY, HELPER, HOST, MAYBE, Rela, TEXT_SECTION, VARIABLE, sample};

const BASE: u64 = 0x4000_0000;
const DATA: u64 = BASE + 2 * PAGE;

fn link_at(base: u64, relocations: &[Rela], host: u64) -> Result<Linked, Error> {
    let image = sample(relocations);
    Object::parse(&image.bytes).expect("the sample is right").link(base, &mut |name| (name == "host").then_some(host))
}

fn link(relocations: &[Rela]) -> Linked {
    link_at(BASE, relocations, 0x5000_0000).expect("all is in reach")
}

fn word(linked: &Linked, address: u64) -> u32 {
    u32::from_le_bytes(*bytes(linked, address))
}

fn long(linked: &Linked, address: u64) -> u64 {
    u64::from_le_bytes(*bytes(linked, address))
}

fn bytes<const N: usize>(linked: &Linked, address: u64) -> &[u8; N] {
    linked.read(address, N).and_then(|bytes| bytes.try_into().ok()).expect("an address inside the module")
}

#[test]
fn none_writes_nothing() {
    assert_eq!(word(&link(&[(".text", 0, 0, HOST, 5)]), BASE), 0x9090_9090);
}

#[test]
fn r_64_is_the_symbols_address() {
    let linked = link(&[(".data", 16, 1, ENTRY, 3)]);
    assert_eq!(long(&linked, DATA + 16), BASE + 3);
    assert_eq!((long(&linked, DATA + 8), long(&linked, DATA + 24)), (0x1111_1111_1111_1111, 0x1111_1111_1111_1111));
}

#[test]
fn r_64_of_a_section_symbol_is_an_offset_in_the_section() {
    assert_eq!(long(&link(&[(".data", 0, 1, TEXT_SECTION, 0x20)]), DATA), BASE + 0x20);
}

#[test]
fn r_pc32_is_the_distance_from_the_place() {
    let linked = link(&[(".text", 8, 2, VARIABLE, -4)]);
    assert_eq!(u64::from(word(&linked, BASE + 8)), (DATA + 8) - (BASE + 8) - 4);
}

#[test]
fn r_pc32_may_be_negative() {
    assert_eq!(word(&link(&[(".text", 40, 2, ENTRY, -4)]), BASE + 40) as i32, -44);
}

#[test]
fn r_plt32_reaches_its_symbol_directly() {
    assert_eq!(u64::from(word(&link(&[(".text", 4, 4, HOST, -4)]), BASE + 4)), 0x5000_0000 - (BASE + 4) - 4);
}

#[test]
fn r_32_and_r_32s_are_short_addresses() {
    let linked = link(&[(".data", 0, 10, HOST, 1), (".data", 4, 11, HOST, 2), (".data", 8, 11, 0, -2)]);
    assert_eq!((word(&linked, DATA), word(&linked, DATA + 4), word(&linked, DATA + 8)), (0x5000_0001, 0x5000_0002, !1));
}

#[test]
fn r_pc64_is_a_long_distance() {
    let linked = link_at(BASE, &[(".data", 8, 24, HOST, 0)], 0x7fff_0000_0000).unwrap();
    assert_eq!(long(&linked, DATA + 8), 0x7fff_0000_0000 - (DATA + 8));
}

/// The address in the instruction is an entry's, and the entry holds the symbol's.
#[test]
fn table_relocations_reach_an_entry_that_holds_the_address() {
    for kind in [9, 41, 42] {
        let host = 0x7fff_ffff_f000;
        let linked = link_at(BASE, &[(".text", 3, kind, HOST, -4)], host).unwrap();
        let entry = BASE + 3 + 4 + u64::from(word(&linked, BASE + 3));
        assert!((BASE + PAGE..BASE + 2 * PAGE).contains(&entry), "{kind}: {entry:#x}");
        assert_eq!(long(&linked, entry), host, "{kind}");
    }
}

#[test]
fn a_symbol_has_one_entry_in_the_table_and_two_have_two() {
    let places = [(".text", 0, 9, HOST, -4), (".text", 8, 42, HOST, -4), (".text", 16, 42, HELPER, -4)];
    let linked = link(&places);
    let entry = |at: u64| BASE + at + 4 + u64::from(word(&linked, BASE + at));
    assert_eq!((entry(0), entry(16)), (entry(8), entry(8) + 8));
    assert_eq!(long(&linked, entry(16)), BASE + 32);
}

#[test]
fn an_absolute_symbol_does_not_move() {
    assert_eq!(long(&link(&[(".data", 0, 1, ABSOLUTE, 0)]), DATA), 0x1234);
}

#[test]
fn constants_with_addresses_are_relocated_in_the_read_only_part() {
    let linked = link(&[(".data.rel.ro.tables", 8, 1, ENTRY, 0)]);
    assert_eq!(long(&linked, BASE + PAGE + 24 + 8), BASE);
}

#[test]
fn an_undefined_symbol_is_asked_for_once_and_only_if_it_is_needed() {
    let image = sample(&[(".text", 0, 2, HOST, 0), (".text", 8, 2, HOST, 0), (".debug_info", 0, 1, MAYBE, 0)]);
    let object = Object::parse(&image.bytes).unwrap();
    assert_eq!(object.undefined().collect::<Vec<_>>(), ["host"]);
    let mut asked = Vec::new();
    let mut resolve = |name: &str| {
        asked.push(name.to_owned());
        Some(BASE)
    };
    object.link(BASE, &mut resolve).unwrap();
    assert_eq!(asked, ["host"]);
}

#[test]
fn a_missing_symbol_is_named() {
    let image = sample(&[(".text", 0, 2, HOST, 0)]);
    let error = Object::parse(&image.bytes).unwrap().link(BASE, &mut |_| None).unwrap_err();
    assert_eq!(error, Error::Unresolved { symbol: "host".into() });
}

#[test]
fn a_missing_weak_symbol_is_zero() {
    let image = sample(&[(".data", 0, 1, MAYBE, 0)]);
    let object = Object::parse(&image.bytes).unwrap();
    assert!(object.is_optional("maybe") && !object.is_optional("host"));
    assert_eq!(long(&object.link(BASE, &mut |_| None).unwrap(), DATA), 0);
    assert_eq!(long(&object.link(BASE, &mut |_| Some(7)).unwrap(), DATA), 7);
}

#[test]
fn a_distance_that_does_not_fit_is_refused_with_symbol_type_and_distance() {
    let far = BASE + (1 << 31) + 4;
    for (kind, name) in [(2, "R_X86_64_PC32"), (4, "R_X86_64_PLT32")] {
        assert!(link_at(BASE, &[(".text", 0, kind, HOST, -4)], far - 1).is_ok());
        let error = link_at(BASE, &[(".text", 0, kind, HOST, -4)], far).unwrap_err();
        let expected =
            Error::OutOfReach { symbol: "host".into(), kind: name, place: BASE, target: far, value: 1 << 31 };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_negative_distance_has_its_own_limit() {
    let high = 0x7000_0000_0000;
    let nearest = high - (1 << 31);
    assert!(link_at(high, &[(".text", 0, 2, HOST, 0)], nearest).is_ok());
    assert!(matches!(link_at(high, &[(".text", 0, 2, HOST, 0)], nearest - 1), Err(Error::OutOfReach { .. })));
}

#[test]
fn short_addresses_have_their_limits() {
    let fits = |kind, host| link_at(BASE, &[(".data", 0, kind, HOST, 0)], host).is_ok();
    assert_eq!((fits(10, 0xffff_ffff), fits(10, 0x1_0000_0000)), (true, false));
    assert_eq!((fits(11, 0x7fff_ffff), fits(11, 0x8000_0000)), (true, false));
    // The top 2 GiB, where kernels are.
    assert_eq!((fits(11, 0xffff_ffff_8000_0000), fits(11, 0xffff_ffff_7fff_ffff)), (true, false));
    assert!(!fits(10, 0xffff_ffff_8000_0000));
}

#[test]
fn a_module_can_be_linked_into_the_top_of_the_address_space() {
    let base = 0xffff_ffff_ffff_0000;
    let linked = link_at(base, &[(".text", 0, 11, ENTRY, 0)], 0).unwrap();
    assert_eq!(word(&linked, base), 0xffff_0000);
}

#[test]
fn an_address_that_no_module_can_have_is_refused() {
    let image = sample(&[]);
    let object = Object::parse(&image.bytes).unwrap();
    for base in [1, 0x1000_0800, !0xfff, u64::MAX - 0x1fff] {
        assert_eq!(object.link(base, &mut |_| None).unwrap_err(), Error::BadBase { base, size: 3 * PAGE });
    }
}
