//! Results that are kept: a folder for each day, with everything in it that explains the numbers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::report::{self, Report};

/// Writes `bench.json`, `bench.svg` and `table.md` into a folder in `folder`; says which.
///
/// # Errors
///
/// If they cannot be written.
pub(crate) fn keep(report: &Report, folder: &Path) -> Result<PathBuf> {
    let folder = folder.join(&report.machine.date);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let files = [
        ("bench.json", format!("{:#}\n", report::json(report))),
        ("bench.svg", report::svg(report)),
        ("table.md", report::markdown(report)),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(folder)
}
