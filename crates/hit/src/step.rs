//! Executing the displaced instruction: what happens between the breakpoint and the next instruction.
//!
//! There are four ways, and all have the same result. Control chooses one for each site ([`Site::how`]):
//!
//! * **emulated**: the hit path executes an operation. No copy runs, nothing can interrupt.
//! * **boosted**: the registers go to the slot, whose copy ends with a jump to the next instruction.
//! * **second breakpoint**: a breakpoint stands behind the copy. Its address is in the probe table too. At
//!   [`BOOSTED_COPY`] the slot has another copy, which jumps back.
//! * **single step**: the processor traps after one instruction. The trap has no address of its own: what is stepped is
//!   kept for each processor, in [`Stepping`]. The slot is a boosted one.
//!
//! While a copy is stepped nothing may interrupt, or the trap would come in somebody else's code. [`Isa::begin_step`]
//! sees to it, and [`Isa::end_step`] restores the bits exactly. Instructions that could see or change those bits are
//! never stepped; control emulates or boosts them. What cannot be held back (a fault of the instruction itself, an
//! interrupt that cannot be masked) may hit further probes, even the same one: they find [`Stepping`] taken, and run
//! boosted. So does a step that a fault has ended, when it goes on. A boosted copy needs no memory of itself.
//!
//! # Post-handlers
//!
//! They need a trap behind the instruction. An emulated one is done in the first trap; else the copy with the second
//! breakpoint is taken for this hit, though others at the same site may run boosted ([`Site::WHEN_WATCHED`]). A hit that
//! interrupts another step runs boosted, so its probes with post-handlers are missed as a whole. An instruction whose
//! emulation gives up, because memory is not there, runs boosted too: nobody knows what becomes of it.
//!
//! # A fault in the copy
//!
//! [`displaced`] tells where the instruction is in truth: whoever handles the fault, or reports it, sees the registers
//! that it would have without a probe. If it was a fault that is cured by running the instruction again, [`resume`]
//! goes on in the copy, so that the probe is hit once. Both work on registers alone, so the handler may be preempted,
//! and go on elsewhere. Linux resets the program counter to the probe and hits it a second time
//! (`kprobe_fault_handler`).

use crate::path::{Outcome, Regs, chain, follow};
use crate::site::{Kind, Probe, Site, live};
use crate::{Host, Isa};
use sync::ActiveSet;
use sync::primitive::{AtomicU64, Ordering};

/// Slots begin at multiples of this, in hosts that publish them.
pub const SLOT_BYTES: u64 = 64;
/// Where in a slot with a second breakpoint the boosted copy is.
pub const BOOSTED_COPY: u64 = SLOT_BYTES / 2;
/// In the table's entry for the beginning of a slot, beside its site's index.
pub const SLOT: u64 = 1 << 32;
/// In the table's entry for a second breakpoint, beside its site's index.
pub const STEP_END: u64 = 1 << 33;

/// In the table's entry for an address that a jump leads to, beside the index of the detour's own site: where the detour
/// begins, or a pad before it. The slot before that of the copy begins with a breakpoint.
pub const DETOUR: u64 = 1 << 35;
/// In the table's entry for that breakpoint, beside the index of the probed site: a hit of that one.
pub const INSTEAD: u64 = 1 << 36;
/// In the table's entry for an instruction boundary inside a jump: see [`inside`].
const INSIDE: u64 = 1 << 34;
/// Where in such an entry the offset is.
const OFFSET: u32 = 40;

/// The table's entry for an instruction boundary inside a jump, where a breakpoint stands as a part of the jump: a thread
/// that comes back to it goes on at `offset` in the detour's copy of the displaced instructions. `index` is that of the
/// detour's own site, whose slot the copy is.
///
/// ```
/// # use hit::inside;
/// assert_eq!(inside(7, 4), Some(7 | 1 << 34 | 4 << 40));
/// assert_eq!(inside(7, 256), None);
/// ```
#[must_use]
pub fn inside(index: u32, offset: usize) -> Option<u64> {
    Some(u64::from(index) | INSIDE | u64::from(u8::try_from(offset).ok()?) << OFFSET)
}

/// Whether the entry is that of a breakpoint in a detour.
pub(crate) const fn is_instead(entry: u64) -> bool {
    entry & INSTEAD != 0
}

