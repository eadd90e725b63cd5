//! The program's handle on the probes in itself.

use super::control::Control;
use super::error::{Error, Result};
use super::notify::{Notified, NotifierHandler};
use super::own::Own;
use super::record::Record;
use super::{Counts, Forbidden, Handler, Listed, Registered, Spec, threads};
use crate::abi::{Home, Shared};
use crate::control::inject;
use crate::control::memory::Memory;
use core::mem::offset_of;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use sync::ActiveSet;
use sync::primitive::{AtomicU64, Ordering};

/// Where the agent has its `jprobe_return`; 0 while there is no agent.
static JPROBE_RETURN: AtomicU64 = AtomicU64::new(0);
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
    ///
    /// ```
    /// # use host_process::local::*;
    /// let process = Process::start()?;
    /// assert!(process.list()?.is_empty());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn start() -> core::result::Result<&'static Self, Error> {
        match PROCESS.get() {
            Some(process) => process.check_owner().map(|()| process),
            None => Self::start_first(),
        }
    }

    /// Apart from [`start`](Self::start), which may be called where there is little stack.
    #[inline(never)]
    fn start_first() -> Result<&'static Self> {
        let mut started = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = PROCESS.get() {
            return Ok(process);
        }
        let own = Own::new();
        let blocked = threads::unblock(own)?;
        let control = begin(own, blocked, &mut started);
        if control.is_err() && blocked {
            threads::block(own)?;
        }
        let control = control?;
        JPROBE_RETURN.store(control.jprobe_return()?, Ordering::Relaxed);
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
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("p:own libc.so.6:getcwd")?;
    /// let _ = std::env::current_dir();
    /// assert_eq!(process.counts("own")?.hits, 1);
    /// assert!(process.define("p:other libc.so.6:getcwdd").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn define(&self, line: &str) -> core::result::Result<(), Error> {
        self.define_all(&[line])
    }

    /// Defines several probes: all of them, or none.
    ///
    /// # Errors
    ///
    /// As [`define`](Self::define), for the first that cannot be.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define_all(&["p:call libc.so.6:getcwd", "r:back libc.so.6:getcwd path=+0($retval):string"])?;
    /// let _ = std::env::current_dir();
    /// assert_eq!(process.counts("back")?.returned, 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn define_all(&self, lines: &[&str]) -> core::result::Result<(), Error> {
        self.control()?.define(lines).map_err(|(_, error)| error)
    }

    /// Removes a probe by its name, `EVENT` or `GROUP/EVENT`. When this returns, no handler of it runs any more. Its
    /// records can still be read.
    ///
    /// # Errors
    ///
    /// When there is none of this name.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("p:own libc.so.6:getcwd")?;
    /// process.remove("own")?;
    /// assert!(process.remove("own").is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn remove(&self, name: &str) -> core::result::Result<(), Error> {
        self.control()?.remove(name)
    }

    /// Removes all probes, whoever has registered them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define_all(&["p:a libc.so.6:getcwd", "p:b libc.so.6:getppid"])?;
    /// process.remove_all()?;
    /// assert!(process.list()?.is_empty());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn remove_all(&self) -> core::result::Result<(), Error> {
        self.control()?.remove_all()
    }

    /// What was counted for a probe.
    ///
    /// # Errors
    ///
    /// When there is none of this name.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("p:own libc.so.6:getcwd")?;
    /// let _ = std::env::current_dir();
    /// assert_eq!(process.counts("own")?, Counts { hits: 1, ..Counts::default() });
    /// # Ok::<(), Error>(())
    /// ```
    pub fn counts(&self, name: &str) -> core::result::Result<Counts, Error> {
        self.control()?.counts(name)
    }

    /// Registers a probe: a [`Kprobe`](super::Kprobe), [`Jprobe`](super::Jprobe) or [`Kretprobe`](super::Kretprobe). It
    /// counts, and calls its handlers; it records nothing.
    ///
    /// A symbol that several objects have is refused, with their names; `memcpy` and its like, of which the C library
    /// has
    /// several, mean the one that the program uses.
    ///
    /// # Errors
    ///
    /// Why not. Nothing has changed then.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// let probe = process.register(Kprobe::symbol("libc.so.6:getcwd"))?;
    /// let _ = std::env::current_dir();
    /// assert_eq!(process.counts_of(&probe)?.hits, 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn register<'a>(&self, probe: impl Into<Spec<'a>>) -> core::result::Result<Registered, Error> {
        let mut all = self.register_all(vec![probe.into()]).map_err(|(_, error)| error)?;
        all.pop().ok_or(Error::Gone)
    }

    /// Registers all of `probes`, or none.
    ///
    /// # Errors
    ///
    /// Which of them is refused, and why. Nothing has changed then.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// let probes = vec![Kprobe::symbol("libc.so.6:getcwd").into(), Kprobe::symbol("libc.so.6:no_such").into()];
    /// let (index, _) = process.register_all(probes).unwrap_err();
    /// assert_eq!(index, 1);
    /// assert!(process.list()?.is_empty(), "all or none");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn register_all(&self, probes: Vec<Spec<'_>>) -> core::result::Result<Vec<Registered>, (usize, Error)> {
        self.control().map_err(|error| (0, error))?.register_all(&probes)
    }

    /// Takes a probe off; when this returns, no handler of it runs or can run. Gives what it has counted in all.
    ///
    /// # Errors
    ///
    /// Why not, with the probe, so that it can be tried again: in a handler, or when the text cannot be written. What
    /// has
    /// gone already ([`Error::Gone`]) needs no second try.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// let probe = process.register(Kprobe::symbol("libc.so.6:getcwd"))?;
    /// let _ = std::env::current_dir();
    /// let counts = process.unregister(probe).map_err(|(_, error)| error)?;
    /// assert_eq!(counts.hits, 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn unregister(&self, probe: Registered) -> core::result::Result<Counts, (Registered, Error)> {
        let unregistered = self.control().and_then(|mut c| c.unregister_all(core::slice::from_ref(&probe)));
        unregistered.map(|counts| counts.first().copied().unwrap_or_default()).map_err(|error| (probe, error))
    }

    /// Takes probes off, and waits for handlers once for all of them. Gives what each has counted.
    ///
    /// # Errors
    ///
    /// As [`unregister`](Self::unregister).
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// let probes = vec![Kprobe::symbol("libc.so.6:getcwd").into(), Kprobe::symbol("libc.so.6:getppid").into()];
    /// let probes = process.register_all(probes).map_err(|(_, error)| error)?;
    /// let _ = std::env::current_dir();
    /// let counts = process.unregister_all(probes).map_err(|(_, error)| error)?;
    /// assert_eq!((counts[0].hits, counts[1].hits), (1, 0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn unregister_all(
        &self,
        probes: Vec<Registered>,
    ) -> core::result::Result<Vec<Counts>, (Vec<Registered>, Error)> {
        let unregistered = self.control().and_then(|mut c| c.unregister_all(&probes));
        unregistered.map_err(|error| (probes, error))
    }

    /// Switches a probe on or off. Off, it costs nothing: where no other probe is, the text is as without any. What it
    /// has counted stays.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`], or when the text cannot be written.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// let probe = process.register(Kprobe::symbol("libc.so.6:getcwd"))?;
    /// process.enable(&probe, false)?;
    /// let _ = std::env::current_dir();
    /// assert_eq!(process.counts_of(&probe)?.hits, 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn enable(&self, probe: &Registered, on: bool) -> core::result::Result<(), Error> {
        self.control()?.enable(probe, on)
    }

    /// What a probe has counted.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// let probe = process.register(Kretprobe::<()>::symbol("libc.so.6:getcwd"))?;
    /// let _ = std::env::current_dir();
    /// assert_eq!(process.counts_of(&probe)?.returned, 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn counts_of(&self, probe: &Registered) -> core::result::Result<Counts, Error> {
        self.control()?.counts_of(probe)
    }

    /// How often a probe was reached and could not run (Linux: `nmissed`).
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// let probe = process.register(Kprobe::symbol("libc.so.6:getcwd"))?;
    /// let _ = std::env::current_dir();
    /// assert_eq!(process.nmissed(&probe)?, 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn nmissed(&self, probe: &Registered) -> core::result::Result<u64, Error> {
        self.counts_of(probe).map(|counts| counts.missed)
    }

    /// All probes, in the order in which they were registered (Linux: `/sys/kernel/debug/kprobes/list`).
    ///
    /// # Errors
    ///
    /// In a forked child, and in a handler.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("p:own libc.so.6:getcwd")?;
    /// let list = process.list()?;
    /// assert!(list[0].place.starts_with("libc.so.6:"), "{}", list[0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn list(&self) -> core::result::Result<Vec<Listed>, Error> {
        Ok(self.control()?.list())
    }

    /// What forbids probes on itself: the functions in sections `.kprobes.text` (Linux:
    /// `/sys/kernel/debug/kprobes/blacklist`).
    ///
    /// # Errors
    ///
    /// In a forked child, and in a handler.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// for forbidden in process.blacklist()? {
    ///     println!("{forbidden:?}");
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn blacklist(&self) -> core::result::Result<Vec<Forbidden>, Error> {
        self.control()?.blacklist()
    }

    /// What was recorded since the last call, in the order of time. A thread that was interrupted while it wrote a
    /// record holds back younger ones until the next call.
    ///
    /// # Errors
    ///
    /// In a forked child, and in a handler.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("r:own libc.so.6:getcwd path=+0($retval):string")?;
    /// let _ = std::env::current_dir();
    /// let records = process.take_records()?;
    /// assert_eq!((records.len(), records[0].event()), (1, "own"));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn take_records(&self) -> core::result::Result<Vec<Record>, Error> {
        Ok(self.control()?.take_records())
    }

    /// Registers a notifier: it is asked about every breakpoint that is no probe's, before the program's own action for
    /// `SIGTRAP` is taken (Linux: `register_die_notifier`). Those of higher priority are asked first, and of equals the
    /// one that was registered first. If none of them claims it, the program gets the trap unchanged.
    ///
    /// A notifier is a handler: probes that it hits are missed, and a fault in it ends it. It is not asked again then, and
    /// the next one is. Nobody is asked about a breakpoint in a handler, or in a forked child.
    ///
    /// # Errors
    ///
    /// [`Error::NotifiersFull`]; in a forked child, and in a handler.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// extern "C" fn pass(_: &mut Hit<'_>) -> Verdict {
    ///     Verdict::Pass
    /// }
    ///
    /// // SAFETY: it does nothing.
    /// let notified = process.notify(0, unsafe { Handler::new(pass as NotifierHandler) })?;
    /// assert!(process.is_asked(&notified)?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn notify(&self, priority: i32, handler: Handler<NotifierHandler>) -> core::result::Result<Notified, Error> {
        self.control()?.notify(priority, handler.get())
    }

    /// Takes a notifier out; when this returns, it does not run and cannot run.
    ///
    /// # Errors
    ///
    /// Why not, with the notifier, so that it can be tried again: in a forked child, and in a handler.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// extern "C" fn pass(_: &mut Hit<'_>) -> Verdict {
    ///     Verdict::Pass
    /// }
    ///
    /// // SAFETY: it does nothing.
    /// let notified = process.notify(0, unsafe { Handler::new(pass as NotifierHandler) })?;
    /// process.unnotify(notified).map_err(|(_, error)| error)?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn unnotify(&self, notified: Notified) -> core::result::Result<(), (Notified, Error)> {
        let unnotified = self.control().and_then(|mut control| control.unnotify(&notified));
        unnotified.map_err(|error| (notified, error))
    }

    /// Whether a notifier is asked still: it has not faulted.
    ///
    /// # Errors
    ///
    /// In a forked child, and in a handler.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// extern "C" fn pass(_: &mut Hit<'_>) -> Verdict {
    ///     Verdict::Pass
    /// }
    ///
    /// // SAFETY: it does nothing.
    /// let notified = process.notify(0, unsafe { Handler::new(pass as NotifierHandler) })?;
    /// assert!(process.is_asked(&notified)?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_asked(&self, notified: &Notified) -> core::result::Result<bool, Error> {
        self.control()?.is_asked(notified)
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

