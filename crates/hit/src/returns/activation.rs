//! An activation of a probed function: how it begins, and how it ends at its stub.

use super::instance::phase;
use super::{Instance, Returns, for_each_waiting};
use crate::path::{chain, counted, record};
use crate::site::{Counters, Kind, Probe, Site, live};
use crate::{Cause, Host, Isa, Watch};
use sync::ActiveSet;
use sync::primitive::Ordering;

type Regs<H> = <<H as Host>::Isa as Isa>::Regs;

/// A return probe's bit among those of its site.
#[inline]
pub(crate) fn bit(probe: &Probe) -> u32 {
    1u32.checked_shl(probe.bit.load(Ordering::Relaxed)).unwrap_or(0)
}

/// A function was entered, and the return probes in `mask` want to watch the call. Those that may, and whose entry
/// handlers do, share an instance, and the return address is replaced.
#[inline(never)]
pub(crate) fn enter<H: Host>(host: &H, site: &Site, index: u64, mask: u32, may_run: bool, regs: &mut Regs<H>) {
    let returns = host.returns();
    let mut instance = None;
    let mut watching = 0;
    for probe in chain(host, site).filter(|p| live(&p.state) && p.kind() == Some(Kind::Return)) {
        let bit = bit(probe);
        if mask & bit == 0 {
            continue;
        }
        let Some(counters) = counted(host, probe, may_run) else { continue };
        if !admit(probe) {
            Counters::add(&counters.missed);
            continue;
        }
        if instance.is_none() {
            instance = returns.take();
        }
        let Some((id, _)) = instance else {
            probe.active.fetch_sub(1, Ordering::Relaxed);
            Counters::add(&counters.missed);
            continue;
        };
        if asks(probe) && !agrees(host, probe, id, regs) {
            Counters::add(&counters.declined);
        } else {
            Counters::add(&counters.hits);
            watching |= bit;
        }
    }
    match instance {
        Some((id, instance)) if watching == 0 => returns.finish(id, instance),
        Some((id, instance)) => arm(host, site, index, (id, instance), watching, regs),
        None => {}
    }
}

/// Whether there is anybody to ask, or data to prepare.
fn asks(probe: &Probe) -> bool {
    let handlers = &probe.handlers;
    handlers.before.load(Ordering::Relaxed) != 0 || handlers.entry_bytes.load(Ordering::Relaxed) != 0
}

/// Asks a probe's entry handler.
fn agrees<H: Host>(host: &H, probe: &Probe, id: u32, regs: &mut Regs<H>) -> bool {
    let pc = H::Isa::pc(regs);
    let agrees = host.entered(probe, id, regs) == Watch::Yes;
    if !agrees {
        host.released(probe, id);
        probe.active.fetch_sub(1, Ordering::Relaxed);
    }
    // Where execution goes on is not for an entry handler to say.
    H::Isa::set_pc(regs, pc);
    agrees
}

/// Replaces the return address, for the probes in `mask`.
fn arm<H: Host>(host: &H, site: &Site, index: u64, (id, instance): (u32, &Instance), mask: u32, regs: &Regs<H>) {
    let returns = host.returns();
    let slot = H::Isa::return_slot(regs);
    let true_address = host.load(slot);
    instance.return_address.store(true_address, Ordering::Relaxed);
    instance.slot.store(slot, Ordering::Relaxed);
    instance.owner.store(host.thread(), Ordering::Relaxed);
    instance.site.store(index, Ordering::Relaxed);
    instance.mask.store(mask, Ordering::Relaxed);
    instance.epoch.store(returns.pool.epoch.load(Ordering::Relaxed), Ordering::Relaxed);
    for (saved, value) in instance.arguments.iter().zip(H::Isa::arguments(regs)) {
        saved.store(value, Ordering::Relaxed);
    }
    instance.arm();
    // Else another thread writes the return slot of a function that is just being entered: leave it alone.
    if !host.exchange(slot, true_address, returns.stub(id)) && instance.depart() == phase::ARMED {
        retract(host, site, id, mask);
        returns.finish(id, instance);
    }
}

/// Counts an instance against a probe's `maxactive`; false when it has them all out.
fn admit(probe: &Probe) -> bool {
    let limit = probe.maxactive.load(Ordering::Relaxed);
    let before = probe.active.fetch_add(1, Ordering::Relaxed);
    if before < limit {
        return true;
    }
    probe.active.fetch_sub(1, Ordering::Relaxed);
    false
}

/// The probes in `mask` were admitted and counted, but the call cannot be watched: make it a miss.
fn retract<H: Host>(host: &H, site: &Site, id: u32, mask: u32) {
    for_each_waiting(host, site, mask, |probe, counters| {
        host.released(probe, id);
        probe.active.fetch_sub(1, Ordering::Relaxed);
        counters.hits.fetch_sub(1, Ordering::Relaxed);
        Counters::add(&counters.missed);
    });
}

/// Handles a trap at a stub; false when `address` is none.
#[inline]
pub(crate) fn hit<H: Host>(host: &H, address: u64, regs: &mut Regs<H>) -> bool {
    let returns = host.returns();
    let Some((id, instance)) = returns.at(address) else {
        return false;
    };
    H::Isa::set_pc(regs, instance.returns_to());
    let place = host.enter();
    match instance.depart() {
        phase::ARMED | phase::RESTORED => {
            returned(host, &returns, (id, instance), place.is_some(), regs, |probe, _| {
                host.released(probe, id);
                probe.active.fetch_sub(1, Ordering::Relaxed);
            });
            returns.finish(id, instance);
        }
        was => {
            // Returned once more, or through a copy of the stack.
            returns.pool.never_reuse.store(1, Ordering::Relaxed);
            if was == phase::UNWOUND {
                returned(host, &returns, (id, instance), place.is_some(), regs, |_, counters| {
                    counters.unwound.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }
    if let Some(place) = place {
        ActiveSet::leave(place);
    }
    true
}

/// Counts and records a return and calls the handlers, if they may run; after that `over` takes it out of where it was
/// counted before.
fn returned<H: Host>(
    host: &H,
    returns: &Returns<'_>,
    (id, instance): (u32, &Instance),
    may_run: bool,
    regs: &mut Regs<H>,
    over: impl Fn(&Probe, &Counters),
) {
    let home = instance.returns_to();
    returns.for_each_waiting(host, instance, |probe, counters| {
        // One look: what is counted as seen is handled. A probe that is being unregistered sees nothing any more.
        if probe.is_registered() {
            Counters::add(&counters.returns);
            if live(&probe.state) {
                record(host, probe, counters, regs, Cause::Return(instance));
            }
            if may_run && probe.is_followed() {
                host.returned(probe, id, returns.true_return_address(home), regs);
                // It goes home whatever the handler has done to the program counter, or left behind when it has faulted.
                H::Isa::set_pc(regs, home);
            }
        }
        over(probe, counters);
    });
}
