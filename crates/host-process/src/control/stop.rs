//! A thread of the target that is held for a moment, and system calls made with it.
//!
//! # Why this way
//!
//! One thread is enough to map memory, and stopping one harms nobody. It can be anywhere, inside an allocator or a
//! signal handler, so nothing of the target's is called: the thread is made to run a `syscall` instruction, which the
//! vdso has, or later the agent's own.
//!
//! # What must be right (each of these has killed a target)
//!
//! 1. A `SIGTRAP` of another probe may be pending already, or the signal of a fault: it is let through, and the thread
//!    stopped again. That all signals of faults are blocked while the thread runs for us does not hold one back: the
//!    kernel takes the oldest of the synchronous signals as soon as one of them is not blocked, as our own `SIGTRAP` is
//!    (`dequeue_synchronous_signal`).
//! 2. A stop may report a signal's delivery instead of our own interruption: the signal is delivered, then we wait on.
//! 3. `SIGTRAP` must not be blocked while the thread runs for us, or the kernel resets its disposition.
//! 4. Vector registers are saved too: the agent's start-up code uses them.
//! 5. Some system calls end with `EINTR` after any stop, even without a signal: those are rewound.
//! 6. Every error path gives the thread back as it was: [`Held`] does that when it is dropped.

use super::maps::{Mapping, mappings};
use super::memory::Memory;
use super::ptrace::{self, Registers, Stop};
use super::{HostError, Result, process};
use crate::abi::{HeldThread, Home};
use core::mem::offset_of;
use std::io;
use std::time::{Duration, Instant};

/// A set of all signals but `SIGTRAP`.
const ALL_BUT_SIGTRAP: u64 = !(1 << (libc::SIGTRAP - 1));
/// The signals of faults.
const FAULTS: u64 =
    1 << (libc::SIGSEGV - 1) | 1 << (libc::SIGBUS - 1) | 1 << (libc::SIGFPE - 1) | 1 << (libc::SIGILL - 1);
/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// How long a thread may take to stop: one in an uninterruptible sleep does not.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a thread is stopped anew because of a pending `SIGTRAP`.
const ATTEMPTS: usize = 10_000;

/// System calls that return `EINTR` after a stop (signal(7), "Interruption of system calls by stop signals").
const NOT_RESTARTED: [i64; 6] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_semop,
    libc::SYS_semtimedop,
];

/// Whoever can make system calls in the target.
pub(crate) trait Remote: Send {
    /// Makes a system call; its result, or the error.
    fn call(&mut self, what: &'static str, number: i64, args: [u64; 6]) -> Result<u64>;
    /// The held thread that does it, if it is one: it can run a module's functions too.
    fn held(&mut self) -> Option<&mut Held> {
        None
    }
}

/// A thread of the target that does things for us: one that is held, or our own where the target is our own process.
pub(crate) trait Servant: Remote {
    /// From now on the agent can give the thread back to what it was doing: at any breakpoint in the agent.
    fn keep(&mut self, home: u64) -> Result<()>;
    /// Lets the thread run a function that ends in a breakpoint: `argument` is its first, `sp` a stack for it; its
    /// result.
    fn run(&mut self, function: u64, argument: u64, sp: u64) -> Result<u64>;
}

/// Every processor that runs the target sees what was written to its text.
pub(crate) fn synchronize(remote: &mut dyn Remote) -> Result<()> {
    const MEMBARRIER_SYNC_CORE: u64 = 1 << 5;
    remote.call("membarrier", libc::SYS_membarrier, [MEMBARRIER_SYNC_CORE, 0, 0, 0, 0, 0]).map(drop)
}

/// A result of the kernel's as a `Result`.
pub(crate) fn checked(pid: i32, what: &'static str, result: u64) -> Result<u64> {
    let error = match result.cast_signed() {
        code @ -4095..0 => io::Error::from_raw_os_error(-(code as i32)),
        _ => return Ok(result),
    };
    let hint = match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            ": its limit for memory (ulimit -v) may be too low: the agent reserves about 40 MB of address space"
        }
        Some(libc::EMFILE) => ": it has no free file descriptor left (ulimit -n); one is needed for a moment",
        _ => "",
    };
    Err(HostError::Remote { pid, what, error, hint })
}

/// How a held thread is let run a little.
type Go = fn(i32, i32) -> Result<()>;

