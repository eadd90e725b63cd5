//! Switching probes on and off.
//!
//! Off: the probes are marked first, then the breakpoints go where nobody needs them. On: the probes are marked, then
//! breakpoints are planted where there are none. A trap in between finds a probe that is on or off; both are true.
//!
//! What fails can be asked for again: it looks at what stands at the sites, not at what was marked just now.

use crate::code::{patch, stands};
use crate::request::Member;
use crate::site::{Chained, SiteRecord};
use crate::{Error, Host, Isa, Registry};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use hit::Probe;

impl Registry {
    pub(crate) fn switch<H: Host>(
        &mut self,
        host: &mut H,
        members: impl Iterator<Item = Member>,
        on: bool,
    ) -> Result<(), Error> {
        let mut touched = BTreeSet::new();
        let mut result = host.flush();
        for member in members {
            match self.mark(host, member, on) {
                Ok(there) => touched.extend(there.then_some(member.address)),
                Err(error) => result = result.and(Err(error)),
            }
        }
        let result = result.and(if on { self.arm_again(host, &touched) } else { self.disarm_idle(host, &touched) });
        let touched: Vec<u64> = touched.into_iter().collect();
        self.optimize_around(host, &touched);
        result.and(host.flush())
    }

    /// Marks one probe, if it is not marked so already; false when it is not there.
    fn mark<H: Host>(&mut self, host: &mut H, member: Member, on: bool) -> Result<bool, Error> {
        let address = member.address;
        let wanted = |p: &Chained| p.key() == (member.probe, member.serial) && !p.retired;
        let Some(site) = self.sites.get(&address).filter(|s| s.probes.iter().any(wanted)) else { return Ok(false) };
        if on && !site.armed && !self.is_usable(host, address)? {
            return Err(Error::Changed { address });
        }
        let probes = self.sites.get_mut(&address).into_iter().flat_map(|site| &mut site.probes);
        for probe in probes.filter(|p| wanted(p) && p.disabled == on) {
            host.set_state(probe.probe, if on { Probe::REGISTERED } else { Probe::DISABLED })?;
            probe.disabled = !on;
        }
        Ok(true)
    }

    /// Also those that an earlier try has left planted, or said to be.
    fn disarm_idle<H: Host>(&mut self, host: &mut H, touched: &BTreeSet<u64>) -> Result<(), Error> {
        let idle =
            |address: &&u64| self.sites.get(address).is_some_and(|s| (s.armed || s.noted) && !needs_breakpoint(s));
        let idle: Vec<u64> = touched.iter().filter(idle).copied().collect();
        self.disarm(host, idle)
    }

    /// Also those that an earlier try has left without a breakpoint.
    fn arm_again<H: Host>(&mut self, host: &mut H, touched: &BTreeSet<u64>) -> Result<(), Error> {
        let mut result = Ok(());
        let over: Vec<u64> = touched.iter().filter_map(|&address| self.jump_over(address)).collect();
        self.unoptimize(host, over.into_iter())?;
        touched.iter().try_for_each(|&address| self.publish_again(host, address))?;
        let mut plant = Vec::new();
        for &address in touched {
            let Some(site) = self.sites.get_mut(&address).filter(|s| !s.armed && needs_breakpoint(s)) else { continue };
            let told = host.set_armed(site.index, true);
            (site.armed, site.noted) = (told.is_ok(), true);
            plant.extend(told.is_ok().then_some((address, H::Isa::BREAKPOINT)));
            result = result.and(told);
        }
        let patched = patch(host, &plant);
        if patched.is_err() {
            for (address, _) in plant {
                let standing = stands(host, address);
                self.sites.get_mut(&address).into_iter().for_each(|site| site.armed = standing);
            }
        }
        result.and(patched)
    }
}

/// Whether a probe is on here.
fn needs_breakpoint(site: &SiteRecord) -> bool {
    site.probes.iter().any(|p| !p.disabled && !p.retired)
}
