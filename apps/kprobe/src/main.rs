//! `kprobe`: traces any instruction of an unmodified, running program.
//!
//! Thin: what it does is in the libraries. Here are the command line ([`args`]), the commands, and the output.

mod args;
mod build;
mod check;
mod definitions;
mod list;
mod modules;
mod output;
mod progress;
mod report;
mod status;
mod trace;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

/// The agent that is mapped into targets.
static AGENT: &[u8] = agent_image::IMAGE;

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Trace(args) => trace::run(&args),
        Command::List(args) => list::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Build(args) => modules::build(&args),
        Command::Insmod(args) => modules::insert(&args),
        Command::Rmmod(args) => modules::remove(&args),
        Command::Lsmod(args) => modules::list(&args),
        Command::Dmesg(args) => modules::messages(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever reads our standard output has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            status::say(&format!("{error:#}"));
            ExitCode::from(if error.is::<status::Usage>() { status::USAGE } else { status::FAILURE })
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
