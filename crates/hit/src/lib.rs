//! What runs when a probe is hit.
//!
//! This crate is the half of kprobes that lives in trap context. It finds the site of a breakpoint, runs the probes
//! that sit there, and lets the displaced instruction take its effect: by an operation that was prepared as plain data,
//! or by going on in a copy of it (a *slot*). It does not know how an instruction is encoded, who prepared the data, or
//! which operating system it runs on; [`Isa`] and [`Host`] supply what it needs.
//!
//! # The life of a hit
//!
//! 1. [`breakpoint`]: is the address the stub of a return probe's instance ([`returns`])? Else it is looked up in the
//!    probe table. Not there: is the breakpoint gone by now, because it was removed after this processor had fetched it? Then
//!    the instruction is run again. Otherwise the trap is somebody else's: [`Outcome::Foreign`].
//! 2. The thread enters the active set. If it is in already, a handler has hit a probe: probes do not run, and each is
//!    counted as missed (Linux: `kprobes_inc_nmissed_count`).
//! 3. The site's probes run in the order of their chain.
//! 4. The instruction takes effect, unless a probe has set the program counter itself: as an operation that is executed
//!    here, or in a copy ([`single_step`] and [`displaced`] are about what can happen there).
//!
//! # Rules for everything here
//!
//! No allocation, no lock, no panic, no unbounded loop: chains are cut at [`MAX_CHAIN`], indices are checked. Memory
//! that control writes while handlers run is read through atomics; each field's documentation says who writes it.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

mod counts;
mod path;
#[cfg_attr(not(feature = "kretprobes"), expect(dead_code, reason = "their data is there, what works on it is not"))]
pub mod returns;
mod site;
mod step;
mod zeroed;

pub use counts::Counts;
pub use path::{MAX_CHAIN, Onward, Outcome, breakpoint, detoured, returned};
pub use site::{Counters, Handlers, Kind, MARKS, Marks, OP_WORDS, ORIGINAL_BYTES, Probe, Site, live};
pub use step::{
    BOOSTED_COPY, DETOUR, Displaced, INSTEAD, SLOT, SLOT_BYTES, STEP_END, Stepping, displaced, inside, offer, resume,
    single_step,
};

/// What the hit path must know of an instruction set: where the registers keep what, and how a prepared operation is
/// executed. How instructions are encoded is none of its business.
pub trait Isa {
    /// The general registers at the probe, as the host's trap glue saved them.
    type Regs;

    /// The address of the breakpoint that raised this trap (on x86 one below the saved program counter).
    fn breakpoint_address(regs: &Self::Regs) -> u64;
    /// The program counter.
    fn pc(regs: &Self::Regs) -> u64;
    /// Sets where execution goes on.
    fn set_pc(regs: &mut Self::Regs, pc: u64);
    /// The stack pointer.
    fn sp(regs: &Self::Regs) -> u64;
    /// Sets the stack pointer.
    fn set_sp(regs: &mut Self::Regs, sp: u64);
    /// Makes these registers step: nothing interrupts, and with `single` the processor traps after one instruction.
    /// Gives what [`end_step`](Isa::end_step) needs to undo it.
    fn begin_step(regs: &mut Self::Regs, single: bool) -> u64;
    /// Whether these registers make the processor trap after one instruction.
    fn is_single_stepping(regs: &Self::Regs) -> bool;
    /// Undoes [`begin_step`](Isa::begin_step).
    fn end_step(regs: &mut Self::Regs, saved: u64);
    /// Executes a prepared operation; false when `op` is none that can be executed in the handler, or would fault: nothing
    /// has changed then, and the copy is run.
    ///
    /// The program counter in `regs` is the address of the displaced instruction.
    fn execute(op: [u64; OP_WORDS], regs: &mut Self::Regs) -> bool;
    /// The address of the word that holds the return address, at a function's first instruction.
    fn return_slot(regs: &Self::Regs) -> u64;
    /// The registers that carry a function's arguments, at its first instruction.
    fn arguments(regs: &Self::Regs) -> [u64; returns::SAVED_ARGUMENTS];
}

/// What a probe says of the displaced instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Next {
    /// It takes its effect.
    Step = 0,
    /// The probe has set the program counter and done the instruction's work: execution goes on there, and the probes that
    /// come later at this address are not reached (Linux: a pre-handler that returns 1).
    Redirected = 1,
}

/// What an entry handler says of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Watch {
    /// Its return is waited for.
    Yes = 0,
    /// It is not (Linux: an entry handler that returns 1).
    No = 1,
}

/// Why an event is recorded.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// The probe's instruction is about to run.
    Hit,
    /// A probed function has returned; its activation is this instance.
    Return(&'a returns::Instance),
    /// An instruction that leaves the probed function is about to run.
    ReturnSite,
}

