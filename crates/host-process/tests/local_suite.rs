//! The behaviour suite's cases of handlers, in a process that probes itself.
//!
//! The suite's program is assembled into a library, and loaded. Cases run one after the other: handlers have no place for
//! what they note but statics.

use cpu::{Recovery, SignalFrame};
use host_process::local::{Error, Process, Registered, Regs, Spec, jprobe_return};
use kprobes::raw::Counts;
use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use testkit::suite::{
    HANDLER_CASES, Handlers, Record, Refusal, Skill, Spoil, Spoiled, Tools, World, assembly, call_directly,
    fault_directly, program, run_handler_case, run_handlers,
};

/// What `suite_wait` is given in the end.
const ANSWER: u64 = 42;
const PAGE_FAULT: u64 = 14;

/// The suite's program as a library; `None` without a compiler.
fn library() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, library) = (folder.join("local_suite.s"), folder.join("liblocalsuite.so"));
    let text = format!("    .text\n{}    .section .note.GNU-stack, \"\", @progbits\n", assembly());
    std::fs::write(&source, text).expect("the target folder can be written");
    let output = Command::new("gcc").args(["-shared", "-o"]).arg(&library).arg(&source).output();
    let Ok(output) = output else {
        println!("SKIPPED: the suite in a process that probes itself (no gcc)");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

/// This process.
struct Own {
    process: &'static Process,
    addresses: BTreeMap<&'static str, u64>,
    registered: Vec<(u32, u64)>,
}

impl Own {
    fn new(library: &Path) -> Self {
        let path = CString::new(library.to_str().expect("a path of text")).expect("no NUL");
        // SAFETY: a library without constructors.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "the library is loaded");
        let address = |name: &str| {
            let name = CString::new(name).expect("no NUL");
            // SAFETY: an open handle and a string.
            unsafe { libc::dlsym(handle, name.as_ptr()) as u64 }
        };
        let addresses = program().functions.iter().map(|f| (f.name, address(f.name))).collect();
        Self { process: Process::start().expect("kprobes starts"), addresses, registered: Vec::new() }
    }
}

/// Where no probe may go.
#[unsafe(link_section = ".kprobes.text")]
#[inline(never)]
extern "C" fn no_probe() {
    std::hint::black_box(0);
}

unsafe extern "C" fn leave() {
    // SAFETY: the suite calls it in a mirror.
    unsafe { jprobe_return() }
}

impl World for Own {
    fn address(&self, function: &str) -> u64 {
        self.addresses.get(function).copied().unwrap_or(0)
    }

    fn text(&mut self, address: u64, out: &mut [u8]) {
        // SAFETY: cases name the text of the suite's program.
        let text = unsafe { std::slice::from_raw_parts(address as *const u8, out.len()) };
        out.copy_from_slice(text);
    }

    fn call(&mut self, function: &str, [a, b]: [u64; 2]) -> u64 {
        // SAFETY: cases name functions of the suite's program, which take two numbers and give one.
        unsafe { call_directly(self.address(function), a, b) }
    }

    fn define(&mut self, lines: &[&str]) -> Result<(), Refusal> {
        self.process.define_all(lines).map_err(|why| Refusal { line: 0, why: why.to_string() })
    }

    fn remove(&mut self, events: &[&str]) -> Result<(), String> {
        events.iter().try_for_each(|event| self.process.remove(event)).map_err(|why| why.to_string())
    }

    fn events(&self) -> Vec<String> {
        Vec::new()
    }

    fn counts(&mut self, _: &str) -> Option<testkit::suite::Counts> {
        None
    }

    fn records(&mut self) -> Vec<Record> {
        Vec::new()
    }
}

impl Handlers for Own {
    fn register(&mut self, probes: Vec<Spec<'_>>) -> Result<Vec<Registered>, Refusal> {
        let registered = self.process.register_all(probes);
        let registered = registered.map_err(|(line, why)| Refusal { line, why: why.to_string() })?;
        self.registered.extend(registered.iter().map(|probe| (probe.id(), probe.serial())));
        Ok(registered)
    }

    fn unregister(&mut self, probes: Vec<Registered>) -> Result<(), String> {
        let keys: Vec<_> = probes.iter().map(|probe| (probe.id(), probe.serial())).collect();
        self.process.unregister_all(probes).map_err(|(_, why)| why.to_string())?;
        self.registered.retain(|key| !keys.contains(key));
        Ok(())
    }

    fn enable(&mut self, probe: &Registered, on: bool) -> Result<(), String> {
        self.process.enable(probe, on).map_err(|why| why.to_string())
    }

    fn counts_of(&mut self, probe: &Registered) -> Option<Counts> {
        let counts = match self.process.counts_of(probe) {
            Ok(counts) => counts,
            Err(Error::Gone) => return None,
            Err(error) => panic!("{error}"),
        };
        let host_process::local::Counts { hits, missed, returned, unwound, faults, declined, .. } = counts;
        Some(Counts { hits, missed, returns: returned, unwound, declined, faults })
    }

    fn registered(&self) -> usize {
        self.registered.len()
    }

    fn unregister_all(&mut self) {
        for (id, serial) in std::mem::take(&mut self.registered) {
            // One that cannot be taken off shows in the cases that follow.
            let _ = self.process.unregister(Registered::new(id, serial));
        }
    }

    fn tools(&self) -> Tools {
        Tools { jprobe_return: leave, call: call_directly, fault: fault_directly }
    }

    fn call_waiting(
        &mut self,
        meanwhile: &mut dyn FnMut(&mut dyn Handlers) -> Result<(), String>,
    ) -> Result<u64, String> {
        let function = self.address("suite_wait");
        let words = [AtomicU64::new(0), AtomicU64::new(0)];
        let [wanted, waiting] = words.each_ref().map(|word| word.as_ptr() as u64);
        thread::scope(|scope| {
            // SAFETY: it takes the addresses of two words, which live until it has returned.
            let called = scope.spawn(move || unsafe { call_directly(function, wanted, waiting) });
            while words[1].load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            let done = meanwhile(self);
            words[0].store(ANSWER, Ordering::Release);
            let result = called.join().expect("the function returns");
            done.map(|()| result)
        })
    }

    fn has(&self, skill: Skill) -> bool {
        match skill {
            Skill::Vectors | Skill::Faults => true,
        }
    }

    fn call_faulting(&mut self, function: &str, arguments: [u64; 2]) -> Option<u64> {
        let [first, second] = arguments.map(|word| word as *mut u8);
        // SAFETY: a function of the suite's program, which takes two numbers and holds nothing.
        let said = unsafe { CALL.call(self.address(function), first, second) };
        said.is_none().then(|| SEEN.load(Ordering::Relaxed))
    }

    fn bad_trap(&self) -> u64 {
        PAGE_FAULT
    }

    fn own_code(&self) -> u64 {
        no_probe as *const () as u64
    }
}

/// The call that ends in a fault, and where the program's own handler has seen that.
static CALL: Recovery = Recovery::new();
static SEEN: AtomicU64 = AtomicU64::new(0);

extern "C" fn segv(_: c_int, _: *mut c_void, context: *mut c_void) {
    // SAFETY: the kernel's frame for this handler; this is the only view of it.
    let mut frame = unsafe { SignalFrame::new(context.cast()) };
    let mut regs: Regs = frame.registers();
    SEEN.store(regs.rip, Ordering::Relaxed);
    assert!(CALL.recover(&mut regs), "a fault that no case wants");
    frame.set_registers(&regs);
}

fn handle_faults() {
    // SAFETY: zeroes are an action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = segv as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: a whole action, for a handler of that kind.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) }, 0);
}

#[test]
fn the_suite_holds_in_a_process_that_probes_itself() {
    let Some(library) = library() else { return };
    let mut own = Own::new(&library);
    handle_faults();
    let mut failed = Vec::new();
    let totals = run_handlers(&mut own, &mut |case, result| {
        if let Err(why) = result {
            failed.push(format!("{}: {why}", case.name));
        }
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!((totals.passed, totals.skipped), (HANDLER_CASES.len(), 0));
    // The control: that the cases look at this process at all.
    for spoil in [Spoil::StaleRegisters, Spoil::SharesData, Spoil::DeclinedIsMissed, Spoil::DropsMirrors] {
        let mut spoiled = Spoiled::new(&mut own, spoil);
        let found = HANDLER_CASES
            .iter()
            .filter(|case| case.needs.is_none())
            .any(|case| run_handler_case(case, &mut spoiled).is_err());
        assert!(found, "{spoil:?} is not found");
        own.unregister_all();
    }
}
