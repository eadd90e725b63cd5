//! The command loop on the serial line.
//!
//! The prompt is `> `. A line is a command with its arguments, or a probe definition as the tool's command line and
//! tracefs take it (`p:open sys_open path=+0($arg1):string`, `r:ret sys_open $retval:s32`, `-:open`), which goes to
//! `probes`. Empty lines and those that begin with `#` are passed over.
//!
//! A session may be a script that nobody looks at, so failures are counted: `halt` without a code ends the machine
//! with success only if no command has failed. Where a failure is what is wanted, `expect-error COMMAND` says so, and
//! fails if the command does not.

mod commands;
mod files;
mod system;

use alloc::format;
use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::ksyms::similar;
use crate::{console, log, print, println, probes};

const PROMPT: &str = "> ";

/// Commands that have failed.
static FAILURES: AtomicUsize = AtomicUsize::new(0);

/// A command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    /// Its first word.
    pub(crate) name: &'static str,
    /// What follows the name.
    pub(crate) usage: &'static str,
    /// What it does, in some words.
    pub(crate) help: &'static str,
    /// Does it; the argument is the rest of the line, without blanks around it. A failure is told with the name
    /// before it.
    pub(crate) run: fn(&str) -> Result<(), String>,
}

/// Serves the console until the machine is halted.
pub(crate) fn run() -> ! {
    let mut line = String::new();
    loop {
        log::drain();
        print!("{PROMPT}");
        if !console::read_line(&mut line) {
            println!();
            system::end();
        }
        log::command(|| {
            execute(&line);
            probes::modules::reap();
        });
    }
}

/// Runs a line and counts its failure.
fn execute(line: &str) {
    if let Err(error) = interpret(line.trim()) {
        println!("{error}");
        FAILURES.fetch_add(1, Ordering::Relaxed);
    }
}

fn interpret(line: &str) -> Result<(), String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    if is_definition(line) {
        let answer = probes::define(line)?;
        if !answer.is_empty() {
            println!("{answer}");
        }
        return Ok(());
    }
    let (name, arguments) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let Some(command) = all().find(|command| command.name == name) else { return Err(unknown(name)) };
    (command.run)(arguments.trim()).map_err(|error| format!("{name}: {error}"))
}

/// All commands, ours and those of probes.
fn all() -> impl Iterator<Item = &'static Command> {
    commands::COMMANDS.iter().chain(probes::COMMANDS).chain(probes::modules::COMMANDS)
}

/// True for `p` or `r`, perhaps a number, and a colon or a blank; and for `-:`.
fn is_definition(line: &str) -> bool {
    let kind = line.strip_prefix(['p', 'r']).map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    kind.is_some_and(|rest| rest.starts_with([':', ' ', '\t'])) || line.starts_with("-:")
}

fn unknown(name: &str) -> String {
    match similar(name, all().map(|command| command.name), 1).first() {
        Some(near) => format!("{name}: no such command; did you mean {near}?"),
        None => format!("{name}: no such command; help lists them"),
    }
}

/// The command that inverts another one's failure.
fn expect_error(line: &str) -> Result<(), String> {
    if line.split_whitespace().next() == Some("expect-error") {
        return Err("it cannot be expected of itself".to_string());
    }
    match interpret(line) {
        Ok(()) => Err("there was none".to_string()),
        Err(error) => {
            println!("{error}");
            Ok(())
        }
    }
}

fn help(_: &str) -> Result<(), String> {
    for Command { name, usage, help, .. } in all() {
        println!("{:28} {help}", format!("{name} {usage}"));
    }
    println!("{:28} a probe, as in tracefs: plant", "p[:EVENT] SYMBOL [FETCH...]");
    println!("{:28} … at a function's return", "r[MAX][:EVENT] SYMBOL [...]");
    println!("{:28} … remove", "-:EVENT");
    Ok(())
}
