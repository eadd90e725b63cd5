//! The probe table of a target, filled from outside.
//!
//! The tool is its only writer. It keeps a byte for each bucket: 0 while that is empty, else something of the key. So it knows
//! where a key goes without reading the table in the target, but for the keys that are there already or look like it.
//!
//! The table is at most half full. Before it would be more it *grows*: the next [`generation`] is filled with all that was
//! in this one, and the target is told of its size last. A handler finds the one or the other, and in either what it looks
//! for.

use super::Result;
use super::memory::Memory;
use super::table::word_at;
use crate::abi::{Home, LARGEST_TABLE, SMALLEST_TABLE, generation};
use core::mem::offset_of;
use kprobes::Error;
use std::collections::BTreeMap;
use sync::{Bucket, Table};

const BYTES: usize = size_of::<Bucket>();
/// Buckets that are written together when many of them change.
const WINDOW: usize = 1 << 12;
/// So many changes in a window are many.
const MANY: usize = 12;

/// The table as the tool knows it.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    size: u32,
    used: usize,
    /// For each bucket, 0 or a print of its key; empty before the target was looked at.
    prints: Vec<u8>,
    /// What is to be published: key and value.
    waiting: BTreeMap<u64, u64>,
}

/// A bucket to fill, and whether its key stands there already.
struct Change {
    bucket: usize,
    key: u64,
    value: u64,
    is_new: bool,
}

impl Buckets {
    /// An entry is to be published, or replaced.
    pub(crate) fn put(&mut self, key: u64, value: u64) -> core::result::Result<(), Error> {
        let limit = generation(LARGEST_TABLE).len() / 4 * 3;
        if self.used + self.waiting.len() >= limit {
            return Err(Error::Full { what: "entries of the probe table", limit });
        }
        self.waiting.insert(key, value);
        Ok(())
    }

