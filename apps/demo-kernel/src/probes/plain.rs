//! Handlers that are plain functions of the registers: what tests and benches write.

use super::Demo;
use host_bare::{Control, Error, Hit, Kprobe, Next, Regs};

/// Such a handler. It keeps the rules of trap context ([`host_bare::Handler::new`]).
pub(in crate::probes) type Plain = fn(&mut Regs) -> Next;

/// Puts a kprobe with a plain handler at `address`.
pub(in crate::probes) fn attach(
    control: &mut Control<Demo>,
    name: &str,
    address: u64,
    handler: Plain,
) -> Result<(), Error> {
    // SAFETY: it does what the handler does, which keeps the rules.
    let relay = unsafe { host_bare::Handler::new(relay as _) };
    control.attach(name, Kprobe::address(address).pre(relay).user(handler as usize as u64))
}

extern "C" fn relay(hit: &mut Hit<'_>) -> Next {
    let pointer = hit.user() as *const ();
    // SAFETY: `attach` has made the word from a `Plain`.
    let handler = unsafe { core::mem::transmute::<*const (), Plain>(pointer) };
    handler(hit.regs_mut())
}
