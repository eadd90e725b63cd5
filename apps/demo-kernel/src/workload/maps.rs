//! Quadratic residues, counted in a B-tree and in a hash table.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

const PRIME: u64 = 3001;

/// How many there are, according to each.
pub(super) fn run() -> Result<u64, String> {
    let (mut tree, mut table) = (BTreeMap::new(), HashTable::new());
    for number in 1..PRIME {
        let residue = square(number);
        *tree.entry(residue).or_insert(0) += 1;
        *table.entry(residue) += 1;
    }
    if tree.values().any(|times| *times != 2) {
        return Err("a residue has two roots".into());
    }
    let residues = table.values().filter(|times| *times == 2).count() as u64;
    let mut taken = 0;
    while tree.pop_first().is_some() {
        taken += 1;
    }
    Ok(taken << 32 | residues)
}

#[inline(never)]
fn square(number: u64) -> u64 {
    number * number % PRIME
}

/// Open addressing with linear probing; it grows at half.
struct HashTable {
    slots: Vec<Option<(u64, u64)>>,
    used: usize,
}

impl HashTable {
    fn new() -> Self {
        Self { slots: alloc::vec![None; 16], used: 0 }
    }

    #[inline(never)]
    fn entry(&mut self, key: u64) -> &mut u64 {
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        let at = self.find(key);
        if self.slots[at].is_none() {
            self.used += 1;
        }
        &mut self.slots[at].get_or_insert((key, 0)).1
    }

    /// The key's slot, or the free one where it belongs.
    #[inline(never)]
    fn find(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash(key) as usize & mask;
        while self.slots[at].is_some_and(|(other, _)| other != key) {
            at = (at + 1) & mask;
        }
        at
    }

    #[inline(never)]
    fn grow(&mut self) {
        let slots = alloc::vec![None; self.slots.len() * 2];
        for (key, value) in core::mem::replace(&mut self.slots, slots).into_iter().flatten() {
            let at = self.find(key);
            self.slots[at] = Some((key, value));
        }
    }

    fn values(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().flatten().map(|(_, value)| *value)
    }
}

/// FNV-1a.
#[inline(never)]
fn hash(key: u64) -> u64 {
    key.to_le_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
