//! `cargo xtask qemu`: the demo kernel, built and booted.
//!
//! Everything a run needs is made here: the tools (`setup`), the kernel ([`build`]), its RAM disk with its own symbol
//! table and probe modules ([`disk`], [`symbols`], [`modules`]), the machine ([`machine`]) and somebody who types ([`session`]).
//!
//! # How a script is typed
//!
//! The kernel's shell prints the prompt `> ` at the beginning of a line when it is ready for the next command. A line
//! of the script is sent when that is seen, never earlier: the serial line's FIFO has 16 bytes, and what the kernel
//! does with a command must not depend on how much of the next one has come already. Empty lines and those that begin
//! with `#` are not sent. Where the script ends without halting the machine, `halt` is sent, which fails if a command
//! has failed.
//!
//! # How a run ends
//!
//! | what happens | result |
//! |---|---|
//! | the kernel leaves by the debug-exit port, with success | status 0 |
//! | … with another value | that value |
//! | the kernel panics | an error |
//! | the processor is reset (a triple fault), QEMU dies or refuses to start | an error |
//! | the time is over | an error, with the last lines of the output |

mod build;
pub(crate) mod checks;
mod closure;
mod disk;
mod machine;
mod modules;
mod options;
#[cfg(test)]
mod parts;
mod prompt;
mod session;
mod symbols;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

pub(crate) use build::Kernel;
pub(crate) use modules::Modules;
pub(crate) use options::Options;

/// What a scripted run has shown.
#[derive(Debug)]
pub(crate) struct Run {
    /// All that came over the serial line, as text; what is no UTF-8 is replaced.
    pub(crate) output: String,
    /// 0 for success, else the value that the kernel left with.
    pub(crate) status: u8,
    /// From QEMU's start to the first prompt; none if there was none.
    pub(crate) boot_time: Option<Duration>,
}

/// Builds the kernel and has it run a script.
///
/// # Errors
///
/// If something cannot be built or started, if the machine is reset, or if the time is over. A kernel that halts with
/// a failure is no error here: see [`Run::status`].
pub(crate) fn run_script(script: &str, options: &Options) -> Result<Run> {
    Kernel::build(&options.modules)?.run(script, options)
}

/// The verb.
pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    let result = options::parse(arguments).and_then(|verb| match verb {
        options::Verb::Help => {
            println!("{}", options::USAGE);
            Ok(0)
        }
        options::Verb::Closure => closure::run(&Kernel::build(&Modules::None)?).map(|()| 0),
        options::Verb::Interactive(options) => machine::interactive(&Kernel::build(&options.modules)?, &options),
        options::Verb::Script(file, options) => scripted(&file, &options),
    });
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn scripted(file: &str, options: &Options) -> Result<u8> {
    let script = std::fs::read_to_string(file).with_context(|| format!("cannot read the script {file}"))?;
    let run = run_script(&script, options)?;
    let booted = run.boot_time.map_or(String::new(), |time| format!(" (booted in {:.2} s)", time.as_secs_f64()));
    eprintln!("qemu: exit status {}{booted}", run.status);
    Ok(run.status)
}
