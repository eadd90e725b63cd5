//! The command line.

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
EXAMPLES
  kprobe trace -e 'p:open libc.so.6:openat path=+0($arg2):string' -e 'r:ret libc.so.6:openat fd=$retval:s32' -- ls /
  kprobe trace -c -e 'p libc.so.6:malloc' -e 'p libc.so.6:free' -p 4711 --duration 10
  kprobe trace -f -e @probes.txt -o trace.txt -- make
  kprobe list /usr/bin/python3 'Py*Alloc*'
  kprobe check -e 'r libc.so.6:openat' -p 4711

LINES are those of Linux's kprobe_events and uprobe_events:
  p[:[GRP/]EVENT] WHERE [[NAME=]FETCH[:TYPE]]…     a probe on an instruction
  r[MAXACTIVE][:[GRP/]EVENT] WHERE [ARGS]          a probe on a function's return (also WHERE%return)
  WHERE  [OBJECT:]SYMBOL[+OFFSET] | PATH:0xFILEOFFSET | [OBJECT:]0xADDRESS
  FETCH  %REG $argN $retval $stack $stackN $comm @ADDR @SYM[+-OFF] +|-[u]OFF(FETCH) \\IMM
  TYPE   u8…u64 s8…s64 x8…x64 char string ustring symbol bWIDTH@OFFSET/SIZE, each with [COUNT]

EXIT STATUS is the command's (128+N if signal N ended it); 2 for a wrong command line or line, 1 for other errors.";

/// Traces any instruction of an unmodified, running program: no rebuild, no restart, no root, no kernel support.
#[derive(Debug, Parser)]
#[command(name = "kprobe", version, long_version = long_version(), after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Probe a program and print what happens.
    Trace(TraceArgs),
    /// List functions that can be probed: object, size, name.
    List(ListArgs),
    /// Say where and how probes would be placed, or why not, without touching anything.
    Check(CheckArgs),
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("target").required(true).args(["pid", "command"]), after_help = EXAMPLES)]
pub(crate) struct TraceArgs {
    /// A probe definition, or @FILE with one on each line.
    #[arg(short = 'e', value_name = "LINE", required = true, allow_hyphen_values = true)]
    pub(crate) events: Vec<String>,
    /// Follow forks and executed programs.
    #[arg(short = 'f')]
    pub(crate) follow: bool,
    /// Write the trace to FILE instead of standard error.
    #[arg(short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print only the summary.
    #[arg(short = 'c')]
    pub(crate) count: bool,
    /// How to print events.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Stop tracing after this many seconds; the program goes on.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) duration: Option<f64>,
    /// Stop tracing after this many events; the program goes on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_events: Option<u64>,
    /// A running process.
    #[arg(short = 'p', value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: Option<i32>,
    /// A command to run.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Output formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// ftrace's text.
    #[default]
    Text,
    /// One JSON object for each line.
    Jsonl,
}

/// A file or a process, and what to look for in it.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("where").required(true).multiple(true).args(["file", "pid"]))]
pub(crate) struct ListArgs {
    /// A running process: all its objects.
    #[arg(short = 'p', value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: Option<i32>,
    /// An ELF file; or, with -p, a pattern.
    #[arg(value_name = "FILE|PATTERN")]
    pub(crate) file: Option<String>,
    /// Only these names: with *, ? or [] a glob, else the name itself.
    #[arg(value_name = "PATTERN")]
    pub(crate) pattern: Option<String>,
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("where").required(true).args(["file", "pid"]))]
pub(crate) struct CheckArgs {
    /// A probe definition, or @FILE with one on each line.
    #[arg(short = 'e', value_name = "LINE", required = true, allow_hyphen_values = true)]
    pub(crate) events: Vec<String>,
    /// A running process.
    #[arg(short = 'p', value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: Option<i32>,
    /// An ELF file.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value < 1e9 => Ok(value),
        _ => Err("a number of seconds above 0 is needed".into()),
    }
}

/// The version, and how large the agent is.
fn long_version() -> &'static str {
    let version = env!("CARGO_PKG_VERSION");
    let agent = match host_process::control::Image::parse(crate::AGENT) {
        Ok(image) => {
            format!("{} bytes in the tool, {} bytes of code pages in a target", crate::AGENT.len(), image.code_bytes())
        }
        Err(error) => error.to_string(),
    };
    Box::leak(format!("{version}\nagent: {agent}, no undefined symbol").into_boxed_str())
}
