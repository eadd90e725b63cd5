//! From the trap to the next instruction.

use crate::returns;
use crate::site::{Counters, Kind, Probe, Site, live};
use crate::step::{index, is_site};
use crate::{Cause, Host, Isa, Next, step};
use sync::ActiveSet;
use sync::primitive::{AtomicU64, Ordering};

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
    nobody_s(host, address, regs)
}

/// How often text and table are looked at, one after the other, before a breakpoint is somebody else's.
const LOOKS: usize = 4;

/// No probe was armed at `address`. If a breakpoint stands there nevertheless, it may have been planted since: a site is
/// armed before its breakpoint stands. Then, and if it is gone, the instruction is run again.
#[cold]
#[inline(never)]
fn nobody_s<H: Host>(host: &H, address: u64, regs: &mut Regs<H>) -> Outcome {
    let armed = || {
        let site = host.find(address).filter(|&entry| is_site(entry)).and_then(|entry| host.site(index(entry)));
        site.is_some_and(|site| site.address.load(Ordering::Relaxed) == address && live(&site.state))
    };
    for _ in 0..LOOKS {
        if !host.is_breakpoint(address) || armed() {
            H::Isa::set_pc(regs, address);
            return Outcome::Stale;
        }
    }
    Outcome::Foreign
}

fn hit<H: Host>(host: &H, site: &Site, index: u64, address: u64, regs: &mut Regs<H>) {
    H::Isa::set_pc(regs, address);
    let place = host.enter();
    let may_run = place.is_some();
    // Bits of the return probes that were met since the last handler.
    let mut returning = 0u32;
    let mut next = Next::Step;
    let mut followed = false;
    for probe in chain(host, site).filter(|p| live(&p.state)) {
        match probe.kind() {
            Some(Kind::Return) => returning |= returns::bit(probe),
            Some(Kind::Handler) => {
                // Before that: it may change the registers, and the return address is where the stack pointer says now.
                if returning != 0 {
                    returns::enter(host, site, index, core::mem::take(&mut returning), may_run, regs);
                }
                let handled = handle(host, probe, may_run, regs);
                followed |= handled == Handled::Followed;
                if handled == Handled::Redirected {
                    // The others are not reached (Linux: `aggr_pre_handler`).
                    next = Next::Redirected;
                    break;
                }
                // Whatever the handler has done to it, or left behind when it has faulted.
                H::Isa::set_pc(regs, address);
            }
            Some(Kind::Internal) => next = next.or(host.internal(probe, address, regs)),
            Some(kind) => run(host, probe, kind, may_run, regs),
            None => {}
        }
    }
    if returning != 0 {
        returns::enter(host, site, index, returning, may_run, regs);
    }
    // Post-handlers are handlers: if they run at once, the guard is held for them.
    let place = if followed { place } else { leave(place) };
    if next == Next::Step && step::over(host, site, index, followed, regs) && followed {
        follow(host, site, regs);
    }
    leave(place);
}

#[inline(always)]
fn leave(place: Option<&AtomicU64>) -> Option<&AtomicU64> {
    if let Some(place) = place {
        ActiveSet::leave(place);
    }
    None
}

/// The displaced instruction has taken its effect: the post-handlers run, in the order of the chain.
#[inline(never)]
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

/// What became of a probe with handlers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handled {
    /// The displaced instruction takes its effect.
    Step,
    /// It does, and the probe's post-handler follows.
    Followed,
    /// The pre-handler has done the instruction's work.
    Redirected,
}

/// A probe with handlers. A function of its own: what calls handlers saves many registers.
#[inline(never)]
fn handle<H: Host>(host: &H, probe: &Probe, may_run: bool, regs: &mut Regs<H>) -> Handled {
    let may_run = may_run && (!probe.is_followed() || step::can_be_followed(host));
    let Some(counters) = counted(host, probe, may_run) else { return Handled::Step };
    Counters::add(&counters.hits);
    let has_handler = probe.handlers.before.load(Ordering::Relaxed) != 0;
    if has_handler && host.handle(probe, regs) == Next::Redirected {
        return Handled::Redirected;
    }
    if probe.is_followed() { Handled::Followed } else { Handled::Step }
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
