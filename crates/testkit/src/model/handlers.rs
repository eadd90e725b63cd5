//! Handlers on the machine: functions of the test's own process, which see the registers of the machine's program.
//!
//! The machine's memory is not theirs: a pointer of the program's means nothing to them. What they do with the program
//! they do through [`call_from_handler`] and [`jprobe_return`]; a fault of theirs is played by [`fault_in_handler`].

use super::interleave::pause;
use super::machine::PAGE_FAULT;
use super::{Machine, Trap};
use arch::x86::Space;
use arch::x86::handlers::{Around, Running};
use hit::returns::SideStack;
use hit::{Counters, Probe};
use isa::x86::{Op, Privilege, Regs, gpr};
use std::cell::Cell;
use sync::primitive::Ordering;

/// The trap that a thread of the test's process is in.
#[derive(Clone, Copy)]
struct Current {
    machine: *const Machine,
    thread: u64,
    signal: SideStack,
    sp: u64,
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

/// Does something in a trap that was taken with this stack pointer.
pub(super) fn within<T>(trap: &Trap<'_>, sp: u64, handle: impl FnOnce() -> T) -> T {
    /// Puts the outer trap back, also when a test panics.
    struct Outer(Option<Current>);
    impl Drop for Outer {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let Trap { machine, thread, signal } = *trap;
    let _outer = Outer(CURRENT.replace(Some(Current { machine, thread, signal, sp })));
    handle()
}

/// Gives the trap that this thread is in, and the stack pointer that it has interrupted.
fn in_trap<T>(f: impl FnOnce(&Trap<'_>, u64) -> T) -> Option<T> {
    let Current { machine, thread, signal, sp } = CURRENT.get()?;
    // SAFETY: `within` has put a reference there and takes it away when it ends, before the reference ends.
    let machine = unsafe { &*machine };
    Some(f(&Trap::new(machine, thread, signal), sp))
}

/// In a handler on the machine: calls a function of its program, with the rest of the interrupted thread's stack. Gives
/// `rax`; 0 outside of a handler.
///
/// # Panics
///
/// When the function does not return.
///
/// ```
/// # use hit::Next;
/// # use isa::x86::Regs;
/// # use kprobes::{HandlerData, Hit, ProbeKind, Registry, Request};
/// # use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// # use testkit::model::*;
/// static SEEN: AtomicU64 = AtomicU64::new(0);
/// /// A pre-handler that calls the function whose address is its probe's word.
/// extern "C" fn pre(hit: &mut Hit<'_, Regs>) -> Next {
///     SEEN.store(call_from_handler(hit.user(), 0, 0), Relaxed);
///     Next::Step
/// }
///
/// # fn main() -> Result<(), kprobes::Error> {
/// # let mut p = Program::new();
/// # p.function("seven", 0);
/// # p.mov_eax(7);
/// # p.ret();
/// # p.function("main", 0);
/// # p.nop();
/// # p.ret();
/// # let mut machine = Machine::new(p, 0);
/// # let top = machine.add_stack(0x7000_0000);
/// # let (main, seven) = (machine.address("main"), machine.address("seven"));
/// let handlers = HandlerData { before: pre as *const () as u64, user: seven, ..HandlerData::NONE };
/// let request = Request { handlers, ..Request::counting(main, ProbeKind::Handler, 1) };
/// let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
/// registry.register(&mut control, &[request]).map_err(|(_, error)| error)?;
/// machine.run(&mut machine.start(1, main, top), &mut (), 100);
/// assert_eq!(SEEN.load(Relaxed), 7);
/// assert_eq!(call_from_handler(seven, 0, 0), 0, "outside of a handler nothing is called");
/// # Ok(())
/// # }
/// ```
pub extern "C" fn call_from_handler(function: u64, first: u64, second: u64) -> u64 {
    in_trap(|trap, sp| trap.call(function, sp, [first, second])).unwrap_or(0)
}

/// In a jprobe's mirror on the machine: ends it. Comes back when no handler runs.
///
/// # Safety
///
/// As [`Running::leave`].
///
/// ```
/// # use hit::Next;
/// # use isa::x86::Regs;
/// # use kprobes::{HandlerData, Hit, ProbeKind, Registry, Request};
/// # use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// # use testkit::model::*;
/// static ARGUMENT: AtomicU64 = AtomicU64::new(0);
/// static BEHIND: AtomicU64 = AtomicU64::new(0);
/// /// Mirrors a function of one argument.
/// extern "C" fn mirror(argument: u64) {
///     ARGUMENT.store(argument, Relaxed);
///     // SAFETY: this is a mirror, and nothing on its stack is to be dropped.
///     unsafe { jprobe_return() }
///     BEHIND.store(1, Relaxed);
/// }
///
/// # fn main() -> Result<(), kprobes::Error> {
/// # if cfg!(not(feature = "jprobes")) { return Ok(()) }
/// # let mut p = Program::new();
/// # p.function("seven", 0);
/// # p.mov_eax(7);
/// # p.ret();
/// # p.function("main", 0);
/// # p.nop();
/// # p.ret();
/// # let mut machine = Machine::new(p, 0);
/// # let top = machine.add_stack(0x7000_0000);
/// # let (main, seven) = (machine.address("main"), machine.address("seven"));
/// # let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
/// let handlers = HandlerData { before: mirror as *const () as u64, mirror: true, ..HandlerData::NONE };
/// let request = Request { handlers, ..Request::counting(main, ProbeKind::Handler, 1) };
/// registry.register(&mut control, &[request]).map_err(|(_, error)| error)?;
/// let mut cpu = machine.start(1, main, top);
/// cpu.regs.gpr[isa::x86::gpr::RDI] = 5;
/// assert_eq!(machine.run(&mut cpu, &mut (), 100), Some(End::Exited));
/// assert_eq!((ARGUMENT.load(Relaxed), BEHIND.load(Relaxed)), (5, 0));
/// # Ok(())
/// # }
/// ```
pub unsafe extern "C" fn jprobe_return() {
    let running = in_trap(|trap, _| trap.running().map(core::ptr::from_ref)).flatten();
    // SAFETY: it is in the machine's table, which outlives the trap; the rest is the same promise.
    running.into_iter().for_each(|running| unsafe { (*running).leave() });
}

/// In a handler on the machine: does to it what a fault at `address` does, whose instruction is three bytes long. Comes
/// back when the fault is cured; otherwise the handler ends. Outside of a handler nothing happens.
///
/// ```
/// # use hit::Next;
/// # use isa::x86::Regs;
/// # use kprobes::{HandlerData, Hit, ProbeKind, Registry, Request};
/// # use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// # use testkit::model::*;
/// static BEHIND: AtomicU64 = AtomicU64::new(0);
/// extern "C" fn faulty(_: &mut Hit<'_, Regs>) -> Next {
///     fault_in_handler(16);
///     BEHIND.store(1, Relaxed);
///     Next::Step
/// }
///
/// # fn main() -> Result<(), kprobes::Error> {
/// # let mut p = Program::new();
/// # p.function("seven", 0);
/// # p.mov_eax(7);
/// # p.ret();
/// # p.function("main", 0);
/// # p.nop();
/// # p.ret();
/// # let mut machine = Machine::new(p, 0);
/// # let top = machine.add_stack(0x7000_0000);
/// # let (main, seven) = (machine.address("main"), machine.address("seven"));
/// # let (mut registry, mut control) = (Registry::new(0, 0), Control::new(&machine));
/// let handlers = HandlerData { before: faulty as *const () as u64, ..HandlerData::NONE };
/// let request = Request { handlers, ..Request::counting(main, ProbeKind::Handler, 1) };
/// registry.register(&mut control, &[request]).map_err(|(_, error)| error)?;
/// // The handler has ended, and the program goes on.
/// assert_eq!(machine.run(&mut machine.start(1, main, top), &mut (), 100), Some(End::Exited));
/// assert_eq!(BEHIND.load(Relaxed), 0);
/// assert_eq!(machine.tables.counters[1].faults.load(Relaxed), 1);
/// # Ok(())
/// # }
/// ```
pub extern "C" fn fault_in_handler(_address: u64) {
    let mut regs = Regs::default();
    let contained = in_trap(|trap, _| trap.running().is_some_and(|r| r.contain(trap, &mut regs, PAGE_FAULT)));
    if contained == Some(true) && regs.rsp() != 0 {
        let (rdx, rsp, rip) = (regs.gpr[gpr::RDX], regs.rsp(), regs.rip);
        // SAFETY: the registers are those of the end of the handler's call, which is under way further up this stack, and
        // nothing in between has anything to drop.
        unsafe {
            core::arch::asm!("mov rsp, {}", "xor eax, eax", "jmp {}", in(reg) rsp, in(reg) rip, in("rdx") rdx,
                options(noreturn));
        }
    }
}

/// The machine's program: an ordinary one, whose memory is the machine's.
#[derive(Clone, Copy, Debug)]
pub struct Program64;

impl Space for Program64 {
    const PRIVILEGE: Privilege = Privilege::User;
    const MEMORY: bool = false;

    fn execute(op: &Op, regs: &mut Regs) -> bool {
        in_trap(|trap, _| op.execute(regs, &mut &trap.machine.memory).is_ok()).unwrap_or(false)
    }
}

// SAFETY: each thread of the machine has a `Running` of its own, and is stepped by one thread of the process at a time;
// no handler faults here but by `fault_in_handler`, for a test that does so otherwise ends. The records of probes are written by control from what
// `kprobes::Handler` has promised.
unsafe impl Around for Trap<'_> {
    fn running(&self) -> Option<&Running> {
        let runnings = &self.machine.tables.runnings;
        runnings.get(usize::try_from(self.thread).ok()? % runnings.len())
    }

    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        pause();
        self.machine.memory.read(address, out)
    }

    fn broken(&self, probe: &Probe) {
        if let Some(counters) = self.machine.tables.counters.get(probe.id.load(Ordering::Relaxed) as usize) {
            Counters::add(&counters.faults);
        }
        probe.state.store(0, Ordering::Release);
    }
}
