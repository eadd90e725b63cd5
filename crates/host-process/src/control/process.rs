//! Facts of a process, from `/proc`.

use super::maps::process_error;
use super::{HostError, Result};
use procfs::process::{Process, Status};
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// What the kernel says of a process.
///
/// # Errors
///
/// When there is none.
pub(crate) fn status(pid: i32) -> Result<Status> {
    Process::new(pid).and_then(|p| p.status()).map_err(|e| process_error(pid, "read its status", e))
}

/// Whether `pid` is there, and any of its threads is not a zombie.
///
/// ```
/// use host_process::control::{is_alive, thread_name};
/// use std::process::Command;
///
/// let mut child = Command::new("sleep").arg("60").spawn()?;
/// let pid = child.id().cast_signed();
/// assert!(is_alive(pid));
/// assert_eq!(thread_name(pid, pid), "sleep");
/// child.kill()?;
/// child.wait()?;
/// assert!(!is_alive(pid));
/// assert_eq!(thread_name(pid, pid), "");
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let Ok(status) = status(pid) else { return false };
    let ended = |text: String| text.lines().any(|l| l.starts_with("State:\tZ") || l.starts_with("State:\tX"));
    let thread_lives =
        |tid: i32| fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).is_ok_and(|text| !ended(text));
    !status.state.starts_with(['Z', 'X']) || threads(pid).into_iter().any(|tid| tid != pid && thread_lives(tid))
}

/// Where `/proc` shows a process's memory: the main thread's folder, or another's when the main thread has ended.
pub(crate) fn folder(pid: i32) -> PathBuf {
    let main = PathBuf::from(format!("/proc/{pid}"));
    if state(pid, pid) != Some('Z') {
        return main;
    }
    let lives = |tid: &i32| state(pid, *tid).is_some_and(|s| !matches!(s, 'Z' | 'X'));
    threads(pid).into_iter().find(lives).map_or(main, |tid| PathBuf::from(format!("/proc/{pid}/task/{tid}")))
}

/// A thread's state, as `/proc/PID/task/TID/stat` has it.
pub(crate) fn state(pid: i32, tid: i32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    // The name before it is in parentheses and may hold anything.
    text.rsplit_once(") ")?.1.chars().next()
}

/// Tells when a process ends: when its last thread has, whichever that is.
#[derive(Debug)]
pub(crate) struct Life {
    pid: i32,
    descriptor: Option<OwnedFd>,
}

impl Life {
    pub(crate) fn of(pid: i32) -> Result<Self> {
        // SAFETY: the call has no memory arguments.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd >= 0 {
            // SAFETY: a descriptor that was just made and has no other owner.
            let descriptor = unsafe { OwnedFd::from_raw_fd(fd as i32) };
            return Ok(Self { pid, descriptor: Some(descriptor) });
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::ESRCH) => Err(HostError::NoProcess { pid }),
            // Kernels before 5.3 have no such descriptors: `/proc` is asked instead.
            _ => Ok(Self { pid, descriptor: None }),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        let Some(descriptor) = &self.descriptor else { return !is_alive(self.pid) };
        let mut poll = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry; returns at once.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
    }
}

/// The program that `pid` runs, read for a look at what it is.
pub(crate) fn read_program(pid: i32) -> Result<symbols::Object> {
    let path = executable(pid);
    if let Err(error) = fs::File::open(&path) {
        return Err(match error.kind() {
            std::io::ErrorKind::NotFound => HostError::NoProcess { pid },
            std::io::ErrorKind::PermissionDenied => denial(pid),
            _ => HostError::io(format!("read the program of process {pid}"), error),
        });
    }
    Ok(symbols::Object::read(&path)?)
}

/// Whether `pid` runs a program: a process that is ending has none any more, though it is still there.
pub(crate) fn runs_program(pid: i32) -> bool {
    is_alive(pid) && fs::read_link(executable(pid)).is_ok()
}

/// Threads of `pid`.
pub(crate) fn threads(pid: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The name of a thread; empty when it has gone.
#[must_use]
pub fn thread_name(pid: i32, tid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).unwrap_or_default();
    name.trim_end_matches('\n').to_owned()
}

