//! An activation of a probed function: how it begins, and how it ends at its stub.

use super::instance::phase;
use super::{Instance, Returns, bit, for_each_waiting};
use crate::path::{counters, record};
use crate::site::{Counters, Probe, Site, live};
use crate::{Cause, Host, Isa, Watch};
use sync::ActiveSet;
use sync::primitive::Ordering;

type Regs<H> = <<H as Host>::Isa as Isa>::Regs;

/// Return probes of a site that want to watch a call.
#[derive(Clone, Copy, Default)]
pub(crate) struct Met {
    /// The low half holds the bits of those that were admitted and counted, the high half of those that must be asked
    /// first.
    bits: u64,
    /// The highest [`Probe::serial`] among them, and those that were not admitted.
    newest: u64,
}

impl Met {
    pub(crate) const fn is_empty(self) -> bool {
        self.bits == 0
    }

    const fn admitted(self) -> u32 {
        self.bits as u32
    }

    const fn asked(self) -> u32 {
        (self.bits >> u32::BITS) as u32
    }

    /// Adds a probe whose function was entered.
    #[inline(always)]
    pub(crate) fn meet<H: Host>(&mut self, host: &H, probe: &Probe) {
        let bit = u64::from(bit(probe));
        self.newest = self.newest.max(probe.serial.load(Ordering::Relaxed));
        if asks(probe) {
            self.bits |= bit << u32::BITS;
        } else if let Some(counters) = counters(host, probe) {
            if admit(probe) {
                host.count(probe);
                self.bits |= bit;
            } else {
                Counters::add(&counters.missed);
            }
        }
    }
}

/// Whether there is anybody to ask, or data to prepare.
#[inline(always)]
fn asks(probe: &Probe) -> bool {
    let handlers = &probe.handlers;
    handlers.before.load(Ordering::Relaxed) != 0 || handlers.entry_bytes.load(Ordering::Relaxed) != 0
}

/// A function was entered, and return probes want to watch the call. Those that were admitted, and those whose entry
/// handlers agree, share an instance, and the return address is replaced. When no instance is left, all have missed it.
#[inline(never)]
pub(crate) fn enter<H: Host>(host: &H, site: &Site, index: u64, met: &mut Met, regs: &mut Regs<H>) {
    let met = core::mem::take(met);
    let returns = host.returns();
    let Some((id, instance)) = returns.take() else { return miss(host, site, met) };
    let mut mask = met.admitted();
    if met.asked() != 0 {
        mask |= ask(host, site, met.asked(), id, regs);
        if mask == 0 {
            return returns.finish(id, instance);
        }
    }
    instance.newest.store(met.newest, Ordering::Relaxed);
    arm(host, site, index, &returns, (id, instance), mask, regs);
}

/// No instance is left.
#[cold]
#[inline(never)]
fn miss<H: Host>(host: &H, site: &Site, met: Met) {
    for_each_waiting(host, site, met.admitted(), uncount);
    for_each_waiting(host, site, met.asked(), |_, counters| Counters::add(&counters.missed));
}

/// Asks the probes in `mask`, as long as they have room. Gives the bits of those that agree.
#[cold]
#[inline(never)]
fn ask<H: Host>(host: &H, site: &Site, mask: u32, id: u32, regs: &mut Regs<H>) -> u32 {
    let mut watching = 0;
    for_each_waiting(host, site, mask, |probe, counters| {
        if !live(&probe.state) {
            // It was switched off meanwhile, or a handler of its module has faulted.
        } else if !admit(probe) {
            Counters::add(&counters.missed);
        } else if agrees(host, probe, id, regs) {
            Counters::add(&counters.hits);
            watching |= bit(probe);
        } else {
            Counters::add(&counters.declined);
        }
    });
    watching
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
#[inline(always)]
fn arm<H: Host>(
    host: &H,
    site: &Site,
    index: u64,
    returns: &Returns<'_>,
    (id, instance): (u32, &Instance),
    mask: u32,
    regs: &Regs<H>,
) {
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
    if !host.exchange(slot, true_address, returns.stub(id)) {
        retract(host, site, (id, instance), mask);
    }
}

/// Counts an instance against a probe's `maxactive`; false when it has them all out.
#[inline(always)]
fn admit(probe: &Probe) -> bool {
    let limit = probe.maxactive.load(Ordering::Relaxed);
    let before = probe.active.fetch_add(1, Ordering::Relaxed);
    if before < limit {
        return true;
    }
    probe.active.fetch_sub(1, Ordering::Relaxed);
    false
}

/// The probes in `mask` were admitted and counted, but the call cannot be watched: make it a miss, unless it was watched
/// already.
#[cold]
#[inline(never)]
fn retract<H: Host>(host: &H, site: &Site, (id, instance): (u32, &Instance), mask: u32) {
    if instance.depart() == phase::ARMED {
        for_each_waiting(host, site, mask, |probe, counters| {
            host.released(probe, id);
            uncount(probe, counters);
        });
        host.returns().finish(id, instance);
    }
}

/// The probe was admitted and counted for nothing.
fn uncount(probe: &Probe, counters: &Counters) {
    probe.active.fetch_sub(1, Ordering::Relaxed);
    counters.hits.fetch_sub(1, Ordering::Relaxed);
    Counters::add(&counters.missed);
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
            returns.for_each_waiting(host, instance, |probe, counters| {
                returned(host, (id, instance), probe, counters, place.is_some(), regs);
                host.released(probe, id);
                probe.active.fetch_sub(1, Ordering::Relaxed);
            });
            returns.finish(id, instance);
        }
        was => again(host, (id, instance), was, place.is_some(), regs),
    }
    if let Some(place) = place {
        ActiveSet::leave(place);
    }
    true
}

/// Returned once more, or through a copy of the stack.
#[cold]
#[inline(never)]
fn again<H: Host>(host: &H, (id, instance): (u32, &Instance), was: u32, may_run: bool, regs: &mut Regs<H>) {
    let returns = host.returns();
    returns.pool.never_reuse.store(1, Ordering::Relaxed);
    if was == phase::UNWOUND {
        returns.for_each_waiting(host, instance, |probe, counters| {
            returned(host, (id, instance), probe, counters, may_run, regs);
            counters.unwound.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Counts and records a return and calls the handler, if it may run. The caller takes it out of where it was counted
/// before.
#[inline(always)]
fn returned<H: Host>(
    host: &H,
    (id, instance): (u32, &Instance),
    probe: &Probe,
    counters: &Counters,
    may_run: bool,
    regs: &mut Regs<H>,
) {
    // One look: what is counted as seen is handled. A probe that is being unregistered sees nothing any more.
    if !probe.is_registered() {
        return;
    }
    Counters::add(&counters.returns);
    if probe.records() && live(&probe.state) {
        record(host, probe, regs, Cause::Return(instance));
    }
    if probe.is_followed() {
        tell(host, (id, instance), probe, may_run, regs);
    }
}

/// Calls a return's handler, if it may run.
#[cold]
#[inline(never)]
fn tell<H: Host>(host: &H, (id, instance): (u32, &Instance), probe: &Probe, may_run: bool, regs: &mut Regs<H>) {
    if may_run {
        let home = instance.returns_to();
        host.returned(probe, id, host.returns().true_return_address(home), regs);
        // It goes home whatever the handler has done to the program counter, or left behind when it has faulted.
        H::Isa::set_pc(regs, home);
    }
}
