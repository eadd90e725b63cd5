//! What handlers have noted, and handlers that note.
//!
//! # Statics
//!
//! Handlers may run on several processors at once, and in trap context: notes are atomics, in places that are given out
//! by a counter. A case reads them when no handler runs. [`begin`] says that only one case uses them.

use super::Tools;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use isa::x86::{Regs, gpr};
use kprobes::{Cure, Handler, Hit, Next, Watch};

/// Which handler has noted something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A pre-handler.
    Pre = 1,
    /// A post-handler.
    Post,
    /// A fault handler.
    Fault,
    /// The entry handler of a return probe.
    Entry,
    /// Its handler.
    Return,
    /// The mirror of a jprobe.
    Mirror,
}

const KINDS: [What; 6] = [What::Pre, What::Post, What::Fault, What::Entry, What::Return, What::Mirror];
/// How many notes there is room for; more are not kept.
const NOTES: usize = 256;
/// How many words a note has.
pub(super) const WORDS: usize = 8;

/// What a handler has noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Which.
    pub(super) what: What,
    /// Of which probe: the word that it was registered with.
    pub(super) user: u64,
    /// What it has seen.
    pub(super) words: [u64; WORDS],
}

static PLACES: [[AtomicU64; WORDS + 2]; NOTES] = [const { [const { AtomicU64::new(0) }; WORDS + 2] }; NOTES];
static USED: AtomicUsize = AtomicUsize::new(0);
static BUSY: AtomicBool = AtomicBool::new(false);
static CALL: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static FAULT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
/// What nothing can be read from.
static BAD: AtomicU64 = AtomicU64::new(0);
static JPROBE_RETURN: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
/// For each kind of handler the function of the program's that it calls; 0: none.
static CALLING: [AtomicU64; KINDS.len() + 1] = [const { AtomicU64::new(0) }; KINDS.len() + 1];

/// The case that runs in this image.
pub(super) struct Running(());