/// A thread that stands still for us. Dropping it lets it go on as if nothing had been.
#[derive(Debug)]
pub(crate) struct Held {
    pid: i32,
    tid: i32,
    saved: Registers,
    /// The mask that it had, and the one that it goes on with.
    found: u64,
    mask: u64,
    /// Set once it runs for us.
    vectors: Option<Vec<u8>>,
    gadget: u64,
    /// Where its registers are noted for the agent.
    kept: Option<(Memory, u64)>,
    /// The signal to deliver when it is let go.
    deliver: i32,
    attached: bool,
}

impl Held {
    /// Stops some thread of a running process.
    pub(crate) fn any(pid: i32) -> Result<Self> {
        let mut threads = process::threads(pid);
        // One that sleeps uninterruptibly does not stop.
        let sleeps = |tid: i32| matches!(process::state(pid, tid), Some('D' | 'Z' | 'X') | None);
        threads.sort_by_key(|&tid| (sleeps(tid), tid != pid));
        let mut last = HostError::NoProcess { pid };
        for tid in threads {
            match Self::thread(pid, tid) {
                Ok(held) => return Ok(held),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Stops one thread.
    pub(crate) fn thread(pid: i32, tid: i32) -> Result<Self> {
        match ptrace::seize(tid, 0) {
            Ok(()) => {}
            Err(HostError::Os { error, .. }) if error.raw_os_error() == Some(libc::EPERM) => {
                return Err(process::denial(pid));
            }
            Err(error) => return Err(error),
        }
        let stopped = ptrace::interrupt(tid).and_then(|()| quiet_stop(pid, tid));
        if let Err(error) = stopped {
            let _ = ptrace::detach(tid, 0);
            return Err(error);
        }
        Self::take(pid, tid)
    }

    /// Takes a thread that is traced by us and stands still: at an exec stop, or after [`quiet_stop`].
    pub(crate) fn take(pid: i32, tid: i32) -> Result<Self> {
        let held = Self::save(pid, tid);
        if held.is_err() {
            let _ = ptrace::detach(tid, 0);
        }
        held
    }

    fn save(pid: i32, tid: i32) -> Result<Self> {
        let mut saved = ptrace::registers(tid)?;
        rewind_interrupted_call(&mut saved);
        let mask = ptrace::signal_mask(tid)?;
        let found = mask;
        Ok(Self { pid, tid, saved, found, mask, vectors: None, gadget: 0, kept: None, deliver: 0, attached: true })
    }

    /// Makes the thread ready to run for us: until now nothing of it was changed.
    fn prepare(&mut self) -> Result<()> {
        if self.vectors.is_none() {
            if self.gadget == 0 {
                self.gadget = find_gadget(self.pid)?;
            }
            self.vectors = Some(ptrace::vector_state(self.tid)?);
            ptrace::set_signal_mask(self.tid, ALL_BUT_SIGTRAP)?;
        }
        Ok(())
    }

    /// Notes what was taken from the thread in the agent's `Home`, which gives it back if we are killed. From now on the
    /// `syscall` instruction is the agent's own, with a breakpoint behind it: nobody can put a probe there.
    pub(crate) fn keep(&mut self, home: u64) -> Result<()> {
        let memory = Memory::open(self.pid)?;
        self.gadget = memory.word(home + offset_of!(Home, gadget) as u64)?;
        let regs = restarted(self.saved);
        let gpr = [
            regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8, regs.r9, regs.r10,
            regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ];
        let words = [&[self.mask][..], &gpr, &[regs.rip, regs.eflags]].concat();
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let at = home + offset_of!(Home, held) as u64;
        memory.write(at + offset_of!(HeldThread, mask) as u64, &bytes)?;
        memory.write(at, &u64::from(self.tid.cast_unsigned()).to_le_bytes())?;
        self.kept = Some((memory, at));
        Ok(())
    }

    /// Where its thread-local variables are.
    pub(crate) fn fs_base(&self) -> u64 {
        self.saved.fs_base
    }

    /// The thread's id.
    pub(crate) fn tid(&self) -> i32 {
        self.tid
    }

    /// The thread will not block `SIGTRAP` when it goes on; whether it did.
    pub(crate) fn unblock_trap(&mut self) -> bool {
        let blocked = self.mask & !ALL_BUT_SIGTRAP != 0;
        self.mask &= ALL_BUT_SIGTRAP;
        blocked
    }

    /// The thread has that mask already, should we be killed before we let it go.
    pub(crate) fn apply_mask(&self) -> Result<()> {
        ptrace::set_signal_mask(self.tid, self.mask)
    }

    /// The thread will block `SIGTRAP` when it goes on.
    pub(crate) fn block_trap(&mut self) {
        self.mask |= !ALL_BUT_SIGTRAP;
    }

    fn until_trap(&self, again: fn(i32, i32) -> Result<()>) -> Result<Registers> {
        loop {
            match ptrace::wait(self.tid)? {
                Stop::Signal(libc::SIGTRAP) => return ptrace::registers(self.tid),
                Stop::Signal(signal) => {
                    let rip = ptrace::registers(self.tid)?.rip;
                    let what = format!("signal {signal} at {rip:#x} while it ran for us");
                    return Err(HostError::Unexpected { pid: self.pid, what });
                }
                Stop::Ended(_) => return Err(HostError::Gone { pid: self.pid }),
                Stop::Event(..) | Stop::Syscall => again(self.tid, 0)?,
            }
        }
    }

    /// Gives the thread back; it goes on.
    pub(crate) fn release(mut self) -> Result<()> {
        self.restore()?;
        self.attached = false;
        ptrace::detach(self.tid, self.deliver)
    }

    fn restore(&self) -> Result<()> {
        // The registers last: as long as they are not its own, the agent can still give all of it back.
        if let Some(vectors) = &self.vectors {
            ptrace::set_vector_state(self.tid, vectors)?;
        }
        if self.vectors.is_some() || self.mask != self.found {
            ptrace::set_signal_mask(self.tid, self.mask)?;
        }
        ptrace::set_registers(self.tid, &self.saved)?;
        if let Some((memory, at)) = &self.kept {
            memory.write(*at, &[0; 8])?;
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.attached {
            // A target that has gone needs nothing back.
            let _ = self.restore();
            let _ = ptrace::detach(self.tid, self.deliver);
        }
    }
}

/// Why a thread stands that runs a module's function.
#[derive(Debug)]
pub(crate) enum Pause {
    /// It has executed a breakpoint.
    Trap(Registers),
    /// It has raised this signal, at these registers.
    Fault(i32, Registers),
    /// It ran for too long.
    Late,
}

/// Functions of modules: they stop and go on.
impl Held {
    /// Makes the thread begin at `function` when it goes on. It runs with the signals of faults unmasked: the kernel
    /// would end the program otherwise, or forget its handlers.
    pub(crate) fn begin(&mut self, function: u64, argument: u64, sp: u64) -> Result<()> {
        self.prepare()?;
        ptrace::set_signal_mask(self.tid, ALL_BUT_SIGTRAP & !FAULTS)?;
        let mut regs = self.saved;
        (regs.rip, regs.rdi, regs.rsp, regs.rax, regs.orig_rax) = (function, argument, sp, 0, u64::MAX);
        ptrace::set_registers(self.tid, &regs)
    }

    /// Sets the registers that the thread goes on with.
    pub(crate) fn set_registers(&mut self, regs: &Registers) -> Result<()> {
        ptrace::set_registers(self.tid, regs)
    }

    /// Lets it go on, with a signal delivered if that is not 0, until it stands again.
    pub(crate) fn go(&mut self, signal: i32, until: Instant) -> Result<Pause> {
        ptrace::cont(self.tid, signal)?;
        loop {
            match ptrace::wait_until(self.tid, until)? {
                None => {
                    ptrace::interrupt(self.tid)?;
                    ptrace::wait_for(self.tid, PATIENCE)?;
                    return Ok(Pause::Late);
                }
                Some(Stop::Signal(libc::SIGTRAP)) => return ptrace::registers(self.tid).map(Pause::Trap),
                Some(Stop::Signal(signal)) if ptrace::signal_code(self.tid)? > 0 => {
                    return Ok(Pause::Fault(signal, ptrace::registers(self.tid)?));
                }
                // Sent by somebody: it gets it when it is given back.
                Some(Stop::Signal(signal)) => self.deliver = signal,
                Some(Stop::Ended(_)) => return Err(HostError::Gone { pid: self.pid }),
                Some(Stop::Event(..) | Stop::Syscall) => {}
            }
            ptrace::cont(self.tid, 0)?;
        }
    }
}

impl Remote for Held {
    fn held(&mut self) -> Option<&mut Held> {
        Some(self)
    }

    fn call(&mut self, what: &'static str, number: i64, args: [u64; 6]) -> Result<u64> {
        self.prepare()?;
        let mut regs = self.saved;
        (regs.rip, regs.rax, regs.orig_rax) = (self.gadget, number.cast_unsigned(), u64::MAX);
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
        ptrace::set_registers(self.tid, &regs)?;
        // With the agent's instruction the breakpoint behind it ends the call. Stepping would leave the trap flag set if
        // we were killed now, and be slower.
        let behind_breakpoint = self.kept.is_some();
        let (go, end): (Go, u64) = if behind_breakpoint {
            (ptrace::cont, SYSCALL.len() as u64 + 1)
        } else {
            (|tid, _| ptrace::step(tid), SYSCALL.len() as u64)
        };
        go(self.tid, 0)?;
        let mut after = self.until_trap(go)?;
        if after.rip == self.gadget {
            // A stop on the way out of a system call reports a step before the first instruction.
            go(self.tid, 0)?;
            after = self.until_trap(go)?;
        }
        if after.rip != self.gadget + end {
            let what = format!("{what} ended at {:#x}", after.rip);
            return Err(HostError::Unexpected { pid: self.pid, what });
        }
        checked(self.pid, what, after.rax)
    }
}

impl Servant for Held {
    fn keep(&mut self, home: u64) -> Result<()> {
        Self::keep(self, home)
    }

    fn run(&mut self, function: u64, argument: u64, sp: u64) -> Result<u64> {
        self.prepare()?;
        let mut regs = self.saved;
        (regs.rip, regs.rdi, regs.rsp, regs.rax, regs.orig_rax) = (function, argument, sp, 0, u64::MAX);
        ptrace::set_registers(self.tid, &regs)?;
        ptrace::cont(self.tid, 0)?;
        self.until_trap(ptrace::cont).map(|r| r.rax)
    }
}

/// Waits until an interrupted thread stands in its interruption with no `SIGTRAP` and no fault pending (points 1 and 2).
fn quiet_stop(pid: i32, tid: i32) -> Result<()> {
    let mut interrupt_again = false;
    for _ in 0..ATTEMPTS {
        match ptrace::wait_for(tid, PATIENCE)? {
            Stop::Ended(_) => return Err(HostError::Gone { pid }),
            Stop::Signal(signal) => {
                ptrace::cont(tid, signal)?;
                if core::mem::take(&mut interrupt_again) {
                    ptrace::interrupt(tid)?;
                }
            }
            Stop::Event(..) | Stop::Syscall => {
                let pending = process::pending_signals(pid, tid);
                let fault = pending & FAULTS & !process::blocked_signals(pid, tid);
                if pending & !ALL_BUT_SIGTRAP | fault == 0 {
                    return Ok(());
                }
                // Its delivery is the next stop.
                interrupt_again = true;
                ptrace::cont(tid, 0)?;
            }
        }
    }
    Err(HostError::Unexpected { pid, what: format!("thread {tid} traps all the time and cannot be stopped") })
}

fn rewind_interrupted_call(regs: &mut Registers) {
    let number = regs.orig_rax.cast_signed();
    if NOT_RESTARTED.contains(&number) && regs.rax.cast_signed() == -i64::from(libc::EINTR) {
        regs.rip -= SYSCALL.len() as u64;
        regs.rax = regs.orig_rax;
        regs.orig_rax = u64::MAX;
    }
}

/// The registers with an interrupted system call set up to be made again, as the kernel does when it lets a stopped
/// thread go on (`arch/x86/kernel/signal.c`): the agent's handler, which gives them back by `rt_sigreturn`, cannot. A
/// sleep that the kernel would continue is begun anew, since `rt_sigreturn` forgets how long it has lasted.
fn restarted(mut regs: Registers) -> Registers {
    /// `ERESTARTSYS`, `ERESTARTNOINTR`, `ERESTARTNOHAND`, `ERESTART_RESTARTBLOCK`.
    const INTERRUPTED: [i64; 4] = [-512, -513, -514, -516];
    if regs.orig_rax.cast_signed() >= 0 && INTERRUPTED.contains(&regs.rax.cast_signed()) {
        regs.rax = regs.orig_rax;
        regs.rip -= SYSCALL.len() as u64;
    }
    regs
}

/// A `syscall` instruction in the target, in the vdso if possible.
fn find_gadget(pid: i32) -> Result<u64> {
    let memory = Memory::open(pid)?;
    let mut code: Vec<Mapping> = mappings(pid)?;
    code.retain(|m| m.is_executable() && m.path != procfs::process::MMapPath::Vsyscall);
    code.sort_by_key(|m| m.path != procfs::process::MMapPath::Vdso);
    for mapping in code {
        let mut bytes = vec![0; (mapping.end - mapping.start).min(4 << 20) as usize];
        if memory.read(mapping.start, &mut bytes).is_err() {
            continue;
        }
        if let Some(at) = bytes.windows(SYSCALL.len()).position(|w| w == SYSCALL) {
            return Ok(mapping.start + at as u64);
        }
    }
    Err(HostError::Unexpected { pid, what: "it has no `syscall` instruction to make system calls with".into() })
}
