//! Every refusal, with its exact column: the lines of Linux's `kprobe_syntax_errors.tc` and `uprobe_syntax_errors.tc`, and
//! more in their manner. A `^` stands before the byte at fault.

use events::{ErrorCode, SyntaxError, parse};

/// `code` and the marked line.
#[track_caller]
fn refuses(code: &str, marked: &str) {
    let column = marked.find('^').expect("a line with a caret");
    let line = marked.replacen('^', "", 1);
    let error = parse(&line).expect_err(&line);
    assert_eq!((error.code.name(), error.column), (code, column), "{marked}\n{}", error.render(&line));
}

macro_rules! refusals {
    ($($name:ident: $code:literal $($marked:expr),+;)*) => {
        $(#[test] fn $name() { $(refuses($code, $marked);)+ })*

        /// Codes that a test above expects.
        const TESTED: &[&str] = &[$($code),*];
    };
}

const LONG: &str = "1234567890123456789012345678901234567890123456789012345678901234";

refusals! {
    maxactive_is_for_returns: "BAD_MAXACT_TYPE" "p^100 vfs_read", "p^5 vfs_read%return";
    maxactive_is_a_number: "BAD_MAXACT" "r^1a111 vfs_read", "r^0 vfs_read", "r^4294967296 vfs_read";
    maxactive_has_a_limit: "MAXACT_TOO_BIG" "r^100000 vfs_read", "r^4097 vfs_read";
    places_are_symbols_or_addresses: "BAD_PROBE_ADDR"
        "p ^hoge-fuga", "p ^hoge+1000-1000", "p ^hoge-1", "p ^hoge+4294967296", "p ^12foo", "p ^:foo", "p ^libc.so.6:",
        "p ^+8", "p ^a\"b\"", "p ^\"\"", "p ^libc.so.6:0x1g";
    returns_begin_at_the_entry: "BAD_RETPROBE" "r ^vfs_read+10", "p ^vfs_read+4%return";
    the_only_suffix_is_return: "BAD_ADDR_SUFFIX" "p vfs_read^%retur", "p /bin/sh:10^%entry", "p vfs_read^%return+4";
    groups_have_a_name: "NO_GROUP_NAME" "p:^/bar vfs_read", "p:^.bar vfs_read";
    groups_have_a_limit: "GROUP_TOO_LONG" &format!("p:^{LONG}/bar vfs_read");
    groups_are_identifiers: "BAD_GROUP_NAME" "p:^foo.1/bar vfs_read", "p:^1foo/bar vfs_read", "p:^-a/bar vfs_read";
    events_have_a_name: "NO_EVENT_NAME" "p:^ vfs_read", "-:^";
    events_have_a_limit: "EVENT_TOO_LONG" &format!("p:foo/^{LONG} vfs_read"), &format!("p:^{LONG} vfs_read");
    events_are_identifiers: "BAD_EVENT_NAME" "p:foo/^bar.1 vfs_read", "p:^bar-1 vfs_read", "-:foo/^a/b";
    return_values_are_for_returns: "RETVAL_ON_PROBE" "p vfs_read ^$retval", "p vfs_read +0(^$retval)";
    stack_numbers_have_a_limit: "BAD_STACK_NUM"
        "p vfs_read ^$stack10000", "p vfs_read ^$stack2049", "p /bin/sh:10 ^$stack4294967296";
    argument_numbers_have_a_limit: "BAD_ARG_NUM" "p vfs_read ^$arg10000", "p vfs_read a=^$arg0", "p vfs_read ^$arg256";
    variables_are_known: "BAD_VAR"
        "p vfs_read ^$none_var", "p vfs_read ^$stack1a", "p vfs_read ^$", "p vfs_read ^$argx", "p vfs_read a=^$arg1x",
        "r vfs_read ^$retvalx";
    registers_are_known: "BAD_REG_NAME" "p vfs_read ^%none_reg", "p vfs_read ^%eax", "p vfs_read ^%", "p vfs_read ^%cs";
    memory_is_at_an_address: "BAD_MEM_ADDR" "p vfs_read ^@12345678abcde", "p vfs_read ^@", "p vfs_read ^@jiffies+x";
    file_offsets_are_for_files: "FILE_ON_KPROBE" "p vfs_read ^@+10";
    file_offsets_are_numbers: "BAD_FILE_OFFS" "p /bin/sh:10 ^@+ab";
    symbols_are_not_for_files: "SYM_ON_UPROBE" "p /bin/sh:10 ^@symbol";
    dereferences_have_a_brace: "DEREF_NEED_BRACE" "p vfs_read ^+0@0)", "p vfs_read ^+8", "p vfs_read ^-u8";
    dereferences_have_an_offset: "BAD_DEREF_OFFS"
        "p vfs_read ^+0ab1(@0)", "p vfs_read ^+(@0)", "p vfs_read +u0(^-+1(%di))";
    dereferences_are_closed: "DEREF_OPEN_BRACE" "p vfs_read +0(+0(@0^)", "p vfs_read +0(@0^", "p vfs_read +u0(%di^";
    names_are_not_pointers: "COMM_CANT_DEREF" "p vfs_read +0(^$comm)", "p vfs_read +0(^\\\"abc\")";
    fetches_begin_with_a_sign: "BAD_FETCH_ARG"
        "p vfs_read ^&1", "p vfs_read +0(^)", "p vfs_read ^5", "p vfs_read +0(%di)^junk", "p vfs_read ^:u8";
    nesting_has_a_limit: "TOO_MANY_OPS"
        "p vfs_read +0(^+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(@0))))))))))))))",
        // 13 dereferences and an array's loop are one too many.
        "p vfs_read ^+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(@0))))))))))))):u8[2]";
    arrays_are_closed: "ARRAY_NO_CLOSE" "p vfs_read +0(@11):u8[10^";
    arrays_have_no_suffix: "BAD_ARRAY_SUFFIX" "p vfs_read +0(@11):u8[10]^a";
    array_sizes_are_numbers: "BAD_ARRAY_NUM"
        "p vfs_read +0(@11):u8[^10a]", "p vfs_read +0(@11):u8[^0]", "p vfs_read +0(@11):u8[^]",
        "p vfs_read +0(@11):u8[^4294967296]";
    arrays_have_a_limit: "ARRAY_TOO_BIG" "p vfs_read +0(@11):u8[^256]", "p vfs_read +0(@11):u8[^65]";
    types_are_known: "BAD_TYPE"
        "p vfs_read @11:^unknown_type", "p vfs_read %di:^", "p vfs_read %di:^u24", "p vfs_read %di:^b4@0/9",
        "p vfs_read %di:^b4@0", "p vfs_read %di:^[4]", "p vfs_read %di:^é", "p vfs_read %di:^%pd";
    strings_are_in_memory: "BAD_STRING"
        "p vfs_read $stack0:^string", "p vfs_read %di:^string", "p vfs_read %di:^ustring", "p vfs_read $stack:^u8[4]",
        "p vfs_read \\5:^string[2]", "p vfs_read +0(%di):^symstr[2]";
    symbol_strings_are_code: "BAD_SYMSTRING" "p vfs_read \\1:^symstr", "p vfs_read $stack:^symstr";
    bit_fields_have_three_numbers: "BAD_BITFIELD"
        "p vfs_read @11:^b10@a/16", "p vfs_read %di:^b0@0/8", "p vfs_read %di:^b8@1/8", "p vfs_read %di:^b/8",
        "p vfs_read %di:^b99999999999999999999@0/64", "p vfs_read %di:^b4@/8", "p vfs_read +0(%di):^b9@0/8";
    argument_names_have_a_limit: "ARG_NAME_TOO_LONG" "p vfs_read ^arg123456789012345678901234567890=@11";
    arguments_have_a_name: "NO_ARG_NAME" "p vfs_read ^=@11";
    argument_names_are_identifiers: "BAD_ARG_NAME" "p vfs_read ^var.1=@11", "p vfs_read ^1=@11", "p vfs_read ^\"a\"=@11";
    argument_names_are_used_once: "USED_ARG_NAME"
        "p vfs_read var1=@11 ^var1=@12", "p vfs_read %di ^arg1=%si", "p vfs_read ^common_pid=%di", "p f ^__probe_ip=%di";
    argument_bodies_have_a_limit: "ARG_TOO_LONG"
        "p vfs_read ^+1234567(+1234567(+1234567(+1234567(+1234567(+1234567(@1234))))))",
        &format!("p vfs_read a=^{LONG}");
    arguments_have_a_body: "NO_ARG_BODY" "p vfs_read arg1=^";
    immediates_are_numbers: "BAD_IMM" "p vfs_read arg1=\\^x", "p vfs_read \\^", "p vfs_read \\^-", "p vfs_read \\^08";
    immediate_strings_are_closed: "IMMSTR_NO_CLOSE"
        "p vfs_read arg1=\\\"abcd^", "p vfs_read \\\"^", "p vfs_read \\\"two^ words\"";
    there_is_no_btf: "NOSUP_BTFARG"
        "p vfs_read ^file", "p vfs_read ^file->f_mode:u32", "p vfs_read ^$arg*", "r vfs_read ^$retval->x", "p /bin/sh:1 ^x";
    all_arguments_stand_alone: "BAD_VAR_ARGS" "p vfs_read args=^$arg*", "p vfs_read +0(^$arg*)";
    arguments_are_for_entries: "NOFENTRY_ARGS"
        "p vfs_read+20 ^$arg*", "p vfs_read+4 ^$arg1", "p 0x1000 ^$arg1", "p /bin/sh:10 ^$arg1", "p vfs_read+4 %di ^$arg1",
        "p vfs_read+4 a=^$arg1", "r /bin/sh:10 ^$arg1";
    all_arguments_are_named_once: "DOUBLE_ARGS" "p vfs_read $arg* ^$arg*";
    names_are_strings: "NEED_STRING_TYPE"
        "p vfs_read $comm:^u8", "p vfs_read $COMM:^ustring", "p vfs_read \\\"a\":^x8", "p vfs_read $comm:^string[2]";
    arguments_have_a_number: "TOO_MANY_ARGS" &format!("p vfs_read ^{}", "%di ".repeat(129)), "-:a foo ^%di";
    records_have_a_limit: "EVENT_TOO_BIG"
        &format!("p vfs_read {}^+0(%di):u8", "+0(%di):u64[64] ".repeat(6));
    counters_are_numbers: "BAD_REFCNT" "p /bin/sh:10(^1a)", "p /bin/sh:10(^)";
    counters_are_closed: "REFCNT_OPEN_BRACE" "p /bin/sh:10(10^";
    counters_have_no_suffix: "BAD_REFCNT_SUFFIX" "p /bin/sh:10(10)^a", "p /bin/sh:10(10)^%return";
    uprobe_offsets_are_numbers: "BAD_UPROBE_OFFS" "p /bin/sh:^10a", "p /bin/sh:^08";
    lines_begin_with_a_command: "BAD_COMMAND" "^x foo", "^pfoo bar", "^", "^-foo", "^pé x", "  ^e:a/b c.d";
    probes_have_a_place: "NO_PLACE" "p^", "r:a/b^  ";
    quotes_are_closed: "QUOTE_NO_CLOSE" "p ^\"foo", "p lib:^\"foo\\\"", "p f @^\"x";
    paths_are_names: "FILE_NOT_FOUND" "p ^/bin/\"sh\":10";
}

/// What only an engine can find out, and what a parser never says.
const FROM_ELSEWHERE: &[&str] = &[
    "NO_REGULAR_FILE",
    "NON_UNIQ_SYMBOL",
    "EVENT_EXIST",
    "BAD_INSN_BNDRY",
    "FAIL_REG_PROBE",
    "DIFF_PROBE_TYPE",
    "DIFF_ARG_TYPE",
    "SAME_PROBE",
];

#[test]
fn every_code_is_tested_here_or_comes_from_elsewhere() {
    for code in ErrorCode::ALL {
        assert_ne!(TESTED.contains(&code.name()), FROM_ELSEWHERE.contains(&code.name()), "{}", code.name());
    }
}

#[test]
fn a_rendered_error_has_the_caret_below_its_column() {
    let line = "p:foo/bar.1\tvfs_read";
    let error = parse(line).unwrap_err();
    let expected = "error: Event name must follow the same rules as C identifiers\n  p:foo/bar.1\tvfs_read\n        ^\n\
                    hint: use letters, digits and '_', not a digit first";
    assert_eq!(error.render(line), expected);
}

#[test]
fn the_caret_counts_characters_and_keeps_tabs() {
    let line = "p\tété %é";
    let error = parse(line).unwrap_err();
    assert_eq!(error.render(line).lines().nth(2), Some("   \t    ^"));
}

#[test]
fn a_detail_follows_the_message() {
    let error = SyntaxError::new(ErrorCode::BadProbeAddr, 2).with_detail("no symbol foo");
    assert_eq!(error.to_string(), "Invalid probed address or symbol: no symbol foo");
}
