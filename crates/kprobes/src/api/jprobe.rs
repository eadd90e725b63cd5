//! Probes that mirror a function.

use super::spec::{HandlerData, Spec, SpecKind};
use super::{Handler, Place};

/// A jprobe: a function with the prototype of the probed one, called at its entry with the arguments that it was called
/// with, wherever they are: in general and vector registers, and on the stack.
///
/// The mirror works on copies. It may change its arguments, return what it likes, or leave at any depth by the host's
/// `jprobe_return`; the probed function then runs as if nothing had been. Of arguments on the stack the first
/// [`raw::STACK_BYTES`](super::raw::STACK_BYTES) bytes are there, as far as memory is.
///
/// Linux's jprobes (until 4.15) let the mirror run in place of the function, and put registers and stack back
/// afterwards (`setjmp_pre_handler`, `longjmp_break_handler`).
///
/// ```
/// use core::ffi::c_char;
/// use kprobes::{Handler, Jprobe};
///
/// extern "C" fn openat(_folder: i32, _path: *const c_char, _flags: i32) {}
/// // SAFETY: it does nothing.
/// let mirror = unsafe { Handler::new(openat as extern "C" fn(_, _, _)) };
/// let probe = Jprobe::symbol("libc.so.6:openat", mirror);
/// # let _ = probe;
/// ```
#[derive(Debug)]
#[must_use = "a probe does nothing until a host registers it"]
pub struct Jprobe<'a> {
    place: Place<'a>,
    handlers: HandlerData,
    disabled: bool,
}

impl<'a> Jprobe<'a> {
    /// A jprobe on the function at a place.
    ///
    /// The mirror's parameters must be those of the function: nobody can check that.
    ///
    /// ```
    /// # use kprobes::{Handler, Jprobe, Place};
    /// # extern "C" fn mirror(_: u64) {}
    /// // SAFETY: it does nothing.
    /// let mirror = unsafe { Handler::new(mirror as extern "C" fn(_)) };
    /// let probe = Jprobe::new(Place::Address(0x1000), mirror);
    /// # let _ = probe;
    /// ```
    pub fn new<F: Mirror>(place: Place<'a>, mirror: Handler<F>) -> Self {
        let handlers = HandlerData { before: mirror.get().entry(), mirror: true, ..HandlerData::NONE };
        Self { place, handlers, disabled: false }
    }

    /// A jprobe on the function that begins at an address.
    ///
    /// ```
    /// # use kprobes::{Handler, Jprobe};
    /// # extern "C" fn mirror(_: u64) {}
    /// // SAFETY: it does nothing.
    /// let probe = Jprobe::address(0x1000, unsafe { Handler::new(mirror as extern "C" fn(_)) });
    /// # let _ = probe;
    /// ```
    pub fn address<F: Mirror>(address: u64, mirror: Handler<F>) -> Self {
        Self::new(Place::Address(address), mirror)
    }

    /// A jprobe on a function.
    ///
    /// ```
    /// # use kprobes::{Handler, Jprobe};
    /// # extern "C" fn mirror(_: u64) {}
    /// // SAFETY: it does nothing.
    /// let probe = Jprobe::symbol("sys_open", unsafe { Handler::new(mirror as extern "C" fn(_)) });
    /// # let _ = probe;
    /// ```
    pub fn symbol<F: Mirror>(name: &'a str, mirror: Handler<F>) -> Self {
        Self::new(Place::Symbol { name, offset: 0 }, mirror)
    }

    /// It is registered switched off.
    ///
    /// ```
    /// # use kprobes::{Handler, Jprobe};
    /// # extern "C" fn mirror(_: u64) {}
    /// // SAFETY: it does nothing.
    /// let probe = Jprobe::symbol("sys_open", unsafe { Handler::new(mirror as extern "C" fn(_)) }).disabled();
    /// # let _ = probe;
    /// ```
    pub const fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }
}

impl<'a, R> From<Jprobe<'a>> for Spec<'a, R> {
    fn from(probe: Jprobe<'a>) -> Self {
        Self::typed(probe.place, SpecKind::Jprobe, probe.handlers, probe.disabled)
    }
}

/// C functions of up to twelve parameters: what can mirror a function.
pub trait Mirror: Copy + sealed::Sealed {
    #[doc(hidden)]
    fn entry(self) -> u64;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! mirror {
    ($($p:ident)*) => {
        mirror!(@ extern "C" fn($($p),*) -> T; $($p)*);
        mirror!(@ unsafe extern "C" fn($($p),*) -> T; $($p)*);
    };
    (@ $f:ty; $($p:ident)*) => {
        impl<T, $($p),*> sealed::Sealed for $f {}
        impl<T, $($p),*> Mirror for $f {
            fn entry(self) -> u64 {
                self as usize as u64
            }
        }
    };
}

mirror!();
mirror!(A);
mirror!(A B);
mirror!(A B C);
mirror!(A B C D);
mirror!(A B C D E);
mirror!(A B C D E F);
mirror!(A B C D E F G);
mirror!(A B C D E F G H);
mirror!(A B C D E F G H I);
mirror!(A B C D E F G H I J);
mirror!(A B C D E F G H I J K);
mirror!(A B C D E F G H I J K L);
