//! Interrupts that cannot be masked come anywhere: in a handler, in a step, between the two.
//!
//! A processor sends them to itself, in a handler, and by the probed instruction itself: so they come while the copy is
//! stepped. Other processors send them at any time; those tests pass on one processor. Each sender waits until its last
//! one was taken, so they do not nest without end.

use super::super::processors::under_fire;
use super::super::{check, counts, same, stepping};
use super::{STEPPINGS, attach, count, count_returns, entry, fill, filling, interrupts_called_by_nmi, interrupts_hot};
use super::{instruction, interrupts_long, remove_all, soon};
use crate::arch::trap::{self, Frame};
use crate::arch::{cpu, interrupts, ipi, time};
use crate::sched;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use host_bare::{Counts, Next, Regs};

/// Calls made in NMIs, and those of them that gave a wrong result.
static CALLS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
/// Calls made elsewhere.
static LOOPED: AtomicU64 = AtomicU64::new(0);

fn call(_: &mut Frame) {
    let right = interrupts_called_by_nmi(41) == 42 && !interrupts::enabled();
    CALLS.fetch_add(1, Ordering::Relaxed);
    WRONG.fetch_add(u64::from(!right), Ordering::Relaxed);
}

/// Calls what the interrupted thread calls.
fn call_same(_: &mut Frame) {
    let right = interrupts_hot(41) == 42 && fill::<3>(7).is_ok() && !interrupts::enabled();
    CALLS.fetch_add(1, Ordering::Relaxed);
    WRONG.fetch_add(u64::from(!right), Ordering::Relaxed);
}

/// Runs `f` with `hook` called by each NMI.
fn with_hook<R>(hook: trap::NmiHook, f: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    for counter in [&CALLS, &WRONG, &LOOPED] {
        counter.store(0, Ordering::Relaxed);
    }
    trap::set_nmi_hook(hook);
    let result = f();
    trap::clear_nmi_hook();
    same("wrong results in NMIs", WRONG.load(Ordering::Relaxed), 0)?;
    result
}

/// Sends an NMI and waits until it was taken.
fn nmi(target: usize) -> Result<(), String> {
    let before = trap::nmi_count(target);
    ipi::nmi(target);
    soon("the NMI is taken", || trap::nmi_count(target) > before)
}

fn nmi_to_self(_: &mut Regs) -> Next {
    let failed = nmi(cpu::id()).is_err();
    WRONG.fetch_add(u64::from(failed), Ordering::Relaxed);
    Next::Step
}

pub(super) fn in_a_handler() -> Result<(), String> {
    const TIMES: u64 = 200;
    attach("sends", entry(interrupts_long), nmi_to_self)?;
    count("nmi", entry(interrupts_called_by_nmi))?;
    with_hook(call, || (0..TIMES).try_for_each(|i| same("the result", interrupts_long(i), i + 1)))?;
    same("calls", CALLS.load(Ordering::Relaxed), TIMES)?;
    same("sends", counts("sends")?, Counts { hits: TIMES, ..Counts::default() })?;
    same("nmi", counts("nmi")?, Counts { missed: TIMES, ..Counts::default() })?;
    remove_all()
}

/// What the interrupted threads do.
fn work(_: usize) -> Result<(), String> {
    for i in 0..10 {
        same("the result", interrupts_hot(i), i + 1)?;
    }
    fill::<100>(3)?;
    LOOPED.fetch_add(1, Ordering::Relaxed);
    same("interrupts are on", interrupts::enabled(), true)
}

/// NMIs to all processors but the first, which are at work. How many depends on how soon the target really runs.
fn storm(hook: trap::NmiHook) -> Result<(), String> {
    const TIME_NS: u64 = 40_000_000;
    const LEAST: usize = 8;
    with_hook(hook, || {
        under_fire(work, || {
            let end = time::now_ns() + TIME_NS;
            let mut targets = (1..cpu::count()).cycle().enumerate();
            targets.by_ref().take_while(|(i, _)| *i < LEAST || time::now_ns() < end).try_for_each(|(i, target)| {
                // Not always at the same distance from the last one.
                (0..i * 37 % 101).for_each(|_| core::hint::spin_loop());
                nmi(target)
            })
        })
    })?;
    check(CALLS.load(Ordering::Relaxed) >= LEAST as u64, || "hardly any NMIs".into())
}

/// With each stepping, `f` while the probes of the interrupted threads are planted.
fn each_stepping(f: impl Fn() -> Result<(), String>) -> Result<(), String> {
    if cpu::count() == 1 {
        return Ok(());
    }
    STEPPINGS.into_iter().try_for_each(|how| {
        stepping(how, || {
            count("hot", entry(interrupts_hot))?;
            count("fill", filling()?)?;
            f()
        })
        .map_err(|why| format!("{how:?}: {why}"))?;
        remove_all()
    })
}

pub(super) fn anywhere() -> Result<(), String> {
    each_stepping(|| {
        count("nmi", entry(interrupts_called_by_nmi))?;
        storm(call)?;
        let looped = LOOPED.load(Ordering::Relaxed);
        same("hot", counts("hot")?, Counts { hits: 10 * looped, ..Counts::default() })?;
        same("fill", counts("fill")?, Counts { hits: looped, ..Counts::default() })?;
        let nmi = counts("nmi")?;
        same("nmi", nmi.hits + nmi.missed, CALLS.load(Ordering::Relaxed))?;
        check(nmi.hits > 0, || "none was hit".into())
    })
}

