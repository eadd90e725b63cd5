//! Parameters: values that the host sets before the module runs.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use kprobes::raw::{self, parameter as kinds};

/// The most bytes of a text parameter.
pub const TEXT_BYTES: usize = 248;

/// A parameter of type `str`, `u64`, `i64` or `bool`, declared by [`module!`](crate::module).
///
/// ```
/// module::module! {
/// #   #![no_panic_handler]
///     name: "sample",
///     parameters: [
///         SYMBOLS: str = "malloc, calloc",
///         LIMIT: u64 = 10,
///         VERBOSE: bool = false,
///     ],
///     init: init,
/// }
///
/// fn init() -> Result<(), module::Error> {
///     // Without arguments, what is declared.
///     assert_eq!((LIMIT.get(), VERBOSE.get()), (10, false));
///     assert!(SYMBOLS.list().eq(["malloc", "calloc"]));
///     Ok(())
/// }
/// # #[unsafe(no_mangle)]
/// # extern "C" fn kprobes_print(_: *const u8, _: usize) {}
/// # fn main() { init().unwrap() }
/// ```
///
/// # Invariants
///
/// After the host has begun to run the module's code nobody writes the value.
pub struct Parameter<T: Kind + ?Sized>(UnsafeCell<T::Stored>);

// SAFETY: by the invariant all threads only read it.
unsafe impl<T: Kind + ?Sized> Sync for Parameter<T> {}

/// The types that parameters have.
pub trait Kind: Sealed {}

mod sealed {
    pub trait Sealed {
        /// What the host writes.
        type Stored: Copy;
        /// The number of the type in the declaration.
        const KIND: u32;
    }
}

use sealed::Sealed;

/// A text as the host writes it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Stored {
    length: u64,
    bytes: [u8; TEXT_BYTES],
}

impl<T: Kind + ?Sized> Parameter<T> {
    /// What the host is told: the capacity is that of all that the value's address points at.
    #[doc(hidden)]
    pub const fn declare(&'static self, name: raw::Text, description: &'static str) -> raw::Parameter {
        raw::Parameter {
            name,
            description: raw::Text::new(description),
            kind: T::KIND,
            capacity: size_of::<T::Stored>() as u32,
            value: self.0.get().cast::<c_void>(),
        }
    }

    const fn stored(&self) -> &T::Stored {
        // SAFETY: by the invariant nobody writes it any more.
        unsafe { &*self.0.get() }
    }
}

macro_rules! parameters {
    ($($t:ty: $stored:ty = $kind:expr, $read:expr;)*) => {$(
        impl Kind for $t {}

        impl Sealed for $t {
            type Stored = $stored;
            const KIND: u32 = $kind;
        }

        impl Parameter<$t> {
            #[doc(hidden)]
            #[must_use]
            pub const fn new(default: $t) -> Self {
                Self(UnsafeCell::new(default as $stored))
            }

            /// Its value.
            #[must_use]
            pub fn get(&self) -> $t {
                let read: fn($stored) -> $t = $read;
                read(*self.stored())
            }
        }

        impl fmt::Debug for Parameter<$t> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.get(), f)
            }
        }
    )*};
}

parameters! {
    u64: u64 = kinds::UNSIGNED, |value| value;
    i64: i64 = kinds::SIGNED, |value| value;
    bool: u8 = kinds::FLAG, |value| value != 0;
}

impl Kind for str {}

impl Sealed for str {
    type Stored = Stored;
    const KIND: u32 = kinds::TEXT;
}

impl Parameter<str> {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(default: &'static str) -> Self {
        assert!(default.len() <= TEXT_BYTES, "the default is too long for a parameter");
        let (mut bytes, mut index) = ([0; TEXT_BYTES], 0);
        while index < default.len() {
            bytes[index] = default.as_bytes()[index];
            index += 1;
        }
        Self(UnsafeCell::new(Stored { length: default.len() as u64, bytes }))
    }

    /// Its value; empty if the host has written what is no text.
    #[must_use]
    pub fn get(&self) -> &str {
        let stored = self.stored();
        let bytes = usize::try_from(stored.length).ok().and_then(|length| stored.bytes.get(..length));
        bytes.and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// The words of a list, which is separated by commas.
    pub fn list(&self) -> impl Iterator<Item = &str> {
        self.get().split(',').map(str::trim).filter(|word| !word.is_empty())
    }
}

impl fmt::Debug for Parameter<str> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.get(), f)
    }
}
