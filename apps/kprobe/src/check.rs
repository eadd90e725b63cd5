//! `kprobe check`.

use crate::args::{CheckArgs, Placement};
use crate::definitions;
use crate::status::{FAILURE, Usage};
use anyhow::Result;
use host_process::control::{Verdict, View, title};
use std::io::Write;
use std::path::Path;

/// Says where each probe would go; 1 when one would be refused.
pub(crate) fn run(args: &CheckArgs) -> Result<u8> {
    let definitions = definitions::read(&args.events)?;
    let view = view(args.pid, args.file.as_deref())?;
    let mut view = if args.placement == Placement::Breakpoint { view.by_breakpoints() } else { view };
    let mut out = std::io::stdout().lock();
    let mut status = 0;
    for definition in &definitions {
        let name = title(definition);
        if one(&mut out, &name, &view.check(definition))? {
            status = FAILURE;
        }
    }
    Ok(status)
}

/// What would become of one probe; true when it would be refused.
fn one(out: &mut dyn Write, name: &str, verdict: &Verdict) -> Result<bool> {
    match verdict {
        Verdict::Placed { address, place, how, instruction, note } => {
            writeln!(out, "{name}: {place} at {address:#x}: {how}  | {instruction}")?;
            if let Some(note) = note {
                writeln!(out, "{name}: note: {note}")?;
            }
        }
        Verdict::Matched(functions) => matched(out, name, functions)?,
        Verdict::Pending(object) => writeln!(out, "{name}: waits until {object} is loaded")?,
        Verdict::Refused(why) => writeln!(out, "{name}: refused: {why}")?,
    }
    Ok(matches!(verdict, Verdict::Refused(_)))
}

/// The functions of a pattern, and how many can be probed: one that cannot is no failure.
fn matched(out: &mut dyn Write, name: &str, functions: &[(String, Verdict)]) -> Result<()> {
    let mut refused = 0;
    for (name, verdict) in functions {
        refused += usize::from(one(out, name, verdict)?);
    }
    let probed = functions.len() - refused;
    Ok(writeln!(out, "{name}: {} functions, {probed} can be probed, {refused} are refused", functions.len())?)
}

/// A process, or a file.
pub(crate) fn view(pid: Option<i32>, file: Option<&Path>) -> Result<View> {
    match (pid, file) {
        (Some(pid), _) => Ok(View::of_process(pid)?),
        (None, Some(file)) => Ok(View::of_file(file)?),
        (None, None) => Err(Usage("give a FILE or -p PID".into()).into()),
    }
}
