//! `kprobe build`, `insmod`, `rmmod`, `lsmod`, `dmesg`.

use crate::args::{BuildArgs, DmesgArgs, InsmodArgs, LsmodArgs, Placement, RmmodArgs};
use crate::status::{FAILURE, Usage, say};
use anyhow::Result;
use host_process::control::modules::{self as control, Message, Messages, ModuleFile};
use host_process::control::{HostError, Image, Notice, Options, Trace};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// How often new messages are looked for.
const GLANCE: Duration = Duration::from_millis(20);
const NANOSECONDS: u64 = 1_000_000_000;

/// Builds a module; prints where it is.
pub(crate) fn build(args: &BuildArgs) -> Result<u8> {
    let file = crate::build::build(&args.folder, args.kernel, args.output.as_deref())?;
    writeln!(std::io::stdout(), "{}", file.display())?;
    Ok(0)
}

/// Inserts a module; prints what its `init` has printed.
pub(crate) fn insert(args: &InsmodArgs) -> Result<u8> {
    let file = ModuleFile::read(&args.file, &args.parameters)?;
    let breakpoints = args.placement == Placement::Breakpoint;
    let mut trace = empty_trace(Options { breakpoints, ..Options::default() })?;
    trace.add_module(file, true);
    let attached = trace.attach(args.pid);
    let detached = if attached.is_ok() { trace.detach() } else { Ok(()) };
    finish(&mut trace, args.pid)?;
    attached.and(detached)?;
    Ok(0)
}

/// Removes a module; prints what was not read of its messages.
pub(crate) fn remove(args: &RmmodArgs) -> Result<u8> {
    let known = control::list(args.pid)?;
    if !known.iter().any(|m| m.name == args.name) {
        let names: Vec<&str> = known.iter().map(|m| m.name.as_str()).collect();
        let has = if names.is_empty() { "no module".into() } else { names.join(", ") };
        say(&format!("process {} has no module {}; it has {has}", args.pid, args.name));
        return Ok(FAILURE);
    }
    let mut trace = empty_trace(Options::default())?;
    trace.attach(args.pid)?;
    // One that was of no use any more went when we came.
    let still = control::list(args.pid)?.iter().any(|m| m.name == args.name);
    let removed = if still { trace.remove_module(args.pid, &args.name) } else { Ok(()) };
    let detached = trace.detach();
    finish(&mut trace, args.pid)?;
    removed.and(detached)?;
    Ok(0)
}

fn empty_trace(options: Options) -> Result<Trace> {
    Ok(Trace::new(Image::parse(crate::AGENT)?, Vec::new(), options))
}

/// Prints what there is to say, and the messages.
fn finish(trace: &mut Trace, pid: i32) -> Result<()> {
    for notice in trace.take_notices() {
        match notice {
            Notice::Note(text) | Notice::Spread { what: text, .. } => say(&text),
            Notice::Refused { why, .. } | Notice::Failed { why, .. } => say(&why),
        }
    }
    let mut out = std::io::stdout().lock();
    // A process that has gone has said all; one whose messages somebody else reads says them there.
    if let Ok(mut messages) = Messages::open(pid) {
        print(&mut out, &messages.take()?)?;
    }
    Ok(())
}

/// Lists the modules.
pub(crate) fn list(args: &LsmodArgs) -> Result<u8> {
    let modules = control::list(args.pid)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<24} {:>8}  {:<8} {:>7} {:>12} {:>10} {:>7}  ADDRESS",
        "MODULE", "SIZE", "STATE", "PROBES", "HITS", "MISSED", "FAULTS"
    )?;
    for module in modules {
        let control::Module { name, size, state, probes, hits, missed, faults, address } = module;
        writeln!(
            out,
            "{name:<24} {size:>8}  {state:<8} {probes:>7} {hits:>12} {missed:>10} {faults:>7}  {address:#x}"
        )?;
    }
    Ok(0)
}

/// Prints what modules have printed.
pub(crate) fn messages(args: &DmesgArgs) -> Result<u8> {
    let mut messages = Messages::open(args.pid)?;
    let mut out = std::io::stdout().lock();
    loop {
        match messages.take() {
            Ok(said) => print(&mut out, &said)?,
            Err(HostError::Gone { .. }) if args.follow => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        if !args.follow {
            return Ok(0);
        }
        std::thread::sleep(GLANCE);
    }
}

fn print(out: &mut impl Write, messages: &[Message]) -> Result<()> {
    for message in messages {
        writeln!(out, "{}", text(message))?;
    }
    Ok(out.flush()?)
}

/// A message as Linux's `dmesg` shows one, with its thread (`CONFIG_PRINTK_CALLER`).
pub(crate) fn text(message: &Message) -> String {
    let Message { time_ns, thread, module, text } = message;
    let (seconds, micro) = (time_ns / NANOSECONDS, time_ns % NANOSECONDS / 1000);
    let stamp = format!("[{seconds:>5}.{micro:06}][{:>8}] {module}: ", format!("T{thread}"));
    text.lines().map(|line| format!("{stamp}{line}")).collect::<Vec<_>>().join("\n")
}

/// A message as one JSON object.
pub(crate) fn json(message: &Message) -> String {
    let Message { time_ns, thread, module, text } = message;
    json!({ "module": module, "time_ns": time_ns, "tid": thread, "message": text }).to_string()
}

/// A file and its parameters: `FILE.ko[,NAME=VALUE…]`. A comma in a value is written twice.
pub(crate) fn with_parameters(argument: &str) -> Result<ModuleFile> {
    let mut parts = split(argument).into_iter();
    let file = parts.next().filter(|f| !f.is_empty());
    let file = file.ok_or_else(|| Usage(format!("--module {argument}: no file is named")))?;
    let parameters: Vec<String> = parts.collect();
    Ok(ModuleFile::read(Path::new(&file), &parameters)?)
}

/// Splits at single commas.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, parts.last_mut()) {
            (',', _) if rest.next_if_eq(&',').is_none() => parts.push(String::new()),
            (c, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_split_at_single_commas() {
        assert_eq!(split("m.ko"), ["m.ko"]);
        assert_eq!(split("m.ko,a=1,b=x,,y"), ["m.ko", "a=1", "b=x,y"]);
        assert_eq!(split(",a=1"), ["", "a=1"]);
    }

    #[test]
    fn the_agent_is_no_larger_than_it_is_taken_for() {
        // `abandoned` and control's `is_ours` know its code by the distance from its `syscall` instruction.
        assert!(Image::parse(crate::AGENT).unwrap().size() <= 0x2_0000);
    }

    #[test]
    fn a_message_looks_as_in_dmesg_each_line_of_it() {
        let message = Message { time_ns: 1_002_000_000, thread: 7, module: "m".into(), text: "a\nb".into() };
        assert_eq!(text(&message), "[    1.002000][      T7] m: a\n[    1.002000][      T7] m: b");
    }
}
