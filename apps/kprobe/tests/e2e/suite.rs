//! The behaviour suite in an ordinary process.
//!
//! The program is linked from the suite's assembly and `programs/suite.c`, which calls its functions as it is told. It
//! runs through all cases; probes come and go as a trace does: the events of a trace are fixed, so defining or removing
//! one ends the trace and begins another with what is defined then. So every change is a complete detach and attach of
//! a living process.
//!
//! This is the one test here that uses the tool's libraries: a thousand traces through the command line would take
//! minutes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use events::{Definition, Field, Kind, Schema, Value, decode, parse};
use host_process::control::{Image, Notice, Options, Tally, Trace};
use testkit::suite::{Ability, Broken, CASES, Counts, Fault, Record, Refusal, Verdict, World, run, run_case};

use crate::harness::memory::changed_text;
use crate::harness::programs::sources;
use crate::harness::{need, skipped};

/// What is put into the process.
const AGENT: &[u8] = agent_image::IMAGE;
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an answer is waited for before the trace is looked after.
const GLANCE: Duration = Duration::from_millis(2);

/// The program that runs the suite's functions; `None`, reported as skipped, without its compiler.
fn program(name: &str, compiler: &str, options: &[&str]) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("suite");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let (source, path) = (folder.join(name).with_extension("s"), folder.join(name));
    std::fs::write(&source, assembly()).expect("the target folder can be written");
    let mut compile = Command::new(compiler);
    compile.args(["-O2", "-pthread"]).args(options).arg("-o").arg(&path).arg(sources().join("suite.c")).arg(&source);
    match compile.output() {
        Err(error) => {
            skipped(&format!("{compiler}: {error}"));
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(path)
        }
    }
}

/// The suite's functions, and a table of them.
fn assembly() -> String {
    let mut text = format!("    .text\n{}", testkit::suite::assembly());
    text += "    .section .data.rel.ro, \"aw\"\n    .balign 8\n    .globl suite_table\nsuite_table:\n";
    let functions = testkit::suite::program().functions;
    for (i, function) in functions.iter().enumerate() {
        text += &format!("    .quad .Lname{i}, {}\n", function.name);
    }
    text += "    .quad 0, 0\n    .section .rodata\n";
    for (i, function) in functions.iter().enumerate() {
        text += &format!(".Lname{i}: .asciz \"{}\"\n", function.name);
    }
    text + "    .section .note.GNU-stack, \"\", @progbits\n"
}

/// The program's process, with a trace while events are defined.
struct Process {
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
    memory: File,
    addresses: BTreeMap<String, u64>,
    defined: Vec<Event>,
    trace: Option<Trace>,
    /// The trace's counts, until something happens.
    tallies: Option<Vec<Tally>>,
    records: Vec<Record>,
}

/// A defined event.
#[derive(Clone)]
struct Event {
    name: String,
    definition: Definition,
    schema: Schema,
    /// What was counted in the traces before this one.
    before: Counts,
}

impl Process {
    fn start(program: &Path) -> Self {
        let mut command = Command::new(program);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the program can be started");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens any more when the test has failed.
                let _ = sender.send(line);
            }
        });
        let memory = File::open(format!("/proc/{}/mem", child.id())).expect("a child's memory can be opened");
        let mut process = Self {
            child,
            input,
            answers,
            memory,
            addresses: BTreeMap::new(),
            defined: Vec::new(),
            trace: None,
            tallies: None,
            records: Vec::new(),
        };
        for function in testkit::suite::program().functions {
            let address = process.ask(&format!("where {}", function.name));
            process.addresses.insert(function.name.to_owned(), address[0]);
        }
        process
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command and waits for the numbers that answer it.
    fn ask(&mut self, command: &str) -> Vec<u64> {
        self.tallies = None;
        writeln!(self.input, "{command}").expect("the process reads");
        let start = Instant::now();
        loop {
            match self.answers.recv_timeout(GLANCE) {
                Ok(line) => {
                    return line.split(' ').map(|word| word.parse().expect("an answer is numbers")).collect();
                }
                Err(RecvTimeoutError::Timeout) if start.elapsed() < PATIENCE => {
                    if let Some(trace) = &mut self.trace {
                        trace.service().expect("the process can be worked with");
                    }
                }
                Err(error) => panic!("`{command}` is not answered ({error}): {:?}", self.child.try_wait()),
            }
        }
    }

    /// Begins a trace of what is defined; otherwise which event is refused, and why.
    fn enter(&mut self) -> Result<(), (usize, String)> {
        if self.defined.is_empty() {
            return Ok(());
        }
        let definitions = self.defined.iter().map(|e| e.definition.clone()).collect();
        let image = Image::parse(AGENT).expect("the agent is one");
        let mut trace = Trace::new(image, definitions, Options::default());
        trace.attach(self.pid().cast_signed()).expect("a child can be traced");
        let refused = trace.take_notices().into_iter().filter_map(|notice| match notice {
            Notice::Failed { event, why, .. } => Some((event, why)),
            Notice::Refused { .. } | Notice::Spread { .. } | Notice::Note(_) => None,
        });
        if let Some(refusal) = refused.min() {
            trace.detach().expect("the process can be left");
            return Err(refusal);
        }
        self.trace = Some(trace);
        Ok(())
    }

    /// Ends the trace, and keeps what came of it.
    fn leave(&mut self) {
        let Some(mut trace) = self.trace.take() else { return };
        trace.detach().expect("the process can be left");
        self.collect(&mut trace);
        for (event, tally) in self.defined.iter_mut().zip(trace.tallies()) {
            event.before = event.counts(Some(&tally));
        }
        self.tallies = None;
    }

    fn collect(&mut self, trace: &mut Trace) {
        let mut records = trace.take_records();
        records.sort_by_key(|record| record.time);
        self.records.extend(records.into_iter().filter_map(|record| {
            let event = self.defined.get(record.event)?;
            let values = decode(&event.schema, &record.payload).iter().map(Value::number).collect();
            Some(Record { event: event.name.clone(), address: record.address, values })
        }));
    }

    fn plan(&self, line: &str, before: &[Event]) -> Result<Event, String> {
        let definition = parse(line).map_err(|error| error.to_string())?;
        if definition.kind == Kind::Remove {
            return Err("the line removes and does not define".into());
        }
        let name = definition.event_name();
        if self.defined.iter().chain(before).any(|event| event.name == name) {
            return Err(format!("there is an event {name}"));
        }
        let fields = definition.args.iter().map(|arg| Field { name: arg.name.clone(), ty: arg.ty }).collect();
        Ok(Event { name, definition, schema: Schema { fields }, before: Counts::default() })
    }
}

