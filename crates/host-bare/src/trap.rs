//! The hit path's host.

pub(crate) mod detour;

use crate::tables::{Processor, Tables};
use crate::{Engine, Kernel, record};
use arch::x86::handlers::{self, Around, Running};
use arch::x86::{Space, X86};
use core::marker::PhantomData;
use hit::returns::Returns;
use hit::{Cause, Counters, Host, Marks, Next, Probe, Site, Stepping, Watch};
use isa::x86::{BREAKPOINT, Op, Privilege, Regs};
use sync::Table;
use sync::primitive::{AtomicU64, Ordering};

/// Kernel code, whose memory is read and written with care.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelSpace<K>(PhantomData<K>);

impl<K: Kernel> Space for KernelSpace<K> {
    const PRIVILEGE: Privilege = Privilege::Kernel;
    const MEMORY: bool = K::STACK_GAP;

    fn execute(op: &Op, regs: &mut Regs) -> bool {
        (K::STACK_GAP || !op.touches_memory()) && op.execute(regs, &mut Guarded::<K>(PhantomData)).is_ok()
    }
}

/// The kernel's memory, read and written with care.
pub(crate) struct Guarded<K>(pub(crate) PhantomData<K>);

impl<K: Kernel> isa::Memory for Guarded<K> {
    fn read(&mut self, addr: u64, _: isa::Width) -> Result<u64, isa::Fault> {
        // Operations read words only.
        K::read_word(addr).ok_or(isa::Fault { addr, write: false })
    }

    fn write(&mut self, addr: u64, _: isa::Width, value: u64) -> Result<(), isa::Fault> {
        // SAFETY: where the emulated instruction would write, in the code that it was taken from.
        unsafe { K::write_word(addr, value) }.then_some(()).ok_or(isa::Fault { addr, write: true })
    }

    fn segment_base(&self, segment: isa::Segment) -> u64 {
        match segment {
            isa::Segment::Fs => read_msr(FS_BASE),
            isa::Segment::Gs => read_msr(GS_BASE),
        }
    }
}

/// `IA32_FS_BASE` and `IA32_GS_BASE` (SDM volume 4).
const FS_BASE: u32 = 0xC000_0100;
const GS_BASE: u32 = 0xC000_0101;

fn read_msr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: called with one of the two numbers above, which every processor in 64-bit mode has, and in a kernel.
    unsafe {
        core::arch::asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(low) | u64::from(high) << 32
}

/// One trap on one processor.
#[derive(Debug)]
pub(crate) struct TrapHost<'e, K> {
    pub(crate) engine: &'e Engine<K>,
    pub(crate) processor: &'e Processor,
}

// SAFETY: the control block is the running processor's, which does not change while interrupts are off, and
// `Engine::contain` asks it about faults. Control stores handlers only from `kprobes::Spec`, which takes their addresses
// from `Handler`s or, by an unsafe promise, from a module's; their areas are freed when the probe is gone.
unsafe impl<K: Kernel> Around for TrapHost<'_, K> {
    fn running(&self) -> Option<&Running> {
        Some(&self.processor.running)
    }

    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        K::read(address, out)
    }

    fn is_silenced(&self, probe: &Probe) -> bool {
        let owner = probe.handlers.owner.load(Ordering::Relaxed);
        owner != 0 && self.engine.is_silenced(owner)
    }

    fn broken(&self, probe: &Probe) {
        if let Some(counters) = self.counters(probe.id.load(Ordering::Relaxed)) {
            Counters::add(&counters.faults);
        }
        // Handlers pass it over from now on, and those of its module's other probes.
        probe.state.store(0, Ordering::Release);
        self.engine.silence(probe.handlers.owner.load(Ordering::Relaxed));
    }
}

/// Finds an address that others have crowded out of its place, or one that is not there.
#[inline(never)]
fn search(tables: &Tables, address: u64) -> Option<u64> {
    Table::with_mask(&tables.buckets, tables.mask).find(address)
}

impl<K: Kernel> Host for TrapHost<'_, K> {
    type Isa = X86<KernelSpace<K>>;

    #[inline(always)]
    fn find(&self, address: u64) -> Option<u64> {
        let tables = &self.engine.tables;
        // The table is at most half full: most addresses are where their sequence of buckets begins.
        let first = tables.buckets.get(Table::start(address) & tables.mask)?;
        if first.key.load(Ordering::Acquire) == address {
            return Some(first.value.load(Ordering::Relaxed));
        }
        search(tables, address)
    }

    fn site(&self, index: u64) -> Option<&Site> {
        self.engine.tables.sites.get(index as usize)
    }

    fn probe(&self, index: u32) -> Option<&Probe> {
        self.engine.tables.probes.get(index as usize)
    }

    fn counters(&self, id: u32) -> Option<&Counters> {
        self.engine.tables.counters.get(id as usize)
    }

    fn is_breakpoint(&self, address: u64) -> bool {
        let mut byte = [0];
        K::read(address, &mut byte) && byte == [BREAKPOINT]
    }

    fn thread(&self) -> u64 {
        K::thread()
    }

    fn enter(&self) -> Option<&AtomicU64> {
        self.processor.enter()
    }

    fn returns(&self) -> Returns<'_> {
        self.engine.returns()
    }

    fn record(&self, probe: &Probe, regs: &Regs, cause: Cause<'_>) -> bool {
        record::write(self, probe, regs, cause)
    }

    fn handle(&self, probe: &Probe, regs: &mut Regs) -> Next {
        handlers::handle(self, probe, regs)
    }

    fn followed(&self, probe: &Probe, regs: &mut Regs) {
        handlers::followed(self, probe, regs);
    }

    fn faulted(&self, probe: &Probe, regs: &mut Regs, trap: u64) -> bool {
        handlers::faulted(self, probe, regs, trap)
    }

    fn entered(&self, probe: &Probe, id: u32, regs: &mut Regs) -> Watch {
        handlers::entered(self, probe, id, regs)
    }

    fn returned(&self, probe: &Probe, id: u32, caller: u64, regs: &mut Regs) {
        handlers::returned(self, probe, id, caller, regs);
    }

    fn released(&self, probe: &Probe, id: u32) {
        handlers::released(probe, id);
    }

    fn stepping(&self) -> Option<&Stepping> {
        Some(&self.processor.stepping)
    }

    fn marks(&self, index: u64) -> Option<&Marks> {
        self.engine.tables.marks.get(index as usize)
    }

    fn internal(&self, _: &Probe, _: u64, _: &mut Regs) -> Next {
        Next::Step
    }

    fn load(&self, address: u64) -> u64 {
        K::read_word(address).unwrap_or(0)
    }

    fn exchange(&self, address: u64, _: u64, new: u64) -> bool {
        // SAFETY: the hit path changes return addresses only: here, of the function that was just entered. It is on
        // this thread's own stack, and the thread is here: nobody else has written it since `load`.
        unsafe { K::write_word(address, new) }
    }

    fn exchange_guarded(&self, address: u64, old: u64, new: u64) -> bool {
        // SAFETY: as above; the slot is one that the hit path knows, and `old` says whether it still is that.
        K::read_word(address) == Some(old) && unsafe { K::write_word(address, new) }
    }

    fn contiguous(&self, low: u64, high: u64) -> bool {
        // Walks concern one thread's stack here, and a page that cannot be read ends it.
        const PAGE: u64 = 4096;
        let mut at = low;
        while at <= high {
            if K::read_word(at & !7).is_none() {
                return false;
            }
            at = (at & !(PAGE - 1)).saturating_add(PAGE);
        }
        true
    }
}
