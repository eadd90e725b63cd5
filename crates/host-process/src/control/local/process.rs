//! The program's handle on the probes in itself.

use super::control::Control;
use super::error::{Error, Result};
use super::own::Own;
use super::record::Record;
use super::{Tally, threads};
use crate::abi::{Home, Shared};
use crate::control::inject;
use crate::control::memory::Memory;
use core::mem::offset_of;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use sync::ActiveSet;

/// The one process that this can be.
static PROCESS: OnceLock<Process> = OnceLock::new();
/// Held while it is started; what a start that failed half-way has left, for the next.
static STARTING: Mutex<Option<Control>> = Mutex::new(None);

/// The own process, with the agent in it. There is one; see the [module](super).
#[derive(Debug)]
pub struct Process {
    pid: i32,
    home: &'static Home,
    control: Mutex<Control>,
}

impl Process {
    /// Makes this process ready for probes: maps the agent, takes over `SIGTRAP`, plants the guards that keep it. A
    /// second call gives the same.
    ///
    /// Best called before the program creates threads.
    ///
    /// # Errors
    ///
    /// When another `kprobe` has placed probes here, when threads block `SIGTRAP`, when the processor checks return
    /// addresses (shadow stack), in a forked child of a process that has started, or when the kernel refuses something.
    /// The program is as before then, and it can be tried again.
    pub fn start() -> core::result::Result<&'static Self, Error> {
        let mut started = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = PROCESS.get() {
            process.check_owner()?;
            return Ok(process);
        }
        let own = Own::new();
        let blocked = threads::unblock(own)?;
        let control = begin(own, blocked, &mut started);
        if control.is_err() && blocked {
            threads::block(own)?;
        }
        let control = control?;
        // SAFETY: `inject` has mapped a `Home` there, which stays mapped; it is all atomics.
        let home = unsafe { &*(control.home() as *const Home) };
        Ok(PROCESS.get_or_init(|| Self { pid: own.pid, home, control: Mutex::new(control) }))
    }

    /// Defines a probe by a line as Linux's `kprobe_events` takes it; see [`events`].
    ///
    /// The place is in what is loaded now: `libc.so.6:malloc`, `my_function`, `libz.so.1:0x1234`.
    ///
    /// # Errors
    ///
    /// When the line is wrong, the place is not found, or a probe cannot be there; the reason.
    pub fn define(&self, line: &str) -> core::result::Result<(), Error> {
        self.define_all(&[line])
    }

    /// Defines several probes: all of them, or none.
    ///
    /// # Errors
    ///
    /// As [`define`](Self::define), for the first that cannot be.
    pub fn define_all(&self, lines: &[&str]) -> core::result::Result<(), Error> {
        self.control()?.define(lines)
    }

    /// Removes a probe by its name, `EVENT` or `GROUP/EVENT`. When this returns, no handler of it runs any more. Its
    /// records can still be read.
    ///
    /// # Errors
    ///
    /// When there is none of this name.
    pub fn remove(&self, name: &str) -> core::result::Result<(), Error> {
        self.control()?.remove(name)
    }

    /// Removes all probes that were defined.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn remove_all(&self) -> core::result::Result<(), Error> {
        self.control()?.remove_all()
    }

    /// What was counted for a probe.
    ///
    /// # Errors
    ///
    /// When there is none of this name.
    pub fn counts(&self, name: &str) -> core::result::Result<Tally, Error> {
        self.control()?.counts(name)
    }

    /// The probes that are defined, as `GROUP/EVENT`.
    ///
    /// # Errors
    ///
    /// In a forked child, and in a handler.
    pub fn names(&self) -> core::result::Result<Vec<String>, Error> {
        Ok(self.control()?.names())
    }

    /// What was recorded since the last call, in the order of time. A thread that was interrupted while it wrote a
    /// record holds back younger ones of its processor's until the next call.
    ///
    /// # Errors
    ///
    /// In a forked child, and in a handler.
    pub fn take_records(&self) -> core::result::Result<Vec<Record>, Error> {
        Ok(self.control()?.take_records())
    }

    fn control(&self) -> Result<MutexGuard<'_, Control>> {
        self.check_owner()?;
        let own = Own::thread();
        if ActiveSet::new(&self.home.active).members().any(|thread| thread == own) {
            return Err(Error::InHandler);
        }
        Ok(self.control.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn check_owner(&self) -> Result<()> {
        let pid = Own::new().pid;
        if pid == self.pid { Ok(()) } else { Err(Error::Forked { pid, owner: self.pid }) }
    }
}

/// Makes the process ready, whose calling thread has unblocked `SIGTRAP` if it was `blocked`. If the agent has a place
/// and something after that fails, `started` keeps it for another time.
fn begin(own: Own, blocked: bool, started: &mut Option<Control>) -> Result<Control> {
    threads::check_masks(own.pid)?;
    let mut control = match started.take() {
        Some(mut control) => control.restart(own).map(|()| control)?,
        None => enter(own)?,
    };
    match control.begin(own, blocked) {
        Ok(()) => Ok(control),
        Err(error) => {
            *started = Some(control);
            Err(error)
        }
    }
}

/// Maps the agent, if nothing speaks against it.
fn enter(own: Own) -> Result<Control> {
    threads::check_process(own.pid)?;
    if is_traced(own.pid)? {
        return Err(Error::Traced);
    }
    Control::enter(own)
}

/// Whether a tool has placed probes in this process and not taken them out.
fn is_traced(pid: i32) -> Result<bool> {
    let Some((_, shared)) = inject::find(pid)? else { return Ok(false) };
    Ok(Memory::open(pid)?.half(shared + offset_of!(Shared, listening) as u64)? != 0)
}
