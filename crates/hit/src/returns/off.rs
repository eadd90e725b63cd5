//! Return probes were left out of this build: nothing is watched. Control has registered none.

use super::{Returns, SideStack};
use crate::site::{Probe, Site};
use crate::{Host, Isa};

type Regs<H> = <<H as Host>::Isa as Isa>::Regs;

/// None is met.
#[derive(Clone, Copy, Default)]
pub(crate) struct Met(());

impl Met {
    #[expect(clippy::unused_self, reason = "as where there are some")]
    pub(crate) const fn is_empty(self) -> bool {
        true
    }

    #[expect(clippy::unused_self, reason = "as where there are some")]
    pub(crate) fn meet<H: Host>(&mut self, _: &H, _: &Probe) {}
}

pub(crate) fn enter<H: Host>(_: &H, _: &Site, _: u64, _: &mut Met, _: &mut Regs<H>) {}

pub(crate) fn hit<H: Host>(_: &H, _: u64, _: &mut Regs<H>) -> bool {
    false
}

impl Returns<'_> {
    /// An unwinder starts: there is nothing to put back.
    ///
    /// What a host tells of the program's runtime:
    ///
    /// ```
    /// use hit::Host;
    /// use hit::returns::SideStack;
    ///
    /// enum Runtime {
    ///     UnwinderStarts,
    ///     UnwinderGoesOn { cfa: u64 },
    ///     UnwinderReturns,
    ///     Longjmp { target: u64 },
    ///     ThreadEnds,
    ///     ThreadHasEnded(u64),
    ///     Forked,
    /// }
    ///
    /// fn tell<H: Host>(host: &H, what: Runtime, sp: u64, signal: SideStack) {
    ///     let returns = host.returns();
    ///     match what {
    ///         Runtime::UnwinderStarts => returns.restore(host, sp, signal),
    ///         Runtime::UnwinderGoesOn { cfa } => returns.land(host, sp, cfa, signal),
    ///         Runtime::UnwinderReturns => returns.walked(host, sp, signal),
    ///         Runtime::Longjmp { target } => returns.jump(host, sp, target, signal),
    ///         Runtime::ThreadEnds => returns.exit(host),
    ///         Runtime::ThreadHasEnded(thread) => returns.ended(host, thread),
    ///         Runtime::Forked => returns.adopt(), // in the child
    ///     }
    /// }
    /// ```
    pub fn restore<H: Host>(&self, _: &H, _: u64, _: SideStack) {}

    /// It goes on.
    pub fn land<H: Host>(&self, _: &H, _: u64, _: u64, _: SideStack) {}

    /// It only walked.
    pub fn walked<H: Host>(&self, _: &H, _: u64, _: SideStack) {}

    /// A jump to another frame.
    pub fn jump<H: Host>(&self, _: &H, _: u64, _: u64, _: SideStack) {}

    /// The running thread ends.
    pub fn exit<H: Host>(&self, _: &H) {}

    /// Another thread has ended.
    pub fn ended<H: Host>(&self, _: &H, _: u64) {}

    /// The process was forked.
    pub fn adopt(&self) {}
}
