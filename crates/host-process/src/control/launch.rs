//! A new process, held at the moment when its program is mapped and has not run an instruction.

use super::ptrace::{self, Stop};
use super::{HostError, Result};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Starts `command` (program and arguments); it stands at its first instruction, traced by the calling thread.
pub(crate) fn held(command: &[OsString]) -> Result<Child> {
    let Some((program, args)) = command.split_first() else {
        return Err(HostError::Launch { command: String::new(), why: "no command given".into() });
    };
    let failed = |why: String| HostError::Launch { command: program.to_string_lossy().into_owned(), why };
    let mut prepared = Command::new(program);
    prepared.args(args);
    // SAFETY: between fork and exec only system calls are made, on memory of this frame.
    unsafe {
        prepared.pre_exec(|| {
            // Its stop at the start is a SIGTRAP.
            let mut set: libc::sigset_t = core::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGTRAP);
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, core::ptr::null_mut());
            match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    let child = prepared.spawn().map_err(|e| failed(reason(&e)))?;
    let pid = child.id().cast_signed();
    match ptrace::wait(pid)? {
        Stop::Signal(libc::SIGTRAP) => {}
        other => return Err(failed(format!("it did not stop at its start ({other:?})"))),
    }
    // If we die before we let it go, it must not stay behind, stopped.
    ptrace::set_options(pid, libc::PTRACE_O_EXITKILL)?;
    Ok(child)
}

/// Whether this thread blocks `SIGTRAP`, and a command that it starts would.
pub(crate) fn blocks_trap() -> bool {
    let own = std::process::id().cast_signed();
    super::process::blocked_signals(own, own) & (1 << (libc::SIGTRAP - 1)) != 0
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such program (looked for in PATH if the name has no slash)".into(),
        std::io::ErrorKind::PermissionDenied => "it is not executable, or a folder on its path is closed to you".into(),
        _ => error.to_string(),
    }
}
