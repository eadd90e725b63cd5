//! Records as text and as JSON.

use events::{Line, Location, Site, Value, text::value_text, write_json, write_text};

fn site<'a>(addr: u64, symbol: Option<&'a str>, offset: u64, size: Option<u64>) -> Site<'a> {
    Site { addr, symbol, offset, size }
}

fn line<'a>(location: Location<'a>, values: &'a [(&'a str, Value)]) -> Line<'a> {
    Line {
        comm: "demo",
        tid: 4712,
        pid: 4711,
        cpu: 1,
        time_ns: 12_345_678_901_234,
        event: "open",
        group: "kprobes",
        location,
        values,
    }
}

fn symbolize(addr: u64) -> Option<String> {
    (addr == 0x401010).then(|| "main+0x10/0x40".into())
}

fn str(bytes: &[u8]) -> Value {
    Value::Str { bytes: bytes.into(), truncated: false }
}

#[test]
fn an_entry_prints_as_ftrace_prints_it() {
    let values = [("a", Value::Signed(-1)), ("b", str(b"x"))];
    let entry = Location::Entry(site(0x401000, Some("do_open"), 0, Some(0x40)));
    assert_eq!(
        write_text(&line(entry, &values), &symbolize),
        "            demo-4712    [001]  12345.678901: open: (do_open+0x0/0x40) a=-1 b=\"x\""
    );
}

#[test]
fn a_return_prints_its_caller_and_the_function() {
    let caller = site(0x40101a, Some("main"), 0x1a, Some(0x40));
    let known = Location::Return { caller, function: site(0x401000, Some("do_open"), 0, Some(0x80)) };
    assert!(write_text(&line(known, &[]), &symbolize).ends_with(" open: (main+0x1a/0x40 <- do_open)"));
    let unknown = Location::Return { caller: site(0x10, None, 0, None), function: site(0x20, None, 0, None) };
    assert!(write_text(&line(unknown, &[]), &symbolize).ends_with(" open: (0x10 <- 0x20)"));
}

#[test]
fn a_symbol_of_unknown_size_has_none() {
    let entry = Location::Entry(site(0x401002, Some("f"), 2, None));
    assert!(write_text(&line(entry, &[]), &symbolize).ends_with(": (f+0x2)"));
}

#[test]
fn times_are_rounded_to_microseconds() {
    let mut record = line(Location::Entry(site(0, None, 0, None)), &[]);
    record.time_ns = 999_999_500;
    assert!(write_text(&record, &symbolize).contains("]      1.000000: "));
    record.time_ns = u64::MAX;
    assert!(write_text(&record, &symbolize).contains(" 18446744073.709551: "));
}

#[test]
fn values_print_as_the_kernel_prints_them() {
    let cases = [
        (Value::Unsigned(u64::MAX), "18446744073709551615"),
        (Value::Signed(i64::MIN), "-9223372036854775808"),
        (Value::Hex(0xff), "0xff"),
        (Value::Bits(5), "5"),
        (Value::Char(b'A'), "'A'"),
        (Value::Char(b'\''), r"'\''"),
        (Value::Char(0), r"'\x00'"),
        (Value::Symbol(0x401010), "main+0x10/0x40"),
        (Value::Symbol(0x10), "0x10"),
        (Value::SymbolString(0x401010), "\"main+0x10/0x40\""),
        (Value::Fault, "(fault)"),
        (Value::Truncated, "(truncated)"),
        (Value::Array(vec![Value::Unsigned(1), Value::Fault, Value::Unsigned(3)]), "{1,(fault),3}"),
        (Value::Array(vec![str(b"a"), str(b"b")]), r#"{"a","b"}"#),
    ];
    for (value, text) in cases {
        assert_eq!(value_text(&value, &symbolize), text);
    }
}

#[test]
fn strings_are_escaped_and_keep_utf8() {
    let cases: [(&[u8], &str); 5] = [
        (b"a\"b\\c", r#""a\"b\\c""#),
        (b"\n\t\r\x1b", r#""\n\t\r\x1b""#),
        ("für 日本".as_bytes(), "\"für 日本\""),
        (b"\xff\xc3", r#""\xff\xc3""#),
        ("\u{85}'".as_bytes(), r#""\xc2\x85'""#),
    ];
    for (bytes, text) in cases {
        assert_eq!(value_text(&str(bytes), &symbolize), text);
    }
    let cut = Value::Str { bytes: b"ab".to_vec(), truncated: true };
    assert_eq!(value_text(&cut, &symbolize), "\"ab\"...");
}

#[test]
fn a_name_cannot_break_the_line() {
    let mut record = line(Location::Entry(site(0, None, 0, None)), &[]);
    record.comm = "a\nb";
    assert!(write_text(&record, &symbolize).starts_with(r"            a\nb-4712 "));
}

#[test]
fn json_has_numbers_strings_and_nulls() {
    let values = [
        ("big", Value::Unsigned(u64::MAX)),
        ("neg", Value::Signed(-2)),
        ("hex", Value::Hex(255)),
        ("text", str(b"a\"\n\x01\xff")),
        ("sym", Value::Symbol(0x401010)),
        ("c", Value::Char(b'\\')),
        ("list", Value::Array(vec![Value::Bits(1), Value::Fault])),
        ("bad", Value::Fault),
        ("gone", Value::Truncated),
        ("cut", Value::Str { bytes: b"x".to_vec(), truncated: true }),
    ];
    let entry = Location::Entry(site(0x401008, Some("do_open"), 8, Some(0x40)));
    let json = write_json(&line(entry, &values), &symbolize);
    let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let expected = serde_json::json!({
        "ts": 12345.678901234, "comm": "demo", "pid": 4711, "tid": 4712, "cpu": 1, "group": "kprobes", "event": "open",
        "type": "entry", "addr": "0x401008", "function": "do_open", "offset": 8,
        "args": {
            "big": u64::MAX, "neg": -2, "hex": "0xff", "text": "a\"\n\u{1}\u{fffd}", "sym": "main+0x10/0x40", "c": "\\",
            "list": [1, null], "bad": null, "gone": null, "cut": "x",
        },
        "faults": ["list", "bad"], "truncated": ["gone", "cut"],
    });
    assert_eq!(parsed, expected);
    assert!(json.starts_with(r#"{"ts":12345.678901234,"comm":"demo","#), "the order is fixed");
    assert!(!json.contains('\n'));
}

#[test]
fn json_of_a_return_has_the_caller() {
    let caller = site(0x40101a, Some("main"), 0x1a, Some(0x40));
    let location = Location::Return { caller, function: site(0x401000, None, 0, None) };
    let parsed: serde_json::Value = serde_json::from_str(&write_json(&line(location, &[]), &symbolize)).expect("JSON");
    assert_eq!(parsed["type"], "return");
    assert_eq!((&parsed["addr"], &parsed["caller"]), (&"0x401000".into(), &"main+0x1a/0x40".into()));
    assert_eq!((&parsed["function"], &parsed["args"]), (&serde_json::Value::Null, &serde_json::json!({})));
    assert_eq!(parsed.get("faults"), None);
}
