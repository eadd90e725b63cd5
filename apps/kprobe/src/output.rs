//! Where the trace goes, and how events look.

use crate::args::Format;
use crate::modules;
use anyhow::{Context, Result};
use events::{Definition, Line, Location, Program, Schema, Site, Value, compile, decode, write_json, write_text};
use host_process::control::modules::Message;
use host_process::control::{Objects, Record, Trace, title};
use std::fs::File;
use std::io::{BufWriter, Write, stderr};
use std::path::Path;

/// A thread that writes a record may be interrupted for this long (in counts of the time stamp counter, some hundredth of
/// a second): younger records wait for it. On a busy machine it has to wait for its turn, which takes milliseconds.
const SETTLE: u64 = 200_000_000;

/// The trace's output.
pub(crate) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    format: Format,
    events: Vec<Event>,
    waiting: Vec<Record>,
    messages: Vec<Message>,
    printed: u64,
    limit: u64,
}

struct Event {
    name: String,
    group: String,
    schema: Schema,
}

/// Symbols are not needed to know an argument's type.
struct NoSymbols;

impl events::Resolve for NoSymbols {
    fn symbol(&self, _: Option<&str>, _: &str) -> Option<u64> {
        Some(0)
    }

    fn file_offset(&self, _: u64) -> Option<u64> {
        Some(0)
    }
}

impl Output {
    pub(crate) fn new(
        path: Option<&Path>,
        format: Format,
        definitions: &[Definition],
        limit: Option<u64>,
    ) -> Result<Self> {
        let writer: Box<dyn Write> = match path {
            Some(path) => {
                Box::new(File::create(path).with_context(|| format!("cannot write the trace to {}", path.display()))?)
            }
            None => Box::new(stderr()),
        };
        let event = |d: &Definition| {
            let Program { schema, .. } = compile(d, &NoSymbols).map_err(|e| crate::status::Usage(e.to_string()))?;
            Ok(Event { name: title(d), group: d.group_name(), schema })
        };
        let events = definitions.iter().map(event).collect::<Result<Vec<_>>>()?;
        let limit = limit.unwrap_or(u64::MAX);
        Ok(Self {
            writer: BufWriter::new(writer),
            format,
            events,
            waiting: Vec::new(),
            messages: Vec::new(),
            printed: 0,
            limit,
        })
    }

    /// Name and group of an event.
    pub(crate) fn event(&self, index: usize) -> (&str, &str) {
        self.events.get(index).map_or(("", ""), |e| (&e.name, &e.group))
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether as many events were printed as were wanted.
    pub(crate) fn is_full(&self) -> bool {
        self.printed >= self.limit
    }

    /// Takes records and messages of modules in; prints those that no older one can follow any more, in the order of time.
    /// `horizon` is the counter before which all have been collected; `None` at the end.
    pub(crate) fn records(&mut self, trace: &mut Trace, horizon: Option<u64>) -> Result<()> {
        let (records, messages) = (trace.take_records(), trace.take_messages());
        let clock = &trace.clock;
        self.waiting.extend(records);
        self.waiting.sort_by_key(|r| r.time);
        self.messages.extend(messages);
        self.messages.sort_by_key(|m| m.time_ns);
        let settled = horizon.map_or(u64::MAX, |h| h.saturating_sub(SETTLE));
        let ready = self.waiting.partition_point(|r| r.time < settled);
        let ready: Vec<Record> = self.waiting.drain(..ready).collect();
        for record in &ready {
            self.messages_before(clock.nanoseconds(record.time))?;
            if !self.is_full() {
                self.record(record, trace)?;
            }
        }
        let said = self.messages_before(if horizon.is_some() { clock.nanoseconds(settled) } else { u64::MAX })?;
        if !ready.is_empty() || said { self.flush() } else { Ok(()) }
    }

    /// Prints the messages before a time; whether there were any.
    fn messages_before(&mut self, time_ns: u64) -> Result<bool> {
        let ready = self.messages.partition_point(|m| m.time_ns < time_ns);
        let ready: Vec<Message> = self.messages.drain(..ready).collect();
        for message in &ready {
            let text = match self.format {
                Format::Text => modules::text(message),
                Format::Jsonl => modules::json(message),
            };
            self.line(&text)?;
        }
        Ok(!ready.is_empty())
    }

    fn record(&mut self, record: &Record, trace: &Trace) -> Result<()> {
        let Some((definition, name)) = trace.event(record.event) else { return Ok(()) };
        let Some(event) = self.events.get(definition) else { return Ok(()) };
        let values = decode(&event.schema, &record.payload);
        let values: Vec<(&str, Value)> = event.schema.fields.iter().map(|f| f.name.as_str()).zip(values).collect();
        let at = |address: u64| record.objects.symbolize(address);
        let (place, caller) = (at(record.address), at(record.caller));
        let site = Site::new(record.address, place.as_ref());
        let location = if record.is_return {
            Location::Return { caller: Site::new(record.caller, caller.as_ref()), function: site }
        } else {
            Location::Entry(site)
        };
        let line = Line {
            comm: &record.comm,
            tid: record.tid.cast_unsigned(),
            pid: record.pid.cast_unsigned(),
            cpu: record.cpu,
            time_ns: trace.clock.nanoseconds(record.time),
            event: name.as_ref().unwrap_or(&event.name),
            group: &event.group,
            location,
            values: &values,
        };
        let symbolize = |address: u64| symbol_text(&record.objects, address);
        let text = match self.format {
            Format::Text => write_text(&line, &symbolize),
            Format::Jsonl => write_json(&line, &symbolize),
        };
        self.printed += 1;
        self.line(text.trim_end_matches('\n'))
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.writer, "{text}").context("cannot write the trace")
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.writer.flush().context("cannot write the trace")
    }
}

fn symbol_text(objects: &Objects, address: u64) -> Option<String> {
    objects.symbolize(address).map(|(name, offset, size)| format!("{name}+{offset:#x}/{size:#x}"))
}
