//! The hit path's host: what it needs, from the memory that the tool prepared.

use super::lanes::Stay;
use super::memory::{self, read, read_word};
use super::{FAULT_BITS, Memory, debuggee, fork, guard, lanes, mailbox, modules, record, stacks, unwind};
use crate::abi::lanes::ALONE;
use crate::abi::{Home, STUB_STRIDE, action, event, generation};
use arch::x86::Space;
use arch::x86::handlers::{self, Around, Running};
use core::cell::{Cell, RefCell};
use cpu::SignalFrame;
use hit::returns::Returns;
use hit::{Cause, Counters, Host, Marks, Next, Probe, Site, Watch};
use isa::x86::{BREAKPOINT, Op, Privilege, Regs};
use sync::primitive::{AtomicU64, Ordering};
use sync::{ActiveSet, Table};

/// The instruction set.
pub type X86 = arch::x86::X86<Own>;

/// The program's own memory. Operations that touch it are executed here only where post-handlers are to follow; the
/// processor does it better, because a fault is its own then.
#[derive(Clone, Copy, Debug)]
pub struct Own;

impl Space for Own {
    const PRIVILEGE: Privilege = Privilege::User;
    const MEMORY: bool = false;

    fn execute(op: &Op, regs: &mut Regs) -> bool {
        op.execute(regs, &mut memory::Careful).is_ok()
    }
}

/// One trap, or one detour, in one thread.
#[derive(Debug)]
pub struct TrapHost<'f> {
    pub(crate) memory: Memory,
    /// The thread's id, once somebody has asked for it; 0 before.
    tid: Cell<u64>,
    /// The thread's place among those that are in a handler, once it has one.
    place: Cell<Option<&'static AtomicU64>>,
    way: Way<'f>,
}

/// How the thread has come here.
#[derive(Debug)]
enum Way<'f> {
    Trap {
        frame: RefCell<&'f mut SignalFrame>,
        /// A fault's signal may be masked now.
        masks_faults: bool,
    },
    /// By a jump; without a lane the thread has a place, as in a trap.
    Detour {
        stay: Option<Stay>,
        /// The vector registers that carry arguments.
        vectors: &'f [[u64; 2]; 8],
    },
}

impl<'f> TrapHost<'f> {
    pub(crate) fn new(memory: Memory, frame: &'f mut SignalFrame) -> Self {
        let masks_faults = frame.mask() & FAULT_BITS != 0;
        Self::on_way(memory, Way::Trap { frame: RefCell::new(frame), masks_faults })
    }

    /// In the handler of a fault, which runs under the program's mask for it.
    pub(crate) fn in_fault(memory: Memory, frame: &'f mut SignalFrame) -> Self {
        Self::on_way(memory, Way::Trap { frame: RefCell::new(frame), masks_faults: true })
    }

    /// In a detour.
    #[inline(always)]
    pub(crate) fn in_detour(memory: Memory, stay: Option<Stay>, vectors: &'f [[u64; 2]; 8]) -> Self {
        Self::on_way(memory, Way::Detour { stay, vectors })
    }

    #[inline(always)]
    const fn on_way(memory: Memory, way: Way<'f>) -> Self {
        Self { memory, tid: Cell::new(0), place: Cell::new(None), way }
    }

    /// The signal frame, unless somebody has borrowed it or there is none.
    fn frame<R>(&self, f: impl FnOnce(&mut SignalFrame) -> R) -> Option<R> {
        match &self.way {
            Way::Trap { frame, .. } => frame.try_borrow_mut().ok().map(|mut frame| f(&mut frame)),
            Way::Detour { .. } => None,
        }
    }

    /// The running thread's id.
    pub(crate) fn tid(&self) -> u64 {
        if let Way::Detour { stay: Some(stay), .. } = &self.way {
            return stay.tid();
        }
        if self.tid.get() == 0 {
            // SAFETY: `gettid` has no argument and no effect.
            self.tid.set(unsafe { cpu::syscall(cpu::nr::GETTID, [0; 6]) }.cast_unsigned());
        }
        self.tid.get()
    }

    /// Lends `f` room for fetched arguments: a signal stack has none to spare.
    pub(crate) fn with_payload<R>(&self, f: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let home = self.memory.home;
        if let Way::Detour { stay: Some(stay), .. } = &self.way {
            let Some(room) = stay.payload(home) else { return Some(with_little(f)) };
            // SAFETY: as below; the lane is the thread's alone, and no detour of the same thread that this one has
            // interrupted uses it. Who interrupts this one is told that it does.
            return Some(f(unsafe { &mut *room.get() }));
        }
        // Taken while it is lent, so that `f` cannot borrow it again.
        let place = self.place.take()?;
        let room = home.payloads.get(self.index(place)?)?;
        // SAFETY: `room` is memory of the mapping that `Memory` promises to stay. A thread has a place alone, from
        // `enter` until it leaves; only the holder of a place uses the room with its index, and `place` is empty while
        // it does.
        let result = f(unsafe { &mut *room.get() });
        self.place.set(Some(place));
        Some(result)
    }

