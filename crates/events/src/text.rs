//! Records as text, in the form of ftrace's `trace` file (`kernel/trace/trace_output.c`), which people and tools can read:
//!
//! ```text
//!             bash-4711    [001]    512.034210: open: (do_open+0x0/0x240) path="/etc/hosts" flags=0x80000
//!             bash-4711    [001]    512.034302: open_ret: (main+0x1c/0x80 <- do_open) arg1=-2
//! ```
//!
//! The column of interrupt flags is left out, as ftrace does with the option `irq-info` off: a process has none.
//!
//! Numbers print as Linux prints them. Strings and characters are escaped, which Linux does not do: `\"`, `\\`, `\n`, `\t`,
//! `\r`, and `\xNN` for other control characters and for bytes that are not UTF-8. `"abc"...` is a string that was cut,
//! `(fault)` what could not be read, `(truncated)` what the record had no room for.

use alloc::{
    format,
    string::{String, ToString},
};
use core::fmt::{self, Write};

use crate::value::Value;

/// One record, with all that is to be printed.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The thread's name.
    pub comm: &'a str,
    /// The thread.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// The processor it ran on.
    pub cpu: u32,
    /// Monotonic time in nanoseconds.
    pub time_ns: u64,
    /// The event's name.
    pub event: &'a str,
    /// The event's group.
    pub group: &'a str,
    /// Where it happened.
    pub location: Location<'a>,
    /// Names and values of the arguments.
    pub values: &'a [(&'a str, Value)],
}

/// Where an event happened.
#[derive(Clone, Copy, Debug)]
pub enum Location<'a> {
    /// A probe was hit.
    Entry(Site<'a>),
    /// A function returned.
    Return {
        /// Where it returned to.
        caller: Site<'a>,
        /// The function.
        function: Site<'a>,
    },
}

/// An address, and what is there.
///
/// ```
/// use events::Site;
///
/// let symbol = ("do_open".to_owned(), 0x1c, 0x80);
/// assert_eq!(Site::new(0x40101c, Some(&symbol)).to_string(), "do_open+0x1c/0x80");
/// assert_eq!(Site::new(0x40101c, None).to_string(), "0x40101c");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The address.
    pub addr: u64,
    /// The symbol that it is in, if known.
    pub symbol: Option<&'a str>,
    /// Bytes from the symbol's start.
    pub offset: u64,
    /// The symbol's size, if known.
    pub size: Option<u64>,
}

impl<'a> Site<'a> {
    /// An address, and the name, offset and size of the symbol that it is in.
    #[must_use]
    pub fn new(addr: u64, symbol: Option<&'a (String, u64, u64)>) -> Self {
        let (offset, size) = symbol.map_or((0, None), |&(_, offset, size)| (offset, Some(size)));
        Self { addr, symbol: symbol.map(|(name, _, _)| name.as_str()), offset, size }
    }
}

impl fmt::Display for Site<'_> {
    /// `SYMBOL+0xOFFSET/0xSIZE`, as the kernel's `%pS`; `0xADDRESS` without a symbol.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(symbol) = self.symbol else { return write!(f, "{:#x}", self.addr) };
        write!(f, "{symbol}+{:#x}", self.offset)?;
        self.size.map_or(Ok(()), |size| write!(f, "/{size:#x}"))
    }
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(site) => write!(f, "({site})"),
            Self::Return { caller, function: Site { symbol: Some(function), .. } } => {
                write!(f, "({caller} <- {function})")
            }
            Self::Return { caller, function } => write!(f, "({caller} <- {function})"),
        }
    }
}

