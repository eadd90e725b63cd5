//! `kprobe build`: makes a module of a folder with Rust code.
//!
//! A module is a relocatable file without anything in it that its host does not have. The way there: a nested cargo makes
//! a static library for the host's target, with link-time optimization, so that of the standard library's core only what
//! is used is left; `ld -r` takes out of it what the module's declaration reaches; and the loader, the same that will
//! load it, says whether it can be loaded, and what is undefined in it.
//!
//! The code is position-independent for every host: it is linked to where it is loaded, and what is out of a relative
//! address's reach is reached by a table (crate `loader`).

use anyhow::{Context, Result, bail, ensure};
use kprobes::raw::EXPORTS;
use loader::Object;
use serde_json::Value;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a module of a process is built for, whatever C library the process has.
const PROCESS: &str = "x86_64-unknown-linux-gnu";
/// What a module of a kernel is built for: no vector registers, no red zone.
const KERNEL: &str = "x86_64-unknown-none";
/// The symbol that a module's declaration has.
const DECLARATION: &str = "kprobes_module";
const NO_DECLARATION: &str = "it declares no module: `module::module! { … }` is missing";
/// What no host loads: unwind tables, and what compilers tell each other.
const DISCARD: &str = "SECTIONS { /DISCARD/ : { *(.eh_frame .llvmbc .llvmcmd .comment .note .note.*) } }";

/// Builds the module in `folder`, for a process or for a kernel, and writes it to `output`, or to `NAME.ko` in the current
/// folder. Gives the file that was written.
///
/// # Errors
/// The folder is no package, a tool or the target is missing, the code does not compile, or the module could not be
/// loaded by any host.
pub(crate) fn build(folder: &Path, kernel: bool, output: Option<&Path>) -> Result<PathBuf> {
    let manifest = folder.join("Cargo.toml");
    ensure!(manifest.is_file(), "{}: no Cargo.toml there: a module is a Rust package", folder.display());
    let target = if kernel { KERNEL } else { PROCESS };
    check_target(folder, target)?;
    let package = Package::read(folder)?;
    let library = package.compile(folder, target)?;
    let output = output.map_or_else(|| PathBuf::from(format!("{}.ko", package.name)), Path::to_path_buf);
    let bytes = link(&library)?;
    check(&bytes).with_context(|| format!("{}: the module cannot be loaded", folder.display()))?;
    fs::write(&output, bytes).with_context(|| output.display().to_string())?;
    Ok(output)
}

/// The package of a module.
struct Package {
    name: String,
    /// Where cargo puts what it makes.
    target_folder: PathBuf,
}

impl Package {
    fn read(folder: &Path) -> Result<Self> {
        let arguments = ["metadata", "--no-deps", "--format-version", "1"];
        let output = cargo(folder).args(arguments).stderr(Stdio::inherit()).output().with_context(no_cargo)?;
        ensure!(output.status.success(), "{}: cargo cannot read the package", folder.display());
        let metadata: Value = serde_json::from_slice(&output.stdout).context("what cargo tells of the package")?;
        let manifest = folder.join("Cargo.toml").canonicalize().context("Cargo.toml")?;
        let is_ours =
            |package: &&Value| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
        let package = metadata["packages"].as_array().into_iter().flatten().find(is_ours);
        let name = package.and_then(|package| package["name"].as_str());
        let name = name.with_context(|| format!("{}: Cargo.toml describes no package", folder.display()))?;
        let target_folder = metadata["target_directory"].as_str().context("cargo tells no target folder")?;
        // A target folder may be shared, and modules of one name must not meet there.
        let mut hasher = DefaultHasher::new();
        manifest.hash(&mut hasher);
        let target_folder = Path::new(target_folder).join(format!("kprobe/{name}-{:016x}", hasher.finish()));
        Ok(Self { name: name.to_owned(), target_folder })
    }

    /// The static library, newly built.
    fn compile(&self, folder: &Path, target: &str) -> Result<PathBuf> {
        let mut cargo = cargo(folder);
        cargo.args(["rustc", "--quiet", "--release", "--lib", "--crate-type", "staticlib", "--package", &self.name]);
        cargo.args(["--target", target, "--target-dir"]).arg(&self.target_folder);
        let profile = ["lto=\"fat\"", "panic=\"abort\"", "opt-level=2", "codegen-units=1", "overflow-checks=false"];
        for setting in profile {
            cargo.arg("--config").arg(format!("profile.release.{setting}"));
        }
        // Set, this overrides the flags of every configuration file.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Crelocation-model=pic");
        let status = cargo.status().with_context(no_cargo)?;
        ensure!(status.success(), "{}: the module does not compile", folder.display());
        let library = format!("lib{}.a", self.name.replace('-', "_"));
        let library = self.target_folder.join(target).join("release").join(library);
        ensure!(library.is_file(), "{}: cargo has made no {}", folder.display(), library.display());
        Ok(library)
    }
}

/// A cargo for the module, with nothing in its environment of a cargo that we may run under.
fn cargo(folder: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(folder);
    clean_environment(&mut command);
    command
}

fn clean_environment(command: &mut Command) {
    const PREFIXES: [&str; 7] = [
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_BUILD_",
        "CARGO_FEATURE_",
        "CARGO_CFG_",
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
    ];
    const NAMES: [&str; 9] = [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "MAKEFLAGS",
        "TARGET",
        "LLVM_PROFILE_FILE",
        "CLIPPY_ARGS",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_of_a_build = NAMES.contains(&&*text) || PREFIXES.iter().any(|prefix| text.starts_with(prefix));
        if is_of_a_build && text != "CARGO_TARGET_DIR" {
            command.env_remove(&name);
        }
    }
}

