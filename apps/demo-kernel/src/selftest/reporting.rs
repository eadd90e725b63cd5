//! What is told from traps and about addresses: the log, symbols of modules, exported functions.

use super::{Check, ensure};
use crate::arch::{cpu, ipi, trap};
use crate::ksyms::modules::{AddError, New};
use crate::ksyms::{self, LookupError};
use crate::log::buffer::{Buffer, PIECE};
use crate::snapshot::Snapshot;
use crate::{exports, sched};
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

pub(super) const CHECKS: &[Check] = &[
    ("texts are logged in order, long ones in pieces", log_keeps_order),
    ("what the log has no room for is counted and said", log_counts_what_is_lost),
    ("an interrupt that cannot be masked may log", log_from_nmi),
    ("texts from all processors arrive whole", log_from_all),
    ("a piece that was on its way out survives a panic", log_in_panic),
    ("a replaced value goes when its last reader has left, not before", snapshot_waits),
    ("readers see one value or the other while it is replaced", snapshot_is_whole),
    ("symbols of modules are found and removed", symbols),
    ("symbols of modules are refused twice", symbols_twice),
    ("symbols of modules leave nothing but their names, once", symbols_leave_nothing),
    ("exported functions are found by name", exported),
];

/// What a log gives.
fn drained<const WORDS: usize>(log: &Buffer<WORDS>) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    log.drain(&mut |piece| pieces.push(piece.to_vec()));
    pieces
}

fn log_keeps_order() -> Result<(), &'static str> {
    static LOG: Buffer<512> = Buffer::new();
    let long: Vec<u8> = (0..PIECE + 3).map(|i| i as u8).collect();
    ensure(LOG.waits() == (false, false), "it does not begin empty")?;
    for text in [b"one".as_slice(), b"", b"eight888", &long, b"\xff\n"] {
        LOG.write(text);
    }
    ensure(LOG.waits().0, "it does not say that there is something")?;
    let (start, rest) = long.split_at(PIECE);
    ensure(drained(&LOG) == [b"one", b"eight888".as_slice(), start, rest, b"\xff\n"], "something else comes out")?;
    ensure(drained(&LOG).is_empty() && !LOG.waits().0, "it is not empty then")
}

fn log_counts_what_is_lost() -> Result<(), &'static str> {
    static LOG: Buffer<16> = Buffer::new();
    (0..10).for_each(|_| LOG.write(b"12345678"));
    ensure(LOG.waits() == (true, true), "it is not full")?;
    let pieces = drained(&LOG);
    ensure(pieces.len() == 9, "not eight and a sentence")?;
    ensure(pieces[8] == b"log: 2 texts were lost: the log was full\n", "it is not said how many were lost")?;
    LOG.write(b"again");
    ensure(drained(&LOG) == [b"again"], "it does not go on after that")
}

fn log_from_nmi() -> Result<(), &'static str> {
    static LOG: Buffer<512> = Buffer::new();
    trap::set_nmi_hook(|_| LOG.write(b"nmi"));
    let me = cpu::id();
    let before = trap::nmi_count(me);
    LOG.write(b"before");
    ipi::nmi(me);
    while trap::nmi_count(me) == before {
        core::hint::spin_loop();
    }
    LOG.write(b"after");
    trap::clear_nmi_hook();
    ensure(drained(&LOG) == [b"before".as_slice(), b"nmi", b"after"], "something else comes out")
}

fn log_from_all() -> Result<(), &'static str> {
    const EACH: usize = 2000;
    static LOG: Buffer<4096> = Buffer::new();
    static WRITERS: AtomicUsize = AtomicUsize::new(0);
    let writer = |id| {
        (0..EACH).for_each(|i| LOG.write(alloc::format!("{id} {i}").as_bytes()));
        WRITERS.fetch_sub(1, SeqCst);
    };
    WRITERS.store(cpu::count(), SeqCst);
    let threads: Vec<_> = (0..cpu::count()).map(|id| sched::spawn_on(Some(id), "check", writer, id)).collect();
    let (mut came, mut lost) = (alloc::vec![Vec::new(); cpu::count()], 0);
    let mut more = true;
    while more {
        more = WRITERS.load(SeqCst) > 0;
        for piece in drained(&LOG) {
            let text = String::from_utf8(piece).map_err(|_| "no text")?;
            match text.split_once(' ').ok_or("half a text")? {
                ("log:", rest) => lost += rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0),
                (id, i) => {
                    let id: usize = id.parse().map_err(|_| "no number")?;
                    came[id].push(i.parse::<usize>().map_err(|_| "no number")?);
                }
            }
        }
        sched::yield_now();
    }
    threads.into_iter().for_each(sched::join);
    ensure(came.iter().all(|numbers| numbers.is_sorted_by(|a, b| a < b)), "the order is lost")?;
    ensure(came.iter().map(Vec::len).sum::<usize>() + lost == EACH * cpu::count(), "some are neither there nor lost")
}

