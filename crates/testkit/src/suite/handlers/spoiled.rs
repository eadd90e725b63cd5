//! Worlds that are wrong in one way about handlers: on each of them the cases must fail.
//!
//! What is wrong with how handlers are called is done by functions that stand in for them ([`Spoil::replaces`]). There
//! is one place for the addresses of those they stand in for, so the last registration counts: enough for a world that
//! is wrong anyway.

use super::super::{Counts as EventCounts, Record, Refusal, World};
use super::{Handlers, Skill, Tools};
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::transmute;
use core::sync::atomic::{AtomicU64, Ordering};
use isa::x86::Regs;
use kprobes::raw::Counts;
use kprobes::{HandlerData, Hit, Next, PostHandler, PreHandler, Registered, Spec, SpecKind, Watch};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// A call that was declined counts as missed.
    DeclinedIsMissed,
    /// Where something was missed, it is one more.
    MissesOneMore,
    /// One miss of several is not counted.
    MissesOneLess,
    /// Hits are not counted.
    ForgetsHits,
    /// Switching does nothing.
    SwitchesNothing,
    /// A probe that is to be registered switched off is on.
    RegistersOn,
    /// Unregistering takes nothing off.
    KeepsProbes,
    /// Of a batch that is refused, what comes before is registered.
    RegistersHalves,
    /// The probe that is refused is always said to be the first.
    BlamesTheFirst,
    /// Probes are registered in the reverse order.
    WrongOrder,
    /// Post-handlers run before the instruction.
    PostBefore,
    /// Post-handlers see the registers of before the instruction.
    StaleRegisters,
    /// Post-handlers do not run.
    DropsPost,
    /// Changes that a pre-handler makes to registers are lost.
    LosesChanges,
    /// Pre-handlers that redirect do not.
    StepsAnyway,
    /// All activations have the same data.
    SharesData,
    /// Data is not kept from entry to return.
    LosesData,
    /// Calls that are declined are watched.
    WatchesDeclined,
    /// Return handlers are told no caller.
    ForgetsCaller,
    /// Return handlers do not run.
    DropsReturns,
    /// Mirrors do not run.
    DropsMirrors,
    /// The word of a probe is another one.
    WrongWord,
}

impl Spoil {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::DeclinedIsMissed,
        Self::MissesOneMore,
        Self::MissesOneLess,
        Self::ForgetsHits,
        Self::SwitchesNothing,
        Self::RegistersOn,
        Self::KeepsProbes,
        Self::RegistersHalves,
        Self::BlamesTheFirst,
        Self::WrongOrder,
        Self::PostBefore,
        Self::StaleRegisters,
        Self::DropsPost,
        Self::LosesChanges,
        Self::StepsAnyway,
        Self::SharesData,
        Self::LosesData,
        Self::WatchesDeclined,
        Self::ForgetsCaller,
        Self::DropsReturns,
        Self::DropsMirrors,
        Self::WrongWord,
    ];

    /// The handlers that are called instead.
    fn replaces(self, kind: SpecKind, data: HandlerData) -> HandlerData {
        let is_kprobe = kind == SpecKind::Kprobe && data.before != 0;
        let is_return = matches!(kind, SpecKind::Kretprobe { .. });
        match self {
            Self::PostBefore if is_kprobe && data.after != 0 => {
                HandlerData { before: pre_address(both_before), after: 0, ..kept(data) }
            }
            Self::StaleRegisters if is_kprobe && data.after != 0 => {
                let after = post_address(post_of_then);
                HandlerData { before: pre_address(pre_and_keep), after, ..kept(data) }
            }
            Self::DropsPost if kind == SpecKind::Kprobe => HandlerData { after: 0, ..data },
            Self::LosesChanges if is_kprobe => HandlerData { before: pre_address(pre_without_changes), ..kept(data) },
            Self::StepsAnyway if is_kprobe => HandlerData { before: pre_address(pre_and_step), ..kept(data) },
            Self::SharesData if is_return && data.before != 0 && data.after != 0 && data.entry_bytes == 8 => {
                let (before, after) = (entry_address(entry_of_all), return_address(return_of_all));
                HandlerData { before, after, ..kept(data) }
            }
            Self::LosesData if is_return && data.after != 0 && data.entry_bytes == 8 => {
                HandlerData { after: return_address(return_without_data), ..kept(data) }
            }
            Self::WatchesDeclined if is_return && data.before != 0 => {
                HandlerData { before: entry_address(entry_and_watch), ..kept(data) }
            }
            Self::ForgetsCaller if is_return && data.after != 0 => {
                HandlerData { after: return_address(return_to_nobody), ..kept(data) }
            }
            Self::DropsReturns if is_return => HandlerData { after: 0, ..data },
            Self::DropsMirrors if kind == SpecKind::Jprobe => HandlerData { before: 0, ..data },
            Self::WrongWord => HandlerData { user: data.user + 1, ..data },
            _ => data,
        }
    }
}