    /// Runs `f`, which calls a probe's handler, on a stack of its own: of all signals only breakpoints' and faults' are
    /// delivered meanwhile. `None` when no stack is free.
    pub(crate) fn calling<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let home = self.memory.home;
        let lane = lanes::here(home);
        // Where signals are masked: a handler that never comes back would leave it set.
        let f = || {
            let was = lane.map_or(0, |lane| lane.calling.swap(ALONE, Ordering::Relaxed));
            let result = f();
            if let Some(lane) = lane {
                lane.calling.store(was, Ordering::Relaxed);
            }
            result
        };
        match &self.way {
            Way::Trap { masks_faults, .. } => {
                let (low, high) = self.signal_stack();
                stacks::call(home, self.tid(), low..high, *masks_faults, f)
            }
            Way::Detour { .. } => stacks::call(home, self.tid(), 0..u64::MAX, true, || self.in_place(f)).flatten(),
        }
    }

    /// The detour, if the handlers of this probe may be called right in it.
    #[inline(always)]
    fn lightly(&self, probe: &Probe) -> Option<&Stay> {
        match &self.way {
            Way::Detour { stay: Some(stay), .. } if probe.is_light() => Some(stay),
            _ => None,
        }
    }

    /// A handler that a detour calls: it has a place, as in a trap, and may use all registers.
    fn in_place<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        if self.place.get().is_some() {
            // SAFETY: as below.
            return Some(unsafe { cpu::with_initial_vectors(f) });
        }
        let place = ActiveSet::new(&self.memory.home.active).enter(self.tid())?;
        self.place.set(Some(place));
        // SAFETY: the tool places probes by jumps only where there is the instruction; this is a handler's stack.
        let result = unsafe { cpu::with_initial_vectors(f) };
        self.place.set(None);
        ActiveSet::leave(place);
        Some(result)
    }

    /// There was no stack for a handler of this probe. What was counted for it already, `instead`, is a miss.
    #[cold]
    #[inline(never)]
    fn missed(&self, probe: &Probe, instead: Option<fn(&Counters) -> &AtomicU64>) {
        if let Some(counters) = self.counters(probe.id.load(Ordering::Relaxed)) {
            instead.map(|counted| counted(counters).fetch_sub(1, Ordering::Relaxed));
            Counters::add(&counters.missed);
        }
    }

    /// The thread is in a trap's handler: it takes a place, if it may.
    #[inline(never)]
    fn enter_trap(&self) -> Option<&AtomicU64> {
        if lanes::in_light_handler(self.memory.home, self.sp()).is_some() {
            return None;
        }
        let place = ActiveSet::new(&self.memory.home.active).enter(self.tid())?;
        self.place.set(Some(place));
        Some(place)
    }

    /// The index of the thread's place among those in handlers, if it has one.
    pub(crate) fn place(&self) -> Option<usize> {
        self.index(self.place.get()?)
    }

    /// Which place this is among those of threads in handlers.
    fn index(&self, place: &AtomicU64) -> Option<usize> {
        Some((core::ptr::from_ref(place) as usize).checked_sub(self.memory.home.active.as_ptr() as usize)? / 8)
    }

    /// The running thread's name, padded with zeros; `now` is a time stamp.
    pub(crate) fn thread_name(&self, now: u64) -> [u64; 2] {
        match &self.way {
            Way::Detour { stay: Some(stay), .. } => stay.name(now, record::thread_name),
            _ => record::thread_name(),
        }
    }

    /// The stack pointer that a signal has interrupted; the highest there is, when it is not known.
    pub(crate) fn sp(&self) -> u64 {
        self.frame(|frame| frame.registers().rsp()).unwrap_or(u64::MAX)
    }

    pub(crate) fn set_registers(&self, regs: &Regs) {
        self.frame(|frame| frame.set_registers(regs));
    }

    pub(crate) fn mask(&self) -> u64 {
        self.frame(|frame| frame.mask()).unwrap_or(0)
    }

    pub(crate) fn set_mask(&self, mask: u64) {
        self.frame(|frame| frame.set_mask(mask));
    }

    pub(crate) fn signal_stack(&self) -> (u64, u64) {
        self.frame(|frame| frame.signal_stack()).unwrap_or_default()
    }

    /// Whether the running process is the one whose memory this is; a `vfork` child is not.
    pub(crate) fn is_own_process(&self) -> bool {
        let known = self.memory.identity().pid.load(Ordering::Relaxed);
        if known == fork::UNCOUNTED {
            return !debuggee::shares_memory_with_parent();
        }
        // SAFETY: `getpid` has no argument.
        known == unsafe { cpu::syscall(cpu::nr::GETPID, [0; 6]) }.cast_unsigned()
    }
}

