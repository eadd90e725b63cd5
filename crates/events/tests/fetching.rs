//! From a line to the values it records.

mod machine;

use events::{ErrorCode, Source, Value, compile, decode, parse, run};
use machine::{Machine, Target, program};

fn with_memory(addr: u64, bytes: &[u8]) -> Machine {
    let mut machine = Machine::default();
    machine.map(addr, bytes);
    machine
}

/// What a line records on a machine in a record of so many bytes.
fn record_in(line: &str, machine: &Machine, size: usize) -> Vec<Value> {
    let program = program(line);
    let mut out = vec![0xaa; size];
    let len = run(&program.code, machine, &mut out);
    decode(&program.schema, &out[..len])
}

fn record(line: &str, machine: &Machine) -> Vec<Value> {
    record_in(line, machine, 65536)
}

/// The only value that a probe on a function records.
fn one(fetch: &str, machine: &Machine) -> Value {
    record(&format!("p f {fetch}"), machine).remove(0)
}

fn text(bytes: &[u8]) -> Value {
    Value::Str { bytes: bytes.into(), truncated: false }
}

const WORD: u64 = 0xfedc_ba98_8765_43f5;

#[test]
fn registers_are_cut_to_the_type() {
    let mut machine = Machine::default();
    machine.registers[7] = WORD;
    let cases = [
        ("%di", Value::Hex(WORD)),
        ("%di:u8", Value::Unsigned(0xf5)),
        ("%di:u16", Value::Unsigned(0x43f5)),
        ("%di:u32", Value::Unsigned(0x8765_43f5)),
        ("%di:u64", Value::Unsigned(WORD)),
        ("%di:s8", Value::Signed(-11)),
        ("%di:s16", Value::Signed(0x43f5)),
        ("%di:s32", Value::Signed(i64::from(0x8765_43f5_u32.cast_signed()))),
        ("%di:s64", Value::Signed(WORD.cast_signed())),
        ("%di:x8", Value::Hex(0xf5)),
        ("%di:x16", Value::Hex(0x43f5)),
        ("%di:x32", Value::Hex(0x8765_43f5)),
        ("%di:char", Value::Char(0xf5)),
        ("%di:symbol", Value::Symbol(WORD)),
        ("%di:symstr", Value::SymbolString(WORD)),
    ];
    for (fetch, value) in cases {
        assert_eq!(one(fetch, &machine), value, "{fetch}");
    }
}

#[test]
fn memory_of_any_type_agrees_with_the_register() {
    let mut machine = with_memory(0x2000, &WORD.to_le_bytes());
    machine.registers[7] = WORD;
    for kind in ["u", "s", "x"] {
        for bits in [8, 16, 32, 64] {
            let ty = format!("{kind}{bits}");
            assert_eq!(one(&format!("@0x2000:{ty}"), &machine), one(&format!("%di:{ty}"), &machine), "{ty}");
        }
    }
}

#[test]
fn bit_fields_are_shifted_out_of_their_container() {
    let mut machine = with_memory(0x2000, &WORD.to_le_bytes());
    machine.registers[7] = WORD;
    for container in [8_u32, 16, 32, 64] {
        for (width, offset) in [(1, 0), (3, 2), (4, 4), (1, 7), (container, 0), (container - 1, 1)] {
            let expected = WORD >> offset & (u64::MAX >> (64 - width));
            let ty = format!("b{width}@{offset}/{container}");
            assert_eq!(one(&format!("%di:{ty}"), &machine), Value::Bits(expected), "{ty}");
            assert_eq!(one(&format!("@0x2000:{ty}"), &machine), Value::Bits(expected), "{ty} in memory");
        }
    }
}

#[test]
fn arguments_follow_the_calling_convention() {
    let mut machine = Machine::default();
    for (value, register) in (1..).zip([7, 6, 2, 1, 8, 9]) {
        machine.registers[register] = value;
    }
    machine.registers[4] = 0x7000;
    machine.map(0x7000, &[0x99_u64, 7, 8].map(u64::to_le_bytes).concat());
    let values = record("p f $arg1:u8 $arg2:u8 $arg3:u8 $arg4:u8 $arg5:u8 $arg6:u8 $arg7:u8 $arg8:u8", &machine);
    assert_eq!(values, (1..=8).map(Value::Unsigned).collect::<Vec<_>>());
    assert_eq!(machine.argument(9), 0, "beyond what can be read");
    assert_eq!(machine.argument(0), 0);
}

