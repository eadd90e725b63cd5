//! What the agent and the tool share.
//!
//! | Region | Mapped in the target as | Written by | After `fork` |
//! |---|---|---|---|
//! | [`Home`] | private, read-write | tool (`/proc/PID/mem`) and agent | the child has its own copy |
//! | [`Shared`] | `memfd`, shared with the tool | agent; tool | the child shares it, and uses a [`Bank`] of its own |
//! | [`Identity`] | private, wiped on fork | agent | zero: so a child notices that it is one |
//! | stubs | private, read-execute | tool, once there is a return probe | copied |
//! | slots | private, read-execute | tool | copied |
//! | [`stacks`] of handlers | private, mapped without access; read-write where the agent uses it | agent | copied |
//!
//! The tables are large enough for a probe on each function of a large program. Memory that nobody has written to is address
//! space and nothing else: a small trace stays small.
//!
//! Everything is zero at first, zero means "nothing", and any bits are valid: neither side trusts the other's memory
//! further than to count and compare. The tool finds a `Home` again through [`Shared::home`] of the mapping that
//! `/proc/PID/maps` shows under [`MEMFD_NAME`].

pub mod lanes;
pub mod modules;
pub mod notifiers;
pub mod stacks;

use arch::x86::handlers::Running;
use hit::returns::{Instance, Pool};
use hit::{Counters, Counts, Marks, Probe, Site};
use sync::Bucket;
use sync::primitive::{AtomicU32, AtomicU64, Ordering};

/// The first word of [`Home`] and [`Shared`].
pub const MAGIC: u64 = u64::from_le_bytes(*b"kprobes\x01");
/// Changes whenever anything in this file or in the plain data of `hit` changes its meaning.
pub const VERSION: u64 = 6;
/// The name of the shared mapping.
pub const MEMFD_NAME: &str = "kprobe-agent";

/// Buckets of the probe table in all its sizes: see [`generation`]. A site has an entry for itself, its slot, and a
/// breakpoint in that; a jump has some more.
pub const BUCKETS: usize = 2 << LARGEST_TABLE;
/// The size of the probe table at first, as a power of two.
pub const SMALLEST_TABLE: u32 = 9;
/// The size that it can grow to.
pub const LARGEST_TABLE: u32 = 21;
/// Sites.
pub const SITES: usize = 1 << 18;
/// Probes.
pub const PROBES: usize = 1 << 18;
/// Events: ids of counters.
pub const EVENTS: usize = 1 << 17;
/// Instances of return probes.
pub const INSTANCES: usize = 1 << 16;
/// Bytes for fetch programs.
pub const PROGRAM_BYTES: usize = 8 << 20;
/// Areas of slots.
pub const ARENAS: usize = 512;
/// Threads that can be in a handler at once (in windows of [`sync::WINDOW`]).
pub const ACTIVE: usize = 1 << 12;
/// Threads that wait under a constant mask at once.
pub const DETOURS: usize = 64;
/// Signals whose actions are ours, whatever the program believes: that of breakpoints, and those of faults.
pub const GUARDED: [u64; 5] = [signal::TRAP, signal::SEGV, signal::BUS, signal::FPE, signal::ILL];
/// Processes that a trace with `-f` can follow at once.
pub const BANKS: usize = 128;
/// Rings of a bank.
pub const RINGS: usize = 4;
/// Threads of a process that count hits for themselves alone.
pub const ROWS: usize = 64;
/// Words of a ring.
pub const RING_WORDS: usize = 1 << 17;
/// Bytes of a record's fetched arguments.
pub const PAYLOAD_BYTES: usize = 2048;
/// Bytes of a slot.
pub const SLOT_BYTES: u64 = 64;
/// Bytes of one stub: a breakpoint, or code that leads to the agent.
pub const STUB_STRIDE: u64 = 16;
/// Bytes of the area of stubs. Behind it there is a page with the jump that they share.
pub const STUB_BYTES: u64 = INSTANCES as u64 * STUB_STRIDE;

