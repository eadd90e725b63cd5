//! `cargo xtask setup`: what the tests need beside Rust.
//!
//! Nothing here is required to build the tool. What cannot be had is reported with the tests that will be skipped.

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::shell::{self, succeeds};

/// A thing that tests need.
struct Need {
    /// Succeeds if it is there.
    probe: (&'static str, &'static [&'static str]),
    /// Debian's package with it.
    package: &'static str,
    /// What is skipped without it.
    skipped: &'static str,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (no {}, package {})", self.skipped, self.probe.0, self.package)
    }
}

const fn need(
    probe: &'static str,
    arguments: &'static [&'static str],
    package: &'static str,
    skipped: &'static str,
) -> Need {
    Need { probe: (probe, arguments), package, skipped }
}

const NEEDS: &[Need] = &[
    need("gcc", &["--version"], "gcc", "all end-to-end tests"),
    need("g++", &["--version"], "g++", "exceptions through return probes"),
    need("objdump", &["--version"], "binutils", "instruction boundaries, exact counts, attaching"),
    need("musl-gcc", &["--version"], "musl-tools", "musl programs"),
    need("go", &["version"], "golang-go", "Go programs"),
    need("python3", &["--version"], "python3", "python3 as a target"),
    need("sqlite3", &["-version"], "sqlite3", "sqlite3 as a target"),
    need("openssl", &["version"], "openssl", "openssl as a target"),
    need("gdb", &["--version"], "gdb", "a debugger as a target"),
    need("strace", &["--version"], "strace", "strace beside the tool"),
    need("setpriv", &["--version"], "util-linux", "a target of another user"),
    QEMU,
];

const QEMU: Need = need("qemu-system-x86_64", &["--version"], "qemu-system-x86", "the demo kernel");

const MUSL_TARGET: &str = "x86_64-unknown-linux-musl";
const BARE_TARGET: &str = "x86_64-unknown-none";
const TRACEFS: &str = "/sys/kernel/tracing";

/// Installs what is missing and can be installed; never fails for what cannot.
pub(crate) fn run() {
    install(&missing(NEEDS));
    let mut skipped: Vec<_> = missing(NEEDS).into_iter().map(ToString::to_string).collect();
    if !add_rust_target(MUSL_TARGET) {
        skipped.push(format!("Rust programs linked with musl (no target {MUSL_TARGET})"));
    }
    if !add_rust_target(BARE_TARGET) {
        skipped.push(format!("the demo kernel (no target {BARE_TARGET})"));
    }
    if !mount_tracefs() {
        skipped.push(format!("comparison with the kernel's uprobes (no {TRACEFS}, which only root can mount)"));
    }
    for what in &skipped {
        println!("SKIPPED: {what}");
    }
    if skipped.is_empty() {
        println!("setup: everything is there");
    }
}

/// Installs what the demo kernel needs to be built and booted.
///
/// # Errors
///
/// What is skipped, and for want of what.
pub(crate) fn for_kernel() -> Result<(), String> {
    const NEEDS: &[Need] = &[QEMU];
    install(&missing(NEEDS));
    if let Some(need) = missing(NEEDS).first() {
        return Err(format!("SKIPPED: {need}"));
    }
    if !add_rust_target(BARE_TARGET) {
        return Err(format!("SKIPPED: the demo kernel (no target {BARE_TARGET})"));
    }
    Ok(())
}

/// Installs what Linux's guest needs to be built and booted.
///
/// # Errors
///
/// What is still missing.
pub(crate) fn for_guest() -> Result<(), String> {
    const FIGURES: &str = "Linux's own figures";
    const NEEDS: &[Need] = &[
        QEMU,
        // The one that built Debian's kernel, under the name by which the kernel's makefiles call it.
        need("gcc-12", &["--version"], "gcc-12", FIGURES),
        need("make", &["--version"], "make", FIGURES),
        need("xz", &["--version"], "xz-utils", FIGURES),
    ];
    install(&missing(NEEDS));
    missing(NEEDS).first().map_or(Ok(()), |need| Err(format!("no {}, package {}", need.probe.0, need.package)))
}

/// Installs what a process is measured beside; never fails for what cannot be had.
pub(crate) fn for_peers() {
    const ROW: &str = "its row of the benchmark";
    const NEEDS: &[Need] = &[
        need("bpftrace", &["--version"], "bpftrace", ROW),
        need("uftrace", &["--version"], "uftrace", ROW),
        need("ltrace", &["--version"], "ltrace", ROW),
        need("gdb", &["--version"], "gdb", ROW),
        need("lttng", &["--version"], "lttng-tools", ROW),
        need("babeltrace2", &["--version"], "babeltrace2", "LTTng's row of the benchmark"),
        // Its preloaded library, which has no command to ask.
        need("dpkg-query", &["--status", "liblttng-ust1"], "liblttng-ust1", "LTTng's row of the benchmark"),
        need("python3", &["-m", "venv", "--help"], "python3-venv", "Frida's rows of the benchmark"),
    ];
    install(&missing(NEEDS));
    for need in missing(NEEDS) {
        println!("SKIPPED: {need}");
    }
    mount_tracefs();
}

/// The toolchain that has miri.
pub(crate) const MIRI_TOOLCHAIN: &str = "nightly";

/// Installs miri.
///
/// # Errors
///
/// What is skipped, and for want of what.
pub(crate) fn for_miri() -> Result<(), String> {
    let there = || succeeds("rustup", &["run", MIRI_TOOLCHAIN, "cargo", "miri", "--version"]);
    let parts = ["--profile", "minimal", "--component", "miri", "--component", "rust-src"];
    let install = || succeeds("rustup", &[&["toolchain", "install", MIRI_TOOLCHAIN][..], &parts].concat()) && there();
    let ready = there() || install() || install();
    ready
        .then_some(())
        .ok_or_else(|| format!("SKIPPED: the lock-free structures under miri (no {MIRI_TOOLCHAIN} toolchain with it)"))
}

fn missing(needs: &'static [Need]) -> Vec<&'static Need> {
    needs.iter().filter(|need| !succeeds(need.probe.0, need.probe.1)).collect()
}

fn install(missing: &[&Need]) {
    if missing.is_empty() || !is_root() || !succeeds("apt-get", &["--version"]) {
        return;
    }
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    let apt = |arguments: &[&str]| {
        shell::run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments)).is_ok()
    };
    // A package that cannot be had must not keep the others out: first all, then one by one.
    let all = [&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat();
    if apt(&all) || (apt(&["update"]) && apt(&all)) {
        return;
    }
    for package in packages {
        apt(&["install", "-y", "--no-install-recommends", package]);
    }
}

fn add_rust_target(target: &str) -> bool {
    let installed = || {
        let arguments = ["--print", "target-libdir", "--target", target];
        Command::new("rustc").args(arguments).output().is_ok_and(|output| {
            output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
        })
    };
    let add = || succeeds("rustup", &["target", "add", target]);
    installed() || add() || add()
}

fn mount_tracefs() -> bool {
    let mounted = || Path::new(TRACEFS).join("uprobe_events").exists();
    mounted() || (is_root() && succeeds("mount", &["-t", "tracefs", "tracefs", TRACEFS]) && mounted())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}
