//! The module that measures, built out of tree against the kernel's headers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::command::output;
use super::packages::Linux;
use super::sources;

const SOURCES: [&str; 4] = ["Kbuild", "measure.c", "targets.S", "targets.h"];

/// Builds it and says where it is.
///
/// # Errors
///
/// If it does not compile.
pub(super) fn build(linux: &Linux) -> Result<PathBuf> {
    let folder = linux.folder.join("module");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // The kernel's build writes beside the sources.
    for source in SOURCES {
        copy(&sources().join(source), &folder.join(source))?;
    }
    find_common_headers(linux)?;
    let mut make = Command::new("make");
    make.arg("-C").arg(linux.headers()).arg(format!("M={}", folder.display()));
    // Type information would need one more tool, and nobody reads it.
    make.args(["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
    make.env("LD_LIBRARY_PATH", linux.libraries()).env_remove("MAKEFLAGS");
    output(&mut make).context("the guest's module")?;
    Ok(folder.join("probe_cost.ko"))
}

/// The packaged makefile names the common headers by the path that they would be installed at.
fn find_common_headers(linux: &Linux) -> Result<()> {
    let makefile = linux.headers().join("Makefile");
    let text = format!("include {}/Makefile\n", linux.common_headers().display());
    write(&makefile, text.as_bytes())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    write(to, &fs::read(from).with_context(|| from.display().to_string())?)
}

/// Leaves a file alone that is right already, so that make does too.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_there() {
        for source in SOURCES {
            assert!(sources().join(source).is_file(), "{source}");
        }
    }
}
