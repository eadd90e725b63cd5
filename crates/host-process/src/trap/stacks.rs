//! The stacks that handlers of probes run on.
//!
//! The handler of a signal runs on whatever stack the kernel has put its frame on: the thread's alternate signal stack,
//! if it has one. That is small (a thread of Rust's standard library has 8 KiB, of which the frame takes 3 with AVX-512),
//! and a probe's handler is any code. If it overflowed there, nothing could be saved: the frame of the fault would find no
//! room, or be written over frames that are in use. So what calls a handler goes over to a stack from a pool ([`call`]),
//! and gives the thread, for as long, another alternate signal stack beside it, where a fault of the handler is
//! delivered, its overflow included ([`abi::stacks`](crate::abi::stacks) has the layout).
//!
//! If no stack is free, no handler runs, and its probe is missed: it is never run on a small one.
//!
//! # Order
//!
//! The kernel refuses to change an alternate stack that is in use, so the stack pointer leaves it first. From then until
//! the new one is known, the kernel would take the old one for unused, and write a frame over what lives there. No
//! instruction in between can fault; but somebody may send a signal. So if the thread is on an alternate stack, all
//! signals are masked for that moment. On the way back the stack pointer returns first, and the old alternate stack is
//! set after it: a signal in between is delivered beside the handler's stack, which is still this thread's.
//!
//! Whatever is done to the registers of an interrupted handler (a fault that ends it, `jprobe_return`), it comes back
//! to where [`call`] has called it, on the same stack: the way back is always this one.
//!
//! A handler within a handler is a fault handler that is asked about a fault in another handler. It gets a stack of its
//! own, and the alternate stack that it finds, and gives back, is the first one's.

use super::actions::UNBLOCKABLE;
use super::signals::set_mask;
use super::{FAULT_BITS, SIGTRAP_BIT};
use crate::abi::Home;
use crate::abi::stacks::{FAULT_BYTES, GUARD_BYTES, HANDLER_BYTES, STACKS, STRIDE};
use core::ops::Range;
use cpu::syscall;
use sync::primitive::Ordering;

const MPROTECT: u64 = 10;
const SIGALTSTACK: u64 = 131;
const READ_WRITE: u64 = 3;
const EVERYTHING: u64 = !0;

/// What is masked while a handler runs: of all signals only those of breakpoints and of faults are delivered. A fault
/// whose signal is masked would end the process.
pub(crate) const HANDLERS: u64 = !(SIGTRAP_BIT | FAULT_BITS | UNBLOCKABLE);

/// Runs `f` on a stack of the pool, for thread `tid`, whose alternate signal stack was `signals` when this signal's
/// handler began, and which may mask signals of faults if `masks_faults`. `None` when no stack is free; `f` has not run
/// then.
pub(crate) fn call<R>(
    home: &Home,
    tid: u64,
    signals: Range<u64>,
    masks_faults: bool,
    f: impl FnOnce() -> R,
) -> Option<R> {
    let here = 0u8;
    let on_signal_stack = signals.contains(&((&raw const here) as u64));
    let before = (masks_faults || on_signal_stack).then(|| set_mask(EVERYTHING));
    let Some(stack) = Stack::take(home, tid) else {
        before.map(set_mask);
        return None;
    };
    let (result, switched) = stack.run(before.is_some(), f);
    // `run` has left the mask at this one.
    if let Some(before) = before.filter(|&mask| !switched || mask != HANDLERS) {
        set_mask(before);
    }
    result
}

/// All are free: in a forked child, where the threads that have used them do not exist.
pub(crate) fn adopt(home: &Home) {
    home.stacks.owners.iter().for_each(|owner| owner.store(0, Ordering::Relaxed));
}

/// A stack that is this thread's until the value is dropped.
struct Stack<'h> {
    home: &'h Home,
    index: usize,
    base: u64,
}

/// `stack_t`, with the padding behind its flags.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SignalStack {
    low: u64,
    flags: u64,
    bytes: u64,
}

/// What goes over to another stack.
struct Call<F, R> {
    f: Option<F>,
    faults: SignalStack,
    /// All signals are masked; those that a handler may raise are to be delivered.
    masked: bool,
    /// The alternate signal stack before; `None` while it is not changed.
    before: Option<SignalStack>,
    result: Option<R>,
}

