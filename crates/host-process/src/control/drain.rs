//! Reading what an agent recorded.

use super::notice::Record;
use super::objects::Objects;
use crate::abi::{Bank, RingMemory};
use events::wire::Header;
use std::sync::Arc;
use sync::primitive::Ordering;
use sync::{Ring, RingReader};

/// Takes the records that a bank holds now, whose process has these objects.
///
/// More may come while they are taken. Where the process that is traced is the tool itself, or waits for it, each record
/// that is taken may even cause another: so what comes later is for the next time.
pub(crate) fn drain(bank: &Bank, objects: &Arc<Objects>, records: &mut Vec<Record>) {
    let ends = bank.rings.each_ref().map(|memory| memory.head.load(Ordering::Relaxed));
    for (memory, end) in bank.rings.iter().zip(ends) {
        take(memory, end, |tag, words| records.extend(decode(tag, words, objects)));
    }
}

/// Takes the records of a ring that begin before `end`.
fn take(memory: &RingMemory, end: u64, mut each: impl FnMut(u64, &[u64])) {
    let reader = RingReader::new(ring(memory));
    let mut words = Vec::new();
    while memory.tail.load(Ordering::Relaxed) < end {
        let Some(tag) = reader.pop(|w| words.push(w)) else { break };
        each(tag, &words);
        words.clear();
    }
}

fn ring(memory: &RingMemory) -> Ring<'_> {
    Ring::new(&memory.head, &memory.tail, &memory.data)
}

/// A record from its words; `None` for words that no agent writes.
fn decode(tag: u64, words: &[u64], objects: &Arc<Objects>) -> Option<Record> {
    let (header, payload) = Header::decode(tag, words)?;
    Some(Record {
        event: header.event as usize,
        time: header.time,
        tid: header.thread.cast_signed(),
        pid: header.process as i32,
        cpu: header.cpu,
        is_return: header.is_return,
        address: header.address,
        caller: header.caller,
        payload,
        comm: String::from_utf8_lossy(&header.name_bytes()).into_owned(),
        objects: objects.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_come_while_others_are_taken_are_left() {
        // SAFETY: zero is a value of atomic integers.
        let memory: Box<RingMemory> = unsafe { Box::new_zeroed().assume_init() };
        let push = |word: u64| assert!(ring(&memory).push(word, [word, word].into_iter()));
        [1, 2, 3].into_iter().for_each(push);
        for expected in [[1, 2, 3], [11, 12, 13], [21, 22, 23]] {
            let mut taken = Vec::new();
            take(&memory, memory.head.load(Ordering::Relaxed), |tag, words| {
                assert_eq!(words, [tag, tag]);
                taken.push(tag);
                push(tag + 10);
            });
            assert_eq!(taken, expected);
        }
    }
}
