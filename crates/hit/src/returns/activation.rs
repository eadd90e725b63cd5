//! An activation of a probed function: how it begins, and how it ends at its stub.

use super::instance::phase;
use super::{Instance, Returns, for_each_waiting};
use crate::path::{counted, record};
use crate::site::{Counters, Probe, Site, live};
use crate::{Cause, Host, Isa, Watch};
use sync::ActiveSet;
use sync::primitive::Ordering;

type Regs<H> = <<H as Host>::Isa as Isa>::Regs;

/// The return probes at a site that was hit, on their way to an instance that they share.
#[derive(Default)]
pub(crate) struct Entering<'h> {
    /// Taken when the first of them asks.
    instance: Option<(u32, &'h Instance)>,
    /// Whether there was none.
    exhausted: bool,
    /// The bits of those that watch this call.
    mask: u32,
}

impl<'h> Entering<'h> {
    /// A return probe wants to watch the call, if its entry handler does.
    pub(crate) fn ask<H: Host>(&mut self, host: &'h H, probe: &Probe, may_run: bool, regs: &mut Regs<H>) {
        let Some(counters) = counted(host, probe, may_run) else { return };
        if !admit(probe) {
            return Counters::add(&counters.missed);
        }
        let Some((id, _)) = self.instance(host) else {
            probe.active.fetch_sub(1, Ordering::Relaxed);
            return Counters::add(&counters.missed);
        };
        let bit = 1u32.checked_shl(probe.bit.load(Ordering::Relaxed)).unwrap_or(0);
        let handlers = &probe.handlers;
        let asks = handlers.before.load(Ordering::Relaxed) != 0 || handlers.entry_bytes.load(Ordering::Relaxed) != 0;
        let pc = H::Isa::pc(regs);
        if asks && host.entered(probe, id, regs) == Watch::No {
            host.released(probe, id);
            probe.active.fetch_sub(1, Ordering::Relaxed);
            Counters::add(&counters.declined);
        } else {
            Counters::add(&counters.hits);
            self.mask |= bit;
        }
        // Where execution goes on is not for an entry handler to say.
        H::Isa::set_pc(regs, pc);
    }

    fn instance<H: Host>(&mut self, host: &'h H) -> Option<(u32, &'h Instance)> {
        if self.instance.is_none() && !self.exhausted {
            self.instance = host.returns().take();
            self.exhausted = self.instance.is_none();
        }
        self.instance
    }

    /// Replaces the return address for those that have asked so far.
    pub(crate) fn arm<H: Host>(&mut self, host: &H, site: &Site, index: u64, regs: &Regs<H>) {
        let Self { instance: Some((id, instance)), mask, .. } = core::mem::take(self) else { return };
        let returns = host.returns();
        if mask == 0 {
            return returns.finish(id, instance);
        }
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
        Counters::add(&counters.returns);
        if live(&probe.state) {
            record(host, probe, counters, regs, Cause::Return(instance));
        }
        if may_run && probe.is_followed() && probe.is_registered() {
            host.returned(probe, id, returns.true_return_address(home), regs);
            // It goes home whatever the handler has done to the program counter, or left behind when it has faulted.
            H::Isa::set_pc(regs, home);
        }
        over(probe, counters);
    });
}
