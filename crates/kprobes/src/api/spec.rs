//! A probe as hosts take it, and what they give for it.

use super::Place;
use core::marker::PhantomData;

/// How many bytes of its caller's stack, above the return address, a jprobe's mirror sees.
pub const STACK_BYTES: usize = 512;

/// Any of the probes, ready to be registered: `probe.into()`.
#[derive(Debug)]
pub struct Spec<'a, R> {
    /// Where.
    pub place: Place<'a>,
    kind: SpecKind,
    handlers: HandlerData,
    /// It is registered switched off.
    pub disabled: bool,
    regs: PhantomData<fn(R)>,
}

/// Which of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecKind {
    /// A kprobe without handlers.
    Counter,
    /// A kprobe.
    Kprobe,
    /// A jprobe.
    Jprobe,
    /// A kretprobe.
    Kretprobe {
        /// How many calls are watched at once; `None`: the host's own number.
        maxactive: Option<u32>,
    },
}

impl<'a, R> Spec<'a, R> {
    pub(super) const fn typed(place: Place<'a>, kind: SpecKind, handlers: HandlerData, disabled: bool) -> Self {
        Self { place, kind, handlers, disabled, regs: PhantomData }
    }

    /// For hosts that read a probe from a module: its handlers are addresses.
    ///
    /// # Safety
    ///
    /// Each address is 0, or that of a function which is what the kind of probe says ([`Kprobe`](super::Kprobe),
    /// [`Jprobe`](super::Jprobe), [`Kretprobe`](super::Kretprobe) with data of `entry_bytes` bytes), keeps the rules of
    /// [`Handler::new`](super::Handler::new), and stays there until the probe is unregistered.
    #[expect(unsafe_code, reason = "nobody can check what is at an address")]
    #[must_use]
    pub const unsafe fn new(place: Place<'a>, kind: SpecKind, handlers: HandlerData, disabled: bool) -> Self {
        Self::typed(place, kind, handlers, disabled)
    }

    /// Which probe it is.
    ///
    /// ```
    /// use kprobes::{Kprobe, Spec, SpecKind};
    /// let spec: Spec<'_, u64> = Kprobe::address(0x1000).into();
    /// assert_eq!(spec.kind(), SpecKind::Counter);
    /// ```
    #[must_use]
    pub const fn kind(&self) -> SpecKind {
        self.kind
    }

    /// Its handlers.
    ///
    /// ```
    /// use kprobes::{HandlerData, Kprobe, Spec};
    /// let spec: Spec<'_, u64> = Kprobe::address(0x1000).into();
    /// assert_eq!(spec.handlers(), HandlerData::NONE);
    /// ```
    #[must_use]
    pub const fn handlers(&self) -> HandlerData {
        self.handlers
    }
}

/// What is stored of a probe's handlers ([`hit::Handlers`]): addresses in the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandlerData {
    /// The pre-handler, the entry handler, or a jprobe's function.
    pub before: u64,
    /// The post-handler, or that of a return.
    pub after: u64,
    /// The fault handler.
    pub fault: u64,
    /// What they are given.
    pub user: u64,
    /// Where the data of activations is: [`hit::Handlers::area`].
    pub area: u64,
    /// Bytes of the data of one activation.
    pub entry_bytes: u32,
    /// A module's number + 1, or 0.
    pub owner: u32,
    /// `before` is a jprobe's function.
    pub mirror: bool,
    /// They are light: [`Kprobe::light`](super::Kprobe::light).
    pub light: bool,
}

impl HandlerData {
    /// No handlers.
    pub const NONE: Self =
        Self { before: 0, after: 0, fault: 0, user: 0, area: 0, entry_bytes: 0, owner: 0, mirror: false, light: false };

    /// Words that an area for `maxactive` activations has: their claims, and their data.
    ///
    /// ```
    /// // Ten activations, with a claim and two words each.
    /// assert_eq!(kprobes::HandlerData::area_words(12, 10), 30);
    /// ```
    #[must_use]
    pub const fn area_words(entry_bytes: u32, maxactive: u32) -> usize {
        maxactive as usize * (1 + (entry_bytes as usize).div_ceil(8))
    }
}

/// A probe that is registered, owned by whoever has registered it. Only its host knows what to do with it.
///
/// To drop it does not unregister the probe: give it back to the host.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "without it the probe cannot be unregistered"]
pub struct Registered {
    id: u32,
    serial: u64,
}

impl Registered {
    /// For hosts: their number of the probe, and of this registration of it.
    pub const fn new(id: u32, serial: u64) -> Self {
        Self { id, serial }
    }

    /// The host's number of the probe. It is used again when the probe is gone.
    ///
    /// ```
    /// assert_eq!(kprobes::Registered::new(3, 1).id(), 3);
    /// ```
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Which registration under that number.
    ///
    /// ```
    /// assert_eq!(kprobes::Registered::new(3, 1).serial(), 1);
    /// ```
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }
}
