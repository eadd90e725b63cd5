//! Images: bytes that, executed at a given address, have the effect of an instruction that is
//! somewhere else.

use core::fmt;

use super::{MAX_LEN, Refusal};

/// The most bytes that an image has.
const CAPACITY: usize = 64;
/// The most changes of meaning within an image.
const MARKS: usize = 6;

/// From `offset` on, the image stands for the original address `original`, and `stack` bytes were
/// pushed that the instruction at that address has not pushed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Mark {
    offset: u8,
    stack: u8,
    original: u64,
}

/// The code to write at the address that it was made for.
///
/// # Invariants
///
/// `len <= CAPACITY`, `count <= MARKS`, marks ascend by offset and the first has offset 0.
///
/// ```
/// use isa::x86::{Op, Privilege, Refusal, analyse};
///
/// // mov rax, rbx at 0x1000, to be executed at 0x2000
/// let image = analyse(&[0x48, 0x89, 0xD8], 0x1000, Privilege::User)?.image(0x2000)?;
/// assert_eq!((image.at(), image.len()), (0x2000, 8));
/// assert_eq!(image.as_slice()[..4], [0x48, 0x89, 0xD8, 0xE9]); // the copy, and a jump to 0x1003
/// assert_eq!((image.original(0), image.original(3)), (0x1000, 0x1003));
/// assert_eq!(image.marks().collect::<Vec<_>>(), [(0, 0x1000, 0), (3, 0x1003, 0)]);
///
/// // call rax at 0x1000: push the return address, jump. If the jump faults there was no push.
/// let call = Op::call_register(2, 0).image(0x1000, 2, 0x2000)?;
/// assert_eq!((call.original(0), call.pushed(0)), (0x1000, 0));
/// assert_eq!((call.original(6), call.pushed(6)), (0x1000, 8));
///
/// assert!(Op::nop(1).body(0x1000, 1, 0x2000)?.is_empty());
/// # Ok::<(), Refusal>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Image {
    at: u64,
    bytes: [u8; CAPACITY],
    len: u8,
    count: u8,
    marks: [Mark; MARKS],
}

impl Image {
    /// The most bytes that an image has.
    pub const CAPACITY: usize = CAPACITY;

    /// An empty image at `at` of the instruction at `original`.
    pub(super) fn new(at: u64, original: u64) -> Self {
        // INVARIANT: one mark, at offset 0.
        let mut image = Self { at, bytes: [0; CAPACITY], len: 0, count: 0, marks: [Mark::default(); MARKS] };
        image.stands_for(original, 0);
        image
    }

    /// The code.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no code: the body of `nop`.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address that it was made for.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// The original address for which a thread that is about to execute `offset` stands.
    ///
    /// While the instruction has not had its effect this is its own address, afterwards that of the
    /// instruction which follows in execution.
    #[must_use]
    pub fn original(&self, offset: usize) -> u64 {
        self.mark(offset).original
    }

    /// The bytes to add to the stack pointer of a thread that stops at `offset`, to have it as it
    /// was at [`Image::original`].
    ///
    /// Not zero only behind the first part of a call whose target is not known to be an address: if
    /// the second faults, the call has not happened.
    #[must_use]
    pub fn pushed(&self, offset: usize) -> u64 {
        u64::from(self.mark(offset).stack)
    }

    /// What the image stands for: from each offset on, the original address and the bytes that were pushed.
    pub fn marks(&self) -> impl Iterator<Item = (usize, u64, u64)> + '_ {
        let made = self.marks.get(..usize::from(self.count)).unwrap_or_default();
        made.iter().map(|mark| (usize::from(mark.offset), mark.original, u64::from(mark.stack)))
    }

    fn mark(&self, offset: usize) -> Mark {
        let made = self.marks.get(..usize::from(self.count)).unwrap_or_default();
        made.iter().rev().find(|mark| usize::from(mark.offset) <= offset).copied().unwrap_or_default()
    }

    /// The address of the byte that comes next.
    pub(super) fn here(&self) -> u64 {
        self.at.wrapping_add(u64::from(self.len))
    }

    /// Appends code. What does not fit is dropped: the longest sequence made here has 40 bytes.
    pub(super) fn code(&mut self, code: &[u8]) {
        for byte in code {
            if let Some(to) = self.bytes.get_mut(usize::from(self.len)) {
                *to = *byte;
                self.len += 1;
            }
        }
    }

    /// Replaces the byte at `offset`.
    pub(super) fn patch(&mut self, offset: usize, byte: u8) {
        if let Some(to) = self.bytes.get_mut(offset) {
            *to = byte;
        }
    }

    /// What follows stands for `original`.
    pub(super) fn stands_for(&mut self, original: u64, stack: u8) {
        let mark = Mark { offset: self.len, stack, original };
        if let Some(to) = self.marks.get_mut(usize::from(self.count)) {
            *to = mark;
            self.count += 1;
        }
    }

    /// `jmp target`, near if it reaches, else through an address that follows it.
    pub(super) fn jump(&mut self, target: u64) {
        if let Some(displacement) = displacement(self.here().wrapping_add(5), target) {
            self.code(&[0xE9]);
            self.code(&displacement.to_le_bytes());
        } else {
            self.code(&[0xFF, 0x25, 0, 0, 0, 0]);
            self.code(&target.to_le_bytes());
        }
    }

    /// A short jump over what `body` appends; `opcode` is a `jcc`, `jmp` or one of the loop family,
    /// behind `prefixes`.
    pub(super) fn skip(&mut self, prefixes: &[u8], opcode: u8, body: impl FnOnce(&mut Self)) {
        self.code(prefixes);
        self.code(&[opcode, 0]);
        let from = usize::from(self.len);
        body(self);
        let distance = usize::from(self.len) - from;
        self.patch(from - 1, distance as u8);
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marks = self.marks.get(..usize::from(self.count)).unwrap_or_default();
        write!(f, "Image {{ at: {:#x}, bytes: {:02x?}, marks: {marks:x?} }}", self.at, self.as_slice())
    }
}

/// The 32-bit displacement from the end of an instruction to `target`.
pub(super) fn displacement(end: u64, target: u64) -> Option<i32> {
    i32::try_from(target.wrapping_sub(end).cast_signed()).ok()
}

/// The same, for the instruction at `addr` whose copy is at `at`.
///
/// # Errors
///
/// It does not reach.
pub(super) fn reach(addr: u64, at: u64, end: u64, target: u64) -> Result<i32, Refusal> {
    displacement(end, target).ok_or(Refusal::Unreachable { addr, target, at })
}

const _: () = assert!(CAPACITY > 2 * MAX_LEN + 14, "an instruction, a repair and a far jump fit");