/// An area of slots that the tool mapped near an object's text. The tool alone uses it; it stands here so that a later
/// tool finds it.
#[repr(C)]
#[derive(Debug)]
pub struct Arena {
    /// First address.
    pub base: AtomicU64,
    /// Bytes.
    pub size: AtomicU64,
    /// Bytes given out.
    pub used: AtomicU64,
}

/// What the tool took from a thread that it holds: if it is killed meanwhile, the thread runs into a breakpoint of the
/// agent's, and is given back by the handler.
#[repr(C)]
#[derive(Debug)]
pub struct HeldThread {
    /// The thread; 0: none.
    pub tid: AtomicU64,
    /// Its signal mask.
    pub mask: AtomicU64,
    /// Its general registers, in hardware numbering.
    pub gpr: [AtomicU64; 16],
    /// Where it goes on.
    pub rip: AtomicU64,
    /// Its flags.
    pub flags: AtomicU64,
}

/// Room for a record's fetched arguments; see [`Home::payloads`].
///
/// ```
/// # use host_process::abi::Payload;
/// // SAFETY: any bits are a valid payload.
/// let room: Payload = unsafe { core::mem::zeroed() };
/// let first = room.get().cast::<u8>();
/// // SAFETY: nobody else uses the room.
/// unsafe { first.write(7) };
/// // SAFETY: as above.
/// assert_eq!(unsafe { first.read() }, 7);
/// ```
#[repr(C)]
#[derive(Debug)]
pub struct Payload(core::cell::UnsafeCell<[u8; PAYLOAD_BYTES]>);

// SAFETY: access is by raw pointer only, and who uses it argues that nobody else does.
unsafe impl Sync for Payload {}

impl Payload {
    /// A pointer to the room.
    #[must_use]
    pub const fn get(&self) -> *mut [u8; PAYLOAD_BYTES] {
        self.0.get()
    }
}

/// A system call that a thread makes from the agent's `syscall` instruction, because its signal mask stands in memory
/// that it cannot write and would block `SIGTRAP`.
#[repr(C)]
#[derive(Debug)]
pub struct Detour {
    /// The thread; 0: free.
    pub tid: AtomicU64,
    /// Where it goes on.
    pub resume: AtomicU64,
    /// The register that was changed, in hardware numbering, and its value.
    pub register: AtomicU64,
    /// See `register`.
    pub value: AtomicU64,
    /// The cleared mask.
    pub mask: AtomicU64,
    /// Its address and size, as `pselect6` takes them.
    pub pointer: AtomicU64,
    /// See `pointer`.
    pub size: AtomicU64,
    /// Pads.
    pub reserved: AtomicU64,
}