/// What the hit path needs of the place it runs in.
///
/// All methods are called in trap context: they must not allocate, lock, or wait for another thread, except that
/// [`internal`](Host::internal) may do what the host's own protocol allows.
pub trait Host {
    /// The instruction set.
    type Isa: Isa;

    /// What the probe table says of `address`: the index of a site, or one with [`SLOT`] or [`STEP_END`].
    fn find(&self, address: u64) -> Option<u64>;
    /// A site by its index.
    fn site(&self, index: u64) -> Option<&Site>;
    /// A probe by its index.
    fn probe(&self, index: u32) -> Option<&Probe>;
    /// Where a probe's counts go; `None` when this process does not count.
    fn counters(&self, id: u32) -> Option<&Counters>;
    /// Counts a hit of `probe`; false when this process does not count. A host may have a faster way than one word for all.
    #[inline]
    fn count(&self, probe: &Probe) -> bool {
        let counters = self.counters(probe.id.load(sync::primitive::Ordering::Relaxed));
        counters.map(|counters| Counters::add(&counters.hits)).is_some()
    }
    /// Whether a breakpoint stands at `address` now: the byte is read again.
    fn is_breakpoint(&self, address: u64) -> bool;
    /// An identity of the running thread that no other running thread has, not 0.
    fn thread(&self) -> u64;
    /// The running thread enters its handler: its place among the threads that are in one, to be left by
    /// [`sync::ActiveSet::leave`]. `None` when it is in one already, or when no probe may run here.
    fn enter(&self) -> Option<&sync::primitive::AtomicU64>;
    /// The instances of return probes.
    fn returns(&self) -> returns::Returns<'_>;
    /// Records an event of `probe`; false when there was no room for it.
    fn record(&self, probe: &Probe, regs: &<Self::Isa as Isa>::Regs, cause: Cause<'_>) -> bool;
    /// Calls the pre-handler of `probe`, or a jprobe's function. The registers are the interrupted program's, and may be
    /// changed.
    fn handle(&self, probe: &Probe, regs: &mut <Self::Isa as Isa>::Regs) -> Next {
        let _ = (probe, regs);
        Next::Step
    }
    /// Calls the post-handler of `probe`: the displaced instruction has taken its effect.
    fn followed(&self, probe: &Probe, regs: &mut <Self::Isa as Isa>::Regs) {
        let _ = (probe, regs);
    }
    /// Calls the fault handler of `probe`: the displaced instruction has raised `trap`, and `regs` are those before it.
    /// True when it has cured that.
    fn faulted(&self, probe: &Probe, regs: &mut <Self::Isa as Isa>::Regs, trap: u64) -> bool {
        let _ = (probe, regs, trap);
        false
    }
    /// Calls the entry handler of a return probe, for the activation that instance `id` stands for.
    fn entered(&self, probe: &Probe, id: u32, regs: &mut <Self::Isa as Isa>::Regs) -> Watch {
        let _ = (probe, id, regs);
        Watch::Yes
    }
    /// Calls a return probe's handler: the activation returns.
    fn returned(&self, probe: &Probe, id: u32, caller: u64, regs: &mut <Self::Isa as Isa>::Regs) {
        let _ = (probe, id, caller, regs);
    }
    /// An activation is over, with or without a return: its data is given back.
    fn released(&self, probe: &Probe, id: u32) {
        let _ = (probe, id);
    }
    /// What the running processor keeps of a step; `None` when the host only knows copies that jump back.
    fn stepping(&self) -> Option<&Stepping> {
        None
    }
    /// What a site's slot means at its offsets; `None` when the host does not keep it.
    fn marks(&self, index: u64) -> Option<&Marks> {
        let _ = index;
        None
    }
    /// Runs a probe of the host's own.
    fn internal(&self, probe: &Probe, address: u64, regs: &mut <Self::Isa as Isa>::Regs) -> Next;

    /// Reads the word at `address`, which is known to be mapped: the return slot of a function just entered.
    fn load(&self, address: u64) -> u64;
    /// Replaces `old` by `new` at `address`, which is known to be mapped; false when it was not `old`.
    fn exchange(&self, address: u64, old: u64, new: u64) -> bool;
    /// Like [`exchange`](Host::exchange) for an address that may be mapped no longer; false then too.
    fn exchange_guarded(&self, address: u64, old: u64, new: u64) -> bool;

    /// Whether the memory from `low` to `high` can be one stack: every page can be read, and nothing that is known to
    /// end a stack lies between.
    fn contiguous(&self, low: u64, high: u64) -> bool;
    /// Another thread works on something of this thread's for a few instructions more: lets it. Called a bounded number
    /// of times, and from [`internal`](Host::internal) probes only.
    fn relax(&self) {
        core::hint::spin_loop();
    }
    /// The stack pointer that the outermost handler on `side` has interrupted, when the thread's stack pointer `sp`
    /// is on that stack and the host can know.
    fn interrupted(&self, sp: u64, side: returns::SideStack) -> Option<u64> {
        let _ = (sp, side);
        None
    }
}
