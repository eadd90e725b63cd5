//! From `-e` arguments to definitions.

use crate::status::Usage;
use anyhow::{Context, Result};
use events::{Definition, Kind, SyntaxError};

/// The definitions that the `-e` arguments give, in order.
pub(crate) fn read(arguments: &[String]) -> Result<Vec<Definition>> {
    let mut definitions = Vec::new();
    for argument in arguments {
        match argument.strip_prefix('@') {
            Some(path) => from_file(path, &mut definitions)?,
            None => definitions.push(from_line(argument, "-e")?),
        }
    }
    if definitions.is_empty() {
        return Err(Usage("no probe is defined: the files after -e @ hold none".into()).into());
    }
    Ok(definitions)
}

fn from_file(path: &str, definitions: &mut Vec<Definition>) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the definitions in {path}"))?;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            definitions.push(from_line(line, &format!("{path}:{}", number + 1))?);
        }
    }
    Ok(())
}

fn from_line(line: &str, source: &str) -> Result<Definition> {
    let wrong = |e: SyntaxError| Usage(format!("{source}: {}", e.render(line)));
    let definition = events::parse(line).map_err(wrong)?;
    supported(&definition).map_err(|why| Usage(format!("{source}: {why}\n  {line}")))?;
    Ok(definition)
}

fn supported(definition: &Definition) -> Result<(), &'static str> {
    if definition.kind == Kind::Remove {
        return Err("a line that removes a probe makes no sense here: probes end with the trace");
    }
    if definition.reference.is_some() {
        return Err(
            "reference counters, PATH:OFFSET(COUNTER), are not supported: leave the parenthesis out and enable the \
                    program's own tracepoint by other means",
        );
    }
    Ok(())
}
