//! Why a module is not inserted, or not removed.

use alloc::string::String;
use core::fmt;

use kprobes::raw;

use crate::fs::Errno;
use crate::ksyms::modules::AddError;
use crate::mm;

/// A refusal.
#[derive(Debug)]
pub(crate) enum Error {
    /// The file cannot be read.
    NoFile(String, Errno),
    /// It cannot be loaded.
    File(loader::Error),
    /// There is no memory for it.
    Memory(mm::modules::Error),
    /// Its symbols cannot be added.
    Symbols(AddError),
    /// It does not say what it is.
    NoDescriptor,
    /// What it says of itself makes no sense: what.
    Descriptor(&'static str),
    /// It was made for another version of the interface.
    Abi(u32),
    /// Its handlers expect another register file, of so many bytes.
    Registers(u32),
    /// A parameter that was given, or one that it has: what is wrong.
    Parameter(String),
    /// There is a module of this name.
    Twice(String),
    /// There is none.
    NotThere(String),
    /// There are too many.
    Full,
    /// Its `init` has said so.
    Init(String, i32),
    /// Its probes cannot be taken off: why. It stays.
    Stuck(String, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile(path, errno) => write!(f, "{path}: {errno}"),
            Self::File(error) => write!(f, "{error}"),
            Self::Memory(error) => write!(f, "{error}"),
            Self::Symbols(error) => write!(f, "{error}"),
            Self::NoDescriptor => write!(f, "it is no probe module: it does not define {}", raw::SYMBOL),
            Self::Descriptor(what) => write!(f, "corrupt: {} {what}", raw::SYMBOL),
            Self::Abi(abi) => {
                write!(
                    f,
                    "it was built for version {abi} of the interface, this kernel has {}: build it again",
                    raw::ABI
                )
            }
            Self::Registers(bytes) => {
                let ours = size_of::<host_bare::Regs>();
                write!(f, "its handlers expect registers of {bytes} bytes, this kernel's have {ours}")
            }
            Self::Parameter(what) => write!(f, "{what}"),
            Self::Twice(name) => write!(f, "{name} is inserted already"),
            Self::NotThere(name) => write!(f, "there is no module {name}: lsmod lists them"),
            Self::Full => write!(f, "there are {} modules, and there is no room for more", host_bare::OWNERS),
            Self::Init(name, code) => write!(f, "{name} does not want to start: its init has returned {code}"),
            Self::Stuck(name, why) => write!(f, "{name} stays, switched off: {why}"),
        }
    }
}

impl From<loader::Error> for Error {
    fn from(error: loader::Error) -> Self {
        Self::File(error)
    }
}

impl From<mm::modules::Error> for Error {
    fn from(error: mm::modules::Error) -> Self {
        Self::Memory(error)
    }
}

impl From<AddError> for Error {
    fn from(error: AddError) -> Self {
        Self::Symbols(error)
    }
}
