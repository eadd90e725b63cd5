//! The test programs, each built once per test run, when first asked for.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use super::skipped;

const C: &[&str] = &["-O2", "-g", "-pthread", "-rdynamic"];
const CXX: &[&str] = &["-O2", "-g", "-pthread", "-rdynamic", "-std=c++17", "-fnon-call-exceptions"];
const RUST: &[&str] = &["--edition=2024", "-O", "-g"];
const MUSL_TARGET: &str = "x86_64-unknown-linux-musl";

/// How one program is made.
struct Recipe {
    name: &'static str,
    compiler: &'static str,
    source: &'static str,
    common: &'static [&'static str],
    own: &'static [&'static str],
}

const fn recipe(
    name: &'static str,
    compiler: &'static str,
    source: &'static str,
    common: &'static [&'static str],
    own: &'static [&'static str],
) -> Recipe {
    Recipe { name, compiler, source, common, own }
}

const RECIPES: &[Recipe] = &[
    recipe("victim.pie", "gcc", "victim.c", C, &[]),
    recipe("victim.static", "gcc", "victim.c", C, &["-static", "-no-pie"]),
    recipe("victim.static-pie", "gcc", "victim.c", C, &["-static-pie"]),
    recipe("victim.no-pie", "gcc", "victim.c", C, &["-no-pie"]),
    recipe("victim.cet", "gcc", "victim.c", C, &["-fcf-protection=full"]),
    recipe("victim.musl-static", "musl-gcc", "victim.c", C, &["-static"]),
    recipe("victim.musl", "musl-gcc", "victim.c", C, &[]),
    recipe("victim.rust", "rustc", "victim.rs", RUST, &[]),
    recipe("victim.rust-musl", "rustc", "victim.rs", RUST, &["--target", MUSL_TARGET]),
    recipe("victim.go", "go", "victim.go", &[], &[]),
    recipe("churn", "gcc", "churn.c", C, &[]),
    recipe("churn.static", "gcc", "churn.c", C, &["-static"]),
    recipe("churn.musl", "musl-gcc", "churn.c", C, &[]),
    recipe("loader", "gcc", "loader.c", C, &[]),
    recipe("plugin.so", "gcc", "plugin.c", C, &["-fPIC", "-shared"]),
    recipe("loader.musl", "musl-gcc", "loader.c", C, &[]),
    recipe("plugin.musl.so", "musl-gcc", "plugin.c", C, &["-fPIC", "-shared"]),
    recipe("signals", "gcc", "signals.c", C, &[]),
    recipe("signals.static", "gcc", "signals.c", C, &["-static"]),
    recipe("signals.musl", "musl-gcc", "signals.c", C, &[]),
    recipe("children", "gcc", "children.c", C, &[]),
    recipe("children.musl", "musl-gcc", "children.c", C, &[]),
    recipe("returns", "gcc", "returns.c", C, &[]),
    recipe("returns.static", "gcc", "returns.c", C, &["-static"]),
    recipe("returns.musl", "musl-gcc", "returns.c", C, &[]),
    recipe("throws", "g++", "throws.cpp", CXX, &[]),
    recipe("throws.static", "g++", "throws.cpp", CXX, &["-static"]),
    recipe("panics.rust", "rustc", "panics.rs", RUST, &[]),
    recipe("panics.rust-musl", "rustc", "panics.rs", RUST, &["--target", MUSL_TARGET]),
    recipe("libc", "gcc", "libc.c", C, &[]),
    recipe("instructions", "gcc", "instructions.c", C, &[]),
    recipe("faults", "gcc", "faults.c", C, &[]),
    recipe("faults.static", "gcc", "faults.c", C, &["-static"]),
    recipe("faults.musl", "musl-gcc", "faults.c", C, &[]),
    recipe("faults.so", "gcc", "faults.c", C, &["-fPIC", "-shared"]),
    recipe("faults.go", "go", "faults.go", &[], &[]),
    recipe("sealed", "gcc", "sealed.c", C, &[]),
    recipe("hidden", "gcc", "hidden.c", C, &[]),
    recipe("narrow", "gcc", "narrow.S", &[], &["-m32", "-nostdlib", "-static"]),
];

/// Where a built program, or the reason why there is none, is kept.
type Built = Arc<OnceLock<Result<PathBuf, String>>>;
static BUILT: LazyLock<Mutex<HashMap<&'static str, Built>>> = LazyLock::new(Mutex::default);

/// The path of a test program, built if need be; `None`, reported as skipped, where its compiler is missing.
///
/// # Panics
///
/// If there is no recipe of that name, or the compiler is there and fails.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let recipe = RECIPES.iter().find(|recipe| recipe.name == name).unwrap_or_else(|| panic!("no recipe for {name}"));
    let cell = Arc::clone(BUILT.lock().expect("no build panics with the lock held").entry(recipe.name).or_default());
    match cell.get_or_init(|| build(recipe)) {
        Ok(path) => Some(path.clone()),
        Err(why) => {
            skipped(&format!("{name}: {why}"));
            None
        }
    }
}

/// The folder of the programs' sources.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")
}

fn build(recipe: &Recipe) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    let path = folder.join(recipe.name);
    if recipe.own.contains(&MUSL_TARGET) && !rust_target_installed(MUSL_TARGET) {
        return Err(format!("the Rust target {MUSL_TARGET} is not installed"));
    }
    let output = compile(recipe, &path, &folder).output();
    match output {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!("{} is not installed", recipe.compiler)),
        Err(error) => panic!("{}: {error}", recipe.compiler),
        Ok(output) if output.status.success() => Ok(path),
        Ok(output) => panic!("{}: {}", recipe.name, String::from_utf8_lossy(&output.stderr)),
    }
}

fn compile(recipe: &Recipe, path: &Path, folder: &Path) -> Command {
    let mut command = Command::new(recipe.compiler);
    if recipe.compiler == "go" {
        command.arg("build").env("GOCACHE", folder.join("go-cache")).env("GOFLAGS", "");
    }
    if recipe.compiler == "rustc" {
        // Object files on the way are named after the crate; two recipes of one source are compiled side by side.
        command.arg("--crate-name").arg(recipe.name.replace(['.', '-'], "_"));
    }
    let out: OsString = path.into();
    command.args(recipe.common).args(recipe.own).arg("-o").arg(out).arg(sources().join(recipe.source));
    if recipe.source == "loader.c" && recipe.compiler == "gcc" {
        command.arg("-ldl");
    }
    command
}

fn rust_target_installed(target: &str) -> bool {
    Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// The Python interpreter itself: `python3` may be a script that starts it.
pub(crate) fn python() -> Option<PathBuf> {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let path = output.ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match path.filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None => {
            skipped("python3 is not installed");
            None
        }
    }
}
