//! Switching probes on and off.
//!
//! Off: the probes are marked first, then the breakpoints go where nobody needs them. On: the probes are marked, then
//! breakpoints are planted where there are none. A trap in between finds a probe that is on or off; both are true.

use crate::code::patch;
use crate::request::Member;
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
        let mut result = Ok(());
        for member in members {
            match self.mark(host, member, on) {
                Ok(marked) => touched.extend(marked.then_some(member.address)),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.and(if on { self.arm_again(host, &touched) } else { self.disarm_idle(host, &touched) })
    }

    /// Marks one probe; false when it is not there, or as wanted already.
    fn mark<H: Host>(&mut self, host: &mut H, member: Member, on: bool) -> Result<bool, Error> {
        let address = member.address;
        if on && !self.sites.get(&address).is_some_and(|s| s.armed) && !self.is_usable(host, address)? {
            return Err(Error::Changed { address });
        }
        let Some(site) = self.sites.get_mut(&address) else { return Ok(false) };
        let key = (member.probe, member.serial);
        let wanted = |p: &&mut crate::site::Chained| p.key() == key && !p.retired && p.disabled == on;
        let Some(probe) = site.probes.iter_mut().find(wanted) else { return Ok(false) };
        host.set_state(probe.probe, if on { Probe::REGISTERED } else { Probe::DISABLED })?;
        probe.disabled = !on;
        Ok(true)
    }

    fn disarm_idle<H: Host>(&mut self, host: &mut H, touched: &BTreeSet<u64>) -> Result<(), Error> {
        let idle = |address: &&u64| {
            let site = self.sites.get(address);
            site.is_some_and(|s| s.armed && s.probes.iter().all(|p| p.disabled || p.retired))
        };
        let idle: Vec<u64> = touched.iter().filter(idle).copied().collect();
        self.disarm(host, idle)
    }

    fn arm_again<H: Host>(&mut self, host: &mut H, touched: &BTreeSet<u64>) -> Result<(), Error> {
        let mut plant = Vec::new();
        for address in touched {
            let Some(site) = self.sites.get_mut(address).filter(|s| !s.armed) else { continue };
            host.set_armed(site.index, true)?;
            (site.armed, site.noted) = (true, true);
            plant.push((*address, H::Isa::BREAKPOINT));
        }
        patch(host, &plant)
    }
}
