//! `cargo xtask test` and `cargo xtask ci`.

use anyhow::Result;

use crate::shell::{root, run_cargo};
use crate::{layering, setup};

/// The agent is no member of the workspace: freestanding, with a build of its own.
const AGENT: &str = "apps/agent/Cargo.toml";
const DENY: (&str, &str) = ("RUSTDOCFLAGS", "-D warnings");

/// Installs what the tests need and runs them, optimised: probes must survive optimised code, their own included.
///
/// # Errors
///
/// If a test fails.
pub(crate) fn test(slow: bool) -> Result<()> {
    setup::run();
    run_cargo(&["test", "--workspace", "--release"], &[])?;
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
    layering::run()?;
    model()?;
    test(false)
}
