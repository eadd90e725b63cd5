//! Memory of modules: how it is protected, and that it comes and goes without a trace.

use super::{Check, ensure};
use crate::arch::{copy, cpu, ipi};
use crate::mm::modules::{Draft, Error, Memory, Sizes};
use crate::mm::{self, alias, frames, modules, paging};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

pub(super) const CHECKS: &[Check] = &[
    ("a draft is written, sealed memory runs", runs),
    ("every part of a module has its protection", protection),
    ("sealed text is written through the alias alone", written_by_alias),
    ("memory of a module that was given back is nowhere, on no processor", gone_everywhere),
    ("a draft that is dropped leaves nothing", drafts_leave_nothing),
    ("a thousand modules leave nothing", thousand_leave_nothing),
    ("a module that is not given back would be noticed", loss_is_noticed),
    ("freed addresses are used again, the first that fit", addresses_again),
    ("what is too large is refused", too_large),
];

/// mov eax, 42; ret
const ANSWER: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3];
const SIZES: Sizes = Sizes { text: 5000, rodata: 100, data: 9000 };

/// A module whose text begins with the answer.
fn module(sizes: Sizes) -> Result<Memory, &'static str> {
    let mut draft = Draft::new(sizes).map_err(|_| "no draft")?;
    draft.bytes()[..ANSWER.len()].copy_from_slice(&ANSWER);
    draft.seal().map_err(|_| "it is not sealed")
}

/// Calls the text.
fn call(memory: &Memory) -> u32 {
    // SAFETY: the text begins with a function that takes nothing and keeps to C's convention.
    let function = unsafe { core::mem::transmute::<u64, extern "C" fn() -> u32>(memory.text().start) };
    function()
}

fn free(memory: Memory) {
    // SAFETY: no thread but ours knows it, and `call` has returned.
    unsafe { memory.free() }
}

/// Bytes of addresses, frames, and pages that may be executed. Page tables of the window are made once: a module
/// before warms them up.
fn state() -> (u64, u64, u64) {
    (modules::in_use(), frames::in_use(), mm::audit().executable)
}

fn runs() -> Result<(), &'static str> {
    let mut draft = Draft::new(SIZES).map_err(|_| "no draft")?;
    let (text, rodata, data) = (draft.address(), draft.rodata(), draft.data());
    ensure((rodata - text, data - rodata) == (2 * mm::PAGE, mm::PAGE), "the parts are elsewhere")?;
    let bytes = draft.bytes();
    ensure(bytes.len() as u64 == 6 * mm::PAGE, "it has another size")?;
    let split = (rodata - text) as usize;
    ensure(bytes[..split].iter().all(|b| *b == 0xcc), "the text does not begin as breakpoints")?;
    ensure(bytes[split..].iter().all(|b| *b == 0), "data do not begin as zeros")?;
    bytes[..ANSWER.len()].copy_from_slice(&ANSWER);
    bytes[split] = 7;
    let memory = draft.seal().map_err(|_| "it is not sealed")?;
    let answer = call(&memory);
    let kept = copy::read_u64(rodata) == Some(7);
    free(memory);
    ensure(answer == 42 && kept, "it does something else")
}

fn protection() -> Result<(), &'static str> {
    let before = mm::audit().executable;
    let mut draft = Draft::new(SIZES).map_err(|_| "no draft")?;
    let (rodata, data) = (draft.rodata(), draft.data());
    let first = paging::translate(draft.address());
    ensure(first.is_some_and(|page| page.writable() && !page.executable()), "a draft is not rw-")?;
    ensure(!modules::is_text(draft.address()), "a draft counts as text")?;
    draft.bytes()[..ANSWER.len()].copy_from_slice(&ANSWER);
    let memory = draft.seal().map_err(|_| "it is not sealed")?;
    let text = memory.text();
    let right = [(text.start, false, true), (rodata, false, false), (data, true, false)].iter().all(|&(at, w, x)| {
        let page = paging::translate(at);
        page.is_some_and(|page| (page.writable(), page.executable()) == (w, x))
    });
    let direct = paging::translate(text.start).map_or(0, |page| mm::direct(page.physical()));
    // SAFETY: our own text, and it must not succeed.
    let hidden = !unsafe { copy::write_u64(direct, 0) };
    let audit = mm::audit();
    let known = alias::is_text(text.end - 1) && !alias::is_text(rodata) && !alias::is_text(memory.range().end);
    free(memory);
    // SAFETY: the frame is the allocator's now; its list begins at the frame that was given back last, not this one, and
    // what lies behind a frame's first word means nothing.
    let again = unsafe { copy::write_u64(direct + 8, 0) };
    ensure(right, "a part has another protection")?;
    ensure(hidden, "its text is written through the direct map")?;
    ensure(audit.executable == before + 2, "the audit does not see the text")?;
    ensure(audit.writable_and_executable + audit.writable_aliases_of_executable == 0, "the audit finds it writable")?;
    ensure(known, "it is not known as text")?;
    ensure(again && mm::audit().executable == before, "its frames are not ordinary memory again")
}