/// Lends `f` room on the stack, where there is none to spare: what finds no room in it is cut off, and the record says so.
#[cold]
#[inline(never)]
fn with_little<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    f(&mut [0; LITTLE])
}

/// Bytes of that room.
const LITTLE: usize = 256;

/// The probe table, as large as it is now.
pub(crate) fn table(home: &Home) -> Table<'_> {
    let place = generation(home.table_size.load(Ordering::Acquire));
    let mask = place.len() - 1;
    Table::with_mask(home.buckets.get(place).unwrap_or_default(), mask)
}

/// The instances of a process.
pub(crate) fn returns(home: &Home) -> Returns<'_> {
    let stubs = home.stubs.load(Ordering::Relaxed);
    Returns { pool: &home.pool, instances: &home.instances, stubs, stride: STUB_STRIDE }
}

// SAFETY: a thread has a place alone, from `enter` until it leaves, and `fault` finds it there again. The tool stores
// handlers' addresses only from `kprobes::Spec`, which takes them from `Handler`s or, by an unsafe promise, from a module's
// code that it has mapped; areas and code stay until a grace period after the probe is over.
unsafe impl Around for TrapHost<'_> {
    fn running(&self) -> Option<&Running> {
        let home = self.memory.home;
        match (&self.way, self.place.get()) {
            (Way::Detour { stay: Some(stay), .. }, None) => lanes::running(home, stay.lane()),
            (_, place) => home.running.get(self.index(place?)?),
        }
    }

    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        read(self.tid(), address, out)
    }

    fn vectors(&self) -> Option<[[u64; 2]; 8]> {
        match &self.way {
            Way::Trap { frame, .. } => frame.try_borrow().ok()?.vectors(),
            Way::Detour { vectors, .. } => Some(**vectors),
        }
    }

    fn is_silenced(&self, probe: &Probe) -> bool {
        !modules::admits(self, probe)
    }

    fn broken(&self, probe: &Probe) {
        // Handlers pass it over from now on.
        probe.state.store(0, Ordering::Release);
        modules::broken(self, probe);
    }
}

