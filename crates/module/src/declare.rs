//! The declaration of a module.

use core::fmt::Display;
use core::panic::PanicInfo;
use kprobes::raw::Text;

/// Declares the module: what its host finds in it, its parameters, and what is done when Rust code in it panics.
///
/// Once in a module, with the keys in this order; `description`, `parameters` and `exit` may be left out.
///
/// * `name`: what the host lists it under.
/// * `parameters`: `NAME: TYPE = DEFAULT`, where the type is `str`, `u64`, `i64` or `bool`. Each becomes a static of type
///   [`Parameter`](crate::Parameter), read by `NAME.get()`, and is set by its name in small letters: `name=value`. Its
///   documentation comment is what the host shows of it.
/// * `init`: a function without parameters that returns `Result<(), E>`, where `E` can be displayed. An error is printed,
///   and the module is not loaded.
/// * `exit`: a function without parameters or result.
///
/// With `#![no_panic_handler]` before everything, panics are left to the standard library, or another handler.
///
/// ```no_run
/// use module::Error;
///
/// module::module! {
/// #   #![no_panic_handler]
///     name: "nothing",
///     description: "Does nothing",
///     parameters: [
///         /// How often.
///         TIMES: u64 = 10,
///         VERBOSE: bool = false,
///     ],
///     init: init,
/// }
///
/// fn init() -> Result<(), Error> {
///     module::println!("{} times nothing", TIMES.get());
///     Ok(())
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! module {
    (#![no_panic_handler] $($declaration:tt)*) => {
        $crate::__declare! { $($declaration)* }
    };
    (name: $name:expr, $($declaration:tt)*) => {
        $crate::__declare! { name: $name, $($declaration)* }

        // A test has the standard library's.
        #[cfg(not(test))]
        #[panic_handler]
        fn __kprobes_panic(info: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::panicked($name, info)
        }
    };
}

/// All but the handler of panics.
#[doc(hidden)]
#[macro_export]
macro_rules! __declare {
    (
        name: $name:expr,
        $(description: $description:expr,)?
        $(parameters: [
            $($(#[doc = $doc:expr])* $parameter:ident: $kind:ty = $default:expr),* $(,)?
        ],)?
        init: $init:path
        $(, exit: $exit:path)?
        $(,)?
    ) => {
        $($(
            $(#[doc = $doc])*
            static $parameter: $crate::Parameter<$kind> = $crate::Parameter::<$kind>::new($default);
        )*)?

        const _: () = {
            static PARAMETERS: &[$crate::raw::Parameter] = &[$($({
                const NAME: &str = ::core::stringify!($parameter);
                static LOWER: [u8; NAME.len()] = $crate::lowercase(NAME);
                $parameter.declare($crate::text(&LOWER), ::core::concat!("", $($doc),*).trim_ascii_start())
            }),*)?];

            #[unsafe(export_name = "kprobes_module")]
            static MODULE: $crate::raw::Module = $crate::raw::Module {
                magic: $crate::raw::MAGIC,
                abi: $crate::raw::ABI,
                regs_bytes: ::core::mem::size_of::<$crate::Regs>() as u32,
                name: $crate::raw::Text::new($name),
                description: $crate::raw::Text::new(::core::concat!("", $($description)?)),
                parameters: PARAMETERS.as_ptr(),
                parameter_count: PARAMETERS.len(),
                init: __kprobes_init,
                exit: __kprobes_exit,
            };

            extern "C" fn __kprobes_init() -> i32 {
                $crate::start($name, $init)
            }

            extern "C" fn __kprobes_exit() {
                $($exit();)?
            }
        };
    };
}

/// Runs a module's `init`.
#[doc(hidden)]
pub fn start<E: Display>(name: &str, init: fn() -> Result<(), E>) -> i32 {
    match init() {
        Ok(()) => 0,
        Err(error) => {
            crate::println!("{name}: {error}");
            -1
        }
    }
}

/// Says so, and faults, which the host knows how to end.
#[doc(hidden)]
pub fn panicked(name: &str, info: &PanicInfo<'_>) -> ! {
    crate::println!("{name}: {info}");
    // SAFETY: it raises an exception for an undefined instruction and never comes back (SDM volume 2, UD).
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

/// A parameter's name as users write it.
#[doc(hidden)]
#[must_use]
pub const fn lowercase<const N: usize>(name: &str) -> [u8; N] {
    let mut lower = [0; N];
    let mut index = 0;
    while index < N {
        lower[index] = name.as_bytes()[index].to_ascii_lowercase();
        index += 1;
    }
    lower
}

/// A name as the host reads it.
#[doc(hidden)]
#[must_use]
pub const fn text(name: &'static [u8]) -> Text {
    match core::str::from_utf8(name) {
        Ok(name) => Text::new(name),
        Err(_) => panic!("a name in small letters is text as the name is"),
    }
}
