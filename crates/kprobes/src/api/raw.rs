//! The C interface between a probe module and its host.
//!
//! A module is a relocatable object that defines the symbol [`SYMBOL`], a [`Module`], and calls the functions below,
//! which its host exports. They are the same in every host. Module authors use the crate `module` instead.
//!
//! | Function | Where | What |
//! |---|---|---|
//! | `i32 kprobes_register(const Probe *, usize n, u32 *ids, Failure *)` | init | registers all or none; 0, or -1 |
//! | `i32 kprobes_unregister(const u32 *ids, usize n)` | init, exit | returns when no handler can see them |
//! | `i32 kprobes_enable(u32 id, u32 on)` | init, exit | |
//! | `i32 kprobes_counts(u32 id, Counts *)` | anywhere | 0, or -1 |
//! | `u64 kprobes_symbol(const u8 *, usize)` | init, exit | `[OBJECT:]SYMBOL`; its address, or 0 |
//! | `void kprobes_print(const u8 *, usize)` | anywhere | to the tool, or the console |
//! | `i32 kprobes_read(u64 address, u8 *out, usize)` | anywhere | 0, or -1 if not all can be read |
//! | `isize kprobes_read_string(u64 address, u8 *out, usize)` | anywhere | its length without NUL, or -1 |
//! | `u64 kprobes_thread(void)`, `kprobes_process(void)`, `u32 kprobes_processor(void)` | anywhere | |
//! | `u64 kprobes_now(void)` | anywhere | nanoseconds since some beginning |
//! | `void kprobes_comm(u8 out[16])` | anywhere | the thread's name, padded with zeros |
//! | `void kprobes_jprobe_return(void)` | in a jprobe's mirror | does not return |
//!
//! Besides, hosts export `memcpy`, `memmove`, `memset`, `memcmp` and `bcmp`.

pub use super::STACK_BYTES;

use core::ffi::c_void;

/// The symbol that a module defines.
pub const SYMBOL: &str = "kprobes_module";
/// The first word of a [`Module`].
pub const MAGIC: u64 = u64::from_le_bytes(*b"kpmodule");
/// Changes with anything in this file.
pub const ABI: u32 = 1;
/// The most probes that one call registers.
pub const PROBES: usize = 4096;
/// The longest name of a module or symbol, in bytes.
pub const NAME_BYTES: usize = 512;

/// What every host exports to modules, by name.
pub const EXPORTS: [&str; 19] = [
    "kprobes_register",
    "kprobes_unregister",
    "kprobes_enable",
    "kprobes_counts",
    "kprobes_symbol",
    "kprobes_print",
    "kprobes_read",
    "kprobes_read_string",
    "kprobes_thread",
    "kprobes_process",
    "kprobes_processor",
    "kprobes_now",
    "kprobes_comm",
    "kprobes_jprobe_return",
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "bcmp",
];

/// A text: address and length in bytes. UTF-8.
///
/// ```
/// let text = kprobes::raw::Text::new("limit");
/// assert_eq!(text.length, 5);
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The first byte.
    pub bytes: *const u8,
    /// How many.
    pub length: usize,
}

impl Text {
    /// A text that lives as long as the module.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        Self { bytes: text.as_ptr(), length: text.len() }
    }
}

/// What a module says of itself.
#[repr(C)]
#[derive(Debug)]
pub struct Module {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`ABI`].
    pub abi: u32,
    /// Bytes of the register file that handlers get.
    pub regs_bytes: u32,
    /// Its name.
    pub name: Text,
    /// What it is for.
    pub description: Text,
    /// Its parameters.
    pub parameters: *const Parameter,
    /// How many.
    pub parameter_count: usize,
    /// Plants probes. Not 0: it could not, and has printed why.
    pub init: extern "C" fn() -> i32,
    /// Ends. Probes that it leaves are taken off after it.
    pub exit: extern "C" fn(),
}

/// A parameter: `NAME=VALUE`, set before `init`.
#[repr(C)]
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: Text,
    /// What it is for.
    pub description: Text,
    /// One of [`parameter`]'s kinds.
    pub kind: u32,
    /// Bytes that `value` has room for.
    pub capacity: u32,
    /// Where the value goes. A number: 8 bytes. A flag: one byte. A text: a word with its length, then its bytes.
    pub value: *mut c_void,
}