impl Event {
    /// What was counted in all traces, the last of which counted this.
    fn counts(&self, now: Option<&Tally>) -> Counts {
        let Some(now) = now else { return self.before };
        Counts {
            hits: self.before.hits + now.hits,
            missed: self.before.missed + now.missed,
            lost: self.before.lost + now.lost,
            returned: self.before.returned + now.returns,
            unwound: self.before.unwound + now.unwound,
            ..self.before
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is our own child, and ends whatever state it is in.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World for Process {
    fn address(&self, function: &str) -> u64 {
        self.addresses.get(function).copied().unwrap_or_default()
    }

    fn text(&mut self, address: u64, out: &mut [u8]) {
        self.memory.read_exact_at(out, address).expect("a child's memory can be read");
    }

    fn call(&mut self, function: &str, arguments: [u64; 2]) -> u64 {
        self.call_together(&[(function, arguments)])[0]
    }

    fn define(&mut self, lines: &[&str]) -> Result<(), Refusal> {
        let mut planned = Vec::new();
        for (line, text) in lines.iter().enumerate() {
            planned.push(self.plan(text, &planned).map_err(|why| Refusal { line, why })?);
        }
        self.leave();
        let before = self.defined.len();
        self.defined.extend(planned);
        self.enter().map_err(|(event, why)| {
            self.defined.truncate(before);
            self.enter().expect("what was placed before can be placed again");
            Refusal { line: event.checked_sub(before).expect("a new event is refused"), why }
        })
    }

    fn remove(&mut self, events: &[&str]) -> Result<(), String> {
        let unknown = events.iter().find(|&&name| self.defined.iter().all(|event| event.name != name));
        if let Some(name) = unknown {
            return Err(format!("no event {name}"));
        }
        self.leave();
        self.defined.retain(|event| !events.contains(&event.name.as_str()));
        self.enter().map_err(|(_, why)| why)
    }

    fn events(&self) -> Vec<String> {
        self.defined.iter().map(|event| event.name.clone()).collect()
    }

    fn counts(&mut self, event: &str) -> Option<Counts> {
        let at = self.defined.iter().position(|e| e.name == event)?;
        let trace = self.trace.as_ref();
        let tallies = self.tallies.get_or_insert_with(|| trace.map(Trace::tallies).unwrap_or_default());
        Some(self.defined[at].counts(tallies.get(at)))
    }

    fn records(&mut self) -> Vec<Record> {
        if let Some(mut trace) = self.trace.take() {
            trace.service().expect("the process can be worked with");
            self.collect(&mut trace);
            self.trace = Some(trace);
        }
        std::mem::take(&mut self.records)
    }

    /// A definition takes some ten milliseconds here; `attach` does a hundred rounds.
    fn repetitions(&self, wanted: usize) -> usize {
        wanted.min(10)
    }

    fn can(&self, ability: Ability) -> bool {
        match ability {
            Ability::Threads => true,
        }
    }

    fn call_together(&mut self, calls: &[(&str, [u64; 2])]) -> Vec<u64> {
        let words = calls.iter().map(|(function, [a, b])| format!(" {function} {a} {b}"));
        self.ask(&format!("call{}", words.collect::<String>()))
    }
}

/// All cases in one process, whose whole text must be its files' in the end.
fn behaves(program: &Path) {
    let mut process = Process::start(program);
    let mut failed = Vec::new();
    let totals = run(&mut process, &mut |case, verdict| {
        if *verdict != Verdict::Passed {
            failed.push((case.name, verdict.clone()));
        }
    });
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(totals.passed, CASES.len());
    assert_eq!(changed_text(process.pid()), []);
}

static STATIC: LazyLock<Option<PathBuf>> = LazyLock::new(|| program("suite.static", "gcc", &["-static", "-no-pie"]));

#[test]
fn a_static_process_behaves() {
    behaves(&need!(STATIC.clone()));
}

#[test]
fn a_dynamic_process_behaves() {
    behaves(&need!(program("suite.musl", "musl-gcc", &["-fPIE", "-pie"])));
}

#[test]
#[ignore = "takes a minute: each of its traces reads all of glibc's symbols"]
fn a_dynamic_process_with_glibc_behaves() {
    behaves(&need!(program("suite.glibc", "gcc", &["-fPIE", "-pie"])));
}

#[test]
fn faults_are_found_in_a_process() {
    let program = need!(STATIC.clone());
    for fault in [Fault::DropsHits, Fault::WrongValues, Fault::WrongResults, Fault::LeavesText] {
        let mut process = Process::start(&program);
        let mut broken = Broken::new(&mut process, fault);
        let found = CASES.iter().any(|case| matches!(run_case(case, &mut broken), Verdict::Failed(_)));
        assert!(found, "{fault:?} is not found");
    }
}
