//! Records of the own process's probes.

use super::event::Format;
use crate::abi::{Bank, RingMemory};
use crate::control::objects::Objects;
use core::fmt;
use events::wire::Header;
use events::{Line, Location, Site, Value, decode, write_text};
use std::sync::Arc;
use sync::primitive::Ordering;
use sync::{Ring, RingReader};

/// What a probe has recorded. `Display` is a line as ftrace prints it.
#[derive(Clone, Debug)]
pub struct Record {
    header: Header,
    payload: Vec<u8>,
    format: Arc<Format>,
    objects: Arc<Objects>,
    time_ns: u64,
}

impl Record {
    pub(crate) fn new(raw: Raw, format: Arc<Format>, objects: Arc<Objects>, time_ns: u64) -> Self {
        Self { header: raw.header, payload: raw.payload, format, objects, time_ns }
    }

    /// The event's name.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("r:own libc.so.6:getcwd path=+0($retval):string")?;
    /// let _ = std::env::current_dir();
    /// let records = process.take_records()?;
    /// assert_eq!(records[0].event(), "own");
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn event(&self) -> &str {
        &self.format.name
    }

    /// `CLOCK_MONOTONIC` in nanoseconds.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("r:own libc.so.6:getcwd path=+0($retval):string")?;
    /// let _ = std::env::current_dir();
    /// let records = process.take_records()?;
    /// assert!(records.is_sorted_by_key(Record::time_ns));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// The thread.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("r:own libc.so.6:getcwd path=+0($retval):string")?;
    /// let _ = std::env::current_dir();
    /// let records = process.take_records()?;
    /// assert!(records[0].tid() > 0);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.header.thread.cast_signed()
    }

    /// The processor.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("r:own libc.so.6:getcwd path=+0($retval):string")?;
    /// let _ = std::env::current_dir();
    /// let records = process.take_records()?;
    /// println!("on processor {}", records[0].cpu());
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.header.cpu
    }

    /// Address of the probe; for a return, of the function.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("r:own libc.so.6:getcwd path=+0($retval):string")?;
    /// let _ = std::env::current_dir();
    /// let records = process.take_records()?;
    /// assert_ne!(records[0].address(), 0);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn address(&self) -> u64 {
        self.header.address
    }

    /// For a return, the address that it goes to.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("r:own libc.so.6:getcwd path=+0($retval):string")?;
    /// let _ = std::env::current_dir();
    /// let records = process.take_records()?;
    /// assert!(records[0].caller().is_some(), "a return has one");
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn caller(&self) -> Option<u64> {
        self.header.is_return.then_some(self.header.caller)
    }

    /// Names and values of the arguments.
    ///
    /// ```
    /// # use host_process::local::*;
    /// # let process = Process::start()?;
    /// process.define("r:own libc.so.6:getcwd path=+0($retval):string")?;
    /// let _ = std::env::current_dir();
    /// let records = process.take_records()?;
    /// assert_eq!(records[0].values()[0].0, "path");
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn values(&self) -> Vec<(&str, Value)> {
        let names = self.format.schema.fields.iter().map(|f| f.name.as_str());
        names.zip(decode(&self.format.schema, &self.payload)).collect()
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (raw, values, comm) = (&self.header, self.values(), self.header.name_bytes());
        let (place, caller) = (self.objects.symbolize(raw.address), self.objects.symbolize(raw.caller));
        let site = Site::new(raw.address, place.as_ref());
        let location = if raw.is_return {
            Location::Return { caller: Site::new(raw.caller, caller.as_ref()), function: site }
        } else {
            Location::Entry(site)
        };
        let line = Line {
            comm: &String::from_utf8_lossy(&comm),
            tid: raw.thread,
            pid: raw.process as u32,
            cpu: raw.cpu,
            time_ns: self.time_ns,
            event: &self.format.name,
            group: &self.format.group,
            location,
            values: &values,
        };
        f.write_str(&write_text(&line, &|address| symbol(&self.objects, address)))
    }
}

fn symbol(objects: &Objects, address: u64) -> Option<String> {
    objects.symbolize(address).map(|(name, offset, size)| format!("{name}+{offset:#x}/{size:#x}"))
}

/// A record as it was in a ring.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) header: Header,
    payload: Vec<u8>,
}

/// Words that were taken out of the rings: of each record its tag, and where its words end.
struct Taken {
    words: Vec<u64>,
    records: Vec<(u64, usize)>,
}

/// Takes the records that a bank holds now.
///
/// Reading records may hit probes, on `malloc` for instance, and each of these may write another record. So no more is
/// taken than was there at the beginning, and nothing is allocated until that is out of the rings.
pub(crate) fn take(bank: &Bank) -> Vec<Raw> {
    let ends = bank.rings.each_ref().map(|memory| memory.head.load(Ordering::Relaxed));
    let held = |(memory, end): (&RingMemory, &u64)| end.saturating_sub(memory.tail.load(Ordering::Relaxed)) as usize;
    let words = bank.rings.iter().zip(&ends).map(held).sum();
    let mut taken = Taken { words: Vec::with_capacity(words), records: Vec::with_capacity(words) };
    for (memory, end) in bank.rings.iter().zip(ends) {
        let reader = RingReader::new(ring(memory));
        while memory.tail.load(Ordering::Relaxed) < end {
            let Some(tag) = reader.pop(|word| taken.words.push(word)) else { break };
            taken.records.push((tag, taken.words.len()));
        }
    }
    let mut first = 0;
    let decode = |(tag, end): (u64, usize)| {
        let words = taken.words.get(core::mem::replace(&mut first, end)..end)?;
        let (header, payload) = Header::decode(tag, words)?;
        Some(Raw { header, payload })
    };
    taken.records.into_iter().filter_map(decode).collect()
}

fn ring(memory: &RingMemory) -> Ring<'_> {
    Ring::new(&memory.head, &memory.tail, &memory.data)
}
