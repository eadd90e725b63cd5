//! Reading what an agent recorded.

use super::objects::Objects;
use super::trace::Record;
use crate::abi::{Bank, PAYLOAD_BYTES, RingMemory, record as layout};
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
    let (header, payload) = words.split_at_checked(layout::HEADER_WORDS)?;
    let &[time, who, pid, address, caller, length, name, name_end] = header else { return None };
    let mut bytes: Vec<u8> = payload.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.truncate((length as usize).min(PAYLOAD_BYTES));
    Some(Record {
        event: (tag & ((1 << layout::ID_BITS) - 1)) as usize,
        time,
        tid: (who & 0xffff_ffff) as i32,
        pid: pid as i32,
        cpu: (who >> 32) as u32,
        is_return: tag >> layout::ID_BITS == layout::RETURN,
        address,
        caller,
        payload: bytes,
        comm: text([name, name_end]),
        objects: objects.clone(),
    })
}

/// A name that is padded with zeros.
fn text(words: [u64; 2]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