impl Host for TrapHost<'_> {
    type Isa = X86;

    fn handle(&self, probe: &Probe, regs: &mut Regs) -> Next {
        if let Some(stay) = self.lightly(probe) {
            return stay.lightly(|| handlers::handle(self, probe, regs));
        }
        self.calling(|| handlers::handle(self, probe, regs)).unwrap_or_else(|| {
            self.missed(probe, Some(|counters| &counters.hits));
            Next::Step
        })
    }

    fn followed(&self, probe: &Probe, regs: &mut Regs) {
        if self.calling(|| handlers::followed(self, probe, regs)).is_none() {
            self.missed(probe, None);
        }
    }

    fn faulted(&self, probe: &Probe, regs: &mut Regs, trap: u64) -> bool {
        self.calling(|| handlers::faulted(self, probe, regs, trap)).unwrap_or(false)
    }

    fn entered(&self, probe: &Probe, id: u32, regs: &mut Regs) -> Watch {
        // Without an entry handler there is nothing to call.
        if probe.handlers.before.load(Ordering::Relaxed) == 0 {
            return handlers::entered(self, probe, id, regs);
        }
        if let Some(stay) = self.lightly(probe) {
            return stay.lightly(|| handlers::entered(self, probe, id, regs));
        }
        self.calling(|| handlers::entered(self, probe, id, regs)).unwrap_or_else(|| {
            self.missed(probe, None);
            Watch::No
        })
    }

    fn returned(&self, probe: &Probe, id: u32, caller: u64, regs: &mut Regs) {
        if let Some(stay) = self.lightly(probe) {
            return stay.lightly(|| handlers::returned(self, probe, id, caller, regs));
        }
        if self.calling(|| handlers::returned(self, probe, id, caller, regs)).is_none() {
            self.missed(probe, None);
        }
    }

    fn released(&self, probe: &Probe, id: u32) {
        handlers::released(probe, id);
    }

    fn find(&self, address: u64) -> Option<u64> {
        table(self.memory.home).find(address)
    }

    fn site(&self, index: u64) -> Option<&Site> {
        self.memory.home.sites.get(usize::try_from(index).ok()?)
    }

    fn probe(&self, index: u32) -> Option<&Probe> {
        self.memory.home.probes.get(index as usize)
    }

    fn counters(&self, id: u32) -> Option<&Counters> {
        if id >= modules::FIRST_ID {
            return modules::counters(self.memory.home, id);
        }
        self.memory.bank()?.counters.get(id as usize)
    }

    #[inline(always)]
    fn count(&self, probe: &Probe) -> bool {
        let id = probe.id.load(Ordering::Relaxed);
        if let Way::Detour { stay: Some(stay), .. } = &self.way
            && id < modules::FIRST_ID
            && let epoch = self.memory.home.epoch.load(Ordering::Acquire)
            && let Some(bank) = self.memory.bank()
            && let Some(cell) = stay.cell(self.memory.home, (epoch, bank), id)
        {
            // Only this thread writes it, and a signal's handler comes before the instruction or behind it.
            cpu::add_one(cell);
            return true;
        }
        self.counters(id).map(|counters| Counters::add(&counters.hits)).is_some()
    }

    fn is_breakpoint(&self, address: u64) -> bool {
        let mut byte = [0];
        read(self.tid(), address, &mut byte) && byte == [BREAKPOINT]
    }

    fn thread(&self) -> u64 {
        self.tid()
    }

    #[inline(always)]
    fn enter(&self) -> Option<&AtomicU64> {
        // A process that does not count makes no system call of ours: it may have forbidden them to itself.
        self.memory.is_active().then_some(())?;
        if let Way::Detour { stay: Some(stay), .. } = &self.way {
            let lane = stay.lane();
            return (lane.calling.load(Ordering::Relaxed) == 0).then_some(&lane.left);
        }
        self.enter_trap()
    }

    fn returns(&self) -> Returns<'_> {
        returns(self.memory.home)
    }

    fn record(&self, probe: &Probe, regs: &Regs, cause: Cause<'_>) -> bool {
        record::write(self, probe, regs, cause)
    }

    fn marks(&self, index: u64) -> Option<&Marks> {
        self.memory.home.marks.get(usize::try_from(index).ok()?)
    }

    fn internal(&self, probe: &Probe, _: u64, regs: &mut Regs) -> Next {
        let data = probe.data.load(Ordering::Relaxed);
        match data & action::BITS {
            action::OBJECTS => {
                mailbox::tell(self.memory, self.tid(), event::OBJECTS, [0; 2]);
                Next::Step
            }
            action::GUARD => guard::check(self, regs),
            action::MASK => guard::check_mask(self, data >> 32, regs),
            _ => {
                unwind::hook(self, data, regs);
                Next::Step
            }
        }
    }

    fn load(&self, address: u64) -> u64 {
        // SAFETY: the hit path asks for the return slot of a function that was entered by pushing it there, in this
        // thread, one instruction ago: it is mapped and aligned to the stack's word.
        unsafe { (address as *const u64).read_unaligned() }
    }

    fn exchange(&self, address: u64, old: u64, new: u64) -> bool {
        if !address.is_multiple_of(8) {
            return false;
        }
        // SAFETY: as in `load`, and aligned. Other threads may look at the word (a garbage collector, an unwinder), so
        // the access is atomic; but on this stack only this thread runs, and only it writes.
        cpu::replace(unsafe { AtomicU64::from_ptr(address as *mut u64) }, old, new)
    }

    fn exchange_guarded(&self, address: u64, old: u64, new: u64) -> bool {
        // Between the look and the exchange only another thread's `munmap` of a stack that this thread unwinds could
        // take the word away.
        if read_word(self.tid(), address) != Some(old) || !address.is_multiple_of(8) {
            return false;
        }
        // SAFETY: it was readable just now, and is aligned. Another thread may run on that stack: a coroutine's.
        let word = unsafe { AtomicU64::from_ptr(address as *mut u64) };
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn contiguous(&self, low: u64, high: u64) -> bool {
        // Where stacks of threads lie side by side without guard pages (`pthread_attr_setstack`), the C library has put
        // the thread's control block, which the fs base points at, at the upper end of its stack.
        let end = memory::thread_control_block();
        !(low < end && end <= high) && memory::is_readable(self.tid(), low, high)
    }

    fn relax(&self) {
        // SAFETY: `sched_yield` has no argument.
        unsafe { cpu::syscall(cpu::nr::SCHED_YIELD, [0; 6]) };
    }
}
