//! From the trap to the next instruction.

use crate::returns;
use crate::site::{Counters, Kind, Probe, Site, live};
use crate::step::{index, is_site};
use crate::{Cause, Host, Isa, Next, step};
use sync::ActiveSet;
use sync::primitive::Ordering;

/// More probes than this at one site are not run: a chain that is longer is taken for a corrupt one.
pub const MAX_CHAIN: usize = 256;

/// Whose trap it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Ours. The registers say where to go on.
    Handled,
    /// The breakpoint is gone by now: the registers point at the instruction, which runs again.
    Stale,
    /// Not ours: the next in the notifier chain has to say.
    Foreign,
}

pub(crate) type Regs<H> = <<H as Host>::Isa as Isa>::Regs;

/// Handles a breakpoint trap.
#[inline]
pub fn breakpoint<H: Host>(host: &H, regs: &mut Regs<H>) -> Outcome {
    let address = H::Isa::breakpoint_address(regs);
    if host.returns().spans(address) && returns::hit(host, address, regs) {
        return Outcome::Handled;
    }
    if let Some((site, entry)) = host.find(address).and_then(|e| Some((host.site(index(e))?, e))) {
        // One that is disarmed is nobody's any more: its breakpoint is gone, or somebody else's.
        if is_site(entry) && site.address.load(Ordering::Relaxed) == address && live(&site.state) {
            hit(host, site, entry, address, regs);
            return Outcome::Handled;
        }
        if step::is_complete(site, entry, address) {
            step::complete(host, site, index(entry), regs);
            return Outcome::Handled;
        }
    }
    if host.is_breakpoint(address) {
        return Outcome::Foreign;
    }
    H::Isa::set_pc(regs, address);
    Outcome::Stale
}

fn hit<H: Host>(host: &H, site: &Site, index: u64, address: u64, regs: &mut Regs<H>) {
    H::Isa::set_pc(regs, address);
    let place = host.enter();
    let mut returning = 0u32;
    let mut next = Next::Step;
    let mut probes = chain(host, site).filter(|p| live(&p.state));
    loop {
        // Up to the next handler, which may change the registers.
        let handler = probes.find(|probe| match probe.kind() {
            Some(Kind::Handler) => true,
            Some(Kind::Internal) => {
                next = next.or(host.internal(probe, address, regs));
                false
            }
            Some(kind) => {
                run(host, probe, kind, place.is_some(), regs, &mut returning);
                false
            }
            None => false,
        });
        // Before that: the return address is where the stack pointer says now.
        if returning != 0 {
            returns::arm(host, site, index, core::mem::take(&mut returning), regs);
        }
        let Some(probe) = handler else { break };
        next = next.or(handle(host, probe, place.is_some(), regs));
        if next == Next::Redirected {
            // The others are not reached (Linux: `aggr_pre_handler`).
            break;
        }
        // Whatever the handler has done to it, or left behind when it has faulted.
        H::Isa::set_pc(regs, address);
    }
    if let Some(place) = place {
        ActiveSet::leave(place);
    }
    if next == Next::Step {
        step::over(host, site, index, regs);
    }
}

/// One probe of a user's at a site that was hit.
fn run<H: Host>(host: &H, probe: &Probe, kind: Kind, may_run: bool, regs: &Regs<H>, returning: &mut u32) {
    let Some(counters) = host.counters(probe.id.load(Ordering::Relaxed)) else {
        return;
    };
    if !may_run {
        return Counters::add(&counters.missed);
    }
    match kind {
        Kind::Return => {
            if returns::admit(probe) {
                Counters::add(&counters.hits);
                *returning |= 1u32.checked_shl(probe.bit.load(Ordering::Relaxed)).unwrap_or(0);
            } else {
                Counters::add(&counters.missed);
            }
        }
        Kind::ReturnSite => {
            Counters::add(&counters.hits);
            Counters::add(&counters.returns);
            record(host, probe, counters, regs, Cause::ReturnSite);
        }
        Kind::Entry | Kind::Internal | Kind::Handler => {
            Counters::add(&counters.hits);
            record(host, probe, counters, regs, Cause::Hit);
        }
    }
}

#[inline]
pub(crate) fn record<H: Host>(host: &H, probe: &Probe, counters: &Counters, regs: &Regs<H>, cause: Cause<'_>) {
    let wanted = probe.flags.load(Ordering::Relaxed) & Probe::RECORD != 0;
    if wanted && !host.record(probe, regs, cause) {
        Counters::add(&counters.lost);
    }
}

/// A probe with a handler.
fn handle<H: Host>(host: &H, probe: &Probe, may_run: bool, regs: &mut Regs<H>) -> Next {
    let Some(counters) = host.counters(probe.id.load(Ordering::Relaxed)) else {
        return Next::Step;
    };
    if !may_run {
        Counters::add(&counters.missed);
        return Next::Step;
    }
    Counters::add(&counters.hits);
    host.handle(probe, regs)
}

/// The probes at a site.
pub(crate) fn chain<'h, H: Host>(host: &'h H, site: &Site) -> impl Iterator<Item = &'h Probe> + use<'h, H> {
    let mut next = site.first.load(Ordering::Acquire);
    core::iter::from_fn(move || {
        let probe = host.probe(next.checked_sub(1)?)?;
        next = probe.next.load(Ordering::Acquire);
        Some(probe)
    })
    .take(MAX_CHAIN)
}