fn log_in_panic() -> Result<(), &'static str> {
    static LOG: Buffer<64> = Buffer::new();
    LOG.write(b"on its way");
    LOG.write(b"waiting");
    // The panic comes while the first one is printed.
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut panicked = false;
    LOG.drain(&mut |_| {
        if !core::mem::replace(&mut panicked, true) {
            LOG.drain_in_panic(&mut |piece| pieces.push(piece.to_vec()));
        }
    });
    ensure(pieces == [b"on its way".as_slice(), b"waiting"], "something else comes out")
}

/// Counts those that are there.
struct Counted(u64);

static THERE: AtomicU64 = AtomicU64::new(0);

impl Counted {
    fn new(value: u64) -> Self {
        THERE.fetch_add(1, SeqCst);
        Self(value)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0 = u64::MAX;
        THERE.fetch_sub(1, SeqCst);
    }
}

static VALUE: Snapshot<Option<Counted>> = Snapshot::new(None);
static READING: AtomicBool = AtomicBool::new(false);
static GO_ON: AtomicBool = AtomicBool::new(false);

fn put(value: Option<u64>) {
    let _: Result<(), ()> = VALUE.replace(|_| Ok(value.map(Counted::new)));
}

/// A reader that takes its time, and then looks once more.
fn read_slowly(value: &Option<Counted>) {
    READING.store(true, SeqCst);
    while !GO_ON.load(SeqCst) {
        sched::yield_now();
    }
    THERE.fetch_add(value.as_ref().map_or(0, |v| v.0 * 100), SeqCst);
}

fn snapshot_waits() -> Result<(), &'static str> {
    put(Some(1));
    for flag in [&READING, &GO_ON] {
        flag.store(false, SeqCst);
    }
    let reader = sched::spawn("check", |_| VALUE.read(read_slowly), 0);
    while !READING.load(SeqCst) {
        sched::yield_now();
    }
    let writer = sched::spawn("check", |_| put(Some(2)), 0);
    sched::sleep_ms(20);
    let (there, new) = (THERE.load(SeqCst), VALUE.read(|value| value.as_ref().map(|v| v.0)));
    GO_ON.store(true, SeqCst);
    sched::join(reader);
    sched::join(writer);
    let seen = THERE.fetch_sub(100, SeqCst) - 1;
    put(None);
    ensure(there == 2 && new == Some(2), "the old one went too early, or the new one came too late")?;
    ensure(seen == 100, "the reader saw something else")?;
    ensure(THERE.load(SeqCst) == 0, "not all have gone")
}

fn snapshot_is_whole() -> Result<(), &'static str> {
    static VALUE: Snapshot<Vec<u64>> = Snapshot::new(Vec::new());
    static BAD: AtomicU64 = AtomicU64::new(0);
    static DONE: AtomicBool = AtomicBool::new(false);
    DONE.store(false, SeqCst);
    let reader = |_| {
        while !DONE.load(SeqCst) {
            let same = VALUE.read(|value| value.iter().all(|word| *word == value.len() as u64));
            BAD.fetch_add(u64::from(!same), SeqCst);
        }
    };
    let readers: Vec<_> = (0..cpu::count()).map(|id| sched::spawn_on(Some(id), "check", reader, 0)).collect();
    for length in 0..300_u64 {
        let _: Result<(), ()> = VALUE.replace(|_| Ok(alloc::vec![length; length as usize]));
    }
    DONE.store(true, SeqCst);
    readers.into_iter().for_each(sched::join);
    let _: Result<(), ()> = VALUE.replace(|_| Ok(Vec::new()));
    ensure(BAD.load(SeqCst) == 0, "a reader saw half a value, or one that had gone")
}

