//! The same lines to us and to the running kernel's `uprobe_events`: both accept, or both refuse for the same reason at the
//! same column. Events are never enabled, only defined and removed.

use std::{
    fs::{OpenOptions, read_to_string},
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use events::{ErrorCode, parse};

mod tracefs;

/// In the lines below `{G}` is a group of this test's own and `{P}` a file.
const LINES: &[&str] = &[
    "p:{G}/e {P}:0x1000",
    "p:{G}/e {P}:4096",
    "p:{G}/e {P}:010000",
    "p:{G}/ {P}:0x1000",
    "p:{G}.e {P}:0x1000",
    "r:{G}/e {P}:0x1000",
    "p:{G}/e {P}:0x1000%return",
    "r:{G}/e {P}:0x1000%return",
    "p:{G}/e {P}:0x2000(0x20)",
    "p:{G}/e {P}:0x2000%return(0x20)",
    "p:{G}/e {P}:0x1000 %ax %bx %cx %dx %si %di %bp %sp %r8 %r9 %r15 %ip %flags",
    "p:{G}/e {P}:0x1000 $stack $stack0 $stack12 $stack10000 $comm $COMM",
    "p:{G}/e {P}:0x1000 a=$stack b=+0($stack) c=$comm:string",
    "r:{G}/e {P}:0x1000 $retval a=$retval:s32 +0($retval):string",
    "p:{G}/e {P}:0x1000 @0x100 @100:u8 @+0 @+0x10:s16 @+-5",
    "p:{G}/e {P}:0x1000 +0(%di) -8(%di) +-8(%sp) ++8(%sp) +u8(%di) -u0x8(%sp):u8",
    "p:{G}/e {P}:0x1000 \\5 \\-5 \\+5 \\0xffffffffffffffff a=\\\"text\" b=\\\"x\":string \\5:string",
    "p:{G}/e {P}:0x1000 %di:u8 %di:u16 %di:u32 %di:u64 %di:s8 %di:s16 %di:s32 %di:s64",
    "p:{G}/e {P}:0x1000 %di:x8 %di:x16 %di:x32 %di:x64 %di:char +0(%di):char[8]",
    "p:{G}/e {P}:0x1000 +0(%di):string +0(%di):ustring +u0(%di):ustring @16:string +0(+8(%sp)):string[2]",
    "p:{G}/e {P}:0x1000 %di:b1@0/8 %di:b4@4/8 %di:b64@0/64 +0(%di):b3@2/16 +0(%di):b1@1/8[2] %di:b2@0x1/0x10",
    "p:{G}/e {P}:0x1000 +0(%di):u8[64] +0(%di):u64[1] @+0:u32[010]",
    "p:{G}/e {P}:0x1000 a1234567890123456789012345678901=%di",
    "p:{G}/e {P}:0x1000 _a=%di a=%di A1=%di",
    "p:{G}/e {P}:0x1000 +0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(@0))))))))))))",
    "p:{G}/e {P}:0x1000 +0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(@0)))))))))))))",
    "p:{G}/e {P}:0x1000 +0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(@0))))))))))))))",
    "p:{G}/e {P}:0x1000 +0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(%di)))))))))))))",
    "p:{G}/e {P}:0x1000 +0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(+0(%di))))))))))))))",
    // Where the fault is.
    "p:{G}/e {P}x:0x1000",
    "p:{G}/e /proc:0x1000",
    "p:{G}/e {P}:10a",
    "p:{G}/e {P}:08",
    "p:{G}/e {P}:0x1000(1a)",
    "p:{G}/e {P}:0x1000()",
    "p:{G}/e {P}:0x1000(10",
    "p:{G}/e {P}:0x1000(10)a",
    "p:{G}/e {P}:0x1000(10)%return",
    "p:{G}/e {P}:0x1000%retur",
    "p:/{G} {P}:0x1000",
    "p:{G}1234567890123456789012345678901234567890123456789012345678901234/e {P}:0x1000",
    "p:{G}.1/e {P}:0x1000",
    "p:1{G}/e {P}:0x1000",
    "p: {P}:0x1000",
    "p:{G}/e1234567890123456789012345678901234567890123456789012345678901234 {P}:0x1000",
    "p:{G}/e-1 {P}:0x1000",
    "p:{G}/e.1 {P}:0x1000",
    "p:{G}/1e {P}:0x1000",
    "p:{G}/e {P}:0x1000 $retval",
    "p:{G}/e {P}:0x1000 a=+0($retval)",
    "p:{G}/e {P}:0x1000 $arg1",
    "p:{G}/e {P}:0x1000 a=$arg1",
    "p:{G}/e {P}:0x1000 a=$arg0",
    "r:{G}/e {P}:0x1000 $arg1",
    "p:{G}/e {P}:0x1000 $arg*",
    "p:{G}/e {P}:0x1000 $none_var",
    "p:{G}/e {P}:0x1000 $stack1a",
    "p:{G}/e {P}:0x1000 $stackx",
    "p:{G}/e {P}:0x1000 $",
    "p:{G}/e {P}:0x1000 %none_reg",
    "p:{G}/e {P}:0x1000 %eax",
    "p:{G}/e {P}:0x1000 %di x=%none_reg",
    "p:{G}/e {P}:0x1000 @12345678abcde",
    "p:{G}/e {P}:0x1000 @+ab",
    "p:{G}/e {P}:0x1000 @symbol",
    "p:{G}/e {P}:0x1000 @",
    "p:{G}/e {P}:0x1000 +0@0)",
    "p:{G}/e {P}:0x1000 +8",
    "p:{G}/e {P}:0x1000 +0ab1(@0)",
    "p:{G}/e {P}:0x1000 +(@0)",
    "p:{G}/e {P}:0x1000 -+1(%di)",
    "p:{G}/e {P}:0x1000 +0(+0(@0)",
    "p:{G}/e {P}:0x1000 +0($comm)",
    "p:{G}/e {P}:0x1000 +0(\\\"a\")",
    "p:{G}/e {P}:0x1000 &1",
    "p:{G}/e {P}:0x1000 5",
    "p:{G}/e {P}:0x1000 variable",
    "p:{G}/e {P}:0x1000 a=variable->field",
    "p:{G}/e {P}:0x1000 @11:u8[10",
    "p:{G}/e {P}:0x1000 @11:u8[10]a",
    "p:{G}/e {P}:0x1000 @11:u8[10a]",
    "p:{G}/e {P}:0x1000 @11:u8[0]",
    "p:{G}/e {P}:0x1000 @11:u8[]",
    "p:{G}/e {P}:0x1000 @11:u8[4294967296]",
    "p:{G}/e {P}:0x1000 @11:u8[65]",
    "p:{G}/e {P}:0x1000 @11:unknown_type",
    "p:{G}/e {P}:0x1000 a=@11:u24",
    "p:{G}/e {P}:0x1000 %di:",
    "p:{G}/e {P}:0x1000 %di:b4@0",
    "p:{G}/e {P}:0x1000 %di:b4@0/9",
    "p:{G}/e {P}:0x1000 %di:%pd",
    "p:{G}/e {P}:0x1000 $stack0:string",
    "p:{G}/e {P}:0x1000 %di:string",
    "p:{G}/e {P}:0x1000 %di:u8[4]",
    "p:{G}/e {P}:0x1000 $stack0:u8[4]",
    "p:{G}/e {P}:0x1000 $comm:u8",
    "p:{G}/e {P}:0x1000 $comm:ustring",
    "p:{G}/e {P}:0x1000 $comm:string[2]",
    "p:{G}/e {P}:0x1000 \\\"a\":u8",
    "p:{G}/e {P}:0x1000 \\\"a:b\"",
    "p:{G}/e {P}:0x1000 @11:b10@a/16",
    "p:{G}/e {P}:0x1000 %di:b0@0/8",
    "p:{G}/e {P}:0x1000 %di:b8@1/8",
    "p:{G}/e {P}:0x1000 %di:b/8",
    "p:{G}/e {P}:0x1000 a12345678901234567890123456789012=%di",
    "p:{G}/e {P}:0x1000 =%di",
    "p:{G}/e {P}:0x1000 a.1=%di",
    "p:{G}/e {P}:0x1000 1a=%di",
    "p:{G}/e {P}:0x1000 a=%di a=%si",
    "p:{G}/e {P}:0x1000 %di arg1=%si",
    "p:{G}/e {P}:0x1000 arg2=%di %si",
    "p:{G}/e {P}:0x1000 common_pid=%di",
    "p:{G}/e {P}:0x1000 __probe_ip=%di",
    "p:{G}/e {P}:0x1000 +1234567(+1234567(+1234567(+1234567(+1234567(+1234567(@1234))))))",
    "p:{G}/e {P}:0x1000 a=",
    "p:{G}/e {P}:0x1000 a=\\x",
    "p:{G}/e {P}:0x1000 \\",
    "p:{G}/e {P}:0x1000 \\-",
    "p:{G}/e {P}:0x1000 a=\\\"abcd",
    "p:{G}/e {P}:0x1000 a=\\\"ab cd\"",
    "p:{G}/e {P}:0x1000 \\\"",
    "p:{G}/e {P}:0x1000 +0(%di):u64[64] +0(%di):u64[64] +0(%di):u64[64] +0(%di):u64[64] +0(%di):u64[64] +0(%di):u64[64]",
    "p:{G}/e {P}:0x1000 +0(%di):u64[64] +0(%di):u64[64] +0(%di):u64[64] +0(%di):u64[64] +0(%di):u64[64] +0(%di):u64[64] %di:u8 %si",
];

/// Lines on which we differ, on purpose (see the crate's documentation): each with whether Linux and whether we accept it.
const DIFFERENCES: &[(&str, bool, bool)] = &[
    ("p:{G}/e {P}:0x1000 %rdi", false, true),
    ("p:{G}/e {P}:0x1000 %cs", true, false),
    ("p:{G}/e {P}:0x1000 %orig_ax", true, false),
    ("p:{G}/e {P}:0x1000 %di:symbol", false, true),
    ("p:{G}/e {P}:0x1000 %di:symstr", false, true),
    ("p:{G}/e {P}:0x1000 +u0(%di):u8[4]", false, true),
    ("p:{G}/e {P}:0x1000 +0(%di)junk", true, false),
    ("r:{G}/e {P}:0x1000 $retvalx", true, false),
    ("p:{G}/e {P}:0x1000 \\5:string[2]", true, false),
];

/// What was said to a line: nothing if it was accepted.
#[derive(Debug, PartialEq)]
struct Refusal {
    /// The code of Linux's message, if it is one we know.
    code: Option<ErrorCode>,
    column: Option<usize>,
}

struct Tracefs(PathBuf);

impl Tracefs {
    fn write(&self, line: &str) -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.0.join("uprobe_events"))?;
        file.write_all(format!("{line}\n").as_bytes())
    }

    /// Defines a line and removes it again.
    fn verdict(&self, line: &str, group: &str) -> Option<Refusal> {
        match self.write(line) {
            Ok(()) => {
                self.write(&format!("-:{group}/")).expect("what was accepted can be removed");
                None
            }
            Err(_) => Some(self.logged(line)),
        }
    }

    /// The newest entry of `error_log` about that line.
    fn logged(&self, line: &str) -> Refusal {
        let log = read_to_string(self.0.join("error_log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let entry = lines.windows(3).rfind(|entry| entry[1].strip_prefix("  Command: ") == Some(line));
        let Some([message, _, caret]) = entry else { return Refusal { code: None, column: None } };
        let message = message.split_once("error: ").map_or("", |(_, message)| message.trim());
        let code = ErrorCode::ALL.iter().copied().find(|code| code.message() == message);
        Refusal { code, column: caret.find('^').map(|at| at - "  Command: ".len()) }
    }
}

/// What a tool says on top of the parser: whether the file is there.
fn ours(line: &str) -> Option<Refusal> {
    let refusal = |code, column| Some(Refusal { code: Some(code), column: Some(column) });
    let place = line.split(' ').nth(1).expect("a place");
    let path = Path::new(place.rsplit_once(':').expect("a path").0);
    let column = events::place_column(line);
    match parse(line) {
        _ if !path.exists() => refusal(ErrorCode::FileNotFound, column),
        _ if !path.is_file() => refusal(ErrorCode::NoRegularFile, column),
        Ok(_) => None,
        Err(error) => refusal(error.code, error.column),
    }
}

/// Lines with their placeholders filled in, and the tracefs to try them on.
fn with_kernel(test: impl FnOnce(&Tracefs, &str, &dyn Fn(&str) -> String)) {
    // The kernel's log has room for eight entries, so one test at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    match tracefs::find() {
        Err(why) => println!("SKIPPED: {why}"),
        Ok(path) => {
            let tracefs = Tracefs(path);
            let group = format!("kp{}_{:?}", std::process::id(), std::thread::current().id());
            let group: String = group.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            test(&tracefs, &group, &|line| line.replace("{G}", &group).replace("{P}", "/proc/self/exe"));
        }
    }
}