    /// Publishes what waits.
    pub(crate) fn flush(&mut self, memory: &Memory, home: u64) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.prints.is_empty() {
            self.look(memory, home)?;
        }
        let waiting = core::mem::take(&mut self.waiting);
        let wanted = (self.used + waiting.len()) * 2;
        if wanted > generation(self.size).len() && self.size < LARGEST_TABLE {
            return self.grow(memory, home, wanted, waiting);
        }
        let mut changes = Vec::with_capacity(waiting.len());
        for (key, value) in waiting {
            changes.extend(self.place(memory, home, key, value)?);
        }
        changes.sort_by_key(|change| change.bucket);
        for changes in changes.chunk_by(|a, b| a.bucket / WINDOW == b.bucket / WINDOW) {
            if changes.len() < MANY {
                self.write_each(memory, home, changes)?;
            } else {
                self.write_window(memory, home, changes)?;
            }
        }
        Ok(())
    }

    /// Where this generation is in the target.
    fn at(&self, home: u64, bucket: usize) -> u64 {
        home + (offset_of!(Home, buckets) + (generation(self.size).start + bucket) * BYTES) as u64
    }

    /// Learns what is in the target's table.
    fn look(&mut self, memory: &Memory, home: u64) -> Result<()> {
        let size = memory.half(home + offset_of!(Home, table_size) as u64)?;
        self.size = size.clamp(SMALLEST_TABLE, LARGEST_TABLE);
        let mut prints = vec![0; generation(self.size).len()];
        let mut used = 0;
        self.each(memory, home, |bucket, key, _| {
            used += 1;
            prints.get_mut(bucket).into_iter().for_each(|place| *place = print(key));
        })?;
        (self.used, self.prints) = (used, prints);
        Ok(())
    }

    /// Every entry of the target's table.
    fn each(&self, memory: &Memory, home: u64, mut entry: impl FnMut(usize, u64, u64)) -> Result<()> {
        let buckets = generation(self.size).len();
        let mut bytes = vec![0; WINDOW.min(buckets) * BYTES];
        for first in (0..buckets).step_by(WINDOW) {
            memory.read(self.at(home, first), &mut bytes)?;
            for (bucket, bytes) in (first..).zip(bytes.chunks_exact(BYTES)) {
                if word_at(bytes, 0) != 0 {
                    entry(bucket, word_at(bytes, 0), word_at(bytes, 8));
                }
            }
        }
        Ok(())
    }

    /// Which bucket is to hold a key. It is taken for filled from here on.
    fn place(&mut self, memory: &Memory, home: u64, key: u64, value: u64) -> Result<Option<Change>> {
        let mask = self.prints.len() - 1;
        let first = Table::start(key);
        for step in 0..=mask {
            let bucket = first.wrapping_add(step) & mask;
            match self.prints.get(bucket) {
                Some(0) => {
                    self.prints.get_mut(bucket).into_iter().for_each(|place| *place = print(key));
                    self.used += 1;
                    return Ok(Some(Change { bucket, key, value, is_new: true }));
                }
                Some(&known) if known == print(key) && memory.word(self.at(home, bucket))? == key => {
                    return Ok(Some(Change { bucket, key, value, is_new: false }));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Key and value together: nobody looks for a key before what it stands for is there, and it is not before this
    /// returns. Of a key that is there already the value alone changes.
    fn write_each(&self, memory: &Memory, home: u64, changes: &[Change]) -> Result<()> {
        for change in changes {
            let at = self.at(home, change.bucket);
            if change.is_new {
                memory.write(at, &[change.key.to_le_bytes(), change.value.to_le_bytes()].concat())?;
            } else {
                memory.write(at + 8, &change.value.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// The same for many neighbours: what stands between them is written as it is, which nobody else changes.
    fn write_window(&self, memory: &Memory, home: u64, changes: &[Change]) -> Result<()> {
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return Ok(()) };
        let at = self.at(home, first.bucket);
        let mut bytes = vec![0; (last.bucket - first.bucket + 1) * BYTES];
        memory.read(at, &mut bytes)?;
        for change in changes {
            let place = (change.bucket - first.bucket) * BYTES;
            let Some(bucket) = bytes.get_mut(place..place + BYTES) else { continue };
            bucket.copy_from_slice(&[change.key.to_le_bytes(), change.value.to_le_bytes()].concat());
        }
        memory.write(at, &bytes)
    }

    /// Moves to the smallest generation that is at most half full with `wanted` / 2 entries.
    fn grow(&mut self, memory: &Memory, home: u64, wanted: usize, waiting: BTreeMap<u64, u64>) -> Result<()> {
        let mut size = self.size;
        while generation(size).len() < wanted && size < LARGEST_TABLE {
            size += 1;
        }
        let mut larger = Larger::new(generation(size).len());
        self.each(memory, home, |_, key, value| larger.insert(key, value))?;
        waiting.into_iter().for_each(|(key, value)| larger.insert(key, value));
        self.size = size;
        memory.write(self.at(home, 0), &larger.bytes)?;
        memory.write(home + offset_of!(Home, table_size) as u64, &size.to_le_bytes())?;
        (self.used, self.prints) = (larger.used, larger.prints);
        Ok(())
    }
}

/// A table that is filled before anybody sees it.
struct Larger {
    bytes: Vec<u8>,
    prints: Vec<u8>,
    used: usize,
}

impl Larger {
    fn new(buckets: usize) -> Self {
        Self { bytes: vec![0; buckets * BYTES], prints: vec![0; buckets], used: 0 }
    }

    /// An entry; of two with one key the later.
    fn insert(&mut self, key: u64, value: u64) {
        let mask = self.prints.len() - 1;
        let first = Table::start(key);
        for bucket in (0..=mask).map(|step| first.wrapping_add(step) & mask) {
            let place = bucket * BYTES;
            let Some(bytes) = self.bytes.get_mut(place..place + BYTES) else { return };
            let known = word_at(bytes, 0);
            if known == 0 || known == key {
                bytes.copy_from_slice(&[key.to_le_bytes(), value.to_le_bytes()].concat());
                self.prints.get_mut(bucket).into_iter().for_each(|place| *place = print(key));
                self.used += usize::from(known == 0);
                return;
            }
        }
    }
}

/// A byte of a key, never 0.
fn print(key: u64) -> u8 {
    (key.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 56) as u8 | 1
}
