//! Threads: preemptive, round robin, one queue for all processors.
//!
//! A switch happens with the scheduler's lock held, and the lock is released by the thread that is switched to
//! ([`arrive`]): so no other processor can take up a thread before its registers are on its stack. A new thread begins
//! in [`start`], which does the same.
//!
//! Who owns a thread's box: the queue it waits in, or `running` of its processor, or, after its end and until the next
//! thread has arrived, `ended`. A running thread's box is neither moved nor changed by others, so that `current` may
//! be read without the lock.
//!
//! Preemption comes at the end of an interrupt, when the tick has asked for it (`reschedule`), unless the thread has
//! turned it off ([`preempt_disable`]). Trap handlers have interrupts off and are never preempted.

mod queue;
mod thread;

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::arch::trap::vector;
use crate::arch::{apic, cpu, interrupts, time};
use crate::lock::{IrqGuard, IrqLock};

use queue::{Leave, Scheduler};
use thread::Thread;
pub(crate) use thread::ThreadId;

core::arch::global_asm!(include_str!("switch.s"), current = const cpu::CURRENT_OFFSET);

unsafe extern "C" {
    fn context_switch(save: *mut u64, next: u64, thread: u64);
}

static SCHEDULER: IrqLock<Scheduler> = IrqLock::new(Scheduler::new());
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
/// A function's address, 0 for none.
static EXIT_HOOK: AtomicUsize = AtomicUsize::new(0);

fn new_id() -> ThreadId {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

fn this() -> Option<&'static Thread> {
    // SAFETY: the block refers to the thread that runs here, whose box stays while it runs; and the caller is that
    // thread, or code that runs on top of it.
    unsafe { (cpu::current() as *const Thread).as_ref() }
}

/// The running thread; 1 before there are threads (the first processor's idle thread, as which the kernel boots).
pub(crate) fn current() -> ThreadId {
    this().map_or(1, |thread| thread.id)
}

/// What the running thread is called.
pub(crate) fn current_name() -> &'static str {
    this().map_or("boot", |thread| thread.name)
}

/// Threads that have not ended, idle ones included.
pub(crate) fn thread_count() -> usize {
    SCHEDULER.lock().alive()
}

/// What runs on this processor becomes its idle thread; the scheduler may switch here from now on.
pub(crate) fn adopt(name: &'static str) {
    let me = cpu::id();
    let thread = Thread::adopted(new_id(), name, me);
    let address = &raw const *thread as u64;
    SCHEDULER.lock().begin(me, thread);
    cpu::this().current.store(address, Ordering::Release);
}

/// Starts a thread.
pub(crate) fn spawn(name: &'static str, entry: fn(usize), argument: usize) -> ThreadId {
    spawn_on(None, name, entry, argument)
}

/// Starts a thread that runs on processor `cpu` only, if one is given.
pub(crate) fn spawn_on(cpu: Option<usize>, name: &'static str, entry: fn(usize), argument: usize) -> ThreadId {
    let id = new_id();
    let mut thread = Thread::new(id, name, entry, argument, start);
    thread.pinned = cpu;
    SCHEDULER.lock().add(thread);
    wake_idle();
    id
}

/// A new thread's first function.
extern "C" fn start() -> ! {
    // SAFETY: `switch` on another stack has left the lock to us.
    unsafe { arrive() };
    interrupts::restore(true);
    if let Some(thread) = this() {
        thread.run();
    }
    exit()
}

/// Ends the running thread.
pub(crate) fn exit() -> ! {
    switch(Leave::End);
    unreachable!("a thread that has ended was run")
}

/// Sets the function that is told of every thread that will not run again, before anybody who waits for its end goes
/// on. It takes no lock.
pub(crate) fn set_exit_hook(hook: fn(ThreadId)) {
    EXIT_HOOK.store(hook as usize, Ordering::Release);
}

fn tell_of_end(thread: ThreadId) {
    let hook = EXIT_HOOK.load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: only `set_exit_hook` stores an address other than 0 here, an `fn(ThreadId)`.
        let hook: fn(ThreadId) = unsafe { core::mem::transmute::<usize, fn(ThreadId)>(hook) };
        hook(thread);
    }
}

/// Waits until a thread has ended.
pub(crate) fn join(id: ThreadId) {
    switch(Leave::Join(id));
}

