//! What modules have printed: the ring in the target's home, read from outside.
//!
//! A message is read once, by one tool. Two that read at the same time would take each other's apart, so a reader binds
//! a socket whose name stands for the process; the kernel frees the name when the tool ends, however it does.

use super::run::signal_name;
use super::table;
use crate::abi::Bank;
use crate::abi::modules::{LOG_WORDS, Log, Modules, log};
use crate::control::memory::Memory;
use crate::control::table::word_at;
use crate::control::{HostError, Result, inject, process};
use core::mem::offset_of;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use sync::primitive::Ordering;
use sync::{Ring, RingReader};

/// What a module has printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The thread that ran it.
    pub thread: u64,
    /// The module's name; empty when it is not known any more.
    pub module: String,
    /// The text, without a newline at its end.
    pub text: String,
}

/// The messages of a process.
///
/// ```no_run
/// use host_process::control::modules::Messages;
///
/// # fn example(pid: i32) -> Result<(), host_process::control::HostError> {
/// let mut messages = Messages::open(pid)?;
/// assert!(Messages::open(pid).is_err(), "one reads them at a time");
/// for message in messages.take()? {
///     println!("{}: {}", message.module, message.text);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Messages {
    memory: Memory,
    home: u64,
    lost: u64,
    _name: UnixListener,
}

impl Messages {
    /// Reads the messages of a process.
    ///
    /// # Errors
    ///
    /// When there is no such process, it may not be looked at, no module was ever in it, or another tool reads them.
    pub fn open(pid: i32) -> Result<Self> {
        process::status(pid)?;
        let none =
            || HostError::Unexpected { pid, what: "no module was ever inserted, so there are no messages".into() };
        let (home, _) = inject::find(pid)?.ok_or_else(none)?;
        Self::at(pid, home)?
            .ok_or(HostError::Unexpected { pid, what: "another kprobe reads its modules' messages right now".into() })
    }

    /// Reads those of the process whose agent's home is this; `None` when another tool does.
    pub(crate) fn at(pid: i32, home: u64) -> Result<Option<Self>> {
        let Some(name) = claim(pid)? else { return Ok(None) };
        let memory = Memory::open(pid)?;
        let lost = memory.word(field(home, offset_of!(Log, lost)))?;
        Ok(Some(Self { memory, home, lost, _name: name }))
    }

    /// The messages since the last call, in the order in which they were stored.
    ///
    /// # Errors
    ///
    /// When the process has gone.
    pub fn take(&mut self) -> Result<Vec<Message>> {
        let head = self.memory.word(field(self.home, offset_of!(Log, head)))?;
        let tail = self.memory.word(field(self.home, offset_of!(Log, tail)))?;
        let mut messages = Vec::new();
        let used = head.wrapping_sub(tail).min(LOG_WORDS as u64);
        if used != 0 {
            let words = self.words(tail, used as usize)?;
            let (records, taken) = split(&words);
            self.release(tail, taken)?;
            let modules = table::entries(&self.memory, self.home)?;
            let name = |owner: u64| {
                let module = modules.iter().find(|m| u64::from(m.number) + 1 == owner);
                module.map_or(String::new(), |m| m.name.clone())
            };
            messages.extend(records.into_iter().filter_map(|(tag, words)| message(tag, &words, &name)));
        }
        let lost = self.memory.word(field(self.home, offset_of!(Log, lost)))?;
        let since = lost.wrapping_sub(core::mem::replace(&mut self.lost, lost));
        messages.extend((since != 0).then(|| loss(since, &messages)));
        Ok(messages)
    }

    fn words(&self, tail: u64, count: usize) -> Result<Vec<u64>> {
        let mut bytes = vec![0; 8 * count];
        let (first, rest) = bytes.split_at_mut(8 * until_wrap(tail, count));
        self.memory.read(self.data(tail), first)?;
        self.memory.read(self.data(0), rest)?;
        Ok((0..count).map(|i| word_at(&bytes, 8 * i)).collect())
    }

    /// Gives words back to the ring: zero, and then behind the tail.
    fn release(&self, tail: u64, count: usize) -> Result<()> {
        let zeros = vec![0; 8 * count];
        let (first, rest) = zeros.split_at(8 * until_wrap(tail, count));
        self.memory.write(self.data(tail), first)?;
        self.memory.write(self.data(0), rest)?;
        let tail = tail.wrapping_add(count as u64);
        self.memory.write(field(self.home, offset_of!(Log, tail)), &tail.to_le_bytes())
    }

    fn data(&self, position: u64) -> u64 {
        field(self.home, offset_of!(Log, data)) + 8 * (position % LOG_WORDS as u64)
    }
}