/// Where no module can lie: so it is nobody's else.
const BASE: u64 = 0xffff_ffff_b000_0000;

const fn function(offset: u64, name: &'static str) -> New<'static> {
    New { address: BASE + offset, size: 16, kind: 't', name }
}

const NEW: &[New<'static>] =
    &[function(32, "check_module::second"), function(0, "check_first"), function(64, "sys_open")];

fn symbols() -> Result<(), &'static str> {
    let address = |name: &str| ksyms::lookup(name).map(|symbol| symbol.address);
    let kernels = address("sys_open");
    ksyms::modules::add("check", BASE..BASE + 4096, NEW).map_err(|_| "they are not added")?;
    ksyms::modules::add("other", BASE + 4096..BASE + 8192, &[function(4096, "check_first")])
        .map_err(|_| "another module's are not added")?;
    let at = ksyms::at(BASE + 33).map(|(symbol, offset)| (symbol.name, offset));
    let holes = [ksyms::at(BASE + 16), ksyms::at(BASE + 2048), ksyms::at(BASE - 1)];
    let found =
        [address("second"), address("check:second"), address("check_module::second"), address("check:sys_open")];
    let both = address("check_first");
    let own = [address("check:check_first"), address("other:check_first")];
    let same = address("sys_open") == kernels;
    let owner = ksyms::modules::module_of(BASE + 4096);
    let removed = [ksyms::modules::remove("check"), ksyms::modules::remove("check"), ksyms::modules::remove("other")];
    ensure(at == Some(("check_module::second", 1)), "an address is not found")?;
    ensure(holes.iter().all(Option::is_none), "something is found where nothing is")?;
    ensure(found == [BASE + 32, BASE + 32, BASE + 32, BASE + 64].map(Ok), "a name is not found")?;
    ensure(same, "a module's symbol comes before the kernel's")?;
    ensure(matches!(both, Err(LookupError::Ambiguous(_))), "two modules' symbols are one")?;
    ensure(own == [Ok(BASE), Ok(BASE + 4096)], "the module's name does not tell them apart")?;
    ensure(owner.as_deref() == Some("other"), "the owner is another")?;
    ensure(removed == [true, false, true], "they are not removed, or twice")?;
    ensure(ksyms::at(BASE + 33).is_none() && address("second").is_err(), "they are still found")
}

fn symbols_twice() -> Result<(), &'static str> {
    ksyms::modules::add("check", BASE..BASE + 4096, NEW).map_err(|_| "they are not added")?;
    let name = ksyms::modules::add("check", BASE + 8192..BASE + 8193, &[]);
    let place = ksyms::modules::add("other", BASE + 4095..BASE + 8192, &[]);
    ksyms::modules::remove("check");
    ensure([name, place] == [Err(AddError::Twice); 2], "they were not")?;
    ensure(!ksyms::modules::remove("other"), "what was refused is there")
}

fn symbols_leave_nothing() -> Result<(), &'static str> {
    let round = || {
        ksyms::modules::add("check", BASE..BASE + 4096, NEW).map_err(|_| "they are not added")?;
        ensure(ksyms::modules::remove("check"), "they are not removed")
    };
    round()?;
    let before = (ksyms::modules::kept(), crate::mm::heap_used());
    (0..1000).try_for_each(|_| round())?;
    ensure((ksyms::modules::kept(), crate::mm::heap_used()) == before, "something is left")
}

fn exported() -> Result<(), &'static str> {
    let names = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];
    ensure(names.iter().all(|name| exports::find(name).is_some()), "one is missing")?;
    ensure(exports::find("sys_open").is_none() && exports::find("").is_none(), "what is not exported is found")?;
    let address = exports::find("memcmp").ok_or("it is missing")?;
    // SAFETY: the kernel's `memcmp` has this type.
    let memcmp = unsafe { core::mem::transmute::<u64, extern "C" fn(*const u8, *const u8, usize) -> i32>(address) };
    ensure(memcmp(b"ab".as_ptr(), b"ab".as_ptr(), 2) == 0, "equal bytes differ")?;
    ensure(memcmp(b"ab".as_ptr(), b"ac".as_ptr(), 2) < 0, "other bytes do not")
}
