//! `cargo xtask test` and `cargo xtask ci`.

use std::process::Command;

use anyhow::Result;

use crate::shell::{self, cargo, root, run_cargo};
use crate::{layering, qemu, setup};

/// What is freestanding is no member of the workspace: it has a build of its own.
const AGENT: &str = "apps/agent/Cargo.toml";
const KERNEL: &str = "apps/demo-kernel";
/// What every kernel can use.
const BARE: (&str, &[&str]) =
    ("x86_64-unknown-none", &["isa", "sync", "hit", "kprobes", "events", "arch", "host-bare"]);
const DENY: (&str, &str) = ("RUSTDOCFLAGS", "-D warnings");

/// Installs what the tests need and runs them, optimised: probes must survive optimised code, their own included.
///
/// # Errors
///
/// If a test fails.
pub(crate) fn test(slow: bool) -> Result<()> {
    setup::run();
    run_cargo(&["test", "--workspace", "--release"], &[])?;
    qemu::checks::run()?;
    if slow {
        run_cargo(&["test", "--workspace", "--release", "--", "--ignored"], &[])?;
    }
    Ok(())
}

/// The lock-free structures under loom's model: every interleaving of few threads and few operations.
///
/// # Errors
///
/// If one of them breaks a promise.
pub(crate) fn model() -> Result<()> {
    let folder = root().join("target/loom");
    let folder = folder.to_string_lossy();
    run_cargo(
        &["test", "-p", "sync", "--release", "--test", "loom", "--target-dir", &folder],
        &[("RUSTFLAGS", "--cfg loom")],
    )
}

/// What a kernel links builds without an operating system, and the kernel itself is clean.
fn bare() -> Result<()> {
    if let Err(skipped) = setup::for_kernel() {
        println!("{skipped}");
        return Ok(());
    }
    let (target, crates) = BARE;
    for name in crates {
        run_cargo(&["build", "--release", "--target", target, "-p", name], &[])?;
    }
    run_cargo(&["fmt", "--manifest-path", &format!("{KERNEL}/Cargo.toml"), "--check"], &[])?;
    // In its own folder, where its flags are.
    let folder = root().join("target/demo-kernel");
    let lint = ["clippy", "--release", "--", "-D", "warnings"];
    shell::run(Command::new(cargo()).args(lint).env("CARGO_TARGET_DIR", folder).current_dir(root().join(KERNEL)))
}

/// Everything that must hold for a change.
///
/// # Errors
///
/// At the first thing that does not.
pub(crate) fn run() -> Result<()> {
    run_cargo(&["fmt", "--all", "--check"], &[])?;
    run_cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    run_cargo(&["doc", "--workspace", "--no-deps"], &[DENY])?;
    if root().join(AGENT).exists() {
        run_cargo(&["fmt", "--manifest-path", AGENT, "--check"], &[])?;
        run_cargo(&["clippy", "--manifest-path", AGENT, "--release", "--", "-D", "warnings"], &[])?;
    }
    bare()?;
    layering::run()?;
    model()?;
    test(false)
}