#[test]
fn linux_and_we_agree_on_every_line_and_column() {
    with_kernel(|tracefs, group, fill| {
        let mut differing = Vec::new();
        for line in LINES {
            let line = fill(line);
            let (linux, we) = (tracefs.verdict(&line, group), ours(&line));
            let agree = match (&linux, &we) {
                (None, None) => true,
                (Some(linux), Some(we)) => {
                    (linux.code.is_none() || linux.code == we.code)
                        && (linux.column.is_none() || linux.column == we.column)
                }
                _ => false,
            };
            if !agree {
                differing.push(format!("{line}\n  Linux {linux:?}\n  we    {we:?}"));
            }
        }
        assert!(differing.is_empty(), "{}", differing.join("\n"));
    });
}

#[test]
fn linux_and_we_differ_only_where_it_is_meant() {
    with_kernel(|tracefs, group, fill| {
        for (line, linux, we) in DIFFERENCES {
            let line = fill(line);
            let verdicts = (tracefs.verdict(&line, group).is_none(), ours(&line).is_none());
            assert_eq!(verdicts, (*linux, *we), "{line}");
        }
    });
}

/// The control: were the log not found, every refusal would agree.
#[test]
fn refusals_are_found_in_the_log() {
    with_kernel(|tracefs, group, fill| {
        let linux = tracefs.verdict(&fill("p:{G}/e {P}:0x1000 a=%none_reg"), group).expect("a refusal");
        assert_eq!(linux.code, Some(ErrorCode::BadRegName));
        assert_ne!(linux.column, Some(0));
    });
}