static BEFORE: AtomicU64 = AtomicU64::new(0);
static AFTER: AtomicU64 = AtomicU64::new(0);
static KEPT: [AtomicU64; 18] = [const { AtomicU64::new(0) }; 18];
static DATA: AtomicU64 = AtomicU64::new(0);

type Entry = extern "C" fn(&mut Hit<'_, Regs>, *mut u8) -> Watch;
type Return = extern "C" fn(&mut Hit<'_, Regs>, *mut u8);

fn kept(data: HandlerData) -> HandlerData {
    BEFORE.store(data.before, Ordering::Relaxed);
    AFTER.store(data.after, Ordering::Relaxed);
    data
}

fn pre_address(function: PreHandler<Regs>) -> u64 {
    function as usize as u64
}

fn post_address(function: PostHandler<Regs>) -> u64 {
    function as usize as u64
}

fn entry_address(function: Entry) -> u64 {
    function as usize as u64
}

fn return_address(function: Return) -> u64 {
    function as usize as u64
}

fn pre(hit: &mut Hit<'_, Regs>) -> Next {
    // SAFETY: the address of a pre-handler, which `replaces` has kept of a probe with one.
    unsafe { transmute::<u64, PreHandler<Regs>>(BEFORE.load(Ordering::Relaxed))(hit) }
}

fn post(hit: &mut Hit<'_, Regs>) {
    // SAFETY: the address of a post-handler, which `replaces` has kept of a probe with one.
    unsafe { transmute::<u64, PostHandler<Regs>>(AFTER.load(Ordering::Relaxed))(hit) }
}

fn entry(hit: &mut Hit<'_, Regs>, data: *mut u8) -> Watch {
    // SAFETY: the address of an entry handler, kept of a probe with one; what its data is is its host's promise, but in
    // `entry_of_all`, which stands in for handlers with a word.
    unsafe { transmute::<u64, Entry>(BEFORE.load(Ordering::Relaxed))(hit, data) }
}

fn returned(hit: &mut Hit<'_, Regs>, data: *mut u8) {
    // SAFETY: as in `entry`.
    unsafe { transmute::<u64, Return>(AFTER.load(Ordering::Relaxed))(hit, data) }
}

extern "C" fn both_before(hit: &mut Hit<'_, Regs>) -> Next {
    let next = pre(hit);
    if next == Next::Step {
        post(hit);
    }
    next
}

extern "C" fn pre_and_keep(hit: &mut Hit<'_, Regs>) -> Next {
    let regs = hit.regs();
    let words = regs.gpr.iter().copied().chain([regs.rip, regs.flags]);
    KEPT.iter().zip(words).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
    pre(hit)
}

extern "C" fn post_of_then(hit: &mut Hit<'_, Regs>) {
    let word = |index: usize| KEPT.get(index).map_or(0, |word| word.load(Ordering::Relaxed));
    let mut regs = Regs { gpr: core::array::from_fn(word), rip: word(16), flags: word(17) };
    post(&mut Hit::new(&mut regs, hit.address(), hit.user()));
}

extern "C" fn pre_without_changes(hit: &mut Hit<'_, Regs>) -> Next {
    let regs = *hit.regs();
    let next = pre(hit);
    if next == Next::Step {
        *hit.regs_mut() = regs;
    }
    next
}

extern "C" fn pre_and_step(hit: &mut Hit<'_, Regs>) -> Next {
    pre(hit);
    Next::Step
}

extern "C" fn entry_of_all(hit: &mut Hit<'_, Regs>, _: *mut u8) -> Watch {
    entry(hit, DATA.as_ptr().cast())
}

extern "C" fn return_of_all(hit: &mut Hit<'_, Regs>, _: *mut u8) {
    returned(hit, DATA.as_ptr().cast());
}

extern "C" fn return_without_data(hit: &mut Hit<'_, Regs>, _: *mut u8) {
    returned(hit, AtomicU64::new(0).as_ptr().cast());
}

extern "C" fn entry_and_watch(hit: &mut Hit<'_, Regs>, data: *mut u8) -> Watch {
    entry(hit, data);
    Watch::Yes
}

extern "C" fn return_to_nobody(hit: &mut Hit<'_, Regs>, data: *mut u8) {
    let (address, user) = (hit.address(), hit.user());
    returned(&mut Hit::new(hit.regs_mut(), address, user), data);
}

/// A world with a fault, around one without.
///
/// ```
/// # #[cfg(all(feature = "std", target_arch = "x86_64"))] {
/// use testkit::suite::{HANDLER_CASES, Handlers, ModelWorld, Spoil, Spoiled, run_handler_case};
///
/// let machine = ModelWorld::machine();
/// let mut world = ModelWorld::new(&machine);
/// let case = HANDLER_CASES.iter().find(|case| case.needs.is_none()).unwrap();
/// assert!(run_handler_case(case, &mut world).is_ok());
/// // Probes that are not taken off are found by every case.
/// let mut spoiled = Spoiled::new(&mut world, Spoil::KeepsProbes);
/// assert!(run_handler_case(case, &mut spoiled).is_err());
/// assert_eq!(spoiled.registered(), 0, "whatever was left is gone");
/// # }
/// ```
pub struct Spoiled<'w> {
    inner: &'w mut dyn Handlers,
    spoil: Spoil,
}

impl core::fmt::Debug for Spoiled<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Spoiled").field("spoil", &self.spoil).finish_non_exhaustive()
    }
}

