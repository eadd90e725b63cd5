//! The child process: the system calls under [`super::Processor`].
#![expect(unsafe_code, reason = "ptrace, fork and a shared mapping have no safe interface")]

use std::io;
use std::ptr::{self, NonNull};

use isa::x86::Regs;

use super::{State, Vectors, Window};

/// The regset of `XSAVE` state (`NT_X86_XSTATE`).
const XSTATE: libc::c_int = 0x202;
/// More than any processor's `XSAVE` area without tiles' data has.
const XSTATE_MAX: usize = 16 << 10;
/// Seconds of processor time after which a child is stopped that does not stop by itself.
const CPU_SECONDS: u64 = 300;

/// Why the child stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) signal: i32,
    /// The fault's address; 0 for a trap.
    pub(super) addr: u64,
}

/// The traced child and the test's mapping of the file that both share.
///
/// # Invariants
///
/// `map` is a mapping of `len` bytes that only this value uses; `pid` is a stopped, traced child of
/// the current thread.
#[derive(Debug)]
pub(super) struct Worker {
    pid: libc::pid_t,
    map: NonNull<u8>,
    len: usize,
    initial: libc::user_regs_struct,
    vectors: Vectors,
}

impl Worker {
    /// Forks a child with `windows` of a new file of `len` bytes.
    pub(super) fn start(windows: &[Window], len: usize) -> io::Result<Self> {
        // SAFETY: the name is a C string; the descriptor is closed below.
        let fd = check(unsafe { libc::memfd_create(c"processor".as_ptr(), libc::MFD_CLOEXEC) })?;
        // SAFETY: `fd` is open.
        check(unsafe { libc::ftruncate(fd, len as i64) })?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the system's choice.
        let map = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the child calls only async-signal-safe functions, as a fork of a process with
        // threads must.
        let pid = check(unsafe { libc::fork() })?;
        if pid == 0 {
            // SAFETY: this is the child, which has one thread and returns to nobody.
            unsafe { child(windows, fd) }
        }
        // SAFETY: `fd` is open and not used any more.
        unsafe { libc::close(fd) };
        let map = NonNull::new(map.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        // SAFETY: all-zero is a value of this plain structure.
        let initial = unsafe { core::mem::zeroed() };
        let vectors = Vectors { bytes: Vec::new(), components: Vec::new() };
        // INVARIANT: `map` was made above and is shared with the child only; `pid` is checked to be
        // stopped next.
        let mut worker = Self { pid, map, len, initial, vectors };
        worker.adopt()?;
        Ok(worker)
    }

    /// Waits for the child's first stop and keeps what it starts from.
    fn adopt(&mut self) -> io::Result<()> {
        let signal = self.wait()?;
        if signal != libc::SIGSTOP {
            return Err(io::Error::other(format!("the child could not map its windows (signal {signal})")));
        }
        self.request(libc::PTRACE_SETOPTIONS, 0, libc::PTRACE_O_EXITKILL as usize)?;
        let registers = &raw mut self.initial;
        self.request(libc::PTRACE_GETREGS, 0, registers.addr())?;
        let bytes = self.xstate(libc::PTRACE_GETREGSET, vec![0; XSTATE_MAX])?;
        let components = Vectors::components(Vectors::supported(&bytes), bytes.len(), component);
        self.vectors = Vectors { bytes, components };
        Ok(())
    }

    /// The vector state that the child started with.
    pub(super) const fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// The shared file.
    pub(super) const fn file(&mut self) -> &mut [u8] {
        // SAFETY: `map` has `len` bytes and lives as long as `self`, which is borrowed mutably; the
        // child is stopped whenever this can be called.
        unsafe { core::slice::from_raw_parts_mut(self.map.as_ptr(), self.len) }
    }

    /// Sets the complete state.
    pub(super) fn set(&mut self, state: &State) -> io::Result<()> {
        let mut registers = self.initial;
        store(&mut registers, &state.regs);
        registers.fs_base = state.fs_base;
        registers.gs_base = state.gs_base;
        // Not in a system call: nothing to restart.
        registers.orig_rax = u64::MAX;
        let registers = &raw const registers;
        self.request(libc::PTRACE_SETREGS, 0, registers.addr())?;
        self.xstate(libc::PTRACE_SETREGSET, state.vectors.bytes.clone()).map(drop)
    }

    /// Reads the complete state.
    pub(super) fn get(&mut self) -> io::Result<State> {
        let mut registers = self.initial;
        let into = &raw mut registers;
        self.request(libc::PTRACE_GETREGS, 0, into.expose_provenance())?;
        let bytes = self.xstate(libc::PTRACE_GETREGSET, vec![0; self.vectors.bytes.len()])?;
        let vectors = Vectors { bytes, components: self.vectors.components.clone() };
        let (fs_base, gs_base) = (registers.fs_base, registers.gs_base);
        Ok(State { regs: load(&registers), fs_base, gs_base, vectors })
    }

    /// Lets the child execute one instruction, or run, until it stops.
    pub(super) fn resume(&mut self, step: bool) -> io::Result<Stop> {
        self.request(if step { libc::PTRACE_SINGLESTEP } else { libc::PTRACE_CONT }, 0, 0)?;
        let signal = self.wait()?;
        if signal == libc::SIGTRAP {
            return Ok(Stop { signal, addr: 0 });
        }
        // SAFETY: all-zero is a value of this plain structure.
        let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
        let into = &raw mut info;
        self.request(libc::PTRACE_GETSIGINFO, 0, into.expose_provenance())?;
        // SAFETY: signals that processor exceptions raise carry an address.
        let addr = unsafe { info.si_addr() }.addr() as u64;
        Ok(Stop { signal, addr })
    }

    fn wait(&self) -> io::Result<i32> {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        check(unsafe { libc::waitpid(self.pid, &raw mut status, 0) })?;
        if libc::WIFSTOPPED(status) {
            Ok(libc::WSTOPSIG(status))
        } else {
            Err(io::Error::other(format!("the child ended with status {status:#x}")))
        }
    }

    fn request(&self, request: libc::c_uint, addr: usize, data: usize) -> io::Result<()> {
        // SAFETY: `data` is a number or the address of a local of the caller, of the type that the
        // request reads or writes.
        let result = unsafe { libc::ptrace(request, self.pid, addr, data) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads or writes the `XSAVE` state.
    fn xstate(&self, request: libc::c_uint, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let pointer = &raw mut vector;
        self.request(request, XSTATE as usize, pointer.expose_provenance())?;
        bytes.truncate(vector.iov_len);
        Ok(bytes)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: `pid` is our own child, not yet waited for to its end; `map` is used by nobody
        // else.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, ptr::null_mut(), 0);
            libc::munmap(self.map.as_ptr().cast(), self.len);
        }
    }
}

/// Maps the windows and stops, to be continued only with other registers.
///
/// # Safety
///
/// Only in a child directly after `fork`.
unsafe fn child(windows: &[Window], fd: i32) -> ! {
    let exit = |code| -> ! {
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) }
    };
    let limit = libc::rlimit { rlim_cur: CPU_SECONDS, rlim_max: CPU_SECONDS };
    // SAFETY: `limit` outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_CPU, &raw const limit) };
    for window in windows {
        let protection = libc::PROT_READ | if window.writable { libc::PROT_WRITE } else { libc::PROT_EXEC };
        let how = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE;
        let at = ptr::with_exposed_provenance_mut(window.addr as usize);
        // SAFETY: NOREPLACE leaves existing mappings alone.
        let map = unsafe { libc::mmap(at, window.len as usize, protection, how, fd, window.file_offset as i64) };
        if map != at {
            exit(1);
        }
    }
    // SAFETY: no pointers are involved.
    unsafe {
        libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        libc::raise(libc::SIGSTOP);
    }
    exit(2)
}

/// Offset and size of a component of the `XSAVE` area (SDM volume 1, section 13.5).
fn component(number: u32) -> (usize, usize) {
    let leaf = core::arch::x86_64::__cpuid_count(0xD, number);
    (leaf.ebx as usize, leaf.eax as usize)
}

fn store(to: &mut libc::user_regs_struct, from: &Regs) {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = from.gpr;
    (to.rax, to.rcx, to.rdx, to.rbx, to.rsp, to.rbp, to.rsi, to.rdi) = (rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi);
    (to.r8, to.r9, to.r10, to.r11, to.r12, to.r13, to.r14, to.r15) = (r8, r9, r10, r11, r12, r13, r14, r15);
    (to.rip, to.eflags) = (from.rip, from.flags);
}

fn load(from: &libc::user_regs_struct) -> Regs {
    let f = from;
    let gpr =
        [f.rax, f.rcx, f.rdx, f.rbx, f.rsp, f.rbp, f.rsi, f.rdi, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15];
    Regs { gpr, rip: f.rip, flags: f.eflags }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
