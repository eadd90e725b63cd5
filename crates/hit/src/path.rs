//! From the trap to the next instruction.

use crate::returns::{self, Met};
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
///
/// ```
/// # use hit::returns::{Pool, Returns, SAVED_ARGUMENTS};
/// # use hit::*;
/// # use sync::primitive::{AtomicU64, Ordering};
/// # struct Regs { pc: u64 }
/// # struct Machine;
/// # impl Isa for Machine {
/// #     type Regs = Regs;
/// #     fn breakpoint_address(regs: &Regs) -> u64 { regs.pc - 1 }
/// #     fn pc(regs: &Regs) -> u64 { regs.pc }
/// #     fn set_pc(regs: &mut Regs, pc: u64) { regs.pc = pc }
/// #     fn sp(_: &Regs) -> u64 { 0 }
/// #     fn set_sp(_: &mut Regs, _: u64) {}
/// #     fn begin_step(_: &mut Regs, _: bool) -> u64 { 0 }
/// #     fn is_single_stepping(_: &Regs) -> bool { false }
/// #     fn end_step(_: &mut Regs, _: u64) {}
/// #     fn execute(_: [u64; OP_WORDS], _: &mut Regs) -> bool { false }
/// #     fn return_slot(_: &Regs) -> u64 { 0 }
/// #     fn arguments(_: &Regs) -> [u64; SAVED_ARGUMENTS] { [0; SAVED_ARGUMENTS] }
/// # }
/// # struct Program { site: Site, probe: Probe, counters: Counters, active: AtomicU64, pool: Pool }
/// # impl Host for Program {
/// #     type Isa = Machine;
/// #     fn find(&self, address: u64) -> Option<u64> { (address == 0x1000).then_some(0) }
/// #     fn site(&self, _: u64) -> Option<&Site> { Some(&self.site) }
/// #     fn probe(&self, index: u32) -> Option<&Probe> { (index == 0).then_some(&self.probe) }
/// #     fn counters(&self, _: u32) -> Option<&Counters> { Some(&self.counters) }
/// #     fn is_breakpoint(&self, address: u64) -> bool { address == 0x1000 || address == 0x2000 }
/// #     fn thread(&self) -> u64 { 1 }
/// #     fn enter(&self) -> Option<&AtomicU64> { Some(&self.active) }
/// #     fn returns(&self) -> Returns<'_> { Returns { pool: &self.pool, instances: &[], stubs: 0, stride: 1 } }
/// #     fn record(&self, _: &Probe, _: &Regs, _: Cause<'_>) -> bool { false }
/// #     fn internal(&self, _: &Probe, _: u64, _: &mut Regs) -> Next { Next::Step }
/// #     fn load(&self, _: u64) -> u64 { 0 }
/// #     fn exchange(&self, _: u64, _: u64, _: u64) -> bool { false }
/// #     fn exchange_guarded(&self, _: u64, _: u64, _: u64) -> bool { false }
/// #     fn contiguous(&self, _: u64, _: u64) -> bool { false }
/// # }
/// # // SAFETY: all fields are `sync::Zeroed`.
/// # let program: Program = unsafe { std::mem::zeroed() };
/// // A host with one site, whose only probe counts.
/// let Program { site, probe, counters, .. } = &program;
/// site.address.store(0x1000, Ordering::Relaxed);
/// site.slot.store(0x8000, Ordering::Relaxed);
/// site.first.store(1, Ordering::Relaxed);
/// site.state.store(Site::ARMED, Ordering::Relaxed);
/// probe.kind.store(Kind::Entry.code(), Ordering::Relaxed);
/// probe.state.store(Probe::REGISTERED, Ordering::Relaxed);
///
/// let mut regs = Regs { pc: 0x1001 }; // behind the breakpoint
/// assert_eq!(breakpoint(&program, &mut regs), Outcome::Handled);
/// assert_eq!(regs.pc, 0x8000); // the copy is next
/// assert_eq!(Counts::of(counters).hits, 1);
///
/// let mut regs = Regs { pc: 0x2001 }; // a debugger's
/// assert_eq!(breakpoint(&program, &mut regs), Outcome::Foreign);
/// let mut regs = Regs { pc: 0x3001 }; // it stands there no longer
/// assert_eq!(breakpoint(&program, &mut regs), Outcome::Stale);
/// assert_eq!(regs.pc, 0x3000);
/// ```
#[inline]
pub fn breakpoint<H: Host>(host: &H, regs: &mut Regs<H>) -> Outcome {
    let address = H::Isa::breakpoint_address(regs);
    if host.returns().spans(address) && returns::hit(host, address, regs) {
        return Outcome::Handled;
    }
    if let Some((site, entry)) = host.find(address).and_then(|e| Some((host.site(index(e))?, e))) {
        // One that is disarmed is nobody's any more: its breakpoint is gone, or somebody else's.
        if is_planted(site, entry, address) {
            hit(host, site, entry, address, regs);
            return Outcome::Handled;
        }
        if step::is_complete(site, entry, address) {
            step::complete(host, site, index(entry), regs);
            return Outcome::Handled;
        }
        if of_jump(host, site, entry, regs) {
            return Outcome::Handled;
        }
    }
    nobody_s(host, address, regs)
}

