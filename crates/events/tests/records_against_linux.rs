//! The same probe planted by the running kernel on a function of this test, and run by our interpreter on the same
//! registers and memory: the lines of ftrace's `trace` file must be ours to the byte.

use std::{fs, hint::black_box, io::Write, path::PathBuf, thread, time::Duration};

use events::{Line, Location, Site, parse, value::decode, write_text};
use machine::{Machine, program};

mod machine;
mod tracefs;

/// A byte and a string behind it.
const TEXT: &[u8] = "!plain and ünïcode\0".as_bytes();
const WORD: u64 = 0xfedc_ba98_8765_43f5;

/// What is recorded at entry; `%di` is a number, `%si` points to text, `%dx` to an array.
const ARGUMENTS: &[&str] = &[
    "%di:u8 %di:u16 %di:u32 %di:u64 %di:s8 %di:s16 %di:s32 %di:s64 %di:x8 %di:x16 %di:x32 %di:x64 %di",
    "%di:b1@0/8 %di:b3@2/8 %di:b4@4/8 %di:b7@9/16 %di:b20@12/32 %di:b64@0/64 %di:b63@1/64",
    "+0(%si):string text=+0(%si):ustring +6(%si):string +0(%si):char +0(%si):char[5] -1(%si):u8 +17(%si):string",
    "+0(%dx):u64[2] +0(%dx):x16[4] +0(%dx):s8[3] +0(%dx):b4@2/8[4] +0(%dx):u32 +u8(%dx):s64 +-8(+16(%dx)):x64",
    // No immediate string: Linux (6.18) seeks its own copy of it in user memory, and prints `(fault)`.
    "\\5 \\-1:s8 \\0x7f:u8 $comm thread=$COMM %ip",
    "@1:string +0(%di):string +0(+0(%di)):string",
];

#[inline(never)]
extern "C" fn probed(number: u64, text: u64, words: u64) -> u64 {
    black_box((number, text, words)).0
}

/// An event and a trace buffer of its own, both gone when it is dropped.
struct Traced {
    tracefs: PathBuf,
    group: String,
    instance: PathBuf,
}

impl Traced {
    fn new() -> Result<Self, String> {
        let tracefs = tracefs::find()?;
        let group = format!("kprec{}", std::process::id());
        let instance = tracefs.join("instances").join(&group);
        fs::create_dir(&instance).map_err(|error| format!("no trace instance can be made: {error}"))?;
        let traced = Self { tracefs, group, instance };
        fs::write(traced.instance.join("options/irq-info"), "0").map_err(|error| format!("no irq-info: {error}"))?;
        Ok(traced)
    }

    fn define(&self, line: &str) -> std::io::Result<()> {
        let mut events = fs::OpenOptions::new().append(true).open(self.tracefs.join("uprobe_events"))?;
        events.write_all(format!("{line}\n").as_bytes())
    }

    fn enable(&self, is_on: bool) -> std::io::Result<()> {
        fs::write(self.instance.join("events").join(&self.group).join("enable"), if is_on { "1" } else { "0" })
    }

    /// What the kernel prints for one hit of a probe defined by `line`.
    fn hit(&self, line: &str, call: impl FnOnce()) -> std::io::Result<String> {
        self.define(line)?;
        self.enable(true)?;
        call();
        thread::sleep(Duration::from_millis(2));
        self.enable(false)?;
        let trace = fs::read_to_string(self.instance.join("trace"))?;
        fs::write(self.instance.join("trace"), "")?;
        self.define(&format!("-:{}/", self.group))?;
        let mut lines = trace.lines().filter(|line| !line.starts_with('#'));
        let printed = lines.next().unwrap_or_default().into();
        assert_eq!(lines.next(), None, "one hit makes one line");
        Ok(printed)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // Best effort: the event may not be there.
        let _ = self.enable(false);
        let _ = self.define(&format!("-:{}/", self.group));
        let _ = fs::remove_dir(&self.instance);
    }
}

/// The file and the offset in it that an address of this process is mapped from.
fn mapped_from(addr: u64) -> (String, u64) {
    let maps = fs::read_to_string("/proc/self/maps").expect("the process's own map");
    let number = |text| u64::from_str_radix(text, 16).expect("a hexadecimal number");
    let found = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let offset = rest.split(' ').nth(1)?;
        let path = rest.get(rest.find('/')?..)?;
        let is_in = (number(start)..number(end)).contains(&addr);
        is_in.then(|| (path.to_owned(), addr - number(start) + number(offset)))
    });
    found.expect("the address is mapped from a file")
}

