//! `kprobe list`.

use crate::args::ListArgs;
use crate::check::view;
use crate::status::{FAILURE, say};
use anyhow::Result;
use events::Place;
use std::io::Write;
use std::path::Path;
use symbols::Pattern;

/// Lists functions; 1 when none matches.
pub(crate) fn run(args: &ListArgs) -> Result<u8> {
    let (file, pattern) = match args.pid {
        Some(_) => (None, args.file.as_deref().or(args.pattern.as_deref())),
        None => (args.file.as_deref(), args.pattern.as_deref()),
    };
    let (objects, pattern) = parts(pattern);
    let view = view(args.pid, file.map(Path::new))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut found = 0u64;
    for object in view
        .objects()
        .all
        .iter()
        .filter(|o| objects.as_ref().is_none_or(|name| o.is_called(name) || o.is_matched_by(&Pattern::new(name))))
    {
        for function in object.object.functions() {
            let name = function.name();
            if name.is_empty() || pattern.as_ref().is_some_and(|p| !p.matches(name)) {
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

/// Which objects and which functions: `OBJECT:FUNCTION` as in a definition, or `FUNCTION`.
fn parts(text: Option<&str>) -> (Option<String>, Option<Pattern>) {
    let place = text.and_then(|text| events::parse(&format!("p {text}")).ok()).map(|definition| definition.place);
    match place {
        Some(Place::Pattern { object: Some(object), name }) => (Some(object), Some(Pattern::new(&name))),
        Some(Place::Symbol { object: Some(object), symbol, offset: 0 }) => (Some(object), Some(Pattern::new(&symbol))),
        _ => (None, text.map(Pattern::new)),
    }
}