/// One line of ftrace text, without a newline. `symbolize` turns an address into `SYMBOL+0xOFFSET/0xSIZE`.
///
/// ```
/// use events::{Line, Location, Site, Value, write_text};
///
/// let (main, open) = (("main".to_owned(), 0x1c, 0x80), ("do_open".to_owned(), 0, 0x40));
/// let (caller, function) = (Site::new(0x40101c, Some(&main)), Site::new(0x402000, Some(&open)));
/// let line = Line {
///     comm: "demo", tid: 4711, pid: 4711, cpu: 1, time_ns: 512_034_302_000,
///     event: "open_ret", group: "kprobes",
///     location: Location::Return { caller, function }, values: &[("arg1", Value::Signed(-2))],
/// };
/// assert_eq!(
///     write_text(&line, &|_| None),
///     "            demo-4711    [001]    512.034302: open_ret: (main+0x1c/0x80 <- do_open) arg1=-2",
/// );
/// ```
#[must_use]
pub fn write_text(line: &Line<'_>, symbolize: &dyn Fn(u64) -> Option<String>) -> String {
    let comm = escaped(line.comm.as_bytes(), None);
    // ftrace rounds to microseconds too.
    let micros = line.time_ns.saturating_add(500) / 1000;
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let mut text = format!("{comm:>16}-{:<7} [{:03}]  {seconds:5}.{fraction:06}: ", line.tid, line.cpu);
    // Writing to a string cannot fail.
    let _ = write!(text, "{}: {}", line.event, line.location);
    for (name, value) in line.values {
        let _ = write!(text, " {name}={}", value_text(value, symbolize));
    }
    text
}

/// A value as text.
///
/// ```
/// use events::Value;
/// use events::text::value_text;
///
/// let symbolize = |addr| (addr == 0x401000).then(|| "main+0x0/0x80".to_owned());
/// assert_eq!(value_text(&Value::Symbol(0x401000), &symbolize), "main+0x0/0x80");
/// assert_eq!(value_text(&Value::Symbol(0x10), &symbolize), "0x10");
/// let path = Value::Str { bytes: b"a\nb".to_vec(), truncated: true };
/// assert_eq!(value_text(&Value::Array(vec![path, Value::Fault]), &symbolize), r#"{"a\nb"...,(fault)}"#);
/// ```
#[must_use]
pub fn value_text(value: &Value, symbolize: &dyn Fn(u64) -> Option<String>) -> String {
    match value {
        Value::Unsigned(value) | Value::Bits(value) => value.to_string(),
        Value::Signed(value) => value.to_string(),
        Value::Hex(value) => format!("{value:#x}"),
        Value::Char(byte) => format!("'{}'", escaped(&[*byte], Some('\''))),
        Value::Str { bytes, truncated } => {
            format!("\"{}\"{}", escaped(bytes, Some('"')), if *truncated { "..." } else { "" })
        }
        Value::Symbol(addr) => symbol_text(*addr, symbolize),
        Value::SymbolString(addr) => format!("\"{}\"", symbol_text(*addr, symbolize)),
        Value::Array(elements) => array_text(elements, symbolize),
        Value::Fault => "(fault)".into(),
        Value::Truncated => "(truncated)".into(),
    }
}

pub(crate) fn symbol_text(addr: u64, symbolize: &dyn Fn(u64) -> Option<String>) -> String {
    symbolize(addr).unwrap_or_else(|| format!("{addr:#x}"))
}

fn array_text(elements: &[Value], symbolize: &dyn Fn(u64) -> Option<String>) -> String {
    let mut text = String::from("{");
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&value_text(element, symbolize));
    }
    text.push('}');
    text
}

/// Bytes as printable text; `quote` is the character that stands around it, if one does.
pub(crate) fn escaped(bytes: &[u8], quote: Option<char>) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            escape(character, quote, &mut text);
        }
        escape_bytes(chunk.invalid(), &mut text);
    }
    text
}

fn escape(character: char, quote: Option<char>, text: &mut String) {
    match character {
        '\n' => text.push_str("\\n"),
        '\t' => text.push_str("\\t"),
        '\r' => text.push_str("\\r"),
        '\\' if quote.is_some() => text.push_str("\\\\"),
        _ if Some(character) == quote => text.extend(['\\', character]),
        _ if character.is_control() => escape_bytes(character.encode_utf8(&mut [0; 4]).as_bytes(), text),
        _ => text.push(character),
    }
}

fn escape_bytes(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}