/// Kinds of [`Parameter`]s.
pub mod parameter {
    /// A number from 0 to 2⁶⁴ − 1, decimal or `0x`.
    pub const UNSIGNED: u32 = 1;
    /// A number with a sign.
    pub const SIGNED: u32 = 2;
    /// `y`, `1`, `true`, or `n`, `0`, `false`.
    pub const FLAG: u32 = 3;
    /// A text.
    pub const TEXT: u32 = 4;
}

#[expect(unsafe_code, reason = "what statics of these types point at does not change after the module was loaded")]
mod shared {
    // SAFETY: its pointers are followed by the host alone, which reads what the module's statics say.
    unsafe impl Sync for super::Module {}
    // SAFETY: as above; the host writes the value before any code of the module runs.
    unsafe impl Sync for super::Parameter {}
}

/// A probe to register.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its address; 0: by symbol. Both, or neither, is refused.
    pub address: u64,
    /// `[OBJECT:]SYMBOL`; of length 0: by address.
    pub symbol: Text,
    /// Bytes behind the symbol.
    pub offset: u64,
    /// One of [`kind`]'s, and [`kind::LIGHT`].
    pub kind: u32,
    /// Return probes: how many calls are watched at once; 0: the host's own number.
    pub maxactive: u32,
    /// The pre-handler, the entry handler, or the mirror; 0: none.
    pub before: u64,
    /// The post-handler, or that of the return.
    pub after: u64,
    /// The fault handler.
    pub fault: u64,
    /// Handed to the handlers.
    pub user: u64,
    /// Bytes of data of one activation.
    pub entry_bytes: u32,
    /// Not 0: registered switched off.
    pub disabled: u32,
}

/// Kinds of [`Probe`]s.
pub mod kind {
    /// A kprobe.
    pub const KPROBE: u32 = 1;
    /// A jprobe.
    pub const JPROBE: u32 = 2;
    /// A kretprobe.
    pub const KRETPROBE: u32 = 3;
    /// Beside one of them: the handlers keep the promise of [`Kprobe::light`](crate::Kprobe::light).
    pub const LIGHT: u32 = 1 << 8;
}

/// What a probe has counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that it ran.
    pub hits: u64,
    /// Times that it could not (Linux: `nmissed`).
    pub missed: u64,
    /// Calls that have returned.
    pub returns: u64,
    /// Calls that ended without.
    pub unwound: u64,
    /// Calls that the entry handler did not want watched.
    pub declined: u64,
    /// Times that a handler has faulted.
    pub faults: u64,
}

/// Why probes were not registered.
///
/// ```
/// use kprobes::raw::Failure;
///
/// let mut failure = Failure::NONE;
/// failure.set(2, "0x1001 is no instruction boundary");
/// assert_eq!((failure.index, failure.reason()), (2, "0x1001 is no instruction boundary"));
///
/// // What is no text is left out; it comes from another program.
/// failure.text[9] = 0xff;
/// assert_eq!(failure.reason(), "0x1001 is");
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// Which of them was refused.
    pub index: u32,
    /// How many bytes of `text` there are.
    pub length: u32,
    /// The reason.
    pub text: [u8; 496],
}

impl Failure {
    /// None yet.
    pub const NONE: Self = Self { index: 0, length: 0, text: [0; 496] };

    /// The reason, as far as it is text.
    #[must_use]
    pub fn reason(&self) -> &str {
        let text = self.text.get(..self.length as usize).unwrap_or_default();
        match core::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => {
                text.get(..error.valid_up_to()).and_then(|t| core::str::from_utf8(t).ok()).unwrap_or_default()
            }
        }
    }

    /// Says why; what does not fit is cut.
    pub fn set(&mut self, index: u32, reason: &str) {
        let length = reason.len().min(self.text.len());
        self.index = index;
        self.length = length as u32;
        self.text.iter_mut().zip(reason.bytes().take(length)).for_each(|(to, byte)| *to = byte);
    }
}
