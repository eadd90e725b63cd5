//! The processor as an oracle.
//!
//! A child process that has no code of its own any more executes single instructions, under ptrace,
//! on registers and memory that the test sets. Nobody knows better what an instruction does, so
//! what a probe does instead is compared with it: complete register files, vector state, memory,
//! and faults.
//!
//! # Protocol
//!
//! The child maps a few [`Window`]s of a memory file at fixed addresses and stops. The test maps
//! the same file, writes code and data through its own mapping, sets the child's registers, lets it
//! step or run to a breakpoint, and reads everything back. Every run starts from a complete
//! [`State`], so nothing carries over. All unused bytes of the code windows are breakpoints: a copy
//! that goes astray stops at once.
//!
//! A control transfer is stepped by trap flag, so that its target need not exist. Everything else
//! runs to the breakpoint behind it, because some instructions show or hold back the trap flag.

mod vectors;
mod worker;

use std::io;

use isa::x86::{BREAKPOINT, Regs, flags};

pub use vectors::Vectors;
use worker::Worker;

/// A part of the child's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its address in the child.
    pub addr: u64,
    /// Its size in bytes.
    pub len: u64,
    file_offset: u64,
    writable: bool,
}

impl Window {
    /// Whether `addr` is in it.
    #[must_use]
    pub const fn contains(&self, addr: u64) -> bool {
        addr.wrapping_sub(self.addr) < self.len
    }
}

/// Where instructions are in place.
pub const CODE: Window = Window { addr: 0x1000_0000, len: 0x1000, file_offset: 0, writable: false };
/// Where they are out of line.
pub const SLOT: Window = Window { addr: 0x1004_0000, len: 0x1000, file_offset: 0x1000, writable: false };
/// The same slots, out of a 32-bit displacement's reach.
pub const FAR_SLOT: Window = Window { addr: 0x6000_0000_0000, len: 0x1000, file_offset: 0x1000, writable: false };
/// What operands refer to.
pub const DATA: Window = Window { addr: 0x2000_0000, len: 0x2000, file_offset: 0x2000, writable: true };
/// The stack.
pub const STACK: Window = Window { addr: 0x2008_0000, len: 0x2000, file_offset: 0x4000, writable: true };

const WINDOWS: [Window; 5] = [CODE, SLOT, FAR_SLOT, DATA, STACK];
const FILE_LEN: usize = 0x6000;
/// Where [`DATA`] and [`STACK`] are in the file, one behind the other.
const MEMORY: core::ops::Range<usize> = 0x2000..0x6000;
/// The most instructions of an image that are stepped.
const STEPS: usize = 16;

/// Everything that an instruction can depend on, but memory.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// General registers, instruction pointer, flags.
    pub regs: Regs,
    /// The base of `fs`.
    pub fs_base: u64,
    /// The base of `gs`.
    pub gs_base: u64,
    /// x87, SSE, AVX and AVX-512 state.
    pub vectors: Vectors,
}

/// The contents of [`DATA`] and [`STACK`].
pub type Bytes = Vec<u8>;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The instruction was completed.
    Completed,
    /// It raised this signal, with this address.
    Fault {
        /// SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGTRAP.
        signal: i32,
        /// `si_addr`.
        addr: u64,
    },
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The state after it.
    pub state: State,
    /// Memory after it.
    pub memory: Bytes,
}

/// How a run is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Step by trap flag until the instruction pointer has left the code.
    Step,
    /// Run to a breakpoint.
    Run,
}

/// A process that executes instructions. It ends with this value; it belongs to the thread that
/// made it.
///
/// ```
/// use isa::x86::{Regs, gpr};
/// use testkit::processor::{CODE, DATA, End, MEMORY_LEN, Processor, State, Watch, memory_offset};
///
/// # fn main() -> std::io::Result<()> {
/// let mut processor = Processor::new()?;
/// assert_ne!(processor.vectors(1), processor.vectors(2));
/// let mut regs = Regs { flags: 0x202, ..Regs::default() };
/// (regs.gpr[gpr::RAX], regs.gpr[gpr::RBX]) = (41, DATA.addr + 8);
/// let state = State { regs, fs_base: 0, gs_base: 0, vectors: processor.vectors(1) };
///
/// let store = (CODE.addr, &[0x48, 0x89, 0x03][..]); // mov [rbx], rax
/// let outcome = processor.execute(store, store, &state, &vec![0; MEMORY_LEN], Watch::Run)?;
/// assert_eq!((outcome.end, outcome.state.regs.rip), (End::Completed, CODE.addr + 3));
/// let at = memory_offset(DATA.addr + 8, 8).expect("it is in the window");
/// assert_eq!(outcome.memory[at..at + 8], 41_u64.to_le_bytes());
///
/// let load = (CODE.addr, &[0x48, 0x8B, 0x00][..]); // mov rax, [rax]: nothing is at 41
/// let outcome = processor.execute(load, load, &state, &vec![0; MEMORY_LEN], Watch::Run)?;
/// assert_eq!(outcome.end, End::Fault { signal: libc::SIGSEGV, addr: 41 });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Processor {
    worker: Worker,
}