impl Drop for Running {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

/// A case begins: nothing is noted, and handlers call nothing. `None` while another one runs.
pub(super) fn begin(tools: Tools, bad_address: u64) -> Option<Running> {
    if BUSY.swap(true, Ordering::AcqRel) {
        return None;
    }
    CALL.store(tools.call as *mut (), Ordering::Relaxed);
    FAULT.store(tools.fault as *mut (), Ordering::Relaxed);
    BAD.store(bad_address, Ordering::Relaxed);
    JPROBE_RETURN.store(tools.jprobe_return as *mut (), Ordering::Relaxed);
    CALLING.iter().for_each(|to| to.store(0, Ordering::Relaxed));
    take();
    Some(Running(()))
}

/// For handlers: keeps something.
pub(super) fn note(what: What, user: u64, words: &[u64]) {
    let Some(place) = PLACES.get(USED.fetch_add(1, Ordering::Relaxed)) else { return };
    let all = [what as u64, user].into_iter().chain(words.iter().copied()).chain(core::iter::repeat(0));
    place.iter().zip(all).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
}

/// What was noted since the last call, in the order of time.
pub(super) fn take() -> Vec<Note> {
    let used = USED.swap(0, Ordering::AcqRel).min(NOTES);
    let read = |place: &[AtomicU64; WORDS + 2]| {
        let [what, user, words @ ..] = place.each_ref().map(|word| word.load(Ordering::Relaxed));
        let what = KINDS.into_iter().find(|&kind| kind as u64 == what)?;
        Some(Note { what, user, words })
    };
    PLACES.iter().take(used).filter_map(read).collect()
}

/// From now on each handler of this kind that is one of the below calls a function of the program's, with 1 and 2.
pub(super) fn set_calling(what: What, function: u64) {
    if let Some(to) = CALLING.get(what as usize) {
        to.store(function, Ordering::Relaxed);
    }
}

/// For handlers: calls what it was told to call.
pub(super) fn call_as_told(what: What) {
    let function = CALLING.get(what as usize).map_or(0, |from| from.load(Ordering::Relaxed));
    let call = CALL.load(Ordering::Relaxed);
    if function != 0 && !call.is_null() {
        // SAFETY: `begin` has put it there: a function of this type. Cases tell of functions of the suite's program only.
        unsafe { core::mem::transmute::<*mut (), unsafe extern "C" fn(u64, u64, u64) -> u64>(call)(function, 1, 2) };
    }
}

/// Ends the mirror that runs.
pub(super) fn jprobe_return() {
    let leave = JPROBE_RETURN.load(Ordering::Relaxed);
    if !leave.is_null() {
        // SAFETY: `begin` has put it there: a function of this type. Mirrors here have nothing on their stacks that must
        // be dropped.
        unsafe { core::mem::transmute::<*mut (), unsafe extern "C" fn()>(leave)() }
    }
}

/// For handlers: faults.
pub(super) fn fault() {
    let fault = FAULT.load(Ordering::Relaxed);
    if !fault.is_null() {
        // SAFETY: `begin` has put it there: a function of this type. Handlers that call it have nothing on their stacks
        // that must be dropped.
        unsafe { core::mem::transmute::<*mut (), unsafe extern "C" fn(u64)>(fault)(BAD.load(Ordering::Relaxed)) }
    }
}

/// [`Tools::call`] where the program is executed by the processor itself.
///
/// ```
/// # use testkit::suite::call_directly;
/// /// As one of the program's.
/// extern "C" fn sum(a: u64, b: u64) -> u64 {
///     a + b
/// }
/// // SAFETY: it is the address of such a function.
/// assert_eq!(unsafe { call_directly(sum as *const () as u64, 1, 2) }, 3);
/// ```
///
/// # Safety
///
/// `function` must be the address of a function that takes two numbers and gives one, by the calling convention of C.
pub unsafe extern "C" fn call_directly(function: u64, first: u64, second: u64) -> u64 {
    // SAFETY: the caller's promise.
    let function = unsafe { core::mem::transmute::<*const (), extern "C" fn(u64, u64) -> u64>(function as *const ()) };
    function(first, second)
}

/// A handler of the suite's.
pub(super) fn handler<F: Copy>(function: F) -> Handler<F> {
    // SAFETY: the handlers of the suite allocate nothing, take no lock and do not panic; they work on atomics, on the
    // registers and the data that they are given, and change registers of the suite's program only.
    unsafe { Handler::new(function) }
}

/// The words that the handlers below note.
pub(super) mod word {
    /// The program counter.
    pub(in super::super) const PC: usize = 0;
    /// The stack pointer.
    pub(in super::super) const SP: usize = 1;
    /// `rax`.
    pub(in super::super) const RAX: usize = 2;
    /// `rdi`.
    pub(in super::super) const RDI: usize = 3;
    /// `rcx`.
    pub(in super::super) const RCX: usize = 4;
    /// The probe's address.
    pub(in super::super) const ADDRESS: usize = 5;
    /// Where the function returns to.
    pub(in super::super) const CALLER: usize = 6;
    /// What was raised; of return probes the data.
    pub(in super::super) const TRAP: usize = 7;
    /// The data of a return probe's activation.
    pub(in super::super) const DATA: usize = TRAP;
}

fn seen(what: What, hit: &Hit<'_, Regs>, last: u64) {
    let regs = hit.regs();
    let general = |number: usize| regs.gpr[number];
    let words = [
        regs.rip,
        regs.rsp(),
        general(gpr::RAX),
        general(gpr::RDI),
        general(gpr::RCX),
        hit.address(),
        hit.caller(),
        last,
    ];
    note(what, hit.user(), &words);
    call_as_told(what);
}

/// Notes what it sees.
pub(super) extern "C" fn pre(hit: &mut Hit<'_, Regs>) -> Next {
    seen(What::Pre, hit, hit.trap());
    Next::Step
}

/// Notes what it sees.
pub(super) extern "C" fn post(hit: &mut Hit<'_, Regs>) {
    seen(What::Post, hit, hit.trap());
}

/// Notes what it sees, and cures nothing.
pub(super) extern "C" fn declines_fault(hit: &mut Hit<'_, Regs>) -> Cure {
    seen(What::Fault, hit, hit.trap());
    Cure::No
}

/// Notes what it sees.
pub(super) extern "C" fn entry(hit: &mut Hit<'_, Regs>, (): &mut ()) -> Watch {
    seen(What::Entry, hit, 0);
    Watch::Yes
}

/// Notes what it sees.
pub(super) extern "C" fn returns(hit: &mut Hit<'_, Regs>, (): &mut ()) {
    seen(What::Return, hit, 0);
}

/// Keeps the first argument in its data, and notes what the data was.
pub(super) extern "C" fn keeps_argument(hit: &mut Hit<'_, Regs>, data: &mut u64) -> Watch {
    seen(What::Entry, hit, *data);
    *data = hit.regs().argument(1);
    Watch::Yes
}

/// Notes what it sees, and its data.
pub(super) extern "C" fn gives_argument(hit: &mut Hit<'_, Regs>, data: &mut u64) {
    seen(What::Return, hit, *data);
}
