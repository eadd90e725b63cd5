//! Where an instruction runs: its place in the text, its memory, the way in and the way out.
//!
//! The way in is a breakpoint of ours: the trap's registers become those of the state, and the `iretq` does the rest.
//! The way out is a breakpoint again, wherever the instruction arrives: all of the area that is no instruction is
//! breakpoints, so one that goes astray ends at once as well. So both ways every register and flag passes through the
//! trap frame, and no assembly is needed that would have to spare a register. A fault ends a run too, with its vector,
//! its error code and what the kernel believes is its address.
//!
//! Below `rsp` there is nothing to compare: in a kernel interrupts, and traps, write there.

use super::form::Form;
use super::random::digest;
use super::state::State;
use crate::arch::{cpu, interrupts, ipi};
use crate::mm::{alias, exec};
use crate::probes::hooks::CHAIN;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering};
use host_bare::{Die, Notifier, Regs, Verdict};
use isa::x86::BREAKPOINT;

// Nops, for whoever decodes the text or probes all of it. The tests write forms over them, and the nops again. Each
// instruction begins a function of its own: in the same one as a breakpoint of ours nothing behind it could be probed.
global_asm!(
    ".pushsection .text.differential_area, \"ax\"",
    ".balign 4096",
    "differential_area:",
    ".fill {area}, 1, 0x90",
    concat!(
        ".irp cell, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
        ", 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63",
    ),
    ".global differential_cell_\\cell",
    ".type differential_cell_\\cell, @function",
    ".set differential_cell_\\cell, differential_area + \\cell * {cell} + {before} + \\cell % 16",
    ".size differential_cell_\\cell, 32",
    ".endr",
    ".popsection",
    area = const AREA,
    cell = const CELL,
    before = const BEFORE,
);

unsafe extern "C" {
    static differential_cell_0: [u8; 0];
}

/// Instructions that have a place at once.
pub(super) const CELLS: usize = 64;
/// Bytes of a cell: what a short jump reaches around the instruction.
const CELL: usize = 128;
/// Bytes before the instruction; in each cell of 16 one more.
const BEFORE: usize = 48;
/// Bytes for instructions to arrive at, behind the cells.
const LANDING: usize = 2048;
/// All of it.
const AREA: usize = CELLS * CELL + LANDING;
/// Words of data.
pub(super) const DATA_WORDS: usize = 256;
/// Words of the stack that instructions read and write.
pub(super) const STACK_WORDS: usize = 64;
/// Words of the stack below them, for traps and for whatever the scheduler runs there.
const BELOW: usize = 4096;
/// And above, where a return may leave the stack pointer.
const ABOVE: usize = 256;

/// Outside of a run.
const IDLE: u8 = 0;
/// The next breakpoint that nobody else knows begins the run.
const BEGIN: u8 = 1;
/// The next one ends it, as a fault does.
const RUN: u8 = 2;

/// Registers and memory of the run.
struct Bench {
    phase: AtomicU8,
    run: UnsafeCell<Run>,
    data: UnsafeCell<Aligned<DATA_WORDS>>,
    stack: UnsafeCell<Aligned<{ BELOW + STACK_WORDS + ABOVE }>>,
}

// SAFETY: tests run one after the other, on one thread, and what `on_trap` writes is written in traps of this thread:
// of others it takes none, by `phase` (which is `BEGIN` with interrupts off only) and the trap's address.
unsafe impl Sync for Bench {}

#[repr(align(64))]
struct Aligned<const N: usize>([u64; N]);

#[derive(Clone, Copy)]
struct Run {
    start: Regs,
    back: Regs,
    end: Regs,
    why: End,
    segments: [u16; 3],
    reset: [u16; 2],
}

/// How a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has arrived.
    Arrived,
    /// It has faulted.
    Fault {
        /// The vector.
        vector: u64,
        /// The error code.
        error: u64,
        /// The address, of a page fault.
        address: u64,
    },
}

/// What is after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How the run has ended.
    pub(super) end: End,
    /// All registers, `rip` and flags.
    pub(super) regs: Regs,
    /// `ss`, `ds`, `es`.
    pub(super) segments: [u16; 3],
    /// A digest of the data.
    pub(super) data: u64,
    /// A digest of the stack from `rsp` up.
    pub(super) stack: u64,
}