impl<'w> Spoiled<'w> {
    /// `inner` with a fault.
    #[must_use]
    pub fn new(inner: &'w mut dyn Handlers, spoil: Spoil) -> Self {
        Self { inner, spoil }
    }

    fn spoiled<'a>(&self, probe: Spec<'a, Regs>) -> Spec<'a, Regs> {
        let handlers = self.spoil.replaces(probe.kind(), probe.handlers());
        let disabled = probe.disabled && self.spoil != Spoil::RegistersOn;
        // SAFETY: handlers of the suite's own, of the kind that they replace.
        unsafe { Spec::new(probe.place, probe.kind(), handlers, disabled) }
    }

    fn try_to_register(&mut self, probes: Vec<Spec<'_, Regs>>) -> Result<Vec<Registered>, Refusal> {
        fn copy<'a>(p: &Spec<'a, Regs>) -> Spec<'a, Regs> {
            // SAFETY: what was typed, of functions of the suite's.
            unsafe { Spec::new(p.place, p.kind(), p.handlers(), p.disabled) }
        }
        let copies: Vec<_> = probes.iter().map(copy).collect();
        let registered = self.inner.register(probes);
        if let (Spoil::RegistersHalves, Err(refusal)) = (self.spoil, &registered) {
            let before = copies.into_iter().take(refusal.line).collect();
            // It was not refused for these.
            let _ = self.inner.register(before);
        }
        registered
    }
}

