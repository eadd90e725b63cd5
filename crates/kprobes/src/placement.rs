//! How a probe sits at its address.

use alloc::string::String;
use core::fmt;
use hit::Site;

/// How the displaced instruction takes its effect, and why not by something faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// A jump to a detour, which runs the probes and a copy of the displaced instructions. No trap.
    Jump,
    /// A breakpoint; the handler executes the instruction's effect itself.
    Emulated,
    /// A breakpoint; the instruction runs in a copy that jumps back.
    Boosted,
    /// A breakpoint, and another one behind a copy of the instruction.
    SecondBreakpoint,
    /// A breakpoint, and a copy of the instruction that the processor runs step by step.
    SingleStepped,
    /// As above, at each instruction that leaves the function: how many, and why the return address is not replaced.
    ReturnSites(usize, String),
    /// As at the entry; the return address is replaced by a stub.
    ReturnStub,
    /// The same, entered by a jump.
    JumpReturnStub,
}

impl Placement {
    /// What a site's [`how`](hit::Site::how) means.
    pub(crate) fn of(how: u32) -> Self {
        match how {
            _ if how & Site::WHEN_WATCHED != 0 => Self::Boosted,
            _ if how & Site::EMULATE != 0 => Self::Emulated,
            _ if how & Site::SECOND_BREAKPOINT != 0 => Self::SecondBreakpoint,
            _ if how & Site::SINGLE_STEP != 0 => Self::SingleStepped,
            _ => Self::Boosted,
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jump => f.write_str("jump"),
            Self::Emulated => f.write_str("breakpoint, emulated"),
            Self::Boosted => f.write_str("breakpoint, boosted"),
            Self::SecondBreakpoint => f.write_str("breakpoint, second breakpoint"),
            Self::SingleStepped => f.write_str("breakpoint, single step"),
            Self::JumpReturnStub => f.write_str("jump at the entry, return stub"),
            Self::ReturnStub => f.write_str("breakpoint at the entry, return stub"),
            Self::ReturnSites(n, why) => {
                write!(f, "breakpoint at {n} return site{}: {why}", if *n == 1 { "" } else { "s" })
            }
        }
    }
}
