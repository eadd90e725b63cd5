//! Notifiers: who is asked about a breakpoint that is not ours, before the program gets its `SIGTRAP` (Linux:
//! `register_die_notifier`).
//!
//! They are handlers, and are called as those of probes are: in a thread that is in the set of active ones, on a stack
//! of their own, and a fault ends them. One that has faulted is asked no more, and the next is. One that claims the trap
//! has handled it: the thread goes on with the registers as it has left them. What others do to registers counts for
//! nothing.
//!
//! The table is read without a lock: the notifier that follows is the one with the least [`order`] above the last one's,
//! whatever is registered or taken out meanwhile. Whoever takes one out waits until all threads have left the set once.
//!
//! Nobody is asked about a breakpoint that a handler runs into, or one in a process that does not count.
//!
//! [`order`]: crate::abi::notifiers::order

use super::{Memory, TrapHost};
use crate::abi::notifiers::{Notifier, Notifiers};
use cpu::SignalFrame;
use hit::{Host, Next, Probe, live};
use isa::x86::Regs;
use kprobes::Hit;
use sync::ActiveSet;
use sync::primitive::Ordering;

/// The number of a breakpoint's exception (Intel SDM vol. 3A, table 6-1).
const BREAKPOINT: u64 = 3;

/// As the program has registered it: an `extern "C" fn(&mut Hit<'_>) -> Verdict`.
type Function = extern "C" fn(&mut Hit<'_, Regs>) -> u32;

/// Whether one of the notifiers claims the trap. The frame has its registers then.
pub(crate) fn claim(memory: Memory, frame: &mut SignalFrame) -> bool {
    let notifiers = &memory.home.notifiers;
    if notifiers.present.load(Ordering::Relaxed) == 0 || frame.trap() != BREAKPOINT {
        return false;
    }
    let regs = frame.registers();
    let host = TrapHost::new(memory, frame);
    let Some(place) = host.enter() else { return false };
    let claimed = all(notifiers).find_map(|notifier| ask(&host, &notifier.record, regs));
    ActiveSet::leave(place);
    if let Some(regs) = claimed {
        host.set_registers(&regs);
    }
    claimed.is_some()
}

/// Those that are registered, in their order. What follows one is looked up after it was visited.
fn all(notifiers: &Notifiers) -> impl Iterator<Item = &Notifier> {
    let mut last = 0;
    core::iter::from_fn(move || {
        let registered = notifiers.table.iter().filter(|n| live(&n.record.state));
        let ordered = registered.map(|n| (n.order.load(Ordering::Relaxed), n));
        let (order, next) = ordered.filter(|&(order, _)| order > last).min_by_key(|&(order, _)| order)?;
        last = order;
        Some(next)
    })
}

/// Asks one; the registers to go on with if it claims the trap.
fn ask(host: &TrapHost<'_>, record: &Probe, mut regs: Regs) -> Option<Regs> {
    record.handlers.before.store(tell as *const () as u64, Ordering::Relaxed);
    (host.handle(record, &mut regs) == Next::Redirected).then_some(regs)
}

/// The pre-handler of all records: tells the notifier what it is about. Its answer is 1 if it claims the trap, as a
/// pre-handler's is that has redirected execution.
extern "C" fn tell(hit: &mut Hit<'_, Regs>) -> u32 {
    let function = hit.user();
    let address = hit.regs().rip.wrapping_sub(1);
    let mut told = Hit::new(hit.regs_mut(), address, 0).with_trap(BREAKPOINT);
    // SAFETY: control has stored the address of such a function, from a `Handler`, and has made the record valid after
    // that; it is called as handlers are.
    let function: Function = unsafe { core::mem::transmute(function as *const ()) };
    function(&mut told)
}
