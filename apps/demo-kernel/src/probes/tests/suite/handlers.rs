//! The suite's cases of probes with handlers, in this kernel.

use super::{Job, Kernel, work};
use crate::arch::trap::{self, Frame};
use crate::lock::Mutex;
use crate::probes::{Demo, with_control};
use crate::{ksyms, sched};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use cpu::Recovery;
use host_bare::{Counts, Registered, Spec};
use testkit::suite::{Handlers, Refusal, Skill, Tools, call_directly, fault_directly};

/// What was registered and not unregistered: the numbers of which `Registered` are made.
static REGISTERED: Mutex<Vec<(u32, u64)>> = Mutex::new(Vec::new());
/// What `suite_wait` is given in the end.
const ANSWER: u64 = 42;
/// The call that ends in a fault, and where that was seen.
static CALL: Recovery = Recovery::new();
static SEEN: AtomicU64 = AtomicU64::new(0);

/// A fault that nobody cures, for whoever would be told of it.
fn end(frame: &mut Frame) -> bool {
    SEEN.store(frame.regs.rip, Ordering::Relaxed);
    CALL.recover(&mut frame.regs)
}

/// An address that is not canonical: nobody maps it.
const NOWHERE: u64 = 0x8000_0000_0000_0000;
/// The exception that an access to it raises.
const GENERAL_PROTECTION: u64 = 13;

unsafe extern "C" fn jprobe_return() {
    // SAFETY: the suite calls it in a mirror.
    unsafe { host_bare::jprobe_return::<Demo>() }
}

impl Handlers for Kernel {
    fn register(&mut self, probes: Vec<Spec<'_>>) -> Result<Vec<Registered>, Refusal> {
        let registered =
            with_control(|control| control.register_all(probes)).map_err(|why| Refusal { line: 0, why })?;
        let registered = registered.map_err(|(line, why)| Refusal { line, why: why.to_string() })?;
        REGISTERED.lock().extend(registered.iter().map(|probe| (probe.id(), probe.serial())));
        Ok(registered)
    }

    fn unregister(&mut self, probes: Vec<Registered>) -> Result<(), String> {
        let keys: Vec<_> = probes.iter().map(|probe| (probe.id(), probe.serial())).collect();
        with_control(|control| control.unregister_all(probes))?.map_err(|(_, why)| why.to_string())?;
        REGISTERED.lock().retain(|key| !keys.contains(key));
        Ok(())
    }

    fn enable(&mut self, probe: &Registered, on: bool) -> Result<(), String> {
        with_control(|control| control.enable(probe, on))?.map_err(|why| why.to_string())
    }

    fn counts_of(&mut self, probe: &Registered) -> Option<kprobes::raw::Counts> {
        let counts = with_control(|control| control.counts_of(probe)).ok()??;
        let Counts { hits, missed, lost: _, returned, unwound, faults, declined } = counts;
        Some(kprobes::raw::Counts { hits, missed, returns: returned, unwound, declined, faults })
    }

    fn registered(&self) -> usize {
        REGISTERED.lock().len()
    }

    fn unregister_all(&mut self) {
        let all: Vec<_> = REGISTERED.lock().drain(..).map(|(id, serial)| Registered::new(id, serial)).collect();
        for probe in all {
            // One that cannot be taken off shows in the cases that follow.
            let _ = with_control(|control| control.unregister(probe));
        }
    }

    fn tools(&self) -> Tools {
        Tools { jprobe_return, call: call_directly, fault: fault_directly }
    }

    fn call_waiting(
        &mut self,
        meanwhile: &mut dyn FnMut(&mut dyn Handlers) -> Result<(), String>,
    ) -> Result<u64, String> {
        let words = [AtomicU64::new(0), AtomicU64::new(0)];
        let [wanted, waiting] = &words;
        let arguments = [wanted.as_ptr() as u64, waiting.as_ptr() as u64];
        let job = Job { function: "suite_wait", arguments, result: AtomicU64::new(0) };
        let thread = sched::spawn("suite", work, core::ptr::from_ref(&job) as usize);
        while waiting.load(Ordering::Acquire) == 0 {
            sched::yield_now();
        }
        let done = meanwhile(self);
        wanted.store(ANSWER, Ordering::Release);
        sched::join(thread);
        done.map(|()| job.result.load(Ordering::Acquire))
    }

    fn has(&self, skill: Skill) -> bool {
        match skill {
            // Kernel code has none.
            Skill::Vectors => false,
            Skill::Faults => true,
        }
    }

    fn call_faulting(&mut self, function: &str, arguments: [u64; 2]) -> Option<u64> {
        let address = ksyms::lookup(function).map_or(0, |symbol| symbol.address);
        let [first, second] = arguments.map(|word| word as *mut u8);
        trap::set_fault_hook(end);
        // SAFETY: a function of the suite's program, which takes two numbers and may end anywhere: it holds nothing.
        let said = unsafe { CALL.call(address, first, second) };
        trap::clear_fault_hook();
        said.is_none().then(|| SEEN.load(Ordering::Relaxed))
    }

    fn bad_address(&self) -> u64 {
        NOWHERE
    }

    fn bad_trap(&self) -> u64 {
        GENERAL_PROTECTION
    }

    fn own_code(&self) -> u64 {
        ksyms::lookup("trap_stub_breakpoint").map_or(0, |symbol| symbol.address)
    }
}