/// Where a thread goes on that stands at an instruction boundary inside a jump, if that stands still.
pub(crate) fn within_jump(site: &Site, entry: u64) -> Option<u64> {
    let offset = entry >> OFFSET & 0xFF;
    let stands = entry & INSIDE != 0 && live(&site.state);
    stands.then(|| site.slot.load(Ordering::Relaxed).wrapping_add(offset))
}

/// The index of the site that an entry of the table speaks of.
pub(crate) const fn index(entry: u64) -> u64 {
    entry & (SLOT - 1)
}

/// Whether an entry speaks of the site itself.
pub(crate) const fn is_site(entry: u64) -> bool {
    entry & (SLOT | STEP_END | INSIDE | DETOUR | INSTEAD) == 0
}

/// The step that a processor is in the middle of. Only this processor uses it.
///
/// ```
/// let stepping = hit::Stepping::new();
/// assert_eq!(stepping.site(), None); // until a breakpoint trap begins a step
/// ```
#[derive(Debug)]
pub struct Stepping {
    /// Index of the site + 1, or 0.
    site: AtomicU64,
    saved: AtomicU64,
    /// Not 0: post-handlers come after it.
    followed: AtomicU64,
}

impl Stepping {
    /// No step.
    #[must_use]
    pub const fn new() -> Self {
        Self { site: AtomicU64::new(0), saved: AtomicU64::new(0), followed: AtomicU64::new(0) }
    }

    /// Index of the site whose copy is stepped.
    #[must_use]
    pub fn site(&self) -> Option<u64> {
        self.site.load(Ordering::Relaxed).checked_sub(1)
    }

    fn is_free(&self) -> bool {
        self.site.load(Ordering::Relaxed) == 0
    }

    fn begin<I: Isa>(&self, index: u64, single: bool, followed: bool, regs: &mut I::Regs) {
        // First: what interrupts this is not to begin a step of its own.
        self.site.store(index + 1, Ordering::Relaxed);
        self.followed.store(u64::from(followed), Ordering::Relaxed);
        self.saved.store(I::begin_step(regs, single), Ordering::Relaxed);
    }

    /// Ends the step of this site, if it is the one; others are not concerned. Says whether post-handlers are to come.
    fn end<I: Isa>(&self, index: u64, regs: &mut I::Regs) -> bool {
        if self.site() != Some(index) {
            return false;
        }
        I::end_step(regs, self.saved.load(Ordering::Relaxed));
        let followed = self.followed.load(Ordering::Relaxed) != 0;
        self.site.store(0, Ordering::Relaxed);
        followed
    }
}

