//! Lines that are accepted, and what they mean.

use events::{Base, Definition, Fetch, Kind, Place, Register, Type, Width, parse, parse_file, place_column};

fn parsed(line: &str) -> Definition {
    parse(line).unwrap_or_else(|error| panic!("{}", error.render(line)))
}

fn symbol(object: Option<&str>, symbol: &str, offset: u64) -> Place {
    Place::Symbol { object: object.map(Into::into), symbol: symbol.into(), offset }
}

fn register(name: &str) -> Fetch {
    Fetch::Register(Register::from_name(name).expect("a register"))
}

/// The only argument of a probe that records `text`.
fn argument(text: &str) -> (Fetch, Type) {
    let arg = parsed(&format!("p f {text}")).args.remove(0);
    (arg.fetch, arg.ty)
}

#[test]
fn places_are_symbols_addresses_or_file_offsets() {
    let cases = [
        ("malloc", symbol(None, "malloc", 0)),
        ("malloc+0x10", symbol(None, "malloc", 16)),
        ("libc.so.6:malloc+16", symbol(Some("libc.so.6"), "malloc", 16)),
        (
            "/usr/lib/x86_64-linux-gnu/libc.so.6:malloc",
            symbol(Some("/usr/lib/x86_64-linux-gnu/libc.so.6"), "malloc", 0),
        ),
        ("main.(*T).Run", symbol(None, "main.(*T).Run", 0)),
        ("net/http.(*conn).serve", symbol(None, "net/http.(*conn).serve", 0)),
        ("std::rt::lang_start", symbol(None, "std::rt::lang_start", 0)),
        ("prog:std::rt::lang_start", symbol(Some("prog"), "std::rt::lang_start", 0)),
        ("prog:::start", symbol(Some("prog"), "::start", 0)),
        ("<u8$as$Foo>@V1", symbol(None, "<u8$as$Foo>@V1", 0)),
        (r#""operator new(unsigned long)"+4"#, symbol(None, "operator new(unsigned long)", 4)),
        (r#"prog:"main.(*T).Run-fm""#, symbol(Some("prog"), "main.(*T).Run-fm", 0)),
        (r#""/opt/a b:c/lib.so":run"#, symbol(Some("/opt/a b:c/lib.so"), "run", 0)),
        ("0x401000", Place::Address { object: None, addr: 0x401000 }),
        ("prog:0x401000", Place::Address { object: Some("prog".into()), addr: 0x401000 }),
        ("/bin/true:0x1234", Place::FileOffset { path: "/bin/true".into(), offset: 0x1234 }),
        ("./a:b:4660", Place::FileOffset { path: "./a:b".into(), offset: 0x1234 }),
    ];
    for (text, place) in cases {
        assert_eq!(parsed(&format!("p {text}")).place, place, "{text}");
    }
}

#[test]
fn what_is_not_in_quotes_can_be_a_pattern() {
    let pattern = |object: Option<&str>, name: &str| {
        let place = Place::Pattern { object: object.map(Into::into), name: name.into() };
        (place.to_string(), place)
    };
    let cases = [
        ("mem*", pattern(None, "mem*")),
        ("libc.so.6:str[a-c]?py", pattern(Some("libc.so.6"), "str[a-c]?py")),
        ("/opt/lib-1.so:*", pattern(Some("/opt/lib-1.so"), "*")),
        ("*:*", pattern(Some("*"), "*")),
        ("lib*:malloc", pattern(Some("lib*"), "malloc")),
        ("prog:std::rt::*", pattern(Some("prog"), "std::rt::*")),
        ("main.(*T).*", pattern(None, "main.(*T).*")),
        (r#"lib*:"operator new[](unsigned long)""#, pattern(Some("lib*"), r"operator new\[](unsigned long)")),
        (r#""a*":f*"#, pattern(Some(r"a\*"), "f*")),
    ];
    for (text, (canonical, place)) in cases {
        let definition = parsed(&format!("p {text}"));
        assert_eq!(definition.place, place, "{text}");
        assert_eq!(canonical, text);
    }
    assert_eq!(parsed("r libc.so.6:str*").kind, Kind::Return { maxactive: None });
    assert_eq!(parsed("p libc.so.6:str*%return").kind, Kind::Return { maxactive: None });
}

#[test]
fn in_quotes_or_as_part_of_a_name_a_star_is_a_letter() {
    for (text, name) in [
        (r#""f*""#, "f*"),
        ("A::operator*", "A::operator*"),
        ("A::operator[]", "A::operator[]"),
        (r"f\*", r"f\*"),
        ("main.(*T).Run", "main.(*T).Run"),
        ("f[a", "f[a"),
    ] {
        assert_eq!(parsed(&format!("p {text}")).place, symbol(None, name, 0), "{text}");
    }
}

#[test]
fn a_pattern_has_no_offset() {
    for line in ["p mem*+4", "p *:mem+4", "r lib*:f+0x10"] {
        assert_eq!(parse(line).unwrap_err().code.name(), "BAD_PROBE_ADDR", "{line}");
    }
}

#[test]
fn a_return_probe_is_r_or_has_a_suffix() {
    for line in ["r malloc", "p malloc%return", "r malloc%return", "r /bin/true:0x10", "p /bin/true:0x10%return(0x20)"]
    {
        assert_eq!(parsed(line).kind, Kind::Return { maxactive: None }, "{line}");
    }
    assert_eq!(parsed("r10:a/b malloc").kind, Kind::Return { maxactive: Some(10) });
    assert_eq!(parsed("r4096 malloc").kind, Kind::Return { maxactive: Some(4096) });
}

#[test]
fn a_reference_counter_goes_with_a_file_offset() {
    assert_eq!(parsed("p /bin/true:0x10(0x20)").reference, Some(0x20));
}

#[test]
fn names_are_group_and_event_or_one_of_them() {
    let names = |line: &str| {
        let definition = parsed(line);
        (definition.group.clone(), definition.event.clone(), definition.group_name(), definition.event_name())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(names("p:g/e f"), (some("g"), some("e"), "g".into(), "e".into()));
    assert_eq!(names("p:g-1.e f"), (some("g-1"), some("e"), "g-1".into(), "e".into()));
    assert_eq!(names("p:e f"), (None, some("e"), "kprobes".into(), "e".into()));
    assert_eq!(names("r:g/ f"), (some("g"), None, "g".into(), "r_f_0".into()));
    assert_eq!(names("p /bin/sh:1").2, "uprobes");
}

#[test]
fn default_event_names_are_the_kernels() {
    let cases = [
        ("p vfs_read", "p_vfs_read_0"),
        ("r vfs_read", "r_vfs_read_0"),
        ("p vfs_read+16", "p_vfs_read_16"),
        ("p mod:foo.isra.0", "p_foo_isra_0_0"),
        ("p main.(*T).Run", "p_main___T__Run_0"),
        ("p 0x401000", "p_0x401000"),
        ("r /usr/lib/libc.so.6:0x10", "p_libc_0x10"),
        ("p /bin/foo-bar:16", "p_foo_0x10"),
    ];
    for (line, name) in cases {
        assert_eq!(parsed(line).event_name(), name, "{line}");
    }
    assert_eq!(parsed(&format!("p {}", "a".repeat(100))).event_name().len(), 63);
}

#[test]
fn a_removal_names_events() {
    let definition = parsed("-:grp/event");
    assert_eq!((definition.kind, definition.place.clone()), (Kind::Remove, Place::Anywhere));
    assert_eq!((definition.group.as_deref(), definition.event.as_deref()), (Some("grp"), Some("event")));
    assert_eq!(parsed("-:grp/").event, None);
    assert_eq!(parsed("-:event malloc").place, symbol(None, "malloc", 0));
}

#[test]
fn registers_have_the_kernels_names_and_full_ones() {
    for (kernel, full, index) in
        [("ax", "rax", 0), ("di", "rdi", 7), ("r15", "r15", 15), ("ip", "rip", 16), ("flags", "rflags", 17)]
    {
        assert_eq!(argument(&format!("%{kernel}")), argument(&format!("%{full}")));
        assert_eq!(Register::from_name(full).map(Register::index), Some(index));
    }
}

#[test]
fn fetches_are_read() {
    let deref = |user, offset, inner| Fetch::Deref { user, offset, inner: Box::new(inner) };
    let cases = [
        ("%di", register("di")),
        ("$arg1", Fetch::Argument(1)),
        ("$stack", Fetch::StackPointer),
        ("$stack12", Fetch::Stack(12)),
        ("$comm", Fetch::Comm),
        ("$COMM", Fetch::Comm),
        ("@0x10", Fetch::Memory(16)),
        ("@jiffies", Fetch::Symbol { name: "jiffies".into(), offset: 0 }),
        ("@jiffies-8", Fetch::Symbol { name: "jiffies".into(), offset: -8 }),
        (r#"@"a::B"+0x10"#, Fetch::Symbol { name: "a::B".into(), offset: 16 }),
        ("+8(%di)", deref(false, 8, register("di"))),
        ("-8(%di)", deref(false, -8, register("di"))),
        ("+-8(%di)", deref(false, -8, register("di"))),
        ("++8(%di)", deref(false, 8, register("di"))),
        ("+u0x8(%di)", deref(true, 8, register("di"))),
        ("+0(-u4($stack))", deref(false, 0, deref(true, -4, Fetch::StackPointer))),
        ("\\5", Fetch::Immediate(5)),
        ("\\-5", Fetch::Immediate(5u64.wrapping_neg())),
        ("\\+5", Fetch::Immediate(5)),
        ("\\0xffffffffffffffff", Fetch::Immediate(u64::MAX)),
        ("\\\"text\"", Fetch::Text("text".into())),
    ];
    for (text, fetch) in cases {
        assert_eq!(argument(text).0, fetch, "{text}");
    }
    assert_eq!(parsed("p /bin/sh:1 @+0x10").args[0].fetch, Fetch::FileOffset(16));
    assert_eq!(parsed("r f $retval").args[0].fetch, Fetch::ReturnValue);
    assert_eq!(parsed("r f $arg2").args[0].fetch, Fetch::Argument(2));
    assert_eq!(parsed("r 0x401000 $retval $arg2").args.len(), 2);
    assert_eq!(parsed("p /bin/sh:1 $stack10000").args[0].fetch, Fetch::Stack(10000));
}

#[test]
fn types_are_read() {
    let one = |base| Type { base, count: None };
    let cases = [
        ("%di", Type::DEFAULT),
        ("%di:x64", Type::DEFAULT),
        ("%di:u8", one(Base::Unsigned(Width::W8))),
        ("%di:s16", one(Base::Signed(Width::W16))),
        ("%di:x32", one(Base::Hex(Width::W32))),
        ("%di:char", one(Base::Char)),
        ("%di:symbol", one(Base::Symbol)),
        ("%di:symstr", one(Base::SymbolString)),
        ("+0(%di):string", one(Base::String)),
        ("+u0(%di):ustring", one(Base::UserString)),
        ("@0x10:string", one(Base::String)),
        ("\\16:string", one(Base::String)),
        ("$comm", Type::STRING),
        ("$comm:string", Type::STRING),
        ("%di:b4@2/8", one(Base::Bits { width: 4, offset: 2, container: Width::W8 })),
        ("%di:b64@0/0x40", one(Base::Bits { width: 64, offset: 0, container: Width::W64 })),
        ("+0(%di):u8[64]", Type { base: Base::Unsigned(Width::W8), count: Some(64) }),
        ("+0(%di):b1@0/8[3]", Type { base: Base::Bits { width: 1, offset: 0, container: Width::W8 }, count: Some(3) }),
        ("+0(+8(%sp)):string[2]", Type { base: Base::String, count: Some(2) }),
        ("+u0(%di):char[4]", Type { base: Base::Char, count: Some(4) }),
    ];
    for (text, ty) in cases {
        assert_eq!(argument(text).1, ty, "{text}");
    }
}

#[test]
fn arguments_without_a_name_are_numbered_by_position() {
    let names: Vec<String> = parsed("p f %di b=%si %dx").args.into_iter().map(|arg| arg.name).collect();
    assert_eq!(names, ["arg1", "b", "arg3"]);
}

#[test]
fn thirteen_dereferences_are_not_too_many() {
    let nested = format!("{}@0{}", "+0(".repeat(13), ")".repeat(13));
    assert!(matches!(argument(&nested).0, Fetch::Deref { .. }));
}

#[test]
fn quoted_text_does_not_count_towards_the_limit() {
    let name = "very::long::path::".repeat(8);
    assert_eq!(argument(&format!("@\"{name}\":u32")).0, Fetch::Symbol { name, offset: 0 });
}

#[test]
fn canonical_lines_are_short_and_the_same_when_parsed() {
    let cases = [
        ("p  malloc   %rdi", "p malloc arg1=%di"),
        ("r10:g/e libc.so.6:malloc $retval:x64", "r10:g/e libc.so.6:malloc arg1=$retval"),
        ("p:g/ malloc%return", "r:g/ malloc"),
        ("p /bin/true:16%return(32) a=@+8:u8", "r /bin/true:0x10(0x20) a=@+8:u8"),
        ("p prog:4096 \\-1 \\0x8000000000000000", "p prog:0x1000 arg1=\\-1 arg2=\\0x8000000000000000"),
        ("p f $COMM \\\"a\":string", "p f arg1=$comm arg2=\\\"a\""),
        (r#"p "a b":"c\"d"+1 @"x+y"-010"#, r#"p "a b":"c\"d"+0x1 arg1=@"x+y"-8"#),
        ("-:g/e", "-:g/e"),
        ("-:g/ f", "-:g/ f"),
        ("p f +0x7fffffffffffffff(%di):b4@0/010", "p f arg1=+0x7fffffffffffffff(%di):b4@0/8"),
    ];
    for (line, canonical) in cases {
        let definition = parsed(line);
        assert_eq!(definition.to_string(), canonical);
        assert_eq!(parsed(canonical), definition);
    }
}

#[test]
fn definitions_that_differ_are_not_equal() {
    assert_ne!(parsed("p f %di"), parsed("p f %si"));
    assert_eq!(parsed("p f %di"), parsed("  p f   %di"), "columns are no part of the meaning");
}

#[test]
fn a_file_has_comments_and_blank_lines() {
    let text = "# probes\n\n  p:a/b f # one\nr \"x#y\" $retval\n";
    let definitions = parse_file(text).expect("good lines");
    let lines: Vec<(usize, String)> = definitions.iter().map(|(line, parsed)| (*line, parsed.to_string())).collect();
    assert_eq!(lines, [(3, "p:a/b f".into()), (4, "r \"x#y\" arg1=$retval".into())]);
}

#[test]
fn a_file_reports_the_line_that_is_refused() {
    let (line, error) = parse_file("p f\n\np f %no\n").unwrap_err();
    assert_eq!((line, error.code.name(), error.column), (3, "BAD_REG_NAME", 4));
}

#[test]
fn the_places_column_can_be_asked_for() {
    assert_eq!(place_column("p:a/b  malloc %di"), 7);
    assert_eq!(parsed("p:a/b  malloc %di").place_column.0, 7);
    assert_eq!(place_column("p "), 1);
}
