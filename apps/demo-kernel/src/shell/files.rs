//! Commands on files. All go through the system calls, so that there is something to trace.

use alloc::format;
use alloc::string::{String, ToString};

use crate::{fs, print, println};

pub(super) fn ls(path: &str) -> Result<(), String> {
    let path = if path.is_empty() { "/" } else { path };
    for (name, stat) in fs::list(path).map_err(|errno| format!("{path}: {errno}"))? {
        let slash = if stat.directory == 1 { "/" } else { "" };
        println!("{:>8} {name}{slash}", stat.size);
    }
    Ok(())
}

pub(super) fn cat(path: &str) -> Result<(), String> {
    let path = needed(path, "PATH")?;
    let bytes = fs::read(path).map_err(|errno| format!("{path}: {errno}"))?;
    let text = String::from_utf8_lossy(&bytes);
    print!("{text}");
    if !text.is_empty() && !text.ends_with('\n') {
        println!();
    }
    Ok(())
}

pub(super) fn write(arguments: &str) -> Result<(), String> {
    let (path, text) = needed(arguments, "PATH TEXT")?.split_once(char::is_whitespace).ok_or("TEXT is missing")?;
    fs::write(path, format!("{}\n", text.trim()).as_bytes()).map_err(|errno| format!("{path}: {errno}"))
}

/// An argument that must be there.
pub(super) fn needed<'a>(argument: &'a str, what: &str) -> Result<&'a str, String> {
    if argument.is_empty() { Err(format!("{what} is missing").to_string()) } else { Ok(argument) }
}