pub(super) fn returns() -> Result<(), String> {
    each_stepping(|| {
        let most = cpu::MAX as u32;
        count_returns("nmi", entry(interrupts_called_by_nmi), most)?;
        count_returns("hot_returns", entry(interrupts_hot), most)?;
        storm(call)?;
        let hot = 10 * LOOPED.load(Ordering::Relaxed);
        same("hot_returns", counts("hot_returns")?, Counts { hits: hot, returned: hot, ..Counts::default() })?;
        let nmi = counts("nmi")?;
        same("nmi", nmi.hits + nmi.missed, CALLS.load(Ordering::Relaxed))?;
        same("nmi returned", nmi.returned, nmi.hits)
    })
}

pub(super) fn same_probe() -> Result<(), String> {
    each_stepping(|| {
        storm(call_same)?;
        let (looped, called) = (LOOPED.load(Ordering::Relaxed), CALLS.load(Ordering::Relaxed));
        let (hot, fill) = (counts("hot")?, counts("fill")?);
        same("hot", hot.hits + hot.missed, 10 * looped + called)?;
        same("fill", fill.hits + fill.missed, looped + called)
    })
}

unsafe extern "C" {
    fn interrupts_store(to: u64, word: u64);
    fn interrupts_store_string(to: u64, word: u64);
}

type Store = unsafe extern "C" fn(u64, u64);

/// Where the local interrupt controller's registers are mapped for this test.
static CONTROLLER: AtomicU64 = AtomicU64::new(0);
/// Which of the two functions the hook calls: the address of it.
static STORE: AtomicU64 = AtomicU64::new(0);

const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
/// An NMI to the processor that the other half names (SDM volume 3, 11.6.1).
const SEND_NMI: u64 = 1 << 14 | 4 << 8;

/// Maps the registers another time.
fn map_controller() -> u64 {
    let mapped = CONTROLLER.load(Ordering::Relaxed);
    if mapped != 0 {
        return mapped;
    }
    // SAFETY: IA32_APIC_BASE exists on every processor of long mode; reading it changes nothing.
    let base = unsafe { x86_64::registers::model_specific::Msr::new(0x1b).read() } & 0xf_ffff_f000;
    CONTROLLER.store(crate::mm::map_device(base), Ordering::Relaxed);
    CONTROLLER.load(Ordering::Relaxed)
}

/// Calls the function that the NMI has interrupted, for a word of memory.
fn store_word(_: &mut Frame) {
    let mut word = 0_u32;
    // SAFETY: `STORE` is one of the two functions, and the address that of a word.
    unsafe { core::mem::transmute::<u64, Store>(STORE.load(Ordering::Relaxed))(&raw mut word as u64, 77) };
    // SAFETY: a word of this stack.
    let right = unsafe { (&raw const word).read_volatile() } == 77 && !interrupts::enabled();
    CALLS.fetch_add(1, Ordering::Relaxed);
    WRONG.fetch_add(u64::from(!right), Ordering::Relaxed);
}

/// Sends this processor an NMI by `store`.
fn send_by(store: Store) -> Result<(), String> {
    let controller = map_controller();
    let me = cpu::id();
    let before = trap::nmi_count(me);
    let number = cpu::block(me).apic_id.load(Ordering::Relaxed) as u32;
    // SAFETY: registers of the interrupt controller; preemption is off, and nothing that interrupts sends anything.
    unsafe {
        ((controller + COMMAND_HIGH) as *mut u32).write_volatile(number << 24);
        store(controller + COMMAND_LOW, SEND_NMI);
    }
    soon("the NMI is taken", || trap::nmi_count(me) > before)
}

/// The probed instruction sends the NMI that interrupts its copy.
fn during_a_step(hook: trap::NmiHook, wanted: fn(calls: u64) -> Counts) -> Result<(), String> {
    const TIMES: u64 = 50;
    let stores: [(&str, Store, usize); 2] =
        [("store", interrupts_store, 0), ("store_string", interrupts_store_string, 2)];
    for (how, (name, store, number)) in STEPPINGS.into_iter().flat_map(|how| stores.map(|s| (how, s))) {
        let address = store as usize as u64;
        STORE.store(address, Ordering::Relaxed);
        let place = instruction(address, number)?;
        stepping(how, || count("store", place))?;
        count("nmi", entry(interrupts_called_by_nmi))?;
        with_hook(hook, || {
            sched::preempt_disable();
            let result = (0..TIMES).try_for_each(|_| {
                send_by(store)?;
                same("interrupts are on", interrupts::enabled(), true)?;
                interrupts::without(|| {
                    send_by(store)?;
                    same("interrupts are on", interrupts::enabled(), false)
                })
            });
            sched::preempt_enable();
            // A test that fails by an interrupt flag that was lost must not take the kernel with it.
            interrupts::restore(true);
            result
        })
        .and_then(|()| same("calls", CALLS.load(Ordering::Relaxed), 2 * TIMES))
        .and_then(|()| same("counts", counts("store")?, wanted(2 * TIMES)))
        .map_err(|why| format!("{name}, {how:?}: {why}"))?;
        remove_all()?;
    }
    Ok(())
}

pub(super) fn other_during_a_step() -> Result<(), String> {
    during_a_step(call, |calls| Counts { hits: calls, ..Counts::default() })
}

pub(super) fn same_during_a_step() -> Result<(), String> {
    during_a_step(store_word, |calls| Counts { hits: 2 * calls, ..Counts::default() })
}
