//! `kprobe list`.

use crate::args::ListArgs;
use crate::check::view;
use crate::status::{FAILURE, say};
use anyhow::Result;
use std::io::Write;
use std::path::Path;

/// Lists functions; 1 when none matches.
pub(crate) fn run(args: &ListArgs) -> Result<u8> {
    let (file, pattern) = match args.pid {
        Some(_) => (None, args.file.as_deref().or(args.pattern.as_deref())),
        None => (args.file.as_deref(), args.pattern.as_deref()),
    };
    let view = view(args.pid, file.map(Path::new))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut found = 0u64;
    for object in &view.objects().all {
        for function in object.object.functions() {
            let name = function.name();
            if name.is_empty() || pattern.is_some_and(|p| !symbols::matches(p, name)) {
                continue;
            }
            found += 1;
            let demangled = function.demangled();
            let kind = if function.ifunc { " [ifunc]" } else { "" };
            let raw = if demangled == name { String::new() } else { format!("  ({name})") };
            writeln!(out, "{}\t{:#x}\t{demangled}{kind}{raw}", object.base_name(), function.size)?;
        }
    }
    out.flush()?;
    if found == 0 {
        say(match pattern {
            Some(_) => "no function matches; a pattern without *, ? or [] must be the whole name",
            None => "no function symbols: the file is stripped; probe addresses (0xADDRESS) or file offsets instead",
        });
        return Ok(FAILURE);
    }
    Ok(0)
}
