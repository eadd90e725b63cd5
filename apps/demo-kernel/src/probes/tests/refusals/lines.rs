//! Lines that mean nothing here.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{refusals_target, refused, refused_with, still_works, target};
use crate::ksyms;
use crate::probes::tests::{check, counts, define, remove, same};
use crate::probes::with_control;

mod one {
    #[inline(never)]
    pub(super) fn refusals_twice(value: u64) -> u64 {
        core::hint::black_box(value) + 1
    }
}

mod two {
    #[inline(never)]
    pub(super) fn refusals_twice(value: u64) -> u64 {
        core::hint::black_box(value) * 3
    }
}

/// Misspelled, meant twice, and variables.
pub(super) fn symbols() -> Result<(), String> {
    refused_with("p refusals_targte", &["did you mean", "refusals_target", "\n    ^"])?;
    refused_with("r:x refusals_targe", &["did you mean", "refusals_target", "\n      ^"])?;
    refused_with("p nothing_is_called_like_this_at_all", &["no such symbol"])?;
    refused_with("p REFUSALS_DATA", &["is no function"])?;
    same("both are there", one::refusals_twice(1) + two::refusals_twice(1), 5)?;
    refused_with(
        "p refusals_twice",
        &["several symbols have this name", "one::refusals_twice", "two::refusals_twice"],
    )?;
    refused_with("p refusals_target value=@nothing_like_this", &["^"])?;
    // In full each means one.
    let full = ksyms::all().iter().find(|s| s.name.ends_with("one::refusals_twice"));
    let full = full.ok_or("the symbol is not there")?.name;
    define(&[&format!("p:refusals_one \"{full}\"")])?;
    one::refusals_twice(1);
    two::refusals_twice(1);
    let hits = counts("refusals_one")?.hits;
    remove(&["refusals_one"])?;
    same("hits", hits, 1)?;
    still_works()
}

/// A kernel is neither a file nor a module of itself.
pub(super) fn objects() -> Result<(), String> {
    refused_with("p /bin/sh:0x100", &["a kernel is no file", "\n    ^"])?;
    refused_with("p /bin/sh:0x100(0x10)", &["^"])?;
    refused_with("p ext4:refusals_target", &["no module `ext4`", "\n    ^"])?;
    refused_with("r:x demo-kernel:refusals_target", &["no module `demo-kernel`"])?;
    refused_with(&format!("p vmlinux:{:#x}", target()), &["no module `vmlinux`"])?;
    refused_with("p refusals_target @+8", &["File offset is not available with kprobe"])?;
    still_works()
}

/// Names are given once, and given back.
pub(super) fn events() -> Result<(), String> {
    refused_with("-:refusals_nothing", &["no event `refusals_nothing`"])?;
    define(&["p:refusals_event refusals_target"])?;
    refused_with("p:refusals_event refusals_target+4", &["already used", "\n    ^"])?;
    refused_with("r:kprobes/refusals_event refusals_target", &["already used", "\n            ^"])?;
    refused_with("-:other/refusals_event", &["no event"])?;
    let attached = with_control(|c| c.count("refusals_event", target()))?;
    check(attached.is_err(), || "an event of this name was attached".into())?;
    let batch = with_control(|c| c.define(&["p:refusals_x refusals_target", "-:refusals_event"]))?;
    check(matches!(batch, Err((1, _))), || format!("a removal in a batch: {batch:?}"))?;
    let batch = with_control(|c| c.define(&["p:refusals_x refusals_target", "r:refusals_x refusals_target"]))?;
    check(matches!(batch, Err((1, _))), || format!("a name twice in a batch: {batch:?}"))?;
    // The same name in another group is another event.
    define(&["p:other/refusals_event refusals_target"])?;
    refusals_target(1);
    same("hits", counts("refusals_event")?.hits, 1)?;
    for line in ["-:other/refusals_event", "-:kprobes/refusals_event"] {
        with_control(|c| c.line(line))?.map_err(|e| e.to_string())?;
    }
    refused_with("-:refusals_event", &["no event"])?;
    with_control(|c| c.records())?;
    still_works()
}

/// A `^` stands before the byte at fault.
const WRONG: &[(&str, &str)] = &[
    ("^", "must begin with"),
    ("^x refusals_target", "must begin with"),
    ("p^", "not specified"),
    ("p:^ refusals_target", "Event name is not specified"),
    ("p:^/x refusals_target", "Group name is not specified"),
    ("p:^1x refusals_target", "Event name must follow"),
    ("p:a/^b.c refusals_target", "Event name must follow"),
    ("p:^a.b/c refusals_target", "Group name must follow"),
    ("r^1x refusals_target", "Invalid maxactive"),
    ("p refusals_target^%retur", "suffix"),
    ("p ^refusals_target-1", "Invalid probed address"),
    ("p ^12refusals", "Invalid probed address"),
    ("p ^\"refusals_target", "not closed"),
    ("p refusals_target ^$retval", "$retval is not available"),
    ("p refusals_target ^$none", "Invalid $-variable"),
    ("p refusals_target ^%none", "Invalid register"),
    ("p refusals_target ^%eax", "Invalid register"),
    ("p refusals_target ^@x+y", "Invalid memory address"),
    ("p refusals_target ^+8", "needs a brace"),
    ("p refusals_target +8(%di^", "not closed"),
    ("p refusals_target +0(^$comm)", "can not be dereferenced"),
    ("p refusals_target %di:^u24", "Unknown type"),
    ("p refusals_target %di:^string", "only memory"),
    ("p refusals_target +0(%di):u8[^65]", "too big"),
    ("p refusals_target a=%di ^a=%si", "already used"),
    ("p refusals_target ^1=%di", "Argument name must follow"),
    ("p refusals_target a=^", "No argument expression"),
    ("p refusals_target+4 ^$arg1", "function entry"),
    ("p refusals_target ^$arg256", "Invalid argument number"),
    ("p refusals_target ^$stack2049", "Invalid stack number"),
];