/// What the agent keeps in the target, private to the process.
#[repr(C)]
#[derive(Debug)]
pub struct Home {
    /// [`MAGIC`], once the agent has started.
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU64,
    /// Address of [`Shared`] in the target.
    pub shared: AtomicU64,
    /// Address of [`Identity`].
    pub identity: AtomicU64,
    /// Address of the stubs.
    pub stubs: AtomicU64,
    /// Address of a `syscall` instruction in the agent, for calls that the tool makes by ptrace.
    pub gadget: AtomicU64,
    /// Address of the agent's entry point, for a later tool.
    pub entry: AtomicU64,
    /// Address of what detours call.
    pub detour_entry: AtomicU64,
    /// Address of what stubs lead to.
    pub return_entry: AtomicU64,
    /// [`FLAG_FOLLOW`] and its like, written by the tool.
    pub flags: AtomicU32,
    /// How many sites, probes and arenas are in use; bytes of programs in use. Written by the tool.
    pub sites_used: AtomicU32,
    /// See `sites_used`.
    pub probes_used: AtomicU32,
    /// See `sites_used`.
    pub arenas_used: AtomicU32,
    /// See `sites_used`.
    pub programs_used: AtomicU32,
    /// The size of the probe table now, as a power of two; 0 at first. Written by the tool.
    pub table_size: AtomicU32,
    /// Pads.
    pub reserved: AtomicU32,
    /// Not 0: probes may be placed by jumps, and threads have [`lanes`]. Written by the tool, and never taken back.
    pub has_lanes: AtomicU32,
    /// Changes when the process is to count elsewhere, or nowhere: [`lanes::Lane::cells`] of before mean nothing then.
    pub epoch: AtomicU32,
    /// Not 0: the stubs were written. Written by the tool.
    pub has_stubs: AtomicU32,
    /// How many rows of [`Bank::hits`] were given to threads.
    pub rows_used: AtomicU32,
    /// Not 0: a tool has waited on us in vain, or we on it. Nobody is waited for any more.
    pub alone: AtomicU32,
    /// The actions that the program believes it has for the signals of [`GUARDED`]: handler, flags, restorer, mask.
    pub app_actions: [[AtomicU64; 4]; GUARDED.len()],
    /// The handler that stands in the kernel for the program's own of a fault's signal.
    pub fault_entry: AtomicU64,
    /// Room for an argument of a system call that the tool makes.
    pub scratch: [AtomicU64; 8],
    /// Breakpoint traps that were removed before they were handled.
    pub stale: AtomicU64,
    /// Traps that were not ours.
    pub foreign: AtomicU64,
    /// Changes of a guarded signal's disposition or of masks that the guard took over.
    pub guarded: AtomicU64,
    /// Return probes.
    pub pool: Pool,
    /// Threads in a handler.
    pub active: [AtomicU64; ACTIVE],
    /// Threads that believe to have blocked `SIGTRAP`.
    pub blocked: [AtomicU64; ACTIVE],
    /// A thread that the tool holds and makes system calls with.
    pub held: HeldThread,
    /// A `vfork` child's thread that has asked to be traced by its parent and has not executed a program yet.
    pub asked: AtomicU64,
    /// Signals whose handlers the program wants `SIGTRAP` masked in, as a set.
    pub masked: AtomicU64,
    /// Threads that make a system call in the agent instead of their own code, with a cleared copy of their mask.
    pub detours: [Detour; DETOURS],
    /// Room for the fetched arguments of a record, for each place in `active`.
    pub payloads: [Payload; ACTIVE],
    /// The handler that is called, and where to go on when it faults, for each place in `active`.
    pub running: [Running; ACTIVE],
    /// Which windows of `lanes` somebody has a lane in: a bit for each.
    pub lane_windows: [AtomicU64; lanes::WINDOWS / 64],
    /// What threads keep that are in a detour.
    pub lanes: [lanes::Lane; lanes::LANES],
    /// The light handler that is called, and where to go on when it faults, for each lane.
    pub lane_running: [Running; lanes::LANES],
    /// Room for the fetched arguments of a record that is made in a detour, for each lane.
    pub lane_payloads: [Payload; lanes::LANES],
    /// Areas of slots.
    pub arenas: [Arena; ARENAS],
    /// The probe table, in its [generations](generation).
    pub buckets: [Bucket; BUCKETS],
    /// Sites.
    pub sites: [Site; SITES],
    /// What their slots mean.
    pub marks: [Marks; SITES],
    /// Probes.
    pub probes: [Probe; PROBES],
    /// Instances.
    pub instances: [Instance; INSTANCES],
    /// Fetch programs.
    pub programs: [AtomicU64; PROGRAM_BYTES / 8],
    /// Probe modules.
    pub modules: modules::Modules,
    /// The stacks that handlers run on.
    pub stacks: stacks::Stacks,
    /// Who is asked about breakpoints that are not ours.
    pub notifiers: notifiers::Notifiers,
}

