//! Taking probes off: what [`Registry::unregister`] does, and what undoes a batch that fails when it is half visible.
//!
//! The order is: restore the text, retire the probes, take them out of their chains, wait for the handlers that may
//! stand on them, use their places again. A handler that stands on a retired probe finds its way on by the probe's
//! `next`, so that stays as it is until nobody can stand there.
//!
//! Each step goes as far as it can: a breakpoint that cannot be taken out must not keep its probe alive. What was done
//! is recorded as it is done, so the same removal can be asked for again after a failure.

use crate::code::{patch, stands};
use crate::request::Member;
use crate::site::SiteRecord;
use crate::{Error, Host, Registry};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// A probe that is in no chain any more; handlers may still stand on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limbo {
    probe: u32,
    /// Where it was: address and index of the site, and its bit.
    site: (u64, u32),
    bit: Option<u32>,
}

/// Which probes are to go, by address.
type Leaving = BTreeMap<u64, BTreeSet<(u32, u64)>>;

impl Registry {
    /// Takes probes off. Members that are gone already are passed over.
    pub(crate) fn take_off<H: Host>(
        &mut self,
        host: &mut H,
        members: impl Iterator<Item = Member>,
    ) -> Result<(), Error> {
        let mut leaving: Leaving = self.stuck.drain(..).map(|address| (address, BTreeSet::new())).collect();
        for member in members {
            leaving.entry(member.address).or_default().insert((member.probe, member.serial));
        }
        let disarmed = host.flush().and(self.disarm_unused(host, &leaving));
        let retired = self.retire(host, &leaving).and(host.flush());
        let unlinked = self.unlink(host, &leaving).and(host.flush());
        self.reclaim(host);
        let left: Vec<u64> = leaving.into_keys().collect();
        self.optimize_around(host, &left);
        disarmed.and(retired).and(unlinked).and(host.flush())
    }

    /// Takes a site off for which nothing is to be restored: the text is not its own any more.
    pub(crate) fn abandon<H: Host>(&mut self, host: &mut H, site: SiteRecord) {
        // A target that cannot be written has gone, and its probes with it; their places are not used again then.
        if let Some(jump) = site.standing_jump() {
            let _ = host.set_jump(jump, false);
        }
        if site.noted {
            let _ = host.set_armed(site.index, false);
        }
        if site.probes.is_empty() {
            return;
        }
        let alive = site.probes.iter().filter(|p| host.retire_probe(p.probe).is_err()).count();
        if host.set_first(site.index, 0).is_ok() && alive == 0 {
            let place = (site.data.address, site.index);
            self.limbo.extend(site.probes.iter().map(|p| Limbo { probe: p.probe, site: place, bit: None }));
        }
    }

    /// Restores the text of the sites that only leaving probes sit at.
    fn disarm_unused<H: Host>(&mut self, host: &mut H, leaving: &Leaving) -> Result<(), Error> {
        let is_unused = |address: &u64, probes| self.sites.get(address).is_some_and(|site| is_unused(site, probes));
        let unused = leaving.iter().filter(|(address, probes)| is_unused(address, probes)).map(|(&address, _)| address);
        let unused = unused.collect();
        self.disarm(host, unused)
    }

    /// Restores the text at sites.
    pub(crate) fn disarm<H: Host>(&mut self, host: &mut H, unused: Vec<u64>) -> Result<(), Error> {
        let breakpoints = self.unoptimize(host, unused.iter().copied());
        let mut restore = Vec::with_capacity(unused.len());
        for address in &unused {
            // Somebody else's change of the text, or another object mapped here since: not ours to overwrite.
            if let Some(site) = self.sites.get(address).filter(|s| s.armed && !s.is_jump() && stands(host, *address)) {
                restore.push((*address, site.data.original[0]));
            }
        }
        let patched = patch(host, &restore);
        let mut noted = Ok(());
        for address in unused {
            let Some(site) = self.sites.get_mut(&address) else { continue };
            site.armed &= site.is_jump() || patched.is_err() && stands(host, address);
            if !site.armed {
                let told = host.set_armed(site.index, false);
                site.noted = told.is_err();
                noted = noted.and(told);
            }
            if site.armed || site.noted {
                self.stuck.push(address);
            }
        }
        breakpoints.and(patched).and(noted)
    }

    /// Handlers pass the leaving probes over from now on.
    fn retire<H: Host>(&mut self, host: &mut H, leaving: &Leaving) -> Result<(), Error> {
        let mut result = Ok(());
        for (address, keys) in leaving {
            let Some(site) = self.sites.get_mut(address) else { continue };
            for probe in site.probes.iter_mut().filter(|p| !p.retired && keys.contains(&p.key())) {
                let retired = host.retire_probe(probe.probe);
                probe.retired = retired.is_ok();
                result = result.and(retired);
            }
        }
        result
    }

    /// Takes retired probes out of their chains.
    fn unlink<H: Host>(&mut self, host: &mut H, leaving: &Leaving) -> Result<(), Error> {
        let mut result = Ok(());
        let mut gone = Vec::new();
        for address in leaving.keys() {
            let Some(site) = self.sites.get_mut(address) else { continue };
            result = result.and(site.unlink(host, &mut gone));
            let place = (*address, site.index);
            self.limbo.extend(gone.drain(..).map(|p| Limbo { probe: p.probe, site: place, bit: p.bit }));
        }
        result
    }

    /// Waits until nobody can stand on a probe that has left its chain; then its place and its bit can be used again. If
    /// somebody stays, that is for the next removal to do.
    fn reclaim<H: Host>(&mut self, host: &mut H) {
        if self.limbo.is_empty() {
            return;
        }
        if !host.grace() {
            return;
        }
        for gone in self.limbo.drain(..) {
            self.free_probes.push(gone.probe);
            let (address, index) = gone.site;
            if let Some(site) = self.sites.get_mut(&address).filter(|s| s.index == index) {
                site.release(gone.bit);
            }
        }
    }
}

/// Whether a site bears a breakpoint, or is said to, that nobody needs once `leaving` are gone.
fn is_unused(site: &SiteRecord, leaving: &BTreeSet<(u32, u64)>) -> bool {
    (site.armed || site.noted) && site.probes.iter().all(|p| p.retired || p.disabled || leaving.contains(&p.key()))
}
