//! A traced process executes another program, and the trace goes with it.
//!
//! The agent stops at the `execve` and tells us. We seize the thread, let it go on, and watch that one system call: if
//! it fails, nothing has happened; if it succeeds, the thread stands at the first instruction of a new program, in an
//! address space that has no agent, and is treated as if we had launched it.

use super::mail::Mail;
use super::member::Member;
use super::ptrace::{self, Stop};
use super::trace::Trace;
use super::{HostError, Result, maps, process};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync::primitive::Ordering;

/// More stops than this between the agent's message and the end of `execve` do not happen.
const STOPS: usize = 1000;

/// How long an `execve` may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a watched `execve` ended.
enum End {
    /// A new program runs; the thread stands.
    Executed,
    /// The call failed; the thread stands.
    Failed,
}

/// Answers the message that thread `tid` of process `pid` is about to execute a program.
pub(crate) fn exec(trace: &mut Trace, member: usize, mail: Mail, pid: i32, tid: i32) -> Result<()> {
    if let Some(path) = trace.members.get(member).and_then(|m| privileged(m, &mail, pid)) {
        mail.resume();
        let path = path.display();
        trace.say(format!("process {pid} executes {path}, which changes its user: tracing it would take that away, so it is not followed"));
        return Ok(());
    }
    if !maps::has_file(tid, mail.shared.file()) {
        mail.resume();
        trace.say("a child in another pid namespace executes a program: it is not followed".into());
        return Ok(());
    }
    let options = libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACESYSGOOD;
    if let Err(error) = ptrace::seize(tid, options).and_then(|()| ptrace::interrupt(tid)) {
        mail.resume();
        trace.say(format!("process {pid} executes a program and cannot be followed: {error}"));
        return Ok(());
    }
    mail.resume();
    match watch(pid, tid) {
        Ok(End::Failed) => ptrace::detach(tid, 0),
        Ok(End::Executed) => {
            // The process that told us has another address space now, unless it was a vfork child.
            if trace.members.get(member).is_some_and(|m| m.pid() == pid) {
                trace.leave(member);
            }
            if let Err(error) = trace.enter_held(pid, pid) {
                // Not a program that we can trace: it runs as it is.
                let _ = ptrace::detach(pid, 0);
                let name = process::thread_name(pid, pid);
                trace.say(format!("process {pid} executes {name}, which cannot be traced: {error}"));
            }
            Ok(())
        }
        Err(HostError::Gone { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The program that is about to be executed, if it is set-user-ID or set-group-ID and we are not privileged: the kernel
/// ignores those bits for a program that is traced by such a tracer (execve(2)).
fn privileged(member: &Member, mail: &Mail, pid: i32) -> Option<PathBuf> {
    // SAFETY: has no argument and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return None;
    }
    let mailbox = &mail.shared.bank(mail.bank)?.mailbox;
    let word = |i: usize| mailbox.args.get(i).map_or(0, |w| w.load(Ordering::Relaxed));
    let path = member.target.text(word(0))?;
    let folder = match word(1).cast_signed() as i32 {
        libc::AT_FDCWD => format!("/proc/{pid}/cwd"),
        fd => format!("/proc/{pid}/fd/{fd}"),
    };
    let full = match path.strip_prefix('/') {
        Some(absolute) => Path::new(&format!("/proc/{pid}/root")).join(absolute),
        None => Path::new(&folder).join(&path),
    };
    let mode = full.metadata().ok()?.mode();
    (mode & (libc::S_ISUID | libc::S_ISGID) != 0).then(|| PathBuf::from(path))
}

fn watch(pid: i32, tid: i32) -> Result<End> {
    let mut thread = tid;
    let (mut entered, mut executed) = (false, false);
    for _ in 0..STOPS {
        let mut signal = 0;
        match ptrace::wait_for(thread, PATIENCE) {
            // When another thread than the leader executes, it takes the leader's id.
            Err(HostError::Gone { .. }) if thread != pid => {
                thread = pid;
                continue;
            }
            Err(error) => return Err(error),
            Ok(Stop::Ended(_)) => return Err(HostError::Gone { pid }),
            Ok(Stop::Event(libc::PTRACE_EVENT_EXEC, _)) => {
                // Still inside the call: its way out would overwrite registers that we set.
                executed = true;
                thread = pid;
            }
            Ok(Stop::Syscall) if executed => return Ok(End::Executed),
            Ok(Stop::Event(..)) => {}
            Ok(Stop::Signal(delivered)) => signal = delivered,
            Ok(Stop::Syscall) => {
                let number = ptrace::registers(thread)?.orig_rax.cast_signed();
                let is_exec = number == libc::SYS_execve || number == libc::SYS_execveat;
                if is_exec && entered {
                    return Ok(End::Failed);
                }
                entered = is_exec;
            }
        }
        ptrace::cont_syscall(thread, signal)?;
    }
    Err(HostError::Unexpected { pid, what: "an `execve` that does not end".into() })
}
