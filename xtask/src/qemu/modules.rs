//! Probe modules, for the RAM disk: the repository's, and the one that the kernel's tests need.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::{self, cargo, root};

/// Where the kernel looks for them.
const PLACE: &str = "lib/modules";
/// Folders with packages of modules in them.
const SOURCES: [&str; 2] = ["modules", "apps/demo-kernel/modules"];
const EXTENSION: &str = "ko";

/// Which modules the RAM disk has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Modules {
    /// Those of the repository, built.
    #[default]
    Built,
    /// Those that lie in a folder.
    Folder(PathBuf),
    /// None.
    None,
}

/// A file for the RAM disk: its name there, and its bytes.
pub(super) type File = (String, Vec<u8>);

impl Modules {
    /// The files, by name. What is built, is built below `target`.
    ///
    /// # Errors
    ///
    /// If one does not build, or cannot be read.
    pub(super) fn files(&self, target: &Path) -> Result<Vec<File>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::Folder(folder) => collect(folder),
            Self::Built => build_all(&target.join("modules")),
        }
    }
}

/// The modules in a folder.
fn collect(folder: &Path) -> Result<Vec<File>> {
    let is_module = |path: &PathBuf| path.extension().is_some_and(|extension| extension == EXTENSION);
    entries(folder)?.into_iter().filter(is_module).map(|path| file(&path)).collect()
}

/// A module as the RAM disk has it.
fn file(path: &Path) -> Result<File> {
    let name =
        path.file_name().and_then(|name| name.to_str()).with_context(|| format!("{}: no text", path.display()))?;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((format!("{PLACE}/{name}"), bytes))
}

/// What is in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = list().with_context(|| format!("cannot list {}", folder.display()))?;
    paths.sort();
    Ok(paths)
}

/// Builds all modules, as their users do: by the tool.
fn build_all(folder: &Path) -> Result<Vec<File>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut files = Vec::new();
    for source in SOURCES.map(|source| root().join(source)).iter().filter(|source| source.is_dir()) {
        for package in entries(source)?.iter().filter(|package| package.join("Cargo.toml").is_file()) {
            let name = package.file_name().unwrap_or_default();
            let output = folder.join(name).with_extension(EXTENSION);
            build(package, &output)?;
            files.push(file(&output)?);
        }
    }
    Ok(files)
}

/// Two runs at once must not see half a module.
fn build(package: &Path, output: &Path) -> Result<()> {
    let fresh = output.with_extension(format!("{}.new", std::process::id()));
    let mut command = Command::new(cargo());
    command.args(["run", "--quiet", "--package", "kprobe", "--", "build", "--kernel", "-o"]);
    // What it prints is where the file is: no part of what a machine says.
    shell::run(command.arg(&fresh).arg(package).stdout(std::process::Stdio::null()))?;
    std::fs::rename(&fresh, output).with_context(|| format!("cannot write {}", output.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_of_a_folder_are_taken_by_name_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("c.ko.d")).unwrap();
        for (name, text) in [("b.ko", "two"), ("a.ko", "one"), ("a.o", "no"), ("ko", "no")] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let files = Modules::Folder(folder.clone()).files(Path::new("/nowhere"));
        std::fs::remove_dir_all(&folder).unwrap();
        let wanted = [("lib/modules/a.ko", "one"), ("lib/modules/b.ko", "two")];
        assert_eq!(files.unwrap(), wanted.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())));
    }

    #[test]
    fn a_missing_folder_is_an_error_and_none_is_none() {
        let missing = Modules::Folder("no/such/folder".into()).files(Path::new("/nowhere"));
        assert!(missing.unwrap_err().to_string().contains("no/such/folder"));
        assert_eq!(Modules::None.files(Path::new("/nowhere")).unwrap(), []);
    }
}