impl Processor {
    /// Starts the process.
    ///
    /// # Errors
    ///
    /// The system refused a process, memory at the fixed addresses, or ptrace.
    pub fn new() -> io::Result<Self> {
        let mut worker = Worker::start(&WINDOWS, FILE_LEN)?;
        worker.file()[..MEMORY.start].fill(BREAKPOINT);
        Ok(Self { worker })
    }

    /// A vector state with every register filled from `seed`.
    #[must_use]
    pub fn vectors(&self, seed: u64) -> Vectors {
        self.worker.vectors().filled(seed)
    }

    /// Executes `code` at `at`, in place of breakpoints that are there again afterwards.
    ///
    /// `original` is in [`CODE`] meanwhile, wherever `code` is, so that both runs of an instruction
    /// that reads itself see the same.
    ///
    /// # Errors
    ///
    /// ptrace failed: the child is gone.
    pub fn execute(
        &mut self,
        (at, code): (u64, &[u8]),
        original: (u64, &[u8]),
        state: &State,
        memory: &[u8],
        watch: Watch,
    ) -> io::Result<Outcome> {
        self.worker.file()[MEMORY].copy_from_slice(memory);
        self.place(original.0, original.1);
        self.place(at, code);
        // In place an instruction is looked at alone, and may jump into itself.
        let in_place = at.wrapping_sub(original.0) < original.1.len() as u64;
        let inside = |rip: u64| !in_place && rip.wrapping_sub(at) < code.len() as u64;
        let result = self.observe(at, state, watch, inside);
        self.clear(at, code.len());
        self.clear(original.0, original.1.len());
        let (end, state) = result?;
        Ok(Outcome { end, state, memory: self.worker.file()[MEMORY].to_vec() })
    }

    fn observe(
        &mut self,
        at: u64,
        state: &State,
        watch: Watch,
        inside: impl Fn(u64) -> bool,
    ) -> io::Result<(End, State)> {
        let mut start = state.clone();
        start.regs.rip = at;
        self.worker.set(&start)?;
        for _ in 0..STEPS {
            let stop = self.worker.resume(watch == Watch::Step)?;
            let mut after = self.worker.get()?;
            // Set in the image that a fault pushes, never a result.
            after.regs.flags &= !flags::RF;
            if stop.signal != libc::SIGTRAP {
                return Ok((End::Fault { signal: stop.signal, addr: stop.addr }, after));
            }
            if watch == Watch::Run {
                // The breakpoint's trap is reported behind it.
                after.regs.rip = after.regs.rip.wrapping_sub(1);
                return Ok((End::Completed, after));
            }
            if !inside(after.regs.rip) {
                return Ok((End::Completed, after));
            }
        }
        Err(io::Error::other("the image does not end"))
    }

    fn place(&mut self, at: u64, code: &[u8]) {
        let from = file_offset(at);
        self.worker.file()[from..from + code.len()].copy_from_slice(code);
    }

    fn clear(&mut self, at: u64, len: usize) {
        let from = file_offset(at);
        self.worker.file()[from..from + len].fill(BREAKPOINT);
    }
}

/// Where code at `addr` is in the file.
fn file_offset(addr: u64) -> usize {
    let window = [CODE, SLOT, FAR_SLOT].into_iter().find(|window| window.contains(addr)).expect("code is in a window");
    (window.file_offset + addr - window.addr) as usize
}

/// Where `addr` is in [`Bytes`], if `len` bytes there are in a window.
#[must_use]
pub fn memory_offset(addr: u64, len: u64) -> Option<usize> {
    let window = [DATA, STACK].into_iter().find(|window| window.contains(addr))?;
    (addr - window.addr + len <= window.len).then(|| (window.file_offset + addr - window.addr) as usize - MEMORY.start)
}

/// The address of a byte of [`Bytes`].
///
/// ```
/// use testkit::processor::{CODE, DATA, STACK, memory_addr, memory_offset};
///
/// assert_eq!(memory_addr(0), DATA.addr);
/// let offset = memory_offset(STACK.addr + 8, 8).expect("it is in the window");
/// assert_eq!(memory_addr(offset), STACK.addr + 8);
/// assert!(CODE.contains(CODE.addr) && !CODE.contains(CODE.addr + CODE.len));
/// assert_eq!(memory_offset(CODE.addr, 1), None, "code is not among them");
/// assert_eq!(memory_offset(DATA.addr + DATA.len - 4, 8), None, "half of it is behind the window");
/// ```
#[must_use]
pub fn memory_addr(offset: usize) -> u64 {
    let offset = offset as u64;
    if offset < DATA.len { DATA.addr + offset } else { STACK.addr + offset - DATA.len }
}

/// The size of [`Bytes`].
pub const MEMORY_LEN: usize = MEMORY.end - MEMORY.start;