/// Where in [`Home::buckets`] the probe table is when [`Home::table_size`] is `size`.
///
/// The table grows with the number of probes, so that few of them take little memory. Each size has a place of its own, and
/// what was left is never touched again: a handler that has just looked up the size goes on in the smaller table, and
/// finds there whatever had a breakpoint then.
///
/// ```
/// use host_process::abi::{BUCKETS, LARGEST_TABLE, SMALLEST_TABLE, generation};
///
/// assert_eq!(generation(0), generation(SMALLEST_TABLE));
/// assert_eq!(generation(10).len(), 1024);
/// assert_eq!(generation(10).end, generation(11).start);
/// assert_eq!(generation(u32::MAX).end, BUCKETS);
/// ```
#[must_use]
pub const fn generation(size: u32) -> core::ops::Range<usize> {
    let size = if size < SMALLEST_TABLE { SMALLEST_TABLE } else { size };
    let size = if size > LARGEST_TABLE { LARGEST_TABLE } else { size };
    1 << size..2 << size
}

/// Signals (Linux `arch/x86/include/uapi/asm/signal.h`).
pub mod signal {
    /// An instruction that cannot be executed.
    pub const ILL: u64 = 4;
    /// A breakpoint, a single step.
    pub const TRAP: u64 = 5;
    /// Memory that cannot be had, though it is mapped.
    pub const BUS: u64 = 7;
    /// Arithmetic.
    pub const FPE: u64 = 8;
    /// Memory that is not mapped, or not for that.
    pub const SEGV: u64 = 11;

    /// Its bit in a signal set.
    ///
    /// ```
    /// use host_process::abi::signal::{ILL, TRAP, bit};
    ///
    /// // As `SigBlk` in `/proc/PID/status` shows it.
    /// assert_eq!(format!("{:016x}", bit(ILL) | bit(TRAP)), "0000000000000018");
    /// ```
    #[must_use]
    pub const fn bit(signal: u64) -> u64 {
        1 << (signal - 1)
    }
}

/// [`Home::flags`]: children and exec'ed programs are traced too.
pub const FLAG_FOLLOW: u32 = 1;

/// Who this process is. The kernel zeroes it in a forked child (`MADV_WIPEONFORK`).
#[repr(C)]
#[derive(Debug)]
pub struct Identity {
    /// The process id, or 0 in a child that has not hit a probe yet.
    pub pid: AtomicU64,
    /// Its bank's index + 1, or [`NO_BANK`] when it does not count.
    pub bank: AtomicU64,
    /// Which thread sets this up, in a child that has not known yet: its fs base + 1, or 1 where threads have no lanes.
    pub adopter: AtomicU64,
}

/// [`Identity::bank`] of a process whose hits are not counted.
pub const NO_BANK: u64 = u64::MAX;

/// What the agent tells the tool, and what the tool asks of the agent meanwhile.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Mailbox {
    /// One of the [`mail`] states.
    pub state: AtomicU32,
    /// The thread that uses the mailbox, or 0.
    pub lock: AtomicU32,
    /// One of the [`event`]s.
    pub event: AtomicU32,
    /// Pads.
    pub reserved: AtomicU32,
    /// The process that tells (a `vfork` child tells through its parent's bank).
    pub pid: AtomicU64,
    /// The thread that tells.
    pub tid: AtomicU64,
    /// A system call that the tool wants made: its number.
    pub number: AtomicU64,
    /// Its arguments.
    pub args: [AtomicU64; 6],
    /// Its result.
    pub result: AtomicU64,
}

/// States of a [`Mailbox`].
pub mod mail {
    /// Nobody has anything to say.
    pub const IDLE: u32 = 0;
    /// The agent waits for the tool to look at an event.
    pub const EVENT: u32 = 1;
    /// The tool wants a system call made.
    pub const CALL: u32 = 2;
    /// The call was made.
    pub const DONE: u32 = 3;
    /// The tool is ready; the agent goes on.
    pub const RESUME: u32 = 4;
}

/// Events of a [`Mailbox`].
pub mod event {
    /// The dynamic linker has mapped or unmapped objects.
    pub const OBJECTS: u32 = 1;
    /// The thread is about to execute another program: the address of its path, and the folder it is relative to, are the
    /// first two of [`Mailbox::args`](super::Mailbox::args).
    pub const EXEC: u32 = 2;
    /// The process is about to forbid itself system calls: its probes must go.
    pub const SANDBOX: u32 = 3;
}