fn no_cargo() -> &'static str {
    "cargo cannot be started: a module is built by it, it comes with Rust"
}

/// Checks that the standard library's core is there for a target.
fn check_target(folder: &Path, target: &str) -> Result<()> {
    let mut rustc = Command::new("rustc");
    clean_environment(&mut rustc);
    rustc.args(["--print", "target-libdir", "--target", target]).current_dir(folder);
    let output = rustc.output().context("rustc cannot be started: a module is built by it")?;
    let libraries = String::from_utf8_lossy(&output.stdout);
    let is_there = output.status.success() && Path::new(libraries.trim()).is_dir();
    ensure!(is_there, "Rust has no libraries for {target}: `rustup target add {target}` installs them");
    Ok(())
}

/// Takes what the module's declaration reaches out of the library.
fn link(library: &Path) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let (script, linked) = (folder.path().join("module.ld"), folder.path().join("module.ko"));
    fs::write(&script, DISCARD).with_context(|| script.display().to_string())?;
    let mut ld = Command::new("ld");
    ld.args(["-r", "--gc-sections", "--strip-debug", "-u", DECLARATION, "-T"]).arg(script);
    ld.arg("-o").arg(&linked).arg(library);
    let output = ld.output().context("ld cannot be started: modules are linked by it, it is part of GNU binutils")?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Its words for: what everything begins with is not there.
    ensure!(!said.contains("requires a defined symbol root"), NO_DECLARATION);
    ensure!(output.status.success(), "ld cannot link the module: {}", said.trim());
    fs::read(&linked).with_context(|| linked.display().to_string())
}

/// Checks that a host can load it.
fn check(bytes: &[u8]) -> Result<()> {
    let object = Object::parse(bytes).map_err(|error| anyhow::anyhow!("{error}"))?;
    ensure!(object.defines(DECLARATION), NO_DECLARATION);
    let is_unknown = |name: &&str| !EXPORTS.contains(name) && !object.is_optional(name);
    let mut unknown: Vec<_> = object.undefined().filter(is_unknown).collect();
    unknown.sort_unstable();
    if !unknown.is_empty() {
        bail!("it needs what no host has: {}", unknown.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package with this as its code.
    fn package(code: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/module");
        let manifest = format!(
            "[package]\nname = \"a-module\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\nmodule = {{ path = {:?} }}\n\
             [workspace]\n",
            crates.display().to_string()
        );
        fs::create_dir(folder.path().join("src")).expect("it is new");
        fs::write(folder.path().join("Cargo.toml"), manifest).expect("it is ours");
        fs::write(folder.path().join("src/lib.rs"), code).expect("it is ours");
        folder
    }

    fn built(code: &str, kernel: bool) -> Result<Vec<u8>> {
        let folder = package(code);
        let output = folder.path().join("out.ko");
        build(folder.path(), kernel, Some(&output)).map(|_| fs::read(output).expect("it was written"))
    }

    const DECLARED: &str = "#![no_std]\nmodule::module! { name: \"a\", init: init }\n";

    #[test]
    fn one_source_becomes_a_module_for_a_process_and_one_for_a_kernel() {
        let code = format!("{DECLARED}fn init() -> Result<(), module::Error> {{ module::println!(\"x\"); Ok(()) }}");
        for kernel in [false, true] {
            let bytes = built(&code, kernel).expect("it is right");
            let object = Object::parse(&bytes).expect("it was checked");
            assert!(object.undefined().any(|name| name == "kprobes_print"), "kernel: {kernel}");
            assert!(object.undefined().all(|name| EXPORTS.contains(&name)), "kernel: {kernel}");
        }
    }

    #[test]
    fn what_no_host_has_is_named() {
        let init = "fn init() -> Result<(), module::Error> { unsafe { a(); b() }; Ok(()) }";
        let code = format!("{DECLARED}unsafe extern \"C\" {{ fn a(); fn b(); }}\n{init}");
        let error = format!("{:#}", built(&code, false).map(drop).expect_err("nobody has a and b"));
        assert!(error.contains("it needs what no host has: a, b"), "{error}");
    }

    #[test]
    fn code_that_declares_no_module_is_refused() {
        let panics = "#[panic_handler] fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }";
        let error = format!(
            "{:#}",
            built(&format!("#![no_std]\n{panics}"), false).map(drop).expect_err("there is no declaration")
        );
        assert!(error.contains("it declares no module"), "{error}");
    }

    #[test]
    fn code_that_does_not_compile_is_no_module() {
        let error = format!("{:#}", built("fn", false).map(drop).expect_err("that is no code"));
        assert!(error.contains("does not compile"), "{error}");
    }

    #[test]
    fn a_folder_without_a_package_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = build(folder.path(), false, None).expect_err("nothing is there").to_string();
        assert!(error.contains("no Cargo.toml there"), "{error}");
    }

    #[test]
    fn a_target_that_is_not_installed_is_named() {
        let folder = package("");
        let error = check_target(folder.path(), "sparc-unknown-none-elf").expect_err("nobody has it").to_string();
        assert!(error.contains("rustup target add sparc-unknown-none-elf"), "{error}");
    }
}
