//! `cargo xtask bench-kernel`: what a hit of a probe costs in a kernel, here and in Linux.
//!
//! Both are measured in instructions, which QEMU counts (`-icount shift=0`), on the same functions: the demo kernel by
//! its command `bench`, Linux by its guest ([`guest`]). Nothing of the machine that runs this gets into the figures.
//! They are printed side by side, and kept in `target/bench-kernel.json`.
//!
//! # What is compared
//!
//! A row of ours stands beside Linux's of the same probe on the same function: jumps beside its optimized probes, all
//! others beside those whose breakpoints stay breakpoints. Where
//! Linux steps (it executes the instruction's copy and traps once more) ours has three rows: boosted, which is what it
//! does unless told otherwise, and the two ways to step. Debian's Linux could boost too, but being preemptible it does
//! not (`arch/x86/kernel/kprobes/core.c`, `setup_singlestep`). Where Linux emulates, our emulation stands beside it.
//! Records have no counterpart: in Linux they are the trace layer's, whose cost is not that of kprobes.

mod figures;
mod table;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::guest::{self, Outcome};
use crate::qemu::{self, Modules, Options};
use crate::shell::root;
use figures::Figures;

/// Several times what it takes.
const TIMEOUT: Duration = Duration::from_secs(240);
const SCRIPT: &str = "bench\nhalt\n";

/// How the table is printed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Text,
    Markdown,
}

/// Measures both, and prints the table.
///
/// # Errors
///
/// If a kernel cannot be built, or does not run as it should. Without what Linux's guest needs, ours is measured alone.
pub(crate) fn run(format: Format) -> Result<()> {
    let ours = ours()?;
    let (linux, skipped) = match guest::figures()? {
        Outcome::Measured(figures) => (Some(figures), None),
        Outcome::Skipped(why) => (None, Some(why)),
    };
    let cost = |probe: &str, on: &str, how: &str, others| linux.as_ref().and_then(|l| l.cost(probe, on, how, others));
    let lines = table::lines(&ours, &cost);
    let kernel = linux.as_ref().map(|l| l.kernel.as_str());
    match format {
        Format::Text => print!("{}", table::text(&lines, kernel)),
        Format::Markdown => print!("{}", table::markdown(&lines, kernel)),
    }
    if let Some(why) = &skipped {
        println!("\nSKIPPED: Linux's figures: {why}");
    }
    let linux = linux.map_or_else(|| json!({"skipped": skipped}), |figures| figures.json());
    let all = json!({"ours": ours.json(), "linux": linux});
    let path = root().join("target/bench-kernel.json");
    std::fs::create_dir_all(root().join("target")).context("the folder target")?;
    std::fs::write(&path, format!("{all:#}\n")).with_context(|| path.display().to_string())
}

fn ours() -> Result<Figures> {
    eprintln!("demo kernel: building and booting");
    let options = Options { icount: true, timeout: TIMEOUT, show: false, modules: Modules::None, ..Options::default() };
    let run = qemu::run_script(SCRIPT, &options)?;
    if run.status != 0 {
        bail!("the demo kernel ended with status {}:\n{}", run.status, run.output);
    }
    Figures::parse(&run.output)
}
