//! The torture suite: what would a probe have to do to hurt the program that it is in?
//!
//! Each part runs programs that check their own results, does its worst to them from outside, and compares. A part
//! yields rows for the table at the end, and findings: everything that was not as it must be, with what is needed to
//! see it again. One finding makes the whole suite fail.
//!
//! | Part | What is done |
//! |---|---|
//! | `everything` | every instruction of real programs and their libraries is probed; they do what they did without |
//! | `toggle` | probes come and go on a function while three threads are inside it; Frida does the same beside us |
//! | `storm` | the same among signals, jumps, forks, cancelled threads, objects that come and go |
//! | `killed` | the tool is killed at any moment; the program goes on and can be traced again |
//! | `confined` | programs with little stack, few system calls, and nobody who may look at them |
//! | `differential` | instructions out of line against the same in place, edges first |
//!
//! A part that cannot fail proves nothing: each has *controls*, in which something is wrong on purpose, and which are
//! findings if it goes unnoticed.
//!
//! Chance comes from one seed, which is printed; `--seed` repeats it. Not repeated is what the scheduler does.

#![deny(unsafe_code)]

mod args;
mod confined;
mod differential;
mod everything;
mod finished;
mod killed;
mod obituary;
mod place;
mod programs;
mod report;
mod storm;
mod target;
mod toggle;
mod toggler;
mod tool;

use std::process::ExitCode;

use anyhow::Result;
use args::{Args, Part};
use clap::Parser;
use place::Place;
use report::Report;
use testkit::generate::Random;
use tool::Tool;

/// What every part is given.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) tool: Tool,
    pub(crate) place: Place,
    pub(crate) seed: u64,
    pub(crate) effort: args::Effort,
    pub(crate) only: Option<String>,
}

impl Stage {
    /// Chance of its own for each part, so that one alone does what it did among the others.
    pub(crate) fn random(&self, part: &str) -> Random {
        Random::new(part.bytes().fold(self.seed, |sum, byte| sum.rotate_left(8) ^ u64::from(byte)))
    }

    /// Whether what is called `name` was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|text| name.contains(text.as_str()))
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("inside", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return match toggle::inside::main(rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    obituary::prepare();
    match run(&Args::parse()) {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<Report> {
    let stage = Stage {
        tool: Tool::new(&args.kprobe)?,
        place: Place::new(args.keep.as_deref())?,
        seed: args.seed(),
        effort: args.effort(),
        only: args.case.clone(),
    };
    println!("torture: SEED={} {:?}", stage.seed, stage.effort);
    let mut report = Report::default();
    for part in args.parts() {
        println!("\n== {part:?}");
        let ended = match part {
            Part::Everything => everything::run(&stage, &mut report),
            Part::Toggle => toggle::run(&stage, &mut report),
            Part::Storm => storm::run(&stage, &mut report),
            Part::Killed => killed::run(&stage, &mut report),
            Part::Confined => confined::run(&stage, &mut report),
            Part::Differential => differential::run(&stage, &mut report),
        };
        if let Err(error) = ended {
            report.finding(&stage, part.name(), format!("the part itself failed: {error:#}"));
        }
    }
    report.print(stage.seed);
    Ok(report)
}
