//! Probes that are registered. In `init` and `exit`.

use crate::abi::{kprobes_counts, kprobes_enable, kprobes_register, kprobes_unregister};
use crate::{Error, Place, Spec};
use core::marker::PhantomData;
use kprobes::SpecKind;
use kprobes::raw::{Counts, Failure, NAME_BYTES, PROBES, Probe, Text, kind};

/// Registers a probe: a [`Kprobe`](crate::Kprobe), [`Jprobe`](crate::Jprobe) or [`Kretprobe`](crate::Kretprobe).
///
/// ```no_run
/// # fn init() -> Result<(), module::Error> {
/// let probe = module::register(module::Kprobe::symbol("libc.so.6:malloc"))?;
/// module::println!("{} hits so far", probe.counts()?.hits);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The host refuses it, and says why.
pub fn register<'a>(probe: impl Into<Spec<'a>>) -> Result<Registered, Error> {
    register_all([probe.into()]).map(|[registered]| registered)
}

/// Registers several probes, or none of them.
///
/// ```no_run
/// # fn init() -> Result<(), module::Error> {
/// use module::Kprobe;
/// let [first, second] = module::register_all([Kprobe::symbol("malloc").into(), Kprobe::symbol("free").into()])?;
/// # let _ = (first.keep(), second.keep());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The host refuses one of them, and says why.
pub fn register_all<'a, const N: usize>(probes: [Spec<'a>; N]) -> Result<[Registered; N], Error> {
    let mut batch = Batch::<N>::new();
    for probe in probes {
        batch.add(probe)?;
    }
    Ok(batch.register()?.ids.map(Registered))
}

/// Up to `N` probes that are going to be registered together.
///
/// ```
/// use module::{Batch, Error, Kprobe};
///
/// let mut batch = Batch::<2>::new();
/// assert!(batch.is_empty());
/// batch.add(Kprobe::symbol("libc.so.6:malloc"))?;
/// batch.add(Kprobe::symbol("libc.so.6:free"))?;
/// assert_eq!(batch.add(Kprobe::symbol("libc.so.6:calloc")), Err(Error::TooMany { limit: 2 }));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
#[must_use = "its probes do nothing until they are registered"]
pub struct Batch<'a, const N: usize> {
    probes: [Probe; N],
    used: usize,
    names: PhantomData<&'a str>,
}

/// No probe.
const NONE: Probe = Probe {
    address: 0,
    symbol: Text::new(""),
    offset: 0,
    kind: 0,
    maxactive: 0,
    before: 0,
    after: 0,
    fault: 0,
    user: 0,
    entry_bytes: 0,
    disabled: 0,
};

impl<'a, const N: usize> Batch<'a, N> {
    /// None yet.
    pub const fn new() -> Self {
        const { assert!(N <= PROBES, "more probes than one call registers") };
        Self { probes: [NONE; N], used: 0, names: PhantomData }
    }

    /// One more.
    ///
    /// # Errors
    /// There are `N` already, or its symbol's name is too long.
    pub fn add(&mut self, probe: impl Into<Spec<'a>>) -> Result<(), Error> {
        let place = self.probes.get_mut(self.used).ok_or(Error::TooMany { limit: N })?;
        *place = raw(&probe.into())?;
        self.used += 1;
        Ok(())
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Registers them, or none of them.
    ///
    /// # Errors
    /// The host refuses one of them, and says why.
    pub fn register(self) -> Result<Registrations<N>, Error> {
        let (mut ids, mut failure) = ([0; N], Failure::NONE);
        // SAFETY: `used` probes are there, with room for as many numbers; their names live as long as `'a`, and their
        // handlers were made by `Handler`'s promise.
        let said = unsafe { kprobes_register(self.probes.as_ptr(), self.used, ids.as_mut_ptr(), &raw mut failure) };
        if said == 0 { Ok(Registrations { ids, used: self.used }) } else { Err(Error::refused(&failure)) }
    }
}

impl<const N: usize> Default for Batch<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// A probe as the host reads it.
fn raw(spec: &Spec<'_>) -> Result<Probe, Error> {
    let (address, symbol, offset) = match spec.place {
        Place::Address(address) => (address, "", 0),
        Place::Symbol { name, offset } => (0, name, offset),
    };
    if symbol.len() > NAME_BYTES {
        return Err(Error::NameTooLong);
    }
    let (kind, maxactive) = match spec.kind() {
        SpecKind::Counter | SpecKind::Kprobe => (kind::KPROBE, 0),
        SpecKind::Jprobe => (kind::JPROBE, 0),
        SpecKind::Kretprobe { maxactive } => (kind::KRETPROBE, maxactive.unwrap_or(0)),
    };
    let handlers = &spec.handlers();
    let kind = if handlers.light { kind | kind::LIGHT } else { kind };
    Ok(Probe {
        address,
        symbol: Text { bytes: symbol.as_ptr(), length: symbol.len() },
        offset,
        kind,
        maxactive,
        before: handlers.before,
        after: handlers.after,
        fault: handlers.fault,
        user: handlers.user,
        entry_bytes: handlers.entry_bytes,
        disabled: spec.disabled.into(),
    })
}

/// A probe that is registered. It cannot be copied: it is unregistered once.
///
/// To drop it does not unregister the probe, which then works until the module goes: [`keep`](Self::keep) says that this
/// is meant.
///
/// ```no_run
/// # fn init() -> Result<(), module::Error> {
/// let probe = module::register(module::Kprobe::symbol("libc.so.6:malloc").disabled())?;
/// assert_eq!(probe.counts()?.hits, 0);
/// probe.enable()?;
/// # fn work() {}
/// work();
/// probe.disable()?;
/// module::println!("{} calls, and {} that could not be counted", probe.counts()?.hits, probe.nmissed()?);
/// probe.unregister()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, PartialEq, Eq)]
#[must_use = "without it the probe cannot be asked or unregistered"]
#[repr(transparent)]
pub struct Registered(u32);

impl Registered {
    /// What it has counted. Also in handlers.
    ///
    /// # Errors
    /// The host does not know it any more.
    pub fn counts(&self) -> Result<Counts, Error> {
        let mut counts = Counts::default();
        // SAFETY: there is room for what the host writes.
        let said = unsafe { kprobes_counts(self.0, &raw mut counts) };
        done(said).map(|()| counts)
    }