#[test]
fn a_return_probe_names_the_arguments_to_keep() {
    let program = program("r f $arg3 +0($arg1):string $retval $arg3:u8");
    assert_eq!(program.entry_arguments, [1, 3]);
    assert_eq!(self::program("p f $arg3").entry_arguments, [0; 0]);
}

#[test]
fn return_value_stack_and_instruction_pointer_are_read() {
    let mut machine = Machine { return_value: 42, ..Machine::default() };
    machine.registers[4] = 0x7000;
    machine.registers[16] = 0x401000;
    machine.map(0x7008, &5u64.to_le_bytes());
    assert_eq!(
        record("r f $retval:s32 $stack $stack1:u64 %ip $stack0", &machine),
        [Value::Signed(42), Value::Hex(0x7000), Value::Unsigned(5), Value::Hex(0x401000), Value::Fault]
    );
}

#[test]
fn immediates_and_names_need_no_memory() {
    let values = record(r#"p f \5:u8 \-1:s64 \"text" $comm"#, &Machine::default());
    assert_eq!(values, [Value::Unsigned(5), Value::Signed(-1), text(b"text"), text(b"demo")]);
}

#[test]
fn dereferences_nest() {
    let mut machine = with_memory(0x2010, &0x3000u64.to_le_bytes());
    machine.map(0x2ff8, &0x5000u64.to_le_bytes());
    machine.map(0x5000, b"end\0");
    machine.registers[7] = 0x2000;
    assert_eq!(one("+0(-8(+16(%di))):string", &machine), text(b"end"));
    assert_eq!(one("-8(+u16(%di))", &machine), Value::Hex(0x5000));
    assert_eq!(one("+0(+0(+16(%di)))", &machine), Value::Fault, "at 0x3000 there is nothing");
}

#[test]
fn symbols_and_file_offsets_are_resolved() {
    let mut machine = with_memory(0x1008, b"static\0");
    machine.map(0x4010, &7u32.to_le_bytes());
    assert_eq!(one("@known+8:string", &machine), text(b"static"));
    assert_eq!(record("p /bin/sh:1 @+0x10:u32", &machine), [Value::Unsigned(7)]);
}

#[test]
fn what_the_target_does_not_have_is_an_error_at_its_column() {
    let error = |line: &str| compile(&parse(line).unwrap(), &Target).unwrap_err();
    let unknown = error("p f %di a=@unknown");
    assert_eq!((unknown.code, unknown.column), (ErrorCode::BadMemAddr, 10));
    assert_eq!(unknown.to_string(), "Invalid memory address: no symbol unknown in the target");
    assert_eq!(error("p /bin/sh:1 @+0x1000").code, ErrorCode::BadFileOffs);
    assert_eq!(error("p /bin/sh:1 @+-1").code, ErrorCode::BadFileOffs);
}

#[test]
fn a_fault_marks_its_argument_only() {
    let mut machine = with_memory(0x2000, &[7]);
    machine.registers[7] = 0x2000;
    assert_eq!(
        record("p f +0(%di) +0(%di):u8 +8(%di):string +0(+0(%di)):u8 %di", &machine),
        [Value::Fault, Value::Unsigned(7), Value::Fault, Value::Fault, Value::Hex(0x2000)]
    );
}

#[test]
fn arrays_are_read_element_by_element() {
    let mut machine = with_memory(0x2000, &[1, 2, 3, 0xff, 0xff, 0xff]);
    machine.registers[7] = 0x2000;
    let array = |values: &[u64]| Value::Array(values.iter().copied().map(Value::Unsigned).collect());
    assert_eq!(one("+0(%di):u8[3]", &machine), array(&[1, 2, 3]));
    assert_eq!(one("+0(%di):u16[2]", &machine), array(&[0x201, 0xff03]));
    assert_eq!(one("+2(%di):s16[2]", &machine), Value::Array(vec![Value::Signed(-253), Value::Signed(-1)]));
    assert_eq!(one("+0(%di):b2@0/8[3]", &machine), Value::Array(vec![Value::Bits(1), Value::Bits(2), Value::Bits(3)]));
    assert_eq!(one("+0(%di):char[1]", &machine), Value::Array(vec![Value::Char(1)]));
}

#[test]
fn an_array_that_ends_in_a_fault_keeps_what_could_be_read() {
    let mut machine = with_memory(0x2000, &[1, 0, 2, 0, 3]);
    machine.registers[7] = 0x2000;
    let expected = vec![Value::Unsigned(1), Value::Unsigned(2), Value::Fault];
    assert_eq!(record("p f +0(%di):u16[3] %di", &machine), [Value::Array(expected), Value::Hex(0x2000)]);
}

#[test]
fn an_array_of_strings_is_one_of_pointers() {
    let mut machine = with_memory(0x2000, &[0x3000u64, 0x666, 0x3002].map(u64::to_le_bytes).concat());
    machine.map(0x3000, b"a\0bc\0");
    machine.registers[7] = 0x1ff8;
    let expected = Value::Array(vec![text(b"a"), Value::Fault, text(b"bc")]);
    assert_eq!(one("+8(%di):string[3]", &machine), expected);
    assert_eq!(one("@0x2000:string[3]", &machine), expected);
    assert_eq!(one("+0(+0(%di)):string[3]", &machine), Value::Fault);
}

#[test]
fn a_long_string_is_cut_and_leaves_room_for_what_follows() {
    let mut machine = with_memory(0x2000, &[b'x'; 100]);
    machine.map(0x2064, b"\0");
    machine.registers[7] = 0x2000;
    let line = "p f +0(%di):string %di:u8 +98(%di):string $comm";
    let values = record_in(line, &machine, 64);
    // Headers 3 + 3 + 3, the number 2, the least of the second string 0, a name of 16.
    assert_eq!(values[0], Value::Str { bytes: vec![b'x'; 64 - 9 - 2 - 16], truncated: true });
    assert_eq!(values[1], Value::Unsigned(0));
    assert_eq!(values[2], Value::Str { bytes: vec![], truncated: true });
    assert_eq!(values[3], text(b"demo"));
    assert_eq!(record(line, &machine)[0], text(&[b'x'; 100]));
}

#[test]
fn a_string_has_at_most_a_paths_length() {
    let machine = with_memory(0x2000, &[b'x'; 5000]);
    assert_eq!(one("@0x2000:string", &machine), Value::Str { bytes: vec![b'x'; 4096], truncated: true });
}

#[test]
fn a_full_record_says_so() {
    let machine = Machine::default();
    let line = "p f %di:u32 %si:u32 %dx:u32";
    assert_eq!(record_in(line, &machine, 15), [Value::Unsigned(0), Value::Unsigned(0), Value::Unsigned(0)]);
    for size in 10..15 {
        assert_eq!(record_in(line, &machine, size), [Value::Unsigned(0), Value::Unsigned(0), Value::Truncated]);
    }
    assert_eq!(record_in(line, &machine, 0), [Value::Truncated, Value::Truncated, Value::Truncated]);
}

#[test]
fn code_that_makes_no_sense_ends_the_record_with_a_mark() {
    let mut out = [0; 8];
    assert_eq!((run(&[0xee, 1, 2], &Machine::default(), &mut out), out[0]), (1, 0xff));
    assert_eq!(run(&[], &Machine::default(), &mut out), 0);
    let good = program("p f %di:u8").code;
    for len in 1..good.len() {
        let written = run(&good[..len], &Machine::default(), &mut out);
        assert!(written == 0 || out[written - 1] == 0xff, "cut at {len}");
    }
}

#[test]
fn definitions_put_together_by_hand_are_checked_too() {
    let mut definition = parse("p f $comm").unwrap();
    definition.args[0].fetch = events::Fetch::Deref { user: false, offset: 0, inner: Box::new(events::Fetch::Comm) };
    assert_eq!(compile(&definition, &Target).unwrap_err().code, ErrorCode::CommCantDeref);
    definition.args[0].fetch = events::Fetch::Immediate(1);
    definition.args[0].ty.count = Some(2);
    assert_eq!(compile(&definition, &Target).unwrap_err().code, ErrorCode::BadString);
    definition.args[0].ty.base = events::Base::Bits { width: 9, offset: 0, container: events::Width::W8 };
    definition.args[0].ty.count = None;
    assert_eq!(compile(&definition, &Target).unwrap_err().code, ErrorCode::BadBitfield);
}
