//! What holds for any input.

mod machine;

use events::{Schema, decode, parse, parse_file, run};
use machine::{Machine, program};
use proptest::{prelude::*, strategy::ValueTree};

/// Pieces that lines are made of, whole and broken.
fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "p",
        "r",
        "-",
        "r10",
        ":",
        "grp/",
        "ev",
        " ",
        " ",
        " ",
        "sym",
        "lib.so:",
        "*",
        "f[a-c]?",
        "\\*",
        "+0x10",
        "-8",
        "%return",
        "/bin/sh:0x1000",
        "0x401000",
        "\"a b\"",
        "\"",
        "(0x20)",
        "%di",
        "%rax",
        "$arg1",
        "$retval",
        "$stack",
        "$stack3",
        "$comm",
        "@0x10",
        "@sym+4",
        "@+8",
        "@\"x::y\"",
        "+8(",
        "-u0(",
        ")",
        "\\5",
        "\\\"txt\"",
        "a=",
        "arg2=",
        ":u8",
        ":s64",
        ":string",
        "[4]",
        ":b4@2/8",
        ":symstr",
        ":char[3]",
        "#",
        "é",
    ];
    prop_oneof![8 => proptest::sample::select(pieces.to_vec()).prop_map(String::from), 1 => "[ -~]{1,3}"]
}

fn line() -> impl Strategy<Value = String> {
    proptest::collection::vec(piece(), 0..12).prop_map(|pieces| pieces.concat())
}

fn fetch() -> impl Strategy<Value = String> {
    let number = prop_oneof![any::<i64>().prop_map(|n| n.to_string()), (0..=i64::MAX).prop_map(|n| format!("{n:#x}"))];
    let leaf = prop_oneof![
        proptest::sample::select(vec![
            "%di", "%rsp", "%flags", "$arg1", "$arg7", "$retval", "$stack", "$stack2", "@known"
        ])
        .prop_map(String::from),
        number.clone().prop_map(|n| format!("\\{n}")),
        any::<u64>().prop_map(|n| format!("@{n:#x}")),
        any::<i32>().prop_map(|n| format!("@known{n:+}")),
    ];
    leaf.prop_recursive(3, 8, 1, move |inner| {
        (proptest::sample::select(vec!["+", "-", "+u", "-u"]), any::<u32>(), inner)
            .prop_map(|(sign, offset, inner)| format!("{sign}{offset}({inner})"))
    })
}

/// Lines that are mostly good.
fn good_line() -> impl Strategy<Value = String> {
    let types =
        ["", ":u8", ":s16", ":x32", ":char", ":symbol", ":string", ":b3@2/8", ":u16[3]", ":string[2]", ":symstr"];
    let argument = (fetch(), proptest::sample::select(types.to_vec())).prop_map(|(fetch, ty)| format!(" {fetch}{ty}"));
    let place =
        prop_oneof!["[a-zA-Z_.]{1,12}", "[a-z./-]{1,9}:[a-zA-Z_$<>]{1,9}", "\"[ -!#-\\[\\]-~é]{1,9}\"(\\+[0-9]{1,3})?"];
    let command = proptest::sample::select(vec!["p", "r", "p:e", "r:g/e", "r12:g/", "p:g-1/_e"]);
    (command, place, proptest::collection::vec(argument, 0..4))
        .prop_map(|(command, place, args)| format!("{command} {place}{}", args.concat()))
}

/// 1,000 cases, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn parsing_never_panics_and_columns_are_in_the_line(line in prop_oneof![line(), good_line(), any::<String>()]) {
        if let Err(error) = parse(&line) {
            prop_assert!(error.column <= line.len());
            prop_assert!(!error.render(&line).is_empty());
        }
        let _ = parse_file(&line);
        let _ = events::place_column(&line);
    }

    #[test]
    fn a_canonical_line_is_the_same_definition(line in prop_oneof![line(), good_line()]) {
        if let Ok(definition) = parse(&line) {
            let canonical = definition.to_string();
            let again = parse(&canonical);
            prop_assert_eq!(again.as_ref(), Ok(&definition), "{}", canonical);
            prop_assert_eq!(again.map(|again| again.to_string()), Ok(canonical.clone()));
            let in_file = parse_file(&canonical).map(|lines| lines.into_iter().map(|(_, parsed)| parsed).collect::<Vec<_>>());
            prop_assert_eq!(in_file, Ok(vec![definition]));
        }
    }

    #[test]
    fn any_code_ends_in_a_buffer_of_any_size(
        code in proptest::collection::vec(prop_oneof![0u8..24, any::<u8>()], 0..64),
        size in 0usize..64,
    ) {
        let mut out = vec![0; size];
        let mut machine = Machine::default();
        machine.map(0, &[1; 64]);
        prop_assert!(run(&code, &machine, &mut out) <= size);
    }

    #[test]
    fn a_good_program_decodes_from_a_buffer_of_any_size(line in good_line(), size in 0usize..80) {
        if parse(&line).is_ok() {
            let program = program(&line);
            let mut machine = Machine::default();
            machine.map(0, &[b'a'; 32]);
            machine.map(32, &[0; 32]);
            let mut out = vec![0; size];
            let len = run(&program.code, &machine, &mut out);
            let values = decode(&program.schema, &out[..len]);
            prop_assert_eq!(values.len(), program.schema.fields.len());
            let mut large = vec![0; 65536];
            let len = run(&program.code, &machine, &mut large);
            prop_assert!(!decode(&program.schema, &large[..len]).contains(&events::Value::Truncated));
        }
    }

    #[test]
    fn decoding_never_panics(line in good_line(), payload in proptest::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..64)) {
        let schema = parse(&line).map_or_else(|_| Schema::default(), |_| program(&line).schema);
        prop_assert_eq!(decode(&schema, &payload).len(), schema.fields.len());
    }
}

/// The control: the strategy above makes lines that are accepted, or its tests would say nothing.
#[test]
fn many_generated_lines_are_good() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let accepted = (0..500).filter(|_| {
        let line = good_line().new_tree(&mut runner).expect("a line").current();
        parse(&line).is_ok()
    });
    assert!(accepted.count() > 100);
}
