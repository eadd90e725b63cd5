//! From the trap to the next instruction.

use crate::returns::{self, Entering};
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
    let mut entering = Entering::default();
    let mut next = Next::Step;
    let mut followed = false;
    for probe in chain(host, site).filter(|p| live(&p.state)) {
        match probe.kind() {
            Some(Kind::Internal) => next = next.or(host.internal(probe, address, regs)),
            Some(Kind::Return) => entering.ask(host, probe, place.is_some(), regs),
            Some(Kind::Handler) => {
                // Before that: it may change the registers, and the return address is where the stack pointer says now.
                entering.arm(host, site, index, regs);
                let may_run = place.is_some() && (!probe.is_followed() || step::can_be_followed(host));
                next = next.or(handle(host, probe, may_run, regs));
                if next == Next::Redirected {
                    // The others are not reached (Linux: `aggr_pre_handler`).
                    break;
                }
                followed |= may_run && probe.is_followed();
                // Whatever the handler has done to it, or left behind when it has faulted.
                H::Isa::set_pc(regs, address);
            }
            Some(kind) => run(host, probe, kind, place.is_some(), regs),
            None => {}
        }
    }
    entering.arm(host, site, index, regs);
    if followed && next == Next::Step {
        // Post-handlers are handlers: as long as they may run now, the guard is held.
        if step::over(host, site, index, true, regs) {
            follow(host, site, regs);
        }
        return place.into_iter().for_each(ActiveSet::leave);
    }
    place.into_iter().for_each(ActiveSet::leave);
    if next == Next::Step {
        step::over(host, site, index, false, regs);
    }
}

/// The displaced instruction has taken its effect: the post-handlers run, in the order of the chain.
pub(crate) fn follow<H: Host>(host: &H, site: &Site, regs: &mut Regs<H>) {
    let handlers = chain(host, site).filter(|p| live(&p.state) && p.kind() == Some(Kind::Handler) && p.is_followed());
    for probe in handlers {
        host.followed(probe, regs);
    }
}

/// One probe of a user's at a site that was hit.
fn run<H: Host>(host: &H, probe: &Probe, kind: Kind, may_run: bool, regs: &Regs<H>) {
    let Some(counters) = counted(host, probe, may_run) else { return };
    Counters::add(&counters.hits);
    if kind == Kind::ReturnSite {
        Counters::add(&counters.returns);
        record(host, probe, counters, regs, Cause::ReturnSite);
    } else {
        record(host, probe, counters, regs, Cause::Hit);
    }
}

/// The counters of a probe that may run; one that may not is counted as missed.
pub(crate) fn counted<'h, H: Host>(host: &'h H, probe: &Probe, may_run: bool) -> Option<&'h Counters> {
    let counters = host.counters(probe.id.load(Ordering::Relaxed))?;
    if !may_run {
        Counters::add(&counters.missed);
    }
    may_run.then_some(counters)
}

#[inline]
pub(crate) fn record<H: Host>(host: &H, probe: &Probe, counters: &Counters, regs: &Regs<H>, cause: Cause<'_>) {
    let wanted = probe.flags.load(Ordering::Relaxed) & Probe::RECORD != 0;
    if wanted && !host.record(probe, regs, cause) {
        Counters::add(&counters.lost);
    }
}

/// A probe with handlers.
fn handle<H: Host>(host: &H, probe: &Probe, may_run: bool, regs: &mut Regs<H>) -> Next {
    let Some(counters) = counted(host, probe, may_run) else { return Next::Step };
    Counters::add(&counters.hits);
    if probe.handlers.before.load(Ordering::Relaxed) == 0 {
        return Next::Step;
    }
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