/// Where execution goes on behind a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// In the detour's copy of the displaced instructions, with these registers.
    Copy,
    /// Where the registers say.
    Elsewhere,
}

/// A jump was executed that site `index` was placed by: its probes run. The registers are those at the jump; their program
/// counter may be anything.
///
/// A processor may have fetched the jump before it was taken out, so the site may be disarmed by now: then nothing runs.
///
/// ```
/// use hit::{Host, Isa, Onward, detoured};
///
/// /// What detours call, with the registers that they have saved: true when the copy comes next.
/// fn on_detour<H: Host>(host: &H, site: u64, regs: &mut <H::Isa as Isa>::Regs) -> bool {
///     detoured(host, site, regs) == Onward::Copy
/// }
/// ```
#[inline]
pub fn detoured<H: Host>(host: &H, index: u64, regs: &mut Regs<H>) -> Onward {
    let Some(site) = host.site(index) else { return Onward::Copy };
    let sp = H::Isa::sp(regs);
    H::Isa::set_pc(regs, site.address.load(Ordering::Relaxed));
    if !live(&site.state) {
        return Onward::Copy;
    }
    let said = match host.enter() {
        None => pass(host, site, regs),
        Some(place) => {
            let said = run(host, site, index, regs);
            if said == Said::Followed {
                watched(host, site, index, place, regs);
                return Onward::Elsewhere;
            }
            ActiveSet::leave(place);
            said
        }
    };
    if said == Said::Redirected {
        return Onward::Elsewhere;
    }
    if H::Isa::sp(regs) == sp {
        return Onward::Copy;
    }
    // A handler has moved the stack, and where the registers lie is not where they go.
    over(host, site, index, false, regs);
    Onward::Elsewhere
}

/// A function has returned to the stub of an instance, and what stands there is no breakpoint but code that has led here.
/// The registers say where to go on then.
///
/// ```
/// use hit::{Host, Isa, returned};
///
/// /// What the stub of the instance `id` leads to, with the registers that it has saved.
/// fn at_stub<H: Host>(host: &H, id: u32, regs: &mut <H::Isa as Isa>::Regs) {
///     returned(host, id, regs);
/// }
/// ```
#[inline]
pub fn returned<H: Host>(host: &H, id: u32, regs: &mut Regs<H>) {
    returns::hit(host, host.returns().stub(id), regs);
}

/// Whether a breakpoint stands at the site that the table's entry for `address` speaks of.
#[inline(always)]
fn is_planted(site: &Site, entry: u64, address: u64) -> bool {
    is_site(entry) && site.address.load(Ordering::Relaxed) == address && live(&site.state)
}

/// How often text and table are looked at, one after the other, before a breakpoint is somebody else's.
const LOOKS: usize = 4;

/// No probe was armed at `address`. If a breakpoint stands there nevertheless, it may have been planted since: a site is
/// armed before its breakpoint stands, and a jump stands in the table before its boundaries do in the text. Then, and if it
/// is gone, the instruction is run again.
#[cold]
#[inline(never)]
fn nobody_s<H: Host>(host: &H, address: u64, regs: &mut Regs<H>) -> Outcome {
    let armed = || {
        let found = host.find(address).and_then(|entry| Some((host.site(index(entry))?, entry)));
        found.is_some_and(|(site, entry)| is_planted(site, entry, address) || step::within_jump(site, entry).is_some())
    };
    for _ in 0..LOOKS {
        if !host.is_breakpoint(address) || armed() {
            H::Isa::set_pc(regs, address);
            return Outcome::Stale;
        }
    }
    Outcome::Foreign
}

#[inline(always)]
fn hit<H: Host>(host: &H, site: &Site, index: u64, address: u64, regs: &mut Regs<H>) {
    H::Isa::set_pc(regs, address);
    let Some(place) = host.enter() else { return missed(host, site, index, regs) };
    let said = run(host, site, index, regs);
    if said == Said::Followed {
        return watched(host, site, index, place, regs);
    }
    ActiveSet::leave(place);
    if said == Said::Step {
        step::over(host, site, index, false, regs);
    }
}