impl Default for Stepping {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a step that begins now can end in post-handlers: not if it interrupts another one, since it runs boosted then.
pub(crate) fn can_be_followed<H: Host>(host: &H) -> bool {
    host.stepping().is_none_or(Stepping::is_free)
}

/// Lets the displaced instruction take its effect, with post-handlers behind it if it is `followed`. True when it has
/// taken it already.
#[inline(always)]
pub(crate) fn over<H: Host>(host: &H, site: &Site, index: u64, followed: bool, regs: &mut Regs<H>) -> bool {
    let how = site.how.load(Ordering::Relaxed);
    let dear = followed || how & Site::WHEN_WATCHED == 0;
    if how & Site::EMULATE != 0 && dear && H::Isa::execute(site.op(), regs) {
        return true;
    }
    let slot = site.slot.load(Ordering::Relaxed);
    if how & Site::SINGLE_STEP == 0 && (!dear || how & Site::SECOND_BREAKPOINT == 0) {
        H::Isa::set_pc(regs, slot + boosted(how));
        return false;
    }
    let second = how & Site::SECOND_BREAKPOINT != 0 && dear;
    H::Isa::set_pc(regs, slot);
    match host.stepping() {
        Some(stepping) if stepping.is_free() => {
            stepping.begin::<H::Isa>(index, how & Site::SINGLE_STEP != 0, followed, regs);
        }
        // Nothing is kept of a step that ends at a breakpoint of its own: that says what was stepped.
        None if second => {}
        _ => H::Isa::set_pc(regs, slot + boosted(how)),
    }
    false
}

/// Where in a slot a copy is that jumps back.
const fn boosted(how: u32) -> u64 {
    if how & Site::SECOND_BREAKPOINT != 0 { BOOSTED_COPY } else { 0 }
}

/// Whether `address` is the second breakpoint of the site that `entry` speaks of.
pub(crate) fn is_complete(site: &Site, entry: u64, address: u64) -> bool {
    let (complete, _) = Site::lengths(site.how.load(Ordering::Relaxed));
    entry & STEP_END != 0 && site.slot.load(Ordering::Relaxed).wrapping_add(complete) == address
}

/// The copy has run: execution goes on behind the original.
pub(crate) fn complete<H: Host>(host: &H, site: &Site, index: u64, regs: &mut Regs<H>) {
    let length = u64::from(site.length.load(Ordering::Relaxed));
    let next = site.address.load(Ordering::Relaxed).wrapping_add(length);
    H::Isa::set_pc(regs, next);
    end(host, site, index, regs);
}

/// The step of this site has ended, and the registers say where execution goes on.
fn end<H: Host>(host: &H, site: &Site, index: u64, regs: &mut Regs<H>) {
    // A host that keeps nothing of a step takes the second breakpoint for steps that are followed only.
    let followed = host.stepping().is_none_or(|stepping| stepping.end::<H::Isa>(index, regs));
    if !followed {
        return;
    }
    if let Some(place) = host.enter() {
        follow(host, site, regs);
        ActiveSet::leave(place);
    }
}

/// Handles the trap that comes after a single step.
///
/// A copy of several instructions, or one that repeats itself, takes several steps.
///
/// ```
/// use hit::{Host, Isa, Outcome, single_step};
///
/// /// Whether anybody else is to be told of a debug exception.
/// fn debug<H: Host>(host: &H, regs: &mut <H::Isa as Isa>::Regs) -> bool {
///     single_step(host, regs) == Outcome::Foreign
/// }
/// ```
pub fn single_step<H: Host>(host: &H, regs: &mut Regs<H>) -> Outcome {
    let stepped = host.stepping().and_then(Stepping::site).and_then(|index| Some((index, host.site(index)?)));
    let single = |site: &Site| site.how.load(Ordering::Relaxed) & Site::SINGLE_STEP != 0;
    // In registers that do not step, it is a trap of something that has interrupted ours.
    let ours = H::Isa::is_single_stepping(regs);
    let Some((index, site)) = stepped.filter(|(_, site)| ours && single(site)) else {
        return foreign_step(host, regs);
    };
    let how = site.how.load(Ordering::Relaxed);
    let (done, code) = Site::lengths(how);
    let offset = H::Isa::pc(regs).wrapping_sub(site.slot.load(Ordering::Relaxed));
    if offset < code && (done == 0 || offset < done) {
        return Outcome::Handled;
    }
    if offset < code {
        complete(host, site, index, regs);
    } else {
        end(host, site, index, regs);
    }
    Outcome::Handled
}

/// The program steps itself, and may do so in a slot: whoever it tells shall see it behind the original, and not before
/// the instruction is complete, and not at the stub of a return probe. (The step of an instruction that traps is lost:
/// the trap has taken its place.)
#[cold]
fn foreign_step<H: Host>(host: &H, regs: &mut Regs<H>) -> Outcome {
    let pc = H::Isa::pc(regs);
    if host.returns().spans(pc) {
        return Outcome::Handled;
    }
    if let Some(entry) = host.find(pc).filter(|entry| entry & DETOUR != 0) {
        return by_step(host, entry, regs);
    }
    let Some(place) = in_slot(host, pc) else { return Outcome::Foreign };
    if place.delta == 0 {
        return Outcome::Handled;
    }
    place.tell_truth::<H>(regs);
    Outcome::Foreign
}

/// The program has stepped over a jump of ours, and stands where the detour begins: nothing of that was executed. So that
/// it steps through nothing of ours, it goes to a breakpoint instead, which is the site's hit. (Not here: this trap may
/// have left no room on the stack for what is emulated.)
fn by_step<H: Host>(host: &H, entry: u64, regs: &mut Regs<H>) -> Outcome {
    let Some(site) = host.site(index(entry)) else { return Outcome::Foreign };
    H::Isa::set_pc(regs, site.slot.load(Ordering::Relaxed).wrapping_sub(SLOT_BYTES));
    Outcome::Handled
}

/// What a place in a slot stands for.
struct Place<'h> {
    index: u64,
    site: &'h Site,
    slot: u64,
    delta: i64,
    pushed: u64,
}