    /// How often it could not run (Linux: `nmissed`). Also in handlers.
    ///
    /// # Errors
    /// The host does not know it any more.
    pub fn nmissed(&self) -> Result<u64, Error> {
        self.counts().map(|counts| counts.missed)
    }

    /// Switches it on.
    ///
    /// # Errors
    /// The host does not know it any more, or cannot.
    pub fn enable(&self) -> Result<(), Error> {
        done(kprobes_enable(self.0, 1))
    }

    /// Switches it off: its handlers do not run until it is switched on again.
    ///
    /// # Errors
    /// The host does not know it any more, or cannot.
    pub fn disable(&self) -> Result<(), Error> {
        done(kprobes_enable(self.0, 0))
    }

    /// Takes it off. No handler of its runs any more when this returns.
    ///
    /// # Errors
    /// The host does not know it any more.
    pub fn unregister(self) -> Result<(), Error> {
        unregister(&[self.0])
    }

    /// Leaves it to the host, which takes it off when the module goes.
    pub fn keep(self) {}
}

/// Up to `N` probes that are registered, to be unregistered together.
///
/// ```no_run
/// # fn init() -> Result<(), module::Error> {
/// let mut batch = module::Batch::<8>::new();
/// for name in ["libc.so.6:malloc", "libc.so.6:free"] {
///     batch.add(module::Kprobe::symbol(name))?;
/// }
/// let probes = batch.register()?;
/// assert_eq!(probes.iter().count(), 2);
/// let hits: u64 = probes.iter().filter_map(|probe| probe.counts().ok()).map(|counts| counts.hits).sum();
/// module::println!("{hits} calls");
/// probes.unregister()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "without it the probes cannot be asked or unregistered"]
pub struct Registrations<const N: usize> {
    ids: [u32; N],
    used: usize,
}

impl<const N: usize> Registrations<N> {
    /// The probes, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.ids.iter().take(self.used).map(Registered::of)
    }

    /// How often the probes together were reached and could not run; one that the host does not know any more counts
    /// nothing.
    ///
    /// ```no_run
    /// # fn show<const N: usize>(probes: &module::Registrations<N>) {
    /// module::println!("{} calls missed", probes.nmissed());
    /// # }
    /// ```
    #[must_use]
    pub fn nmissed(&self) -> u64 {
        self.iter().filter_map(|probe| probe.nmissed().ok()).sum()
    }

    /// Takes them off, all in the time of one. No handler of theirs runs any more when this returns.
    ///
    /// # Errors
    /// The host does not know one of them any more.
    pub fn unregister(self) -> Result<(), Error> {
        unregister(self.ids.get(..self.used).unwrap_or_default())
    }

    /// Leaves them to the host, which takes them off when the module goes.
    pub fn keep(self) {}
}

impl Registered {
    fn of(id: &u32) -> &Self {
        // SAFETY: the same layout (`repr(transparent)`); a number behind a shared reference stays where it is.
        unsafe { &*core::ptr::from_ref(id).cast() }
    }
}

fn unregister(ids: &[u32]) -> Result<(), Error> {
    // SAFETY: the address and length of a slice.
    done(unsafe { kprobes_unregister(ids.as_ptr(), ids.len()) })
}

fn done(said: i32) -> Result<(), Error> {
    if said == 0 { Ok(()) } else { Err(Error::Gone) }
}
