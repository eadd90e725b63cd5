//! `cargo xtask layering`: the shape of the source tree, checked.
//!
//! The design's promises (dependencies point one way; the engine names no instruction set and no operating system;
//! `unsafe` lives in few places; each public function has an example) are only worth something while they hold. Each
//! rule is a function from the tree to its violations, and each has a test in which a seeded violation must be found.

mod dependencies;
mod examples;
mod manifests;
mod source;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::root;

/// A place where a rule does not hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    place: String,
    what: String,
}

impl Violation {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.what)
    }
}

/// A text file of the tree.
#[derive(Debug)]
struct File {
    /// Its path from the root.
    path: String,
    text: String,
}

/// Checks the whole tree.
///
/// # Errors
///
/// If a rule does not hold, or the tree cannot be read.
pub(crate) fn run() -> Result<()> {
    let mut violations = dependencies::check(&dependencies::packages()?);
    for file in files()? {
        if file.path.ends_with("Cargo.toml") {
            violations.extend(manifests::check(&file));
        }
        if file.path.ends_with(".rs") {
            violations.extend(source::check(&file));
            violations.extend(examples::check(&file));
        }
        violations.extend(source::check_any(&file));
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    if !violations.is_empty() {
        bail!("layering: {} violations", violations.len());
    }
    println!("layering: ok");
    Ok(())
}

/// The tree's text files that rules speak of.
fn files() -> Result<Vec<File>> {
    let root = root();
    let mut pending: Vec<PathBuf> =
        ["crates", "apps", "modules", "torture", "xtask", ".ci"].map(|folder| root.join(folder)).into();
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).with_context(|| path.display().to_string())?;
            pending.extend(entries.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with("target")));
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            files.push(File { path: relative(&root, &path), text });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