/// Signals pending for a thread alone, as a set.
pub(crate) fn pending_signals(pid: i32, tid: i32) -> u64 {
    signal_set(pid, tid, "SigPnd:")
}

/// Signals that a thread blocks, as a set.
pub(crate) fn blocked_signals(pid: i32, tid: i32) -> u64 {
    signal_set(pid, tid, "SigBlk:")
}

/// Signals for which a process has handlers, as a set.
pub(crate) fn caught_signals(pid: i32) -> u64 {
    signal_set(pid, pid, "SigCgt:")
}

fn signal_set(pid: i32, tid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(field));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// The program that a process runs, also when its file was deleted.
///
/// ```
/// let own = host_process::control::executable(std::process::id().cast_signed());
/// assert_eq!(std::fs::read_link(own)?, std::env::current_exe()?);
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn executable(pid: i32) -> PathBuf {
    folder(pid).join("exe")
}

/// Refuses a process that may not or should not be traced; says which rule.
///
/// # Errors
///
/// The rule.
pub(crate) fn check(pid: i32) -> Result<()> {
    let status = status(pid)?;
    if !is_alive(pid) {
        return Err(HostError::Gone { pid });
    }
    if pid == std::process::id().cast_signed() {
        return Err(HostError::NotPermitted { pid, why: "that is this tool itself".into() });
    }
    if status.tgid != pid {
        let why = format!("{pid} is a thread of process {}: give that number", status.tgid);
        return Err(HostError::NotPermitted { pid, why });
    }
    if status.tracerpid != 0 {
        let tracer = status.tracerpid;
        return Err(HostError::Traced { pid, tracer, name: thread_name(tracer, tracer) });
    }
    if is_kernel_thread(pid) {
        return Err(HostError::NotPermitted { pid, why: "it is a kernel thread: it has no program".into() });
    }
    if text_field(pid, "x86_Thread_features:").is_some_and(|f| f.contains("shstk")) {
        return Err(HostError::ShadowStack { pid });
    }
    match status.seccomp.unwrap_or(0) {
        0 => Ok(()),
        // The filters that we live under ourselves, as all in a container do, let us do what the agent does.
        SECCOMP_FILTER if filters(pid) <= filters(std::process::id().cast_signed()) => Ok(()),
        mode => Err(HostError::Seccomp { pid, mode }),
    }
}

/// `Seccomp: 2` in `/proc/PID/status`.
const SECCOMP_FILTER: u32 = 2;

/// How many seccomp filters a process has; very many if the kernel does not say (before 5.9).
fn filters(pid: i32) -> u32 {
    text_field(pid, "Seccomp_filters:").and_then(|n| n.trim().parse().ok()).unwrap_or(u32::MAX)
}

/// A line of `/proc/PID/status`.
fn text_field(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|l| l.strip_prefix(field)).map(str::to_owned)
}

fn is_kernel_thread(pid: i32) -> bool {
    fs::read_link(executable(pid)).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// Why `PTRACE_SEIZE` was refused.
pub(crate) fn denial(pid: i32) -> HostError {
    let Ok(status) = status(pid) else { return HostError::NoProcess { pid } };
    if status.tracerpid != 0 {
        let tracer = status.tracerpid;
        return HostError::Traced { pid, tracer, name: thread_name(tracer, tracer) };
    }
    // SAFETY: has no argument and cannot fail.
    let me = unsafe { libc::geteuid() };
    let why = if status.ruid != me || status.euid != me {
        format!("it belongs to user {} and you are user {me}: become that user, or root (ptrace(2))", status.ruid)
    } else if yama_scope() > 0 {
        format!(
            "the Yama security module (kernel.yama.ptrace_scope = {}) allows it for your own children only: start the \
             program with `kprobe trace … -- COMMAND`, or become root",
            yama_scope()
        )
    } else {
        "it has made itself not dumpable (prctl PR_SET_DUMPABLE), or has capabilities that you lack: become root".into()
    };
    HostError::NotPermitted { pid, why }
}

fn yama_scope() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
