//! Writes to the target's memory that are kept back, and then made together.
//!
//! A write costs a system call, whatever its length. What is stored for a thousand probes is a thousand neighbours in a
//! few tables: put together, it is a few writes.

use super::Result;
use super::memory::Memory;

/// How many bytes are kept back at most.
const LIMIT: usize = 1 << 21;

/// Writes that are not made yet.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    bytes: Vec<u8>,
    /// Where to, where in `bytes`, and how many; in the order in which they came.
    runs: Vec<(u64, u32, u32)>,
}

impl Writes {
    /// Writes some bytes, later or now.
    pub(crate) fn put(&mut self, memory: &Memory, address: u64, bytes: &[u8]) -> Result<()> {
        if self.bytes.len() + bytes.len() > LIMIT {
            self.flush(memory)?;
        }
        let (at, length) = (self.bytes.len() as u32, bytes.len() as u32);
        self.bytes.extend_from_slice(bytes);
        match self.runs.last_mut() {
            Some((before, _, many)) if *before + u64::from(*many) == address => *many += length,
            _ => self.runs.push((address, at, length)),
        }
        Ok(())
    }

    /// Makes all writes.
    pub(crate) fn flush(&mut self, memory: &Memory) -> Result<()> {
        let result = self.neighbours(|address, bytes| memory.write(address, bytes));
        // What a small registration needs is kept for the next.
        self.runs.clear();
        self.bytes.clear();
        self.runs.shrink_to(1 << 8);
        self.bytes.shrink_to(1 << 14);
        result
    }

    /// Puts together what touches or overlaps; of two writes to the same byte the later one is made.
    fn neighbours(&self, mut write: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut order: Vec<u32> = (0..self.runs.len() as u32).collect();
        order.sort_by_key(|&n| self.runs.get(n as usize).map_or(0, |run| run.0));
        let run = |n: u32| self.runs.get(n as usize).copied().unwrap_or_default();
        let mut rest = order.as_mut_slice();
        let mut together = Vec::new();
        while let Some(&first) = rest.first() {
            let (start, _, length) = run(first);
            let mut end = start + u64::from(length);
            let mut touches = |n: u32| {
                let (address, _, length) = run(n);
                let touches = address <= end;
                end = end.max(if touches { address + u64::from(length) } else { 0 });
                touches
            };
            let count = 1 + rest.iter().skip(1).take_while(|&&n| touches(n)).count();
            let (cluster, others) = rest.split_at_mut(count);
            cluster.sort_unstable();
            together.clear();
            together.resize((end - start) as usize, 0);
            for &n in &*cluster {
                let (address, at, length) = run(n);
                let (to, from) = ((address - start) as usize, at as usize);
                let source = self.bytes.get(from..from + length as usize);
                if let (Some(to), Some(source)) = (together.get_mut(to..to + length as usize), source) {
                    to.copy_from_slice(source);
                }
            }
            write(start, &together)?;
            rest = others;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(runs: &[(u64, &[u8])]) -> Vec<(u64, Vec<u8>)> {
        let memory = Memory::open(std::process::id().cast_signed()).unwrap();
        let (mut writes, mut made) = (Writes::default(), Vec::new());
        runs.iter().for_each(|(address, bytes)| writes.put(&memory, *address, bytes).unwrap());
        let keep = |address, bytes: &[u8]| {
            made.push((address, bytes.to_vec()));
            Ok(())
        };
        writes.neighbours(keep).unwrap();
        made
    }

    #[test]
    fn neighbours_are_written_together_in_whatever_order_they_come() {
        assert_eq!(
            made(&[(104, &[3, 4]), (10, &[9]), (100, &[1, 2, 3, 4]), (106, &[5])]),
            [(10, vec![9]), (100, vec![1, 2, 3, 4, 3, 4, 5])]
        );
        assert_eq!(made(&[]), []);
    }

    #[test]
    fn the_later_write_to_a_byte_is_the_one_that_counts() {
        assert_eq!(made(&[(100, &[1, 1, 1, 1]), (101, &[2]), (100, &[3]), (102, &[4, 4])]), [(100, vec![3, 2, 4, 4])]);
    }
}
