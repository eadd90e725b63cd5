//! Reading text ahead: who asks for one instruction after the other gets them by one system call for many.
//!
//! What was read counts as read until it is forgotten, which is between two steps of a registration.

use super::Result;
use super::memory::Memory;
use super::objects::Objects;

/// How much is read at once.
const BYTES: u64 = 1 << 16;

/// Text that was read.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    start: u64,
    bytes: Vec<u8>,
    /// Where the latest read began.
    last: u64,
}

impl Ahead {
    /// Reads text, and more of it where the reads go forward.
    pub(crate) fn read(&mut self, memory: &Memory, objects: &Objects, address: u64, out: &mut [u8]) -> Result<()> {
        if self.copy(address, out) {
            return Ok(());
        }
        let goes_forward = (self.last..self.last.saturating_add(BYTES)).contains(&address);
        self.last = address;
        if goes_forward && self.fill(memory, objects, address) && self.copy(address, out) {
            return Ok(());
        }
        memory.read(address, out)
    }

    /// What is read from now on is what is there then.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    fn copy(&mut self, address: u64, out: &mut [u8]) -> bool {
        let from = address.checked_sub(self.start).and_then(|at| self.bytes.get(at as usize..)?.get(..out.len()));
        from.map(|from| out.copy_from_slice(from)).is_some()
    }

    /// Reads as much as there is of the text from `address` on.
    fn fill(&mut self, memory: &Memory, objects: &Objects, address: u64) -> bool {
        let range = objects.at(address).and_then(|object| object.code.iter().find(|range| range.contains(&address)));
        let Some(range) = range else { return false };
        self.bytes.resize((range.end - address).min(BYTES) as usize, 0);
        self.start = address;
        let read = memory.read(address, &mut self.bytes).is_ok();
        if !read {
            self.forget();
        }
        read
    }
}