fn written_by_alias() -> Result<(), &'static str> {
    let memory = module(SIZES)?;
    let text = memory.text();
    let before = call(&memory);
    let written = alias::write(text.start + 1, &[43]).is_ok();
    let after = call(&memory);
    let refused = alias::write(text.end, &[1]).is_err();
    free(memory);
    ensure((before, after, written, refused) == (42, 43, true, true), "text is not written as it should")?;
    ensure(alias::write(text.start, &[1]).is_err(), "text that has gone is written")
}

/// Where all processors look.
static LOOK_AT: AtomicU64 = AtomicU64::new(0);
/// How many have seen something there.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// How many processors can read the address.
fn seen(address: u64) -> u64 {
    LOOK_AT.store(address, SeqCst);
    SEEN.store(0, SeqCst);
    ipi::on_all(|| {
        if copy::read_u64(LOOK_AT.load(SeqCst)).is_some() {
            SEEN.fetch_add(1, SeqCst);
        }
    });
    SEEN.load(SeqCst)
}

fn gone_everywhere() -> Result<(), &'static str> {
    for _ in 0..20 {
        let memory = module(SIZES)?;
        let range = memory.range();
        let parts = [range.start, memory.text().end, range.end - 8];
        let before = parts.map(seen);
        free(memory);
        ensure(before == [cpu::count() as u64; 3], "not all processors see it")?;
        ensure(parts.map(seen) == [0; 3], "a processor still sees it")?;
    }
    Ok(())
}

fn drafts_leave_nothing() -> Result<(), &'static str> {
    free(module(SIZES)?);
    let before = state();
    for _ in 0..100 {
        drop(Draft::new(SIZES).map_err(|_| "no draft")?);
    }
    ensure(state() == before, "something is left")
}

/// Modules of several sizes, up to three at once.
fn come_and_go(times: usize) -> Result<(), &'static str> {
    let mut there: alloc::collections::VecDeque<Memory> = alloc::collections::VecDeque::new();
    for round in 0..times {
        if there.len() == 3 {
            there.pop_front().into_iter().for_each(free);
        }
        let sizes = Sizes { text: 1 + round * 37 % 20_000, rodata: round * 91 % 9_000, data: round * 53 % 30_000 };
        there.push_back(module(Sizes { text: sizes.text.max(ANSWER.len()), ..sizes })?);
        ensure(there.iter().all(|memory| call(memory) == 42), "one does something else")?;
    }
    there.into_iter().for_each(free);
    Ok(())
}

fn thousand_leave_nothing() -> Result<(), &'static str> {
    come_and_go(10)?;
    let (before, heap) = (state(), mm::heap_used());
    come_and_go(1000)?;
    ensure(state() == before, "addresses, frames or text are left")?;
    ensure(mm::heap_used() == heap, "the heap has grown")
}

/// The control of the check before.
fn loss_is_noticed() -> Result<(), &'static str> {
    let before = state();
    let memory = module(SIZES)?;
    let during = state();
    free(memory);
    let notices = during.0 > before.0 && during.1 > before.1 && during.2 > before.2;
    ensure(notices && state() == before, "it was not")
}

fn addresses_again() -> Result<(), &'static str> {
    let [first, second, third] = [module(SIZES)?, module(SIZES)?, module(SIZES)?];
    let [one, two, three] = [&first, &second, &third].map(Memory::range);
    ensure(one.end < two.start && two.end < three.start, "they are not apart")?;
    free(second);
    let larger = module(Sizes { data: SIZES.data + 20_000, ..SIZES })?;
    let same = module(SIZES)?;
    let (behind, again) = (larger.range().start > three.end, same.range() == two);
    [first, third, larger, same].into_iter().for_each(free);
    ensure(behind, "it lies where it does not fit")?;
    ensure(again, "the gap is not used")
}

fn too_large() -> Result<(), &'static str> {
    let before = state();
    for sizes in [
        Sizes { text: usize::MAX, ..Sizes::default() },
        Sizes { text: usize::MAX / 2, rodata: usize::MAX / 2, data: usize::MAX / 2 },
        Sizes { data: 1 << 40, ..SIZES },
        Sizes { data: 64 << 20, ..SIZES },
    ] {
        ensure(matches!(Draft::new(sizes), Err(Error::NoAddresses { .. })), "it was not")?;
    }
    ensure(state() == before, "something is left")
}
