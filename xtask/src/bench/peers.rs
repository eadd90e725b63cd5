//! Other tools and libraries, installed to be measured beside ours. Nothing here is needed for anything else: programs
//! come from the system's packages, Frida from Python's, into an environment of its own, and Rust's crates are built in
//! packages of their own (`benches/peers`), outside the workspace. What cannot be had is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup;
use crate::shell::{cargo, root, run, succeeds};

/// Packages that put a probe into the measured program from within; each is a shared library.
const LIBRARIES: &str = "benches/peers";

/// Installs what can be installed; returns the folder with what is no system's package.
pub(super) fn install(folder: &Path) -> PathBuf {
    setup::for_peers();
    if !frida(&folder.join("venv")) {
        println!("SKIPPED: Frida's rows of the benchmark (its Python package cannot be had)");
    }
    for package in packages() {
        let mut build = Command::new(cargo());
        build.args(["build", "--release", "--manifest-path"]).arg(package.join("Cargo.toml"));
        if run(build.arg("--target-dir").arg(folder.join("libraries"))).is_err() {
            println!("SKIPPED: rows of {} (it cannot be built)", package.display());
        }
    }
    folder.to_owned()
}

fn packages() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(LIBRARIES)).into_iter().flatten().flatten();
    let mut packages: Vec<_> = entries.map(|entry| entry.path()).filter(|p| p.join("Cargo.toml").exists()).collect();
    packages.sort();
    packages
}

fn frida(environment: &Path) -> bool {
    let python = environment.join("bin/python").display().to_string();
    let there = || succeeds(&python, &["-c", "import frida"]);
    let create = || run(Command::new("python3").args(["-m", "venv"]).arg(environment)).is_ok();
    let install = || run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "frida"])).is_ok();
    there() || (create() && install() && there())
}