impl Place<'_> {
    /// Sets the registers to what they would be without the probe; gives program counter and stack pointer.
    fn tell_truth<H: Host>(&self, regs: &mut Regs<H>) -> (u64, u64) {
        let pc = self.site.address.load(Ordering::Relaxed).wrapping_add_signed(self.delta);
        let sp = H::Isa::sp(regs).wrapping_add(self.pushed);
        H::Isa::set_pc(regs, pc);
        H::Isa::set_sp(regs, sp);
        (pc, sp)
    }
}

/// What `pc` stands for, if it is in a slot that was published.
fn in_slot<H: Host>(host: &H, pc: u64) -> Option<Place<'_>> {
    let slot = pc & !(SLOT_BYTES - 1);
    let entry = host.find(slot).filter(|entry| entry & SLOT != 0)?;
    let site = host.site(index(entry)).filter(|site| site.slot.load(Ordering::Relaxed) == slot)?;
    let (delta, pushed) = host.marks(index(entry))?.meaning(pc - slot);
    Some(Place { index: index(entry), site, slot, delta, pushed })
}

/// Where a thread was in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Displaced {
    site: u64,
    slot: (u64, u64),
    truth: (u64, u64),
}

/// The registers are those of a fault: if it happened in a slot, they become what they would be without the probe, and
/// a step that was under way ends. `None` when it happened elsewhere.
///
/// ```
/// use hit::{Host, Isa, displaced, offer, resume};
///
/// /// A page fault; `kernel` is who handles it without probes.
/// fn fault<H: Host, R>(host: &H, regs: &mut R, kernel: impl FnOnce(&mut R) -> bool) -> bool
/// where
///     H::Isa: Isa<Regs = R>,
/// {
///     let Some(displaced) = displaced(host, regs) else { return kernel(regs) };
///     // From here on `regs` say what they would without a probe.
///     let cured = offer(host, &displaced, regs, 14) || kernel(regs);
///     if cured {
///         resume::<H::Isa>(displaced, regs);
///     }
///     cured
/// }
/// ```
pub fn displaced<H: Host>(host: &H, regs: &mut Regs<H>) -> Option<Displaced> {
    let (pc, sp) = (H::Isa::pc(regs), H::Isa::sp(regs));
    let place = in_slot(host, pc)?;
    let how = place.site.how.load(Ordering::Relaxed);
    // A boosted copy may have interrupted a step of the same site: then it is not the one that ends.
    let in_boosted = pc - place.slot >= boosted(how);
    let stepped = if how & Site::SECOND_BREAKPOINT != 0 { !in_boosted } else { H::Isa::is_single_stepping(regs) };
    if let Some(stepping) = host.stepping().filter(|_| stepped) {
        stepping.end::<H::Isa>(place.index, regs);
    }
    let truth = place.tell_truth::<H>(regs);
    let goes_on = if in_boosted { pc } else { pc + boosted(how) };
    Some(Displaced { site: place.index, slot: (goes_on, sp), truth })
}

/// Offers a fault of a displaced instruction, which has raised `trap`, to the fault handlers of its probes, in the order
/// of their chain. True when one has cured it: nobody else is to be told, and execution goes on at `regs` (see
/// [`resume`]).
///
/// In a handler's own fault nobody is asked: the thread is in a handler already.
pub fn offer<H: Host>(host: &H, displaced: &Displaced, regs: &mut Regs<H>, trap: u64) -> bool {
    let Some(site) = host.site(displaced.site) else { return false };
    let wanted = |p: &&Probe| live(&p.state) && p.kind() == Some(Kind::Handler);
    let has_handler = |p: &&Probe| p.handlers.fault.load(Ordering::Relaxed) != 0;
    let mut probes = chain(host, site).filter(wanted).filter(has_handler).peekable();
    if probes.peek().is_none() {
        return false;
    }
    let Some(place) = host.enter() else { return false };
    let cured = probes.any(|probe| host.faulted(probe, regs, trap));
    ActiveSet::leave(place);
    cured
}

/// The fault was handled: if the instruction is to run again, it does so where it was; else nothing is changed.
pub fn resume<I: Isa>(displaced: Displaced, regs: &mut I::Regs) {
    if (I::pc(regs), I::sp(regs)) == displaced.truth {
        I::set_pc(regs, displaced.slot.0);
        I::set_sp(regs, displaced.slot.1);
    }
}
