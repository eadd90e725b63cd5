//! The command line.

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
EXAMPLES
  kprobe trace -e 'p:open libc.so.6:openat path=+0($arg2):string' -e 'r:ret libc.so.6:openat fd=$retval:s32' -- ls /
  kprobe trace -c -e 'p libc.so.6:malloc' -e 'p libc.so.6:free' -p 4711 --duration 10
  kprobe trace -f -e @probes.txt -o trace.txt -- make
  kprobe trace -c -e 'p libc.so.6:mem*' -- ls       # every function that matches; '*:*' is all of all objects
  kprobe list /usr/bin/python3 'Py*Alloc*'
  kprobe check -e 'r libc.so.6:openat' -p 4711
  kprobe trace --module open-failures.ko,limit=10 -- ls /nonexistent
  kprobe insmod -p 4711 open-failures.ko limit=10; kprobe dmesg -p 4711; kprobe rmmod -p 4711 open-failures

LINES are those of Linux's kprobe_events and uprobe_events:
  p[:[GRP/]EVENT] WHERE [[NAME=]FETCH[:TYPE]]…     a probe on an instruction
  r[MAXACTIVE][:[GRP/]EVENT] WHERE [ARGS]          a probe on a function's return (also WHERE%return)
  WHERE  [OBJECT:]SYMBOL[+OFFSET] | PATH:0xFILEOFFSET | [OBJECT:]0xADDRESS
         [OBJECT:]SYMBOL with * ? or [a-z] in either, not in quotes: each function that matches, with an event of
         its own name; with :EVENT one event for all. Functions that cannot be probed are left out and counted.
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
    /// Make a probe module of a folder with Rust code.
    Build(BuildArgs),
    /// Insert a probe module into a running process, where it stays.
    Insmod(InsmodArgs),
    /// Remove a probe module.
    Rmmod(RmmodArgs),
    /// List the probe modules in a process.
    Lsmod(LsmodArgs),
    /// Print what the probe modules in a process have printed.
    Dmesg(DmesgArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BuildArgs {
    /// The folder: a Rust package that uses the crate `module`.
    #[arg(value_name = "MODULE_DIR")]
    pub(crate) folder: PathBuf,
    /// For a kernel, not for processes.
    #[arg(long)]
    pub(crate) kernel: bool,
    /// The file to write; otherwise NAME.ko in the current folder.
    #[arg(short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// How probes are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Placement {
    /// By a jump where there can be one, else by a breakpoint.
    Jump,
    /// By a breakpoint always.
    Breakpoint,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InsmodArgs {
    /// The process.
    #[arg(short = 'p', value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,
    /// How to place its probes.
    #[arg(long, value_name = "HOW", default_value = "jump")]
    pub(crate) placement: Placement,
    /// The module.
    #[arg(value_name = "FILE.ko")]
    pub(crate) file: PathBuf,
    /// Its parameters.
    #[arg(value_name = "NAME=VALUE")]
    pub(crate) parameters: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RmmodArgs {
    /// The process.
    #[arg(short = 'p', value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,
    /// The module's name.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LsmodArgs {
    /// The process.
    #[arg(short = 'p', value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DmesgArgs {
    /// The process.
    #[arg(short = 'p', value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,
    /// Wait for more, until the process ends.
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("target").required(true).args(["pid", "command"]), after_help = EXAMPLES)]
pub(crate) struct TraceArgs {
    /// A probe definition, or @FILE with one on each line.
    #[arg(short = 'e', value_name = "LINE", required_unless_present = "modules", allow_hyphen_values = true)]
    pub(crate) events: Vec<String>,
    /// A probe module, with its parameters; it is removed when the trace ends.
    #[arg(long = "module", value_name = "FILE.ko[,NAME=VALUE…]")]
    pub(crate) modules: Vec<String>,
    /// Follow forks and executed programs.
    #[arg(short = 'f')]
    pub(crate) follow: bool,
    /// How to place probes.
    #[arg(long, value_name = "HOW", default_value = "jump")]
    pub(crate) placement: Placement,
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
    /// Only these names: with *, ? or [] a glob, else the name itself; also OBJECT:NAME.
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
    /// How to place them.
    #[arg(long, value_name = "HOW", default_value = "jump")]
    pub(crate) placement: Placement,
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
