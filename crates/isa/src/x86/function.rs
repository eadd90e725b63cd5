//! Where the instructions of a function begin.
//!
//! x86 has no alignment: only decoding from a known start tells an instruction from the inside of
//! one. A function is decoded linearly, which compilers' output allows: they keep jump tables and
//! constants out of the text. Where it does not, decoding meets bytes that are no instruction and
//! everything behind is unknown.

use alloc::vec::Vec;

use iced_x86::{Decoder, DecoderOptions, Instruction};

/// What an address in a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// An instruction begins here.
    Start,
    /// This is inside the instruction that begins at the address.
    Inside(u64),
    /// Decoding was lost at the address, before this.
    Lost(u64),
    /// This is not in the function.
    Outside,
}

/// The instruction boundaries of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    start: u64,
    len: u64,
    /// Offsets of the instructions, ascending.
    starts: Vec<u64>,
    /// The offset at which the last instruction ends.
    decoded: u64,
}

impl Sweep {
    /// What `addr` is.
    #[must_use]
    pub fn at(&self, addr: u64) -> Boundary {
        let offset = addr.wrapping_sub(self.start);
        if offset >= self.len {
            return Boundary::Outside;
        }
        if offset >= self.decoded {
            return Boundary::Lost(self.start.wrapping_add(self.decoded));
        }
        match self.starts.binary_search(&offset) {
            Ok(_) => Boundary::Start,
            Err(after) => {
                let before = after.checked_sub(1).and_then(|i| self.starts.get(i)).copied().unwrap_or_default();
                Boundary::Inside(self.start.wrapping_add(before))
            }
        }
    }

    /// The addresses of all instructions, ascending.
    pub fn starts(&self) -> impl Iterator<Item = u64> + '_ {
        self.starts.iter().map(|offset| self.start.wrapping_add(*offset))
    }

    /// Where decoding met bytes that are no instruction.
    #[must_use]
    pub const fn lost(&self) -> Option<u64> {
        if self.decoded < self.len { Some(self.start.wrapping_add(self.decoded)) } else { None }
    }
}

/// Decodes the function whose `code` begins at `start`.
///
/// ```
/// use isa::x86::{Boundary, boundaries};
///
/// let code = [0x55, 0x48, 0x89, 0xE5, 0x06, 0xC3]; // push rbp; mov rbp, rsp; (no instruction); ret
/// let sweep = boundaries(&code, 0x1000);
/// assert_eq!(sweep.starts().collect::<Vec<_>>(), [0x1000, 0x1001]);
/// assert_eq!(sweep.lost(), Some(0x1004));
/// assert_eq!(sweep.at(0x1001), Boundary::Start);
/// assert_eq!(sweep.at(0x1003), Boundary::Inside(0x1001));
/// assert_eq!(sweep.at(0x1005), Boundary::Lost(0x1004));
/// assert_eq!(sweep.at(0x1006), Boundary::Outside);
/// ```
#[must_use]
pub fn boundaries(code: &[u8], start: u64) -> Sweep {
    let mut decoded = 0;
    let starts = instructions(code, start)
        .map(|instruction| {
            decoded = instruction.next_ip().wrapping_sub(start);
            instruction.ip().wrapping_sub(start)
        })
        .collect();
    Sweep { start, len: code.len() as u64, starts, decoded }
}

/// The instructions of `code`, up to the first bytes that are none.
pub(super) fn instructions(code: &[u8], start: u64) -> impl Iterator<Item = Instruction> + '_ {
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    core::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
        .take_while(|instruction| !instruction.is_invalid())
}