/// Actions of internal probes ([`hit::Kind::Internal`]), in [`hit::Probe::data`].
pub mod action {
    /// The dynamic linker's notification.
    pub const OBJECTS: u64 = 1;
    /// A `syscall` instruction that may change what happens to `SIGTRAP`, or execute another program.
    pub const GUARD: u64 = 2;
    /// An unwinder starts.
    pub const UNWIND: u64 = 3;
    /// An unwinder has chosen a frame (`_Unwind_SetIP`); the offset of its frame address in the context is in the
    /// upper half of the word.
    pub const LAND: u64 = 4;
    /// An unwinder that only walks returns.
    pub const WALKED: u64 = 5;
    /// `longjmp`, with the stack pointer in clear in word 6 of its buffer.
    pub const JUMP_PLAIN: u64 = 6;
    /// `longjmp` of glibc, with the stack pointer mangled.
    pub const JUMP_MANGLED: u64 = 7;
    /// A function that waits under a signal mask of its own; the register that points to the set, in hardware
    /// numbering, is in the upper half of the word.
    pub const MASK: u64 = 8;
    /// The bits of the word that hold the action.
    pub const BITS: u64 = 0xffff_ffff;
}

/// One ring of records.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct RingMemory {
    /// Where producers reserve.
    pub head: AtomicU64,
    _gap: [AtomicU64; 7],
    /// Where the tool reads.
    pub tail: AtomicU64,
    _gap2: [AtomicU64; 7],
    /// The words.
    pub data: [AtomicU64; RING_WORDS],
}

/// What belongs to one process of a trace.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Bank {
    /// The process; 0: the bank is free.
    pub pid: AtomicU64,
    /// The process whose memory it copied.
    pub parent: AtomicU64,
    /// Its mailbox.
    pub mailbox: Mailbox,
    /// How many rows of `hits` are in use.
    pub rows: AtomicU32,
    /// Its counters, by event id.
    pub counters: [Counters; EVENTS],
    /// Its records.
    pub rings: [RingMemory; RINGS],
    /// What modules have printed that end with the trace.
    pub log: modules::Log,
    /// Hits that single threads have counted, without a locked instruction, beside those in `counters`.
    pub hits: [[AtomicU64; EVENTS]; ROWS],
}

impl Bank {
    /// What was counted for an event, by all threads. Each word is read by itself.
    ///
    /// ```
    /// # use host_process::abi::Bank;
    /// # use std::alloc::{Layout, alloc_zeroed, dealloc};
    /// # use std::sync::atomic::Ordering;
    /// # let layout = Layout::new::<Bank>();
    /// # // SAFETY: the layout is not empty.
    /// # let at = unsafe { alloc_zeroed(layout) }.cast::<Bank>();
    /// # // SAFETY: zeros are a valid bank.
    /// # let bank = unsafe { &*at };
    /// bank.counters[7].hits.store(2, Ordering::Relaxed);
    /// bank.rows.store(1, Ordering::Relaxed);
    /// bank.hits[0][7].store(3, Ordering::Relaxed);
    /// assert_eq!(bank.counts(7).map(|counts| counts.hits), Some(5));
    /// bank.reset(7);
    /// assert_eq!(bank.counts(7), Some(hit::Counts::default()));
    /// # // SAFETY: it was allocated so.
    /// # unsafe { dealloc(at.cast(), layout) };
    /// ```
    #[must_use]
    pub fn counts(&self, id: usize) -> Option<Counts> {
        let counts = Counts::of(self.counters.get(id)?);
        let own = self.cells(id).map(|cell| cell.load(Ordering::Relaxed));
        Some(Counts { hits: own.fold(counts.hits, u64::wrapping_add), ..counts })
    }

    /// Sets what was counted for an event to zero. No thread hits it.
    pub fn reset(&self, id: usize) {
        self.counters.get(id).into_iter().for_each(Counts::reset);
        self.cells(id).for_each(|cell| cell.store(0, Ordering::Relaxed));
    }

