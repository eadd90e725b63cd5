//! `kprobe check`.

use crate::args::CheckArgs;
use crate::definitions;
use crate::status::{FAILURE, Usage};
use anyhow::Result;
use host_process::control::{Verdict, View, title};
use std::io::Write;
use std::path::Path;

/// Says where each probe would go; 1 when one would be refused.
pub(crate) fn run(args: &CheckArgs) -> Result<u8> {
    let definitions = definitions::read(&args.events)?;
    let mut view = view(args.pid, args.file.as_deref())?;
    let mut out = std::io::stdout().lock();
    let mut status = 0;
    for definition in &definitions {
        let name = title(definition);
        match view.check(definition) {
            Verdict::Placed { address, place, how, instruction, note } => {
                writeln!(out, "{name}: {place} at {address:#x}: {how}  | {instruction}")?;
                if let Some(note) = note {
                    writeln!(out, "{name}: note: {note}")?;
                }
            }
            Verdict::Pending(object) => writeln!(out, "{name}: waits until {object} is loaded")?,
            Verdict::Refused(why) => {
                status = FAILURE;
                writeln!(out, "{name}: refused: {why}")?;
            }
        }
    }
    Ok(status)
}

/// A process, or a file.
pub(crate) fn view(pid: Option<i32>, file: Option<&Path>) -> Result<View> {
    match (pid, file) {
        (Some(pid), _) => Ok(View::of_process(pid)?),
        (None, Some(file)) => Ok(View::of_file(file)?),
        (None, None) => Err(Usage("give a FILE or -p PID".into()).into()),
    }
}