const NO_REGS: Regs = Regs { gpr: [0; 16], rip: 0, flags: 0 };
static BENCH: Bench = Bench {
    phase: AtomicU8::new(IDLE),
    run: UnsafeCell::new(Run {
        start: NO_REGS,
        back: NO_REGS,
        end: NO_REGS,
        why: End::Arrived,
        segments: [0; 3],
        reset: [0; 2],
    }),
    data: UnsafeCell::new(Aligned([0; DATA_WORDS])),
    stack: UnsafeCell::new(Aligned([0; BELOW + STACK_WORDS + ABOVE])),
};
static NOTIFIER: Notifier = Notifier::new(0, on_trap);

/// The first address of data.
pub(super) fn data() -> u64 {
    BENCH.data.get() as u64
}

/// The first address of the stack's window.
pub(super) fn stack() -> u64 {
    BENCH.stack.get() as u64 + 8 * BELOW as u64
}

/// A place to arrive at, for a random number.
pub(super) fn landing(random: u64) -> u64 {
    area() + (CELLS * CELL) as u64 + random % LANDING as u64
}

fn area() -> u64 {
    (&raw const differential_cell_0) as u64 - BEFORE as u64
}

/// Where the instruction of a cell is: not at the same place in each.
pub(super) fn address(cell: usize) -> u64 {
    area() + (cell * CELL + BEFORE + cell % 16) as u64
}

/// The kernel's code segment.
pub(super) fn code_selector() -> u64 {
    let selector: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0:e}, cs", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector
}

/// The kernel's data segment.
pub(super) fn data_selector() -> u64 {
    u64::from(segments()[0])
}

#[inline]
fn segments() -> [u16; 3] {
    let (ss, ds, es): (u16, u16, u16);
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {0:x}, ss", "mov {1:x}, ds", "mov {2:x}, es", out(reg) ss, out(reg) ds, out(reg) es,
            options(nomem, nostack, preserves_flags));
    }
    [ss, ds, es]
}

#[inline]
fn set_data_segments([ds, es]: [u16; 2]) {
    // SAFETY: what was read from there before; in 64-bit mode they mean nothing.
    unsafe {
        asm!("mov ds, {0:x}", "mov es, {1:x}", in(reg) ds, in(reg) es, options(nomem, nostack, preserves_flags));
    }
}

fn on_trap(die: Die, regs: &mut Regs) -> Verdict {
    // SAFETY: a trap while `phase` is not idle is the run's, if it is a breakpoint that nobody knows or a fault at one
    // of its addresses; who runs is waiting for it.
    let run = unsafe { &mut *BENCH.run.get() };
    match (BENCH.phase.load(Ordering::Acquire), die) {
        (BEGIN, Die::Breakpoint) => {
            (run.back, *regs) = (*regs, run.start);
            let [_, ds, es] = segments();
            run.reset = [ds, es];
            BENCH.phase.store(RUN, Ordering::Release);
        }
        (RUN, Die::Breakpoint) if is_ours(regs) => {
            regs.rip -= 1;
            finish(run, regs, End::Arrived);
        }
        (RUN, Die::Fault(vector, error)) if is_ours(regs) => {
            finish(run, regs, End::Fault { vector, error, address: fault_address(vector) });
        }
        _ => return Verdict::Pass,
    }
    Verdict::Stop
}

fn finish(run: &mut Run, regs: &mut Regs, why: End) {
    run.segments = segments();
    set_data_segments(run.reset);
    (run.end, run.why) = (*regs, why);
    *regs = run.back;
    BENCH.phase.store(IDLE, Ordering::Release);
}

/// The run is where it should be, or where nobody else is: in a slot, or at a wild address.
fn is_ours(regs: &Regs) -> bool {
    let place = regs.rip.wrapping_sub(area());
    place < AREA as u64 || !alias::text().contains(&regs.rip)
}