/// How many of `count` words from a position on are before the ring's end.
fn until_wrap(position: u64, count: usize) -> usize {
    count.min(LOG_WORDS - (position % LOG_WORDS as u64) as usize)
}

fn field(home: u64, offset: usize) -> u64 {
    table::field(home, offset_of!(Modules, log) + offset)
}

/// Records of a ring: tags and words.
type Records = Vec<(u64, Vec<u64>)>;

/// The records that are complete, and how many words they take ([`sync::Ring`]: a header is a tag and a length).
fn split(words: &[u64]) -> (Records, usize) {
    const LENGTH_BITS: u32 = 16;
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(&header) = words.get(at) {
        let length = (header & ((1 << LENGTH_BITS) - 1)) as usize;
        let Some(body) = words.get(at + 1..at + length).filter(|_| length != 0) else { break };
        records.push((header >> LENGTH_BITS, body.to_vec()));
        at += length;
    }
    (records, at)
}

/// Takes what modules that end with a trace have printed to its bank.
pub(super) fn drain(bank: &Bank, name: &impl Fn(u64) -> String) -> Vec<Message> {
    let reader = RingReader::new(Ring::new(&bank.log.head, &bank.log.tail, &bank.log.data));
    let mut messages = Vec::new();
    let mut words = Vec::new();
    while let Some(tag) = reader.pop(|w| words.push(w)) {
        messages.extend(message(tag, &words, name));
        words.clear();
    }
    let lost = bank.log.lost.swap(0, Ordering::Relaxed);
    messages.extend((lost != 0).then(|| loss(lost, &messages)));
    messages
}

fn loss(count: u64, others: &[Message]) -> Message {
    let text = format!("{count} messages were lost: there was no room for them");
    let time_ns = others.last().map_or(0, |m| m.time_ns);
    Message { time_ns, thread: 0, module: String::new(), text }
}

fn message(tag: u64, words: &[u64], name: &impl Fn(u64) -> String) -> Option<Message> {
    let (&[time_ns, thread, length], rest) = words.split_first_chunk()?;
    let module = name(tag & log::OWNER);
    let text = if tag & log::FAULT != 0 {
        let &[signal, instruction, address] = rest.first_chunk()?;
        let signal = signal_name(signal as i32);
        format!("a handler has raised {signal} at {module}+{instruction:#x}, address {address:#x}: the module is off")
    } else {
        let mut bytes: Vec<u8> = rest.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.truncate(usize::try_from(length).unwrap_or(0));
        String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()
    };
    Some(Message { time_ns, thread, module, text })
}

/// The name that stands for the messages of a process; `None` while another tool has it.
fn claim(pid: i32) -> Result<Option<UnixListener>> {
    let failed = |e| HostError::io("claim the messages of a process", e);
    // The same number is another process in another namespace.
    let namespace = std::fs::metadata(format!("/proc/{pid}/ns/pid")).map_or(0, |m| m.ino());
    let address = SocketAddr::from_abstract_name(format!("kprobe-messages-{namespace}-{pid}")).map_err(failed)?;
    match UnixListener::bind_addr(&address) {
        Ok(name) => Ok(Some(name)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_records_come_out_and_an_unfinished_one_stays() {
        let text = u64::from_le_bytes(*b"hello\n\0\0");
        let words = [1 << 16 | 5, 7, 8, 6, text, 0, 99];
        let (records, taken) = split(&words);
        assert_eq!((records.len(), taken), (1, 5));
        let (tag, words) = &records[0];
        let said = message(*tag, words, &|owner| format!("module {owner}")).unwrap();
        let expected = Message { time_ns: 7, thread: 8, module: "module 1".into(), text: "hello".into() };
        assert_eq!(said, expected);
    }

    #[test]
    fn a_fault_is_told_with_its_place() {
        let said = message(log::FAULT | 2, &[1, 2, 24, 11, 0x40, 0xdead], &|_| "m".into()).unwrap();
        assert_eq!(said.text, "a handler has raised SIGSEGV at m+0x40, address 0xdead: the module is off");
    }

    #[test]
    fn garbage_does_not_run_away() {
        assert_eq!(split(&[u64::MAX; 8]).1, 0);
        assert_eq!(message(1, &[1, 2], &|_| String::new()), None);
        assert_eq!(message(log::FAULT, &[1, 2, 3], &|_| String::new()), None);
        assert_eq!(message(1, &[1, 2, u64::MAX, 0x61], &|_| String::new()).unwrap().text, "a\0\0\0\0\0\0\0");
    }
}
