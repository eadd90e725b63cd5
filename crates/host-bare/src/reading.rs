//! Records of events, and reading them.

use crate::place::{located, symbolize};
use crate::{Control, Kernel};
use alloc::string::String;
use alloc::vec::Vec;
use events::wire::Header;
use events::{Line, Location, Site, Value};
use sync::RingReader;

/// One record, with names.
#[derive(Clone, Debug)]
pub struct Record {
    /// The event's name.
    pub event: String,
    /// What is known besides the arguments.
    pub header: Header,
    /// The arguments: their names and values.
    pub values: Vec<(String, Value)>,
    group: String,
}

impl<K: Kernel> Control<K> {
    /// Takes the records that there are, in the order of their time.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(control: &mut Control<K>, log: fn(&str)) -> Result<(), Error> {
    /// for record in control.records() {
    ///     log(&record.text::<K>());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn records(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for processor in &self.engine.tables.processors {
            let ring = processor.records.ring();
            // What is there now and no more: what this does may be probed too, and others record meanwhile.
            let mut left = ring.fill().0;
            let reader = RingReader::new(ring);
            let mut words = Vec::new();
            while left > 0
                && let Some(tag) = reader.pop(|word| words.push(word))
            {
                left = left.saturating_sub(words.len() as u64 + 1);
                records.extend(self.decode(tag, &words));
                words.clear();
            }
        }
        records.sort_by_key(|r: &Record| r.header.time);
        // The numbers of events that were removed mean nothing any more.
        for event in &mut self.events {
            if event.as_ref().is_some_and(|e| e.removed) {
                *event = None;
            }
        }
        records
    }

    fn decode(&self, tag: u64, words: &[u64]) -> Option<Record> {
        let (header, payload) = Header::decode(tag, words)?;
        let event = self.events.get(header.event as usize)?.as_ref()?;
        let names = event.schema.fields.iter().map(|f| f.name.clone());
        let values = names.zip(events::decode(&event.schema, &payload)).collect();
        Some(Record { event: event.name.clone(), group: event.group.clone(), header, values })
    }
}

impl Record {
    /// The record as ftrace prints it.
    ///
    /// ```
    /// # use host_bare::*;
    /// # fn example<K: Kernel>(record: &Record, log: fn(&str)) -> Result<(), Error> {
    /// log(&record.text::<K>());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn text<K: Kernel>(&self) -> String {
        let (place, caller) = (located::<K>(self.header.address), located::<K>(self.header.caller));
        let function = Site::new(self.header.address, place.as_ref());
        let location = if self.header.is_return {
            Location::Return { caller: Site::new(self.header.caller, caller.as_ref()), function }
        } else {
            Location::Entry(function)
        };
        let values: Vec<(&str, Value)> = self.values.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        let name = self.header.name_bytes();
        let line = Line {
            comm: &String::from_utf8_lossy(&name),
            tid: self.header.thread,
            pid: 0,
            cpu: self.header.cpu,
            time_ns: self.header.time,
            event: &self.event,
            group: &self.group,
            location,
            values: &values,
        };
        events::write_text(&line, &|address| symbolize::<K>(address))
    }
}