fn fault_address(vector: u64) -> u64 {
    const PAGE_FAULT: u64 = 14;
    let address: u64;
    if vector != PAGE_FAULT {
        return 0;
    }
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// The area, with instructions in its cells. Everything is as it was before when this is dropped.
#[derive(Debug)]
pub(super) struct Area {
    before: Vec<u8>,
}

impl Area {
    /// Takes the area.
    pub(super) fn new() -> Self {
        let mut before = vec![0; AREA];
        crate::arch::copy::read(area(), &mut before);
        CHAIN.register(&NOTIFIER);
        ipi::on_each_cpu(use_data_as_fs);
        use_data_as_fs();
        Self { before }
    }

    /// Gives each form a cell. They are at most [`CELLS`], and nothing is planted.
    pub(super) fn fill(&self, forms: &[Form]) -> Result<(), String> {
        let mut bytes = vec![BREAKPOINT; AREA];
        for (cell, form) in forms.iter().enumerate() {
            let at = (address(cell) - area()) as usize;
            let (code, length) = form.placed(address(cell), data() + 512, landing(cell as u64 * 31));
            bytes[at..at + length].copy_from_slice(&code[..length]);
        }
        self.write(area(), &bytes)
    }

    /// Puts other code where nothing is planted, or into a slot.
    pub(super) fn write(&self, address: u64, code: &[u8]) -> Result<(), String> {
        alias::write(address, code).map_err(|error| error.to_string())?;
        ipi::on_each_cpu(cpu::serialize);
        cpu::serialize();
        Ok(())
    }

    /// Runs what is at `address`, from a state.
    pub(super) fn run(&self, address: u64, state: &State) -> Outcome {
        let window = stack() as *mut [u64; STACK_WORDS];
        // SAFETY: nobody runs: all of the bench is ours.
        let run = unsafe {
            (*BENCH.data.get()).0 = state.data;
            window.write(state.stack);
            &mut *BENCH.run.get()
        };
        run.start = Regs { rip: address, ..state.regs };
        BENCH.phase.store(BEGIN, Ordering::Release);
        let ss = data_selector() as u32;
        // SAFETY: comes back with all registers but `ss`, by way of `finish`; the instructions that run in between write
        // to the bench's memory only. Interrupts are off until `ss` is the kernel's again, but for the state's own.
        interrupts::without(|| unsafe { asm!("int3", "mov ss, {0:e}", in(reg) ss) });
        // SAFETY: the run has ended.
        let run = unsafe { *BENCH.run.get() };
        let (end, regs, segments) = (run.why, run.end, run.segments);
        // SAFETY: as above; nobody writes while these references live.
        let (data, window) = unsafe { (&(*BENCH.data.get()).0, &*window) };
        let live = if state.allocates { state.regs.rsp() } else { regs.rsp() };
        let (data, stack) = (digest(data.iter().copied()), digest(above(window, live)));
        Outcome { end, regs, segments, data, stack }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        let _ = crate::probes::with_control(|control| {
            let _ = control.remove_all();
            control.records();
        });
        let _ = self.write(area(), &self.before);
        CHAIN.unregister(&NOTIFIER);
        ipi::on_each_cpu(use_no_fs);
        use_no_fs();
    }
}

/// The bytes of the stack's window that are not below `rsp`.
fn above(window: &[u64; STACK_WORDS], rsp: u64) -> impl Iterator<Item = u64> {
    let below = rsp.saturating_sub(stack()).min(8 * STACK_WORDS as u64);
    let (words, bytes) = ((below / 8) as usize, below % 8 * 8);
    let first = window.get(words).map(|word| word >> bytes);
    first.into_iter().chain(window.iter().skip(words + 1).copied())
}

/// Slots that hold `code`.
pub(super) fn slots_with(code: &[u8]) -> Vec<u64> {
    let mut bytes = vec![0; code.len()];
    let mut at = crate::mm::KERNEL_BASE + 0x80_0000;
    let mut found = Vec::new();
    while exec::contains(at) {
        if crate::arch::copy::read(at, &mut bytes) && bytes == code {
            found.push(at);
        }
        at += 64;
    }
    found
}

fn use_data_as_fs() {
    set_fs_base(data() + 512);
}

fn use_no_fs() {
    set_fs_base(0);
}

/// Nobody in this kernel uses `fs`.
fn set_fs_base(base: u64) {
    x86_64::registers::model_specific::FsBase::write(x86_64::VirtAddr::new(base));
}