impl<'h> Stack<'h> {
    /// Threads begin to look at different places: so each comes to the same stack again, and none waits for another's
    /// memory.
    fn take(home: &'h Home, tid: u64) -> Option<Self> {
        let area = home.stacks.area.load(Ordering::Relaxed);
        let first = tid as usize % STACKS;
        let claim = |&place: &usize| {
            let owner = home.stacks.owners.get(place);
            owner.is_some_and(|o| o.compare_exchange(0, tid, Ordering::Acquire, Ordering::Relaxed).is_ok())
        };
        let index = (area != 0).then(|| (first..STACKS).chain(0..first).find(claim)).flatten()?;
        let stack = Self { home, index, base: area.wrapping_add(index as u64 * STRIDE) };
        stack.prepare().then_some(stack)
    }

    /// Makes it usable when it is used for the first time; false when the kernel has no memory for it.
    fn prepare(&self) -> bool {
        let Some(ready) = self.home.stacks.ready.get(self.index) else { return false };
        if ready.load(Ordering::Relaxed) != 0 {
            return true;
        }
        let allow = |low: u64, bytes: u64| {
            // SAFETY: this is memory of the area, which the tool has mapped for nothing else, and nobody but the owner of
            // this stack uses it.
            unsafe { syscall(MPROTECT, [low, bytes, READ_WRITE, 0, 0, 0]) == 0 }
        };
        let made = allow(self.base + GUARD_BYTES, HANDLER_BYTES) && allow(self.faults().low, FAULT_BYTES);
        ready.store(u32::from(made), Ordering::Relaxed);
        made
    }

    /// The end of the handler's stack, where it begins.
    fn top(&self) -> u64 {
        self.base + GUARD_BYTES + HANDLER_BYTES
    }

    /// The stack for faults.
    fn faults(&self) -> SignalStack {
        SignalStack { low: self.top() + GUARD_BYTES, flags: 0, bytes: FAULT_BYTES }
    }

    /// Runs `f` here; its result, and whether the alternate signal stack could be changed for it.
    fn run<R, F: FnOnce() -> R>(&self, masked: bool, f: F) -> (Option<R>, bool) {
        let mut call = Call { f: Some(f), faults: self.faults(), masked, before: None, result: None };
        // SAFETY: the stack is this thread's, usable and large enough for a handler; below it is a guard. `inside` takes a
        // `Call` of these types, which lives across the call.
        unsafe { on_stack(inside::<F, R>, (&raw mut call).cast(), self.top()) };
        if let Some(before) = call.before {
            change_signal_stack(&before, None);
        }
        (call.result, call.before.is_some())
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        if let Some(owner) = self.home.stacks.owners.get(self.index) {
            owner.store(0, Ordering::Release);
        }
    }
}

/// On the new stack: makes it safe, and calls.
extern "C" fn inside<F: FnOnce() -> R, R>(call: *mut u8) {
    // SAFETY: `Stack::run` gives a `Call` of these types, and looks at it again when this has returned.
    let call = unsafe { &mut *call.cast::<Call<F, R>>() };
    let mut before = SignalStack::default();
    if !change_signal_stack(&call.faults, Some(&mut before)) {
        return;
    }
    call.before = Some(before);
    if call.masked {
        set_mask(HANDLERS);
    }
    call.result = call.f.take().map(|f| f());
}

/// `sigaltstack`; whether it was done.
fn change_signal_stack(new: &SignalStack, old: Option<&mut SignalStack>) -> bool {
    let old = old.map_or(0, |old| (&raw mut *old) as u64);
    // SAFETY: both are null or whole `stack_t`s that live across the call. The new stack is one for faults, which belongs
    // to this thread, or the one that the thread had before.
    unsafe { syscall(SIGALTSTACK, [(&raw const *new) as u64, old, 0, 0, 0, 0]) == 0 }
}

/// Calls `function` with `argument` on the stack that begins at `top`.
///
/// # Safety
///
/// Below `top`, a multiple of 16, there must be a stack that nobody uses, with room for all that `function` does.
#[unsafe(naked)]
unsafe extern "C" fn on_stack(function: extern "C" fn(*mut u8), argument: *mut u8, top: u64) {
    core::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsp, rdx",
        "call rax",
        "mov rsp, rbp",
        "pop rbp",
        "ret"
    )
}

const _: () = assert!(STRIDE.is_multiple_of(GUARD_BYTES) && GUARD_BYTES.is_multiple_of(4096));