/// Lets others run.
pub(crate) fn yield_now() {
    schedule();
}

/// Sleeps; at least so long, and up to the next tick.
pub(crate) fn sleep_ms(milliseconds: u64) {
    switch(Leave::Sleep(time::now_ns() + milliseconds * 1_000_000));
}

/// The running thread stays on processor `cpu` from now on, and is there when this returns.
pub(crate) fn pin(cpu: usize) {
    SCHEDULER.lock().pin(cpu::id(), Some(cpu));
    while cpu::id() != cpu {
        schedule();
    }
}

/// The running thread may go anywhere again.
pub(crate) fn unpin() {
    SCHEDULER.lock().pin(cpu::id(), None);
}

/// The running thread is not preempted until [`preempt_enable`]. Nests.
pub(crate) fn preempt_disable() {
    cpu::preempt_off();
}

/// Ends [`preempt_disable`], and catches up on a preemption that was due.
pub(crate) fn preempt_enable() {
    if cpu::preempt_on() && interrupts::enabled() {
        preempt();
    }
}

/// Switches if the tick has asked for it and the thread allows it. At the end of every interrupt.
pub(crate) fn preempt() {
    if cpu::current() != 0 && cpu::preemptible() && cpu::this().reschedule.load(Ordering::Relaxed) {
        schedule();
    }
}

/// The timer's interrupt: wakes who has slept long enough, and asks for a switch if somebody waits.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn timer_tick() {
    let block = cpu::this();
    block.ticks.fetch_add(1, Ordering::Relaxed);
    let mut scheduler = SCHEDULER.lock();
    scheduler.wake(time::now_ns());
    if scheduler.somebody_waits_for(cpu::id()) {
        block.reschedule.store(true, Ordering::Relaxed);
    }
}

/// Gives the processor to the next thread that is ready, if there is one.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn schedule() {
    switch(Leave::Ready);
}

/// Leaves the processor for the reason given; returns when this thread runs again.
///
/// # Panics
/// With preemption off: whoever turned it off counts on staying.
#[inline(never)]
pub(crate) fn switch(leave: Leave) {
    let mut scheduler = SCHEDULER.lock();
    assert!(cpu::preemptible(), "a thread with preemption off gives up its processor");
    let me = cpu::id();
    cpu::this().reschedule.store(false, Ordering::Relaxed);
    let Some((save, next, thread)) = scheduler.exchange(me, leave) else { return };
    let enabled = IrqGuard::leak(scheduler);
    // SAFETY: `save` lies in this thread's box, `next` is the stack pointer that `thread` was left with or began with;
    // the lock is held until the other side has arrived, so both stay where they are.
    unsafe { context_switch(save, next, thread) };
    // SAFETY: whoever switched to us has left the lock to us.
    unsafe { arrive() };
    interrupts::restore(enabled);
}

/// The first thing after a switch, on the new stack: releases the lock and what an ended thread has left.
///
/// # Safety
/// This processor holds the scheduler's lock by a leaked guard.
unsafe fn arrive() {
    let ended = {
        // SAFETY: the lock is ours by the leaked guard; the reference ends before the release.
        let scheduler = unsafe { SCHEDULER.value() };
        scheduler.take_ended(cpu::id())
    };
    if let Some(thread) = &ended {
        tell_of_end(thread.id);
    }
    // SAFETY: the reference above has ended.
    unsafe { SCHEDULER.release() };
    drop(ended);
}

/// Wakes a processor that has nothing to do: a thread is ready.
fn wake_idle() {
    let me = cpu::id();
    let idle = (0..cpu::count()).find(|&id| id != me && cpu::online(id) && cpu::block(id).idle.load(Ordering::Relaxed));
    if let Some(id) = idle {
        apic::send(id, vector::RESCHEDULE);
    }
}

/// What a processor does when there is nothing to do.
pub(crate) fn idle() -> ! {
    let block = cpu::this();
    loop {
        interrupts::disable();
        block.idle.store(true, Ordering::Relaxed);
        if !SCHEDULER.lock().somebody_waits_for(cpu::id()) {
            // The interrupt flag takes effect behind the next instruction: no wake-up is lost.
            x86_64::instructions::interrupts::enable_and_hlt();
        }
        block.idle.store(false, Ordering::Relaxed);
        interrupts::restore(true);
        schedule();
    }
}