/// A breakpoint that belongs to a jump: inside it, or in its detour.
#[cold]
#[inline(never)]
fn of_jump<H: Host>(host: &H, site: &Site, entry: u64, regs: &mut Regs<H>) -> bool {
    if let Some(pc) = step::within_jump(site, entry) {
        H::Isa::set_pc(regs, pc);
        return true;
    }
    if step::is_instead(entry) {
        let address = site.address.load(Ordering::Relaxed);
        if live(&site.state) {
            hit(host, site, index(entry), address, regs);
        } else {
            H::Isa::set_pc(regs, address);
        }
        return true;
    }
    false
}

/// What the probes of a site come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    /// The displaced instruction takes its effect.
    Step,
    /// It does, and post-handlers follow.
    Followed,
    /// A probe has done the instruction's work.
    Redirected,
}

/// Runs the probes of a site that was hit. Most count, or have a pre-handler; a return probe is mostly the last one. That
/// takes nothing to keep for others; with anything else the rest of the chain is for [`run_rest`].
#[inline(always)]
fn run<H: Host>(host: &H, site: &Site, index: u64, regs: &mut Regs<H>) -> Said {
    let mut next = site.first.load(Ordering::Acquire);
    for _ in 0..MAX_CHAIN {
        let this = next;
        let Some(probe) = host.probe(this.wrapping_sub(1)) else { break };
        next = probe.next.load(Ordering::Acquire);
        if !live(&probe.state) {
            continue;
        }
        match probe.kind() {
            Some(Kind::Entry) => count(host, probe, regs),
            Some(Kind::Handler) if !probe.is_followed() => {
                if handle(host, probe, regs) == Next::Redirected {
                    // The others are not reached (Linux: `aggr_pre_handler`).
                    return Said::Redirected;
                }
            }
            Some(Kind::Return) if next == 0 => {
                let mut met = Met::default();
                met.meet(host, probe);
                if !met.is_empty() {
                    returns::enter(host, site, index, &mut met, regs);
                }
            }
            _ => return run_rest(host, site, index, this, regs),
        }
    }
    Said::Step
}

/// The probes of a chain from `first` on, of all kinds. What few probes do is in functions of its own, so that the others
/// keep what they need in registers.
#[inline(never)]
fn run_rest<H: Host>(host: &H, site: &Site, index: u64, first: u32, regs: &mut Regs<H>) -> Said {
    let mut said = Said::Step;
    // Return probes that were met since the last handler.
    let mut met = Met::default();
    for probe in chain_from(host, first) {
        if !live(&probe.state) {
            continue;
        }
        match probe.kind() {
            Some(Kind::Entry) => count(host, probe, regs),
            Some(Kind::Return) => met.meet(host, probe),
            Some(Kind::Handler) => {
                // Before that: it may change the registers, and the return address is where the stack pointer says now.
                if !met.is_empty() {
                    returns::enter(host, site, index, &mut met, regs);
                }
                if probe.is_followed() && !follows(host, probe, &mut said) {
                    continue;
                }
                if handle(host, probe, regs) == Next::Redirected {
                    // The others are not reached (Linux: `aggr_pre_handler`).
                    return Said::Redirected;
                }
            }
            _ => special(host, site, probe, regs, &mut said),
        }
    }
    if !met.is_empty() {
        returns::enter(host, site, index, &mut met, regs);
    }
    said
}

/// A probe on an instruction that leaves its function, or one of the host's own.
#[cold]
#[inline(never)]
fn special<H: Host>(host: &H, site: &Site, probe: &Probe, regs: &mut Regs<H>, said: &mut Said) {
    match probe.kind() {
        Some(Kind::Internal) => {
            let next = host.internal(probe, site.address.load(Ordering::Relaxed), regs);
            if next == Next::Redirected {
                *said = Said::Redirected;
            }
        }
        Some(Kind::ReturnSite) => {
            if let Some(counters) = counters(host, probe) {
                Counters::add(&counters.hits);
                Counters::add(&counters.returns);
                record(host, probe, regs, Cause::ReturnSite);
            }
        }
        _ => {}
    }
}

/// A probe with a post-handler, which is to follow; false when it cannot, and the probe is missed as a whole.
#[cold]
#[inline(never)]
fn follows<H: Host>(host: &H, probe: &Probe, said: &mut Said) -> bool {
    if !step::can_be_followed(host) {
        miss(host, probe);
        return false;
    }
    if *said == Said::Step {
        *said = Said::Followed;
    }
    true
}

