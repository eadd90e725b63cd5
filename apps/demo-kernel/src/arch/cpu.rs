//! Per-CPU blocks, reached through gs, and each processor's descriptor tables.
//!
//! gs holds the block's address from the first Rust function on, on every processor, and never changes: this kernel
//! has no ring 3. A field that belongs to the running thread (`current`) is changed by the stack switch alone.

use alloc::boxed::Box;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use x86_64::PrivilegeLevel;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::model_specific::GsBase;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// More processors are left alone.
pub(crate) const MAX: usize = 8;

/// Bytes of each stack that the processor switches to by itself.
const IST_BYTES: usize = 8192;

/// What the kernel keeps for each processor.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Block {
    /// The processor's number; constant.
    id: AtomicUsize,
    /// The running thread, `*const sched::Thread`; null until the scheduler runs here.
    pub(crate) current: AtomicU64,
    /// How often preemption was turned off and not yet on again.
    preempt_depth: AtomicU64,
    /// The tick found another thread to run.
    pub(crate) reschedule: AtomicBool,
    /// In the idle loop.
    pub(crate) idle: AtomicBool,
    /// Runs and answers calls.
    online: AtomicBool,
    /// What it is called at by the interrupt controller.
    pub(crate) apic_id: AtomicU64,
    /// Non-maskable interrupts taken.
    pub(crate) nmis: AtomicU64,
    /// Timer interrupts taken.
    pub(crate) ticks: AtomicU64,
    /// Another processor wants us to run `ipi`'s function.
    pub(crate) called: AtomicBool,
    /// We have run it.
    pub(crate) answered: AtomicBool,
}

impl Block {
    const fn new() -> Self {
        Self {
            id: AtomicUsize::new(0),
            current: AtomicU64::new(0),
            preempt_depth: AtomicU64::new(0),
            reschedule: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            online: AtomicBool::new(false),
            apic_id: AtomicU64::new(0),
            nmis: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            called: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        }
    }
}

/// Where the stack switch finds `current`.
pub(crate) const CURRENT_OFFSET: usize = core::mem::offset_of!(Block, current);

static BLOCKS: [Block; MAX] = [const { Block::new() }; MAX];
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// Makes this processor number `id`: `gs` refers to its block.
pub(crate) fn claim(id: usize) {
    BLOCKS[id].id.store(id, Ordering::Relaxed);
    GsBase::write(VirtAddr::from_ptr(&raw const BLOCKS[id]));
}

/// This processor's number. Trap context may ask.
#[unsafe(link_section = ".kprobes.text")]
#[inline]
pub(crate) fn id() -> usize {
    let id;
    // SAFETY: gs refers to a block since `claim`, which is the first thing that a processor does; `id` is at offset 0.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) id, const core::mem::offset_of!(Block, id), options(nostack, preserves_flags, readonly))
    };
    id
}

/// The processors that run.
pub(crate) fn count() -> usize {
    COUNT.load(Ordering::Acquire)
}

/// The block of processor `id`.
pub(crate) fn block(id: usize) -> &'static Block {
    &BLOCKS[id]
}

/// This processor's block. The caller is not to be moved to another one meanwhile.
pub(crate) fn this() -> &'static Block {
    &BLOCKS[id()]
}

/// The address of the running thread's description; 0 before the scheduler runs. One instruction, so right whatever
/// processor the thread is on.
pub(crate) fn current() -> u64 {
    let current;
    // SAFETY: gs refers to this processor's block since `claim`.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) current, const CURRENT_OFFSET, options(nostack, preserves_flags, readonly))
    };
    current
}

/// The thread is not to be preempted until [`preempt_on`]. Nests.
pub(crate) fn preempt_off() {
    // SAFETY: one instruction, so neither an interrupt nor a migration comes between; gs refers to this processor's
    // block. Everything the thread does after it happens with preemption off: no `nomem`.
    unsafe { asm!("inc qword ptr gs:[{}]", const core::mem::offset_of!(Block, preempt_depth), options(nostack)) };
}

/// Ends [`preempt_off`]; says whether preemption is on now.
pub(crate) fn preempt_on() -> bool {
    let zero: u8;
    // SAFETY: as in `preempt_off`.
    unsafe {
        asm!("dec qword ptr gs:[{}]", "setz {}", const core::mem::offset_of!(Block, preempt_depth), out(reg_byte) zero, options(nostack));
    };
    zero != 0
}

/// Whether the running thread may be preempted.
pub(crate) fn preemptible() -> bool {
    this().preempt_depth.load(Ordering::Relaxed) == 0
}

/// Executes a serializing instruction: whatever was fetched before is fetched again (SDM volume 3, 8.3).
pub(crate) fn serialize() {
    // The result is of no interest, the instruction has no other effect.
    let _ = core::arch::x86_64::__cpuid(0);
}

/// Counts a non-maskable interrupt. Trap context.
#[unsafe(link_section = ".kprobes.text")]
#[inline]
pub(crate) fn count_nmi() {
    // SAFETY: as in `preempt_off`; nobody else writes this processor's count.
    unsafe { asm!("inc qword ptr gs:[{}]", const core::mem::offset_of!(Block, nmis), options(nostack)) };
}

/// Announces this processor.
pub(crate) fn set_online() {
    let block = this();
    block.online.store(true, Ordering::Release);
    COUNT.fetch_max(block.id.load(Ordering::Relaxed) + 1, Ordering::AcqRel);
}

/// Whether processor `id` runs.
pub(crate) fn online(id: usize) -> bool {
    BLOCKS[id].online.load(Ordering::Acquire)
}

/// Loads this processor's own descriptor tables, with a stack each for NMI, double fault and machine check.
pub(crate) fn load_tables() {
    let mut tss = Box::new(TaskStateSegment::new());
    for index in 0..3 {
        let stack = Box::leak(alloc::vec![0_u128; IST_BYTES / size_of::<u128>()].into_boxed_slice());
        // By index: the array is not aligned.
        tss.interrupt_stack_table[index] = VirtAddr::from_ptr(stack.as_ptr_range().end);
    }
    let gdt = Box::leak(Box::new(GlobalDescriptorTable::new()));
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let tss = gdt.append(Descriptor::tss_segment(Box::leak(tss)));
    gdt.load();
    let none = SegmentSelector::new(0, PrivilegeLevel::Ring0);
    // SAFETY: the table just loaded lives for ever; the code segment is the same as before (selector 8, 64-bit,
    // ring 0); gs is left alone, as loading it would clear its base.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(none);
        ES::set_reg(none);
        load_tss(tss);
    }
}
