//! Functions of the kernel that modules may call: names and addresses.
//!
//! Who has such a function says so beside it, by [`export!`](crate::export); the linker puts the entries together. The
//! name is the one that a module's undefined symbol has: that of a C function.

use core::fmt;

/// One of them.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Export {
    /// As modules call it.
    pub(crate) name: &'static str,
    function: *const (),
}

// SAFETY: the address of a function, which is never written through.
unsafe impl Sync for Export {}

impl Export {
    /// What [`export!`](crate::export) makes.
    pub(crate) const fn new(name: &'static str, function: *const ()) -> Self {
        Self { name, function }
    }

    /// Where the function is.
    pub(crate) fn address(&self) -> u64 {
        self.function as u64
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.name, self.address())
    }
}

/// Lets modules call functions: `export!(memcpy, memmove)`.
#[macro_export]
macro_rules! export {
    ($($function:ident),+ $(,)?) => {
        $(const _: () = {
            #[used]
            #[unsafe(link_section = "kernel_exports")]
            static EXPORT: $crate::exports::Export =
                $crate::exports::Export::new(stringify!($function), $function as *const ());
        };)+
    };
}

unsafe extern "C" {
    static __start_kernel_exports: [u64; 0];
    static __stop_kernel_exports: [u64; 0];

    // What compilers call on their own account: `compiler_builtins` has them.
    fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8;
    fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8;
    fn memset(to: *mut u8, value: i32, bytes: usize) -> *mut u8;
    fn memcmp(left: *const u8, right: *const u8, bytes: usize) -> i32;
    fn bcmp(left: *const u8, right: *const u8, bytes: usize) -> i32;
}

export!(memcpy, memmove, memset, memcmp, bcmp);

/// All of them, in no particular order.
pub(crate) fn all() -> &'static [Export] {
    let (start, stop) = (&raw const __start_kernel_exports, &raw const __stop_kernel_exports);
    let count = (stop as usize - start as usize) / size_of::<Export>();
    // SAFETY: `link.ld` puts nothing but the entries of `export!` between the two symbols, and they are aligned and of
    // one size, so without gaps.
    unsafe { core::slice::from_raw_parts(start.cast(), count) }
}

/// The function of a name.
pub(crate) fn find(name: &str) -> Option<u64> {
    all().iter().find(|export| export.name == name).map(Export::address)
}