/// A handler has hit a probe, or no probe may run here: each has missed it. But the host's own are not a user's.
#[cold]
#[inline(never)]
fn missed<H: Host>(host: &H, site: &Site, index: u64, regs: &mut Regs<H>) {
    if pass(host, site, regs) == Said::Step {
        over(host, site, index, false, regs);
    }
}

/// What is missed of a hit is counted; the host's own probes run.
#[cold]
#[inline(never)]
fn pass<H: Host>(host: &H, site: &Site, regs: &mut Regs<H>) -> Said {
    let mut said = Said::Step;
    for probe in chain(host, site).filter(|p| live(&p.state)) {
        match probe.kind() {
            Some(Kind::Internal) => special(host, site, probe, regs, &mut said),
            Some(_) => miss(host, probe),
            None => {}
        }
    }
    said
}

#[cold]
fn miss<H: Host>(host: &H, probe: &Probe) {
    if let Some(counters) = counters(host, probe) {
        Counters::add(&counters.missed);
    }
}

/// Lets the displaced instruction take its effect and calls post-handlers behind it. They are handlers: if they run at
/// once, the guard is held for them.
#[cold]
#[inline(never)]
fn watched<H: Host>(host: &H, site: &Site, index: u64, place: &AtomicU64, regs: &mut Regs<H>) {
    if over(host, site, index, true, regs) {
        follow(host, site, regs);
    }
    ActiveSet::leave(place);
}

/// [`step::over`], apart from that of most hits.
#[cold]
#[inline(never)]
fn over<H: Host>(host: &H, site: &Site, index: u64, followed: bool, regs: &mut Regs<H>) -> bool {
    step::over(host, site, index, followed, regs)
}

/// The displaced instruction has taken its effect: the post-handlers run, in the order of the chain.
#[cold]
#[inline(never)]
pub(crate) fn follow<H: Host>(host: &H, site: &Site, regs: &mut Regs<H>) {
    let handlers = chain(host, site).filter(|p| live(&p.state) && p.kind() == Some(Kind::Handler) && p.is_followed());
    for probe in handlers {
        host.followed(probe, regs);
    }
}

/// A kprobe without handlers.
#[inline(always)]
fn count<H: Host>(host: &H, probe: &Probe, regs: &Regs<H>) {
    if host.count(probe) {
        record(host, probe, regs, Cause::Hit);
    }
}

/// The counters of a probe.
#[inline]
pub(crate) fn counters<'h, H: Host>(host: &'h H, probe: &Probe) -> Option<&'h Counters> {
    host.counters(probe.id.load(Ordering::Relaxed))
}

/// Records an event of a probe that wants it.
#[inline(always)]
pub(crate) fn record<H: Host>(host: &H, probe: &Probe, regs: &Regs<H>, cause: Cause<'_>) {
    if probe.records() {
        write(host, probe, regs, cause);
    }
}

#[cold]
#[inline(never)]
fn write<H: Host>(host: &H, probe: &Probe, regs: &Regs<H>, cause: Cause<'_>) {
    if !host.record(probe, regs, cause) {
        counters(host, probe).into_iter().for_each(|counters| Counters::add(&counters.lost));
    }
}

/// A probe with handlers.
#[inline(always)]
fn handle<H: Host>(host: &H, probe: &Probe, regs: &mut Regs<H>) -> Next {
    if !host.count(probe) {
        return Next::Step;
    }
    if probe.handlers.before.load(Ordering::Relaxed) == 0 {
        return Next::Step;
    }
    let pc = H::Isa::pc(regs);
    let next = host.handle(probe, regs);
    if next == Next::Step {
        // Whatever the handler has done to it, or left behind when it has faulted.
        H::Isa::set_pc(regs, pc);
    }
    next
}

/// The probes at a site.
pub(crate) fn chain<'h, H: Host>(host: &'h H, site: &Site) -> impl Iterator<Item = &'h Probe> + use<'h, H> {
    chain_from(host, site.first.load(Ordering::Acquire))
}

/// The probes of a chain from this one on: an index + 1, or 0.
fn chain_from<H: Host>(host: &H, first: u32) -> impl Iterator<Item = &Probe> + use<'_, H> {
    let mut next = first;
    core::iter::from_fn(move || {
        let probe = host.probe(next.checked_sub(1)?)?;
        next = probe.next.load(Ordering::Acquire);
        Some(probe)
    })
    .take(MAX_CHAIN)
}