    fn cells(&self, id: usize) -> impl Iterator<Item = &AtomicU64> {
        let rows = self.rows.load(Ordering::Relaxed) as usize;
        self.hits.iter().take(rows).filter_map(move |row| row.get(id))
    }
}

/// What the tool and the processes of one trace share. [`Bank`]s follow it.
///
/// ```
/// use host_process::abi::{Bank, Shared, shared_bytes};
/// use std::alloc::{Layout, alloc_zeroed, dealloc};
/// use std::sync::atomic::Ordering;
///
/// assert_eq!(shared_bytes(2) - shared_bytes(1), size_of::<Bank>());
/// let layout = Layout::from_size_align(shared_bytes(1), align_of::<Shared>())?;
/// // SAFETY: the layout is not empty.
/// let shared = unsafe { alloc_zeroed(layout) }.cast::<Shared>();
/// # assert!(!shared.is_null());
/// // SAFETY: zeros are a valid `Shared`, and one bank follows it.
/// unsafe {
///     assert!(Shared::bank(shared, 0).is_none(), "it has not been said yet that there is one");
///     (*shared).banks_mapped.store(1, Ordering::Relaxed);
///     assert!(Shared::bank(shared, 0).is_some_and(|bank| bank.pid.load(Ordering::Relaxed) == 0));
///     assert!(Shared::bank(shared, 1).is_none());
///     dealloc(shared.cast(), layout);
/// }
/// # Ok::<(), std::alloc::LayoutError>(())
/// ```
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Shared {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU64,
    /// Address of [`Home`] in the process that made this mapping (and in its children).
    pub home: AtomicU64,
    /// How many banks there are.
    pub banks_mapped: AtomicU32,
    /// Rung by the agent when the tool should look; a futex.
    pub doorbell: AtomicU32,
    /// Advanced by the tool while it lives.
    pub heartbeat: AtomicU32,
    /// Not 0 while a tool listens.
    pub listening: AtomicU32,
    /// Forked children that found no free bank.
    pub unbanked: AtomicU64,
}

impl Shared {
    /// The bank at `index`.
    ///
    /// # Safety
    ///
    /// `this` must point to a `Shared` that is mapped with at least `banks_mapped` banks behind it for `'a`.
    #[must_use]
    pub unsafe fn bank<'a>(this: *const Self, index: usize) -> Option<&'a Bank> {
        // SAFETY: the caller's promise; any bits are a valid `Shared`.
        let mapped = unsafe { &*this }.banks_mapped.load(Ordering::Relaxed) as usize;
        // SAFETY: `index` is below the number of banks that the caller promises to be mapped behind `this`.
        (index < mapped.min(BANKS)).then(|| unsafe { &*this.add(1).cast::<Bank>().add(index) })
    }
}

/// The thread of a word in [`Home::blocked`]: its top bits say what waits for the thread.
///
/// ```
/// # use host_process::abi::blocked_thread;
/// assert_eq!(blocked_thread(1 << 63 | 4711), 4711);
/// ```
#[must_use]
pub const fn blocked_thread(word: u64) -> u64 {
    word & !(0b11 << 62)
}

/// Where in [`Home::blocked`] and [`Home::active`] thread `tid` is looked for.
///
/// ```
/// # use host_process::abi::{ACTIVE, window};
/// // Neighbours are looked for in places of their own; every place is somebody's.
/// assert_eq!(window(0).end, window(1).start);
/// assert!((0..100_000).all(|tid| window(tid).end <= ACTIVE));
/// ```
#[must_use]
pub const fn window(tid: u64) -> core::ops::Range<usize> {
    let first = tid as usize % (ACTIVE / sync::WINDOW) * sync::WINDOW;
    first..first + sync::WINDOW
}

/// Bytes to map for `banks` banks.
#[must_use]
pub const fn shared_bytes(banks: usize) -> usize {
    size_of::<Shared>() + banks * size_of::<Bank>()
}

const _: () = assert!(size_of::<Bank>().is_multiple_of(4096) && size_of::<Shared>() == 4096);
