//! The hit path's host: what it needs, from the memory that the tool prepared.

use super::memory::{self, read, read_word};
use super::{Memory, debuggee, fork, guard, mailbox, record, unwind};
use crate::abi::{Home, PAYLOAD_BYTES, STUB_BYTES, action, event};
use core::cell::{Cell, RefCell};
use cpu::SignalFrame;
use hit::returns::Returns;
use hit::{Cause, Counters, Host, Next, Probe, Site};
use isa::x86::{BREAKPOINT, Regs};
use sync::primitive::{AtomicU64, Ordering};
use sync::{ActiveSet, Table};

/// The instruction set.
pub type X86 = arch::x86::X86<arch::x86::User>;

/// One trap in one thread.
#[derive(Debug)]
pub struct TrapHost<'f> {
    pub(crate) memory: Memory,
    /// The thread's id, once somebody has asked for it; 0 before.
    tid: Cell<u64>,
    /// The thread's place among those that are in a handler, once it has one.
    place: Cell<Option<&'static AtomicU64>>,
    frame: RefCell<&'f mut SignalFrame>,
}

impl<'f> TrapHost<'f> {
    pub(crate) fn new(memory: Memory, frame: &'f mut SignalFrame) -> Self {
        Self { memory, tid: Cell::new(0), place: Cell::new(None), frame: RefCell::new(frame) }
    }

    /// The running thread's id.
    pub(crate) fn tid(&self) -> u64 {
        if self.tid.get() == 0 {
            // SAFETY: `gettid` has no argument and no effect.
            self.tid.set(unsafe { cpu::syscall(cpu::nr::GETTID, [0; 6]) }.cast_unsigned());
        }
        self.tid.get()
    }

    /// Lends `f` room for fetched arguments: a signal stack has none to spare.
    pub(crate) fn with_payload<R>(&self, f: impl FnOnce(&mut [u8; PAYLOAD_BYTES]) -> R) -> Option<R> {
        let home = self.memory.home;
        // Taken while it is lent, so that `f` cannot borrow it again.
        let place = self.place.take()?;
        let index = (core::ptr::from_ref(place) as usize).checked_sub(home.active.as_ptr() as usize)? / 8;
        let room = home.payloads.get(index)?;
        // SAFETY: `room` is memory of the mapping that `Memory` promises to stay. A thread has a place alone, from
        // `enter` until it leaves; only the holder of a place uses the room with its index, and `place` is empty while
        // it does.
        let result = f(unsafe { &mut *room.get() });
        self.place.set(Some(place));
        Some(result)
    }

    pub(crate) fn mask(&self) -> u64 {
        self.frame.try_borrow().map_or(0, |f| f.mask())
    }

    pub(crate) fn set_mask(&self, mask: u64) {
        if let Ok(mut frame) = self.frame.try_borrow_mut() {
            frame.set_mask(mask);
        }
    }

    pub(crate) fn signal_stack(&self) -> (u64, u64) {
        self.frame.try_borrow().map_or((0, 0), |f| f.signal_stack())
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

/// The instances of a process.
pub(crate) fn returns(home: &Home) -> Returns<'_> {
    let stubs = home.stubs.load(Ordering::Relaxed);
    Returns { pool: &home.pool, instances: &home.instances, stubs, stride: STUB_BYTES / home.instances.len() as u64 }
}

impl Host for TrapHost<'_> {
    type Isa = X86;

    fn find(&self, address: u64) -> Option<u64> {
        Table::new(&self.memory.home.buckets).find(address)
    }

    fn site(&self, index: u64) -> Option<&Site> {
        self.memory.home.sites.get(usize::try_from(index).ok()?)
    }

    fn probe(&self, index: u32) -> Option<&Probe> {
        self.memory.home.probes.get(index as usize)
    }

    fn counters(&self, id: u32) -> Option<&Counters> {
        self.memory.bank()?.counters.get(id as usize)
    }

    fn is_breakpoint(&self, address: u64) -> bool {
        let mut byte = [0];
        read(self.tid(), address, &mut byte) && byte == [BREAKPOINT]
    }

    fn thread(&self) -> u64 {
        self.tid()
    }

    fn enter(&self) -> Option<&AtomicU64> {
        // A process that does not count makes no system call of ours: it may have forbidden them to itself.
        self.memory.bank()?;
        let place = ActiveSet::new(&self.memory.home.active).enter(self.tid())?;
        self.place.set(Some(place));
        Some(place)
    }

    fn returns(&self) -> Returns<'_> {
        returns(self.memory.home)
    }

    fn record(&self, probe: &Probe, regs: &Regs, cause: Cause<'_>) -> bool {
        record::write(self, probe, regs, cause)
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
        // the access is atomic.
        let word = unsafe { AtomicU64::from_ptr(address as *mut u64) };
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn exchange_guarded(&self, address: u64, old: u64, new: u64) -> bool {
        // Between the look and the exchange only another thread's `munmap` of a stack that this thread unwinds could
        // take the word away.
        read_word(self.tid(), address) == Some(old) && self.exchange(address, old, new)
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