/// Ends a jprobe's mirror, at whatever depth it is called (Linux: `jprobe_return`). Comes back if no handler runs in
/// this thread.
///
/// # Safety
///
/// To be called from within a mirror, by the thread that runs it. What stands on its stack is not dropped.
///
/// ```
/// # use host_process::local::*;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// static WRONG: AtomicU64 = AtomicU64::new(0);
///
/// extern "C" fn mirror(descriptor: i32) {
///     if descriptor >= 0 {
///         // SAFETY: in a mirror, and nothing here waits to be dropped.
///         unsafe { jprobe_return() }
///     }
///     WRONG.fetch_add(1, Ordering::Relaxed);
/// }
///
/// # let process = Process::start()?;
/// // SAFETY: it compares and counts.
/// let mirror = unsafe { Handler::new(mirror as extern "C" fn(_)) };
/// let probe = process.register(Jprobe::symbol("libc.so.6:close", mirror))?;
/// drop(std::fs::File::open("/dev/null"));
/// // SAFETY: no descriptor has this number.
/// unsafe { libc::close(-1) };
/// assert_eq!((process.counts_of(&probe)?.hits, WRONG.load(Ordering::Relaxed)), (2, 1));
/// # Ok::<(), Error>(())
/// ```
pub unsafe fn jprobe_return() {
    let at = JPROBE_RETURN.load(Ordering::Relaxed);
    if at != 0 {
        // SAFETY: the agent's function of this name, which takes and gives nothing.
        let leave: unsafe extern "C" fn() = unsafe { core::mem::transmute(at as *const ()) };
        // SAFETY: the caller's promise.
        unsafe { leave() };
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