/// The message, the line, and the caret below the byte.
pub(super) fn syntax() -> Result<(), String> {
    for &(marked, why) in WRONG {
        let column = marked.find('^').ok_or("no mark")?;
        let line = marked.replacen('^', "", 1);
        let said = refused(&line)?;
        let rows: Vec<&str> = said.lines().collect();
        check(rows.len() >= 3, || format!("`{line}`: {said}"))?;
        same(&format!("the line of `{line}`"), rows[1], &format!("  {line}"))?;
        let caret = rows[2].find('^').and_then(|at| at.checked_sub(2));
        same(&format!("the column of `{line}` ({said})"), caret, Some(column))?;
        let has = rows[0].to_lowercase().contains(&why.to_lowercase());
        check(has, || format!("`{line}`: should say `{why}`: {said}"))?;
    }
    still_works()
}

/// Wherever it stands, nothing of the batch is planted, and its index is told.
pub(super) fn batch() -> Result<(), String> {
    const GOOD: [&str; 4] = [
        "p:refusals_b0 refusals_target",
        "r:refusals_b1 refusals_target",
        "p:refusals_b2 refusals_target+4 %ax",
        "p:refusals_b3 demand_zero",
    ];
    const BAD: [&str; 6] = [
        "p:refusals_bad",
        "p:refusals_bad refusals_nothing",
        "p:refusals_bad refusals_target+5",
        "p:refusals_bad refusals_iretq+2",
        "p:refusals_bad trap_breakpoint",
        "p:refusals_b0 refusals_target+4",
    ];
    let before = super::state()?;
    for bad in BAD {
        for at in 0..=GOOD.len() {
            let mut lines = GOOD.to_vec();
            lines.insert(at, bad);
            let said = with_control(|c| c.define(&lines))?;
            let index = said.as_ref().err().map(|(index, _)| *index);
            // A name twice is found at the second of the two.
            let expected = if bad.contains("_b0") && at == 0 { 1 } else { at };
            same(&format!("the index of `{bad}` at {at}"), index, Some(expected))?;
            same("what is planted", super::state()?, before)?;
        }
    }
    define(&GOOD)?;
    refusals_target(1);
    same("hits", counts("refusals_b2")?.hits, 1)?;
    remove(&["refusals_b0", "refusals_b1", "refusals_b2", "refusals_b3"])?;
    with_control(|c| c.records())?;
    still_works()
}

/// Xorshift (Marsaglia): the same numbers every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

const PIECES: &[&str] = &[
    "p",
    "r",
    "-",
    ":",
    "/",
    " ",
    " ",
    " ",
    "+",
    "-",
    "@",
    "$",
    "%",
    "(",
    ")",
    "[",
    "]",
    "=",
    "\\",
    "\"",
    "#",
    ".",
    ",",
    "0x",
    "0",
    "1",
    "9",
    "ffffffffffffffff",
    "18446744073709551616",
    "refusals_target",
    "kprobes",
    "refusals_garbage",
    "demand_zero",
    "arg1",
    "retval",
    "stack",
    "comm",
    "di",
    "ax",
    "ip",
    "flags",
    "u8",
    "u64",
    "string",
    "symbol",
    "b4@0/8",
    "x64",
    "\t",
    "\u{e9}",
    "\u{1f980}",
    "\0",
    "\n",
    "%return",
    "nothing",
    "-:",
    "trap_fault",
];

/// Does what a line says; whatever it has planted goes again.
fn try_line(line: &str) -> Result<bool, String> {
    let taken = with_control(|c| c.line(line))?;
    refusals_target(1);
    with_control(|c| c.remove_all())?.map_err(|e| e.to_string())?;
    with_control(|c| c.records())?;
    Ok(taken.is_ok())
}

pub(super) fn garbage() -> Result<(), String> {
    let before = super::state()?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..400 {
        let pieces = (0..1 + random.below(12)).map(|_| PIECES[random.below(PIECES.len())]);
        let line: String = pieces.collect();
        try_line(&line)?;
    }
    // And bytes of any kind, as far as they are text.
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..random.below(60)).map(|_| random.next() as u8).collect();
        try_line(&String::from_utf8_lossy(&bytes))?;
    }
    same("what is planted", super::state()?, before)?;
    still_works()
}

const GOOD: &[&str] = &[
    "p:refusals_d refusals_target a=$arg1:x64 b=+0($stack):u64 c=$comm",
    "r4:g/refusals_d refusals_target $retval:s32 s=+0(%sp):string",
    "p refusals_target+0xa %ax %di:b4@0/8 n=\\7 t=\\\"text\"",
    "p:refusals_d demand_zero at=$arg1 m=@refusals_target+4:u8[8]",
    "-:kprobes/refusals_d",
];

/// One byte of a good line is changed, missing or doubled: some of these are good lines too.
pub(super) fn damaged() -> Result<(), String> {
    let before = super::state()?;
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..300 {
        let mut bytes = GOOD[round % GOOD.len()].as_bytes().to_vec();
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = b' ' + (random.next() % 95) as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, bytes[at]),
            _ => bytes.truncate(at),
        }
        *if try_line(&String::from_utf8_lossy(&bytes))? { &mut taken } else { &mut refused } += 1;
    }
    same("what is planted", super::state()?, before)?;
    check(taken > 10 && refused > 50, || format!("{taken} taken, {refused} refused: no test of both"))?;
    still_works()
}
