//! The programs that are tortured: built here, or found.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Stage;

/// Our own sources.
fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

/// Those of the tool's end-to-end tests.
pub(crate) fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps/kprobe/tests")
}

/// A program of ours, built with further options. `Err` in the result: why it cannot be had.
///
/// # Errors
///
/// If the compiler is there and fails.
pub(crate) fn build(stage: &Stage, source: &str, name: &str, options: &[&str]) -> Result<Result<PathBuf, String>> {
    compile(stage, &own().join(source), name, options)
}

/// A program of the end-to-end tests, built.
///
/// # Errors
///
/// As above.
pub(crate) fn build_test(stage: &Stage, source: &str, options: &[&str]) -> Result<Result<PathBuf, String>> {
    compile(stage, &tests().join("programs").join(source), source, options)
}

fn compile(stage: &Stage, source: &Path, name: &str, options: &[&str]) -> Result<Result<PathBuf, String>> {
    let folder = stage.place.path().join("programs");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(name.replace('.', "-"));
    let (compiler, common): (_, &[&str]) = match source.extension().and_then(|ext| ext.to_str()) {
        Some("rs") => ("rustc", &["--edition=2024", "-O"]),
        Some("go") => ("go", &["build"]),
        Some("cpp") => ("g++", &["-O2", "-g", "-pthread", "-rdynamic", "-std=c++17", "-fnon-call-exceptions"]),
        _ => ("gcc", &["-O2", "-g", "-pthread", "-rdynamic"]),
    };
    let mut command = Command::new(compiler);
    command.args(common).args(options).arg("-o").arg(&path);
    if compiler == "rustc" {
        command.args(["--crate-name", "program"]);
    }
    command.arg(source).env("GOCACHE", folder.join("go-cache")).env("GOFLAGS", "").current_dir(&folder);
    match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Err(format!("{compiler} is not installed"))),
        Err(error) => Err(error).context(compiler),
        Ok(output) if output.status.success() => Ok(Ok(path)),
        Ok(output) => bail!("{name}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// An ELF program of the system, wherever the search path has it.
pub(crate) fn find(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = std::env::split_paths(&path).map(|folder| folder.join(name)).filter(|path| is_elf(path));
    let found = all.next().and_then(|path| path.canonicalize().ok());
    found.ok_or_else(|| format!("{name} is not installed"))
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"\x7fELF"
}
