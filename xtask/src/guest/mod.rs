//! `cargo xtask guest`: what Linux's own kprobes cost, in guest instructions.
//!
//! An unmodified Linux 6.1 of Debian's is booted in QEMU with `-icount shift=0`, under which the time stamp counter
//! counts executed instructions. A module of ours (`benches/linux-guest`) registers probes of every kind, calls what
//! they are on, and logs what the calls cost with and without them. The figures are exact: nothing of the machine
//! that QEMU runs on gets into them, and each run gives the same. They say how much work a hit is, not how long it
//! takes; what else is measured the same way, on the same functions (`targets.S`), can be compared with them.
//!
//! Nothing is installed for it but the tools of `cargo xtask setup`. Kernel, headers and a static busybox are Debian
//! packages, downloaded and unpacked into `target/linux-guest/RELEASE`, where they stay. What cannot be had makes the
//! figures `SKIPPED`; what goes wrong once everything is there is an error.
//!
//! | Step | Module |
//! |---|---|
//! | download and unpack | `packages` |
//! | kernel image to ELF file | `vmlinux` |
//! | build the module out of tree | `module` |
//! | the guest's files as an archive | `initrd` |
//! | boot, with a time limit | `boot` |
//! | the log to figures, a table, JSON | `figures` |

mod boot;
mod command;
mod figures;
mod initrd;
mod module;
mod packages;
mod vmlinux;

use std::path::PathBuf;

use anyhow::{Context, Result};

pub(crate) use figures::Figures;

use crate::setup;
use crate::shell::root;

/// What came of an attempt to measure.
#[derive(Debug)]
pub(crate) enum Outcome {
    Measured(Figures),
    /// Something that is needed cannot be had; what, and why.
    Skipped(String),
}

/// Prints the figures as a table.
///
/// # Errors
///
/// If the guest cannot be built or does not run as it should. What cannot be had is no error.
pub(crate) fn run() -> Result<()> {
    match figures()? {
        Outcome::Measured(figures) => print!("{}", figures.table()),
        Outcome::Skipped(why) => println!("SKIPPED: Linux's figures: {why}"),
    }
    Ok(())
}

/// Measures, and leaves the figures in `target/linux-guest/figures.json` too. Takes less than a minute after the first
/// time, most of it the guest's.
///
/// # Errors
///
/// If the guest cannot be built or does not run as it should.
pub(crate) fn figures() -> Result<Outcome> {
    if let Err(what) = setup::for_guest() {
        return Ok(Outcome::Skipped(what));
    }
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let linux = match packages::fetch(&folder) {
        Ok(linux) => linux,
        Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
    };
    let module = module::build(&linux)?;
    let initrd = linux.folder.join("initrd");
    initrd::write(&initrd, &linux.busybox(), &module)?;
    let serial = boot::run(&linux.vmlinux(), &initrd, &folder.join("serial.log"))?;
    let figures = Figures::parse(&serial)?;
    let path = folder.join("figures.json");
    std::fs::write(&path, format!("{:#}\n", figures.json())).with_context(|| path.display().to_string())?;
    Ok(Outcome::Measured(figures))
}

/// Where everything is kept.
fn folder() -> PathBuf {
    root().join("target/linux-guest")
}

/// The sources of what runs in the guest.
fn sources() -> PathBuf {
    root().join("benches/linux-guest")
}
