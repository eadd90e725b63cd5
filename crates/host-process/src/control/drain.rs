//! Reading what an agent recorded.

use super::notice::Record;
use super::objects::Objects;
use crate::abi::{Bank, RingMemory};
use events::wire::Header;
use std::sync::Arc;
use sync::{Ring, RingReader};

/// Takes all records of a bank, whose process has these objects.
pub(crate) fn drain(bank: &Bank, objects: &Arc<Objects>, records: &mut Vec<Record>) {
    for memory in &bank.rings {
        let reader = RingReader::new(ring(memory));
        let mut words = Vec::new();
        while let Some(tag) = reader.pop(|w| words.push(w)) {
            records.extend(decode(tag, &words, objects));
            words.clear();
        }
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
