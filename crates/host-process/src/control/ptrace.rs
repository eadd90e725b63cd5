//! The few `ptrace` requests that control needs, each for a thread that this thread traces.
//!
//! # Safety
//!
//! `ptrace` takes untyped arguments. Every function here fixes the request and the type of its data, so that a caller
//! cannot mismatch them; the kernel checks the rest (that the thread is ours and stopped).

use super::{HostError, Result};
use libc::{c_int, c_long, c_void, pid_t, user_regs_struct};
use std::io;
use std::time::{Duration, Instant};

const NT_X86_XSTATE: usize = 0x202;
/// Large enough for AVX-512 and AMX state.
const XSTATE_BYTES: usize = 32 << 10;

pub(crate) type Registers = user_regs_struct;

fn request(what: &'static str, request: libc::c_uint, tid: pid_t, addr: usize, data: usize) -> Result<c_long> {
    // SAFETY: the callers in this module pass what `request` expects in `addr` and `data`.
    let result = unsafe { libc::ptrace(request, tid, addr as *mut c_void, data as *mut c_void) };
    if result != -1 {
        return Ok(result);
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ESRCH) => HostError::Gone { pid: tid },
        _ => HostError::io(format!("{what} on thread {tid}"), error),
    })
}

pub(crate) fn seize(tid: pid_t, options: c_int) -> Result<()> {
    request("PTRACE_SEIZE", libc::PTRACE_SEIZE, tid, 0, options as usize).map(drop)
}

pub(crate) fn set_options(tid: pid_t, options: c_int) -> Result<()> {
    request("PTRACE_SETOPTIONS", libc::PTRACE_SETOPTIONS, tid, 0, options as usize).map(drop)
}

pub(crate) fn interrupt(tid: pid_t) -> Result<()> {
    request("PTRACE_INTERRUPT", libc::PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

/// Goes on, delivering `signal` if it is not 0.
pub(crate) fn cont(tid: pid_t, signal: c_int) -> Result<()> {
    request("PTRACE_CONT", libc::PTRACE_CONT, tid, 0, signal as usize).map(drop)
}

/// Goes on to the next system call's entry or exit.
pub(crate) fn cont_syscall(tid: pid_t, signal: c_int) -> Result<()> {
    request("PTRACE_SYSCALL", libc::PTRACE_SYSCALL, tid, 0, signal as usize).map(drop)
}

pub(crate) fn step(tid: pid_t) -> Result<()> {
    request("PTRACE_SINGLESTEP", libc::PTRACE_SINGLESTEP, tid, 0, 0).map(drop)
}

pub(crate) fn detach(tid: pid_t, signal: c_int) -> Result<()> {
    request("PTRACE_DETACH", libc::PTRACE_DETACH, tid, 0, signal as usize).map(drop)
}

pub(crate) fn registers(tid: pid_t) -> Result<Registers> {
    // SAFETY: the structure is integers only.
    let mut regs: Registers = unsafe { core::mem::zeroed() };
    request("PTRACE_GETREGS", libc::PTRACE_GETREGS, tid, 0, (&raw mut regs) as usize)?;
    Ok(regs)
}

pub(crate) fn set_registers(tid: pid_t, regs: &Registers) -> Result<()> {
    request("PTRACE_SETREGS", libc::PTRACE_SETREGS, tid, 0, (&raw const *regs) as usize).map(drop)
}

/// The vector and floating point state, as one block of bytes.
pub(crate) fn vector_state(tid: pid_t) -> Result<Vec<u8>> {
    let mut state = vec![0u8; XSTATE_BYTES];
    let mut io = libc::iovec { iov_base: state.as_mut_ptr().cast(), iov_len: state.len() };
    request("PTRACE_GETREGSET", libc::PTRACE_GETREGSET, tid, NT_X86_XSTATE, (&raw mut io) as usize)?;
    state.truncate(io.iov_len);
    Ok(state)
}

pub(crate) fn set_vector_state(tid: pid_t, state: &[u8]) -> Result<()> {
    let io = libc::iovec { iov_base: state.as_ptr().cast_mut().cast(), iov_len: state.len() };
    request("PTRACE_SETREGSET", libc::PTRACE_SETREGSET, tid, NT_X86_XSTATE, (&raw const io) as usize).map(drop)
}

pub(crate) fn signal_mask(tid: pid_t) -> Result<u64> {
    let mut mask = 0u64;
    request("PTRACE_GETSIGMASK", libc::PTRACE_GETSIGMASK, tid, 8, (&raw mut mask) as usize)?;
    Ok(mask)
}

pub(crate) fn set_signal_mask(tid: pid_t, mask: u64) -> Result<()> {
    request("PTRACE_SETSIGMASK", libc::PTRACE_SETSIGMASK, tid, 8, (&raw const mask) as usize).map(drop)
}

/// How a traced thread stands after [`wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A signal is about to be delivered to it.
    Signal(c_int),
    /// A `PTRACE_EVENT_*`, with the signal of a group stop.
    Event(c_int, c_int),
    /// The entry or exit of a system call (with `PTRACE_O_TRACESYSGOOD`).
    Syscall,
    /// It ended.
    Ended(c_int),
}

/// Waits for the next stop of a traced thread.
pub(crate) fn wait(tid: pid_t) -> Result<Stop> {
    wait_status(tid, None)
}

/// Waits for the next stop of a traced thread, but not longer than `limit`.
pub(crate) fn wait_for(tid: pid_t, limit: Duration) -> Result<Stop> {
    wait_status(tid, Some(Instant::now() + limit))
}

/// The next stop of a traced thread, if it stops before `until`.
pub(crate) fn wait_until(tid: pid_t, until: Instant) -> Result<Option<Stop>> {
    loop {
        match wait_status(tid, Some(Instant::now())) {
            Err(HostError::Unexpected { .. }) if Instant::now() < until => {}
            Err(HostError::Unexpected { .. }) => return Ok(None),
            stop => return stop.map(Some),
        }
    }
}

/// `si_code` of the signal that is about to be delivered: above 0 when the thread has raised it itself.
pub(crate) fn signal_code(tid: pid_t) -> Result<c_int> {
    // SAFETY: the structure is integers only.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    request("PTRACE_GETSIGINFO", libc::PTRACE_GETSIGINFO, tid, 0, (&raw mut info) as usize)?;
    Ok(info.si_code)
}

fn wait_status(tid: pid_t, until: Option<Instant>) -> Result<Stop> {
    let mut status = 0;
    let flags = libc::__WALL | if until.is_some() { libc::WNOHANG } else { 0 };
    loop {
        // SAFETY: `status` is a valid int.
        let got = unsafe { libc::waitpid(tid, &raw mut status, flags) };
        if got == tid {
            break;
        }
        if got == 0 {
            if until.is_some_and(|u| Instant::now() > u) {
                let what = format!("thread {tid} does not stop: it sleeps in the kernel and cannot be interrupted");
                return Err(HostError::Unexpected { pid: tid, what });
            }
            std::thread::sleep(Duration::from_micros(20));
            continue;
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Err(HostError::Gone { pid: tid }),
            _ => return Err(HostError::io(format!("wait for thread {tid}"), error)),
        }
    }
    if !libc::WIFSTOPPED(status) {
        return Ok(Stop::Ended(status));
    }
    let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
    Ok(match (signal, event) {
        (s, 0) if s == libc::SIGTRAP | 0x80 => Stop::Syscall,
        (s, 0) => Stop::Signal(s),
        (s, e) => Stop::Event(e, s),
    })
}