/// What we print for the hit that the kernel's line is about: cpu and time are taken from that.
fn ours(line: &str, location: Location<'_>, machine: &Machine, kernels: &str) -> String {
    let program = program(line);
    let mut out = vec![0; 4096];
    let len = events::run(&program.code, machine, &mut out);
    let names = program.schema.fields.iter().map(|field| field.name.as_str());
    let values: Vec<_> = names.zip(decode(&program.schema, &out[..len])).collect();
    let (cpu, rest) = kernels.split_once('[').and_then(|(_, rest)| rest.split_once(']')).expect("a cpu");
    let (seconds, micros) = rest.split_once(": ").and_then(|(time, _)| time.trim().split_once('.')).expect("a time");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let definition = parse(line).expect("a definition");
    let name = comm();
    let record = Line {
        // The kernel notes names when it switches threads, so it may not know this one yet.
        comm: if kernels.trim_start().starts_with("<...>") { "<...>" } else { &name },
        tid: tid(),
        pid: std::process::id(),
        cpu: cpu.parse().expect("a number"),
        time_ns: number(seconds) * 1_000_000_000 + number(micros) * 1000,
        event: &definition.event_name(),
        group: &definition.group_name(),
        location,
        values: &values,
    };
    write_text(&record, &|_| None)
}

fn comm() -> String {
    fs::read_to_string("/proc/thread-self/comm").expect("the thread's name").trim_end().into()
}

fn tid() -> u32 {
    let link = fs::read_link("/proc/thread-self").expect("the thread");
    link.file_name().and_then(|tid| tid.to_str()?.parse().ok()).expect("a number")
}

/// A machine in the state of this thread when it calls [`probed`] with these words.
fn machine(words: &[u64]) -> Machine {
    let mut machine = Machine { thread_name: Some(comm()), return_value: WORD, ..Machine::default() };
    (machine.registers[7], machine.registers[6], machine.registers[2]) = (WORD, text_addr(), words.as_ptr() as u64);
    machine.registers[16] = probed as *const () as u64;
    machine.map(text_addr() - 1, TEXT);
    machine.map(words.as_ptr() as u64, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
    machine
}

fn text_addr() -> u64 {
    TEXT.as_ptr() as u64 + 1
}

/// The address that a return's line begins with: `(0xCALLER <- …`.
fn caller(line: &str) -> u64 {
    let (_, rest) = line.split_once("(0x").expect("an address");
    let (digits, _) = rest.split_once(' ').expect("an arrow");
    u64::from_str_radix(digits, 16).expect("a hexadecimal number")
}

#[test]
fn the_kernel_prints_the_same_lines_for_the_same_probe() {
    let traced = match Traced::new() {
        Ok(traced) => traced,
        Err(why) => return println!("SKIPPED: {why}"),
    };
    let addr = probed as *const () as u64;
    let (path, offset) = mapped_from(addr);
    if path.contains(char::is_whitespace) {
        return println!("SKIPPED: uprobe_events cannot name {path}");
    }
    let mut words: Vec<u64> = vec![WORD, 0x1234_5678_9abc_def0, 0, 3];
    // There is something to follow.
    words[2] = words.as_ptr() as u64 + 8;
    let machine = machine(&words);
    let call = || assert_eq!(black_box(probed)(WORD, text_addr(), words.as_ptr() as u64), WORD);
    let function = Site { addr, symbol: None, offset: 0, size: None };
    for arguments in ARGUMENTS {
        let line = format!("p:{}/hit {path}:{offset:#x} {arguments}", traced.group);
        let kernels = traced.hit(&line, call).expect("an event");
        assert_eq!(ours(&line, Location::Entry(function), &machine, &kernels), kernels, "{line}");
    }
    let line = format!("r:{}/hit {path}:{offset:#x} $retval $retval:s32 $retval:u8", traced.group);
    let kernels = traced.hit(&line, call).expect("an event");
    let location = Location::Return { caller: Site { addr: caller(&kernels), ..function }, function };
    assert_eq!(ours(&line, location, &machine, &kernels), kernels, "{line}");
}
