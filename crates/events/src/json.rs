//! Records as JSON, one object a line.
//!
//! ```text
//! {"ts":512.034302,"comm":"bash","pid":4711,"tid":4711,"cpu":1,"group":"kprobes","event":"open_ret","type":"return",
//!  "addr":"0x401100","function":"do_open","caller":"main+0x1c/0x80","args":{"arg1":-2}}
//! ```
//!
//! Numbers are numbers, also where they need more than 53 bits: readers that care must read them as integers. Hexadecimal
//! values, addresses and symbols are strings. What could not be recorded is `null`, and its argument is named in `"faults"`
//! or `"truncated"`; so is an argument whose string was cut. Bytes that are not UTF-8 become U+FFFD.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::Write;

use crate::{
    text::{Line, Location, Site, symbol_text},
    value::Value,
};

/// One JSON object, without a newline. `symbolize` turns an address into `SYMBOL+0xOFFSET/0xSIZE`.
///
/// ```
/// use events::{Line, Location, Site, Value, write_json};
///
/// let symbol = ("do_open".to_owned(), 0, 0x40);
/// let line = Line {
///     comm: "demo", tid: 7, pid: 7, cpu: 0, time_ns: 1_500_000_000,
///     event: "open", group: "kprobes",
///     location: Location::Entry(Site::new(0x401000, Some(&symbol))),
///     values: &[("flags", Value::Hex(0x241)), ("path", Value::Fault)],
/// };
/// let json = write_json(&line, &|_| None);
/// assert!(json.starts_with(r#"{"ts":1.500000000,"comm":"demo","pid":7,"tid":7,"cpu":0,"#));
/// assert!(json.ends_with(r#""args":{"flags":"0x241","path":null},"faults":["path"]}"#));
/// ```
#[must_use]
pub fn write_json(line: &Line<'_>, symbolize: &dyn Fn(u64) -> Option<String>) -> String {
    let (seconds, nanos) = (line.time_ns / 1_000_000_000, line.time_ns % 1_000_000_000);
    let mut object = Object::new();
    object.raw("ts", &format!("{seconds}.{nanos:09}"));
    object.string("comm", line.comm);
    object.raw("pid", &line.pid.to_string());
    object.raw("tid", &line.tid.to_string());
    object.raw("cpu", &line.cpu.to_string());
    object.string("group", line.group);
    object.string("event", line.event);
    location(&mut object, &line.location);
    let mut args = Object::new();
    for (name, value) in line.values {
        args.raw(name, &value_json(value, symbolize));
    }
    object.raw("args", &args.finish());
    names(&mut object, "faults", line.values, &|value| *value == Value::Fault);
    names(&mut object, "truncated", line.values, &|value| {
        matches!(value, Value::Truncated | Value::Str { truncated: true, .. })
    });
    object.finish()
}

fn location(object: &mut Object, location: &Location<'_>) {
    match location {
        Location::Entry(site) => {
            object.string("type", "entry");
            function(object, site);
            object.raw("offset", &site.offset.to_string());
        }
        Location::Return { caller, function: site } => {
            object.string("type", "return");
            function(object, site);
            object.string("caller", &caller.to_string());
        }
    }
}

fn function(object: &mut Object, site: &Site<'_>) {
    object.string("addr", &format!("{:#x}", site.addr));
    match site.symbol {
        Some(symbol) => object.string("function", symbol),
        None => object.raw("function", "null"),
    }
}

/// Lists the arguments that `is` holds for, or for one of their elements.
fn names(object: &mut Object, key: &str, values: &[(&str, Value)], is: &dyn Fn(&Value) -> bool) {
    let holds = |value: &Value| match value {
        Value::Array(elements) => elements.iter().any(is),
        value => is(value),
    };
    let names: Vec<String> = values.iter().filter(|(_, value)| holds(value)).map(|(name, _)| string(name)).collect();
    if !names.is_empty() {
        object.raw(key, &format!("[{}]", names.join(",")));
    }
}

fn value_json(value: &Value, symbolize: &dyn Fn(u64) -> Option<String>) -> String {
    match value {
        Value::Unsigned(value) | Value::Bits(value) => value.to_string(),
        Value::Signed(value) => value.to_string(),
        Value::Hex(value) => format!("\"{value:#x}\""),
        Value::Char(byte) => string(&String::from_utf8_lossy(&[*byte])),
        Value::Str { bytes, .. } => string(&String::from_utf8_lossy(bytes)),
        Value::Symbol(addr) | Value::SymbolString(addr) => string(&symbol_text(*addr, symbolize)),
        Value::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(|element| value_json(element, symbolize)).collect();
            format!("[{}]", elements.join(","))
        }
        Value::Fault | Value::Truncated => "null".into(),
    }
}

/// A JSON string with its quotes (RFC 8259, section 7).
fn string(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\n' => json.push_str("\\n"),
            _ if character.is_control() => {
                // Writing to a string cannot fail. Control characters are all below U+FFFF.
                let _ = write!(json, "\\u{:04x}", u32::from(character));
            }
            _ => json.push(character),
        }
    }
    json.push('"');
    json
}

/// A JSON object being written.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".into())
    }

    fn raw(&mut self, key: &str, json: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&string(key));
        self.0.push(':');
        self.0.push_str(json);
    }

    fn string(&mut self, key: &str, text: &str) {
        self.raw(key, &string(text));
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