impl Handlers for Spoiled<'_> {
    fn register(&mut self, probes: Vec<Spec<'_, Regs>>) -> Result<Vec<Registered>, Refusal> {
        let mut probes: Vec<_> = probes.into_iter().map(|probe| self.spoiled(probe)).collect();
        let last = probes.len().saturating_sub(1);
        let reverse = self.spoil == Spoil::WrongOrder;
        if reverse {
            probes.reverse();
        }
        let registered = self.try_to_register(probes);
        let registered = registered.map_err(|refusal| match self.spoil {
            Spoil::BlamesTheFirst => Refusal { line: 0, ..refusal },
            _ if reverse => Refusal { line: last - refusal.line, ..refusal },
            _ => refusal,
        });
        registered.map(|mut registered| {
            if reverse {
                registered.reverse();
            }
            registered
        })
    }

    fn unregister(&mut self, probes: Vec<Registered>) -> Result<(), String> {
        if self.spoil == Spoil::KeepsProbes { Ok(()) } else { self.inner.unregister(probes) }
    }

    fn enable(&mut self, probe: &Registered, on: bool) -> Result<(), String> {
        if self.spoil == Spoil::SwitchesNothing { Ok(()) } else { self.inner.enable(probe, on) }
    }

    fn counts_of(&mut self, probe: &Registered) -> Option<Counts> {
        let counts = self.inner.counts_of(probe)?;
        Some(match self.spoil {
            Spoil::DeclinedIsMissed => Counts { missed: counts.missed + counts.declined, declined: 0, ..counts },
            Spoil::MissesOneMore if counts.missed > 0 => Counts { missed: counts.missed + 1, ..counts },
            Spoil::MissesOneLess if counts.missed > 1 => Counts { missed: counts.missed - 1, ..counts },
            Spoil::ForgetsHits => Counts { hits: 0, ..counts },
            _ => counts,
        })
    }

    fn registered(&self) -> usize {
        self.inner.registered()
    }

    fn unregister_all(&mut self) {
        self.inner.unregister_all();
    }

    fn tools(&self) -> Tools {
        self.inner.tools()
    }

    fn call_waiting(
        &mut self,
        meanwhile: &mut dyn FnMut(&mut dyn Handlers) -> Result<(), String>,
    ) -> Result<u64, String> {
        let spoil = self.spoil;
        self.inner.call_waiting(&mut |inner| meanwhile(&mut Spoiled::new(inner, spoil)))
    }

    fn has(&self, skill: Skill) -> bool {
        self.inner.has(skill)
    }

    fn call_faulting(&mut self, function: &str, arguments: [u64; 2]) -> Option<u64> {
        self.inner.call_faulting(function, arguments)
    }

    fn bad_address(&self) -> u64 {
        self.inner.bad_address()
    }

    fn bad_trap(&self) -> u64 {
        self.inner.bad_trap()
    }

    fn own_code(&self) -> u64 {
        self.inner.own_code()
    }
}

impl World for Spoiled<'_> {
    fn address(&self, function: &str) -> u64 {
        self.inner.address(function)
    }

    fn text(&mut self, address: u64, out: &mut [u8]) {
        self.inner.text(address, out);
    }

    fn call(&mut self, function: &str, arguments: [u64; 2]) -> u64 {
        self.inner.call(function, arguments)
    }

    fn define(&mut self, lines: &[&str]) -> Result<(), Refusal> {
        self.inner.define(lines)
    }

    fn remove(&mut self, events: &[&str]) -> Result<(), String> {
        self.inner.remove(events)
    }

    fn events(&self) -> Vec<String> {
        self.inner.events()
    }

    fn counts(&mut self, event: &str) -> Option<EventCounts> {
        self.inner.counts(event)
    }

    fn records(&mut self) -> Vec<Record> {
        self.inner.records()
    }

    fn repetitions(&self, wanted: usize) -> usize {
        self.inner.repetitions(wanted)
    }
}
