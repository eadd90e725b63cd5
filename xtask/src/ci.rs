//! `cargo xtask test` and `cargo xtask ci`.

use std::process::Command;

use anyhow::Result;

use crate::shell::{self, cargo, root, run_cargo};
use crate::{layering, qemu, setup, torture};

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

/// Schedules that miri tries, in CI and in full.
const SEEDS: (u32, u32) = (4, 64);

/// The lock-free structures under loom's model (every interleaving of few threads and few operations) and under miri
/// (undefined behaviour, on many schedules). In full: also the models that take minutes, and more schedules.
///
/// # Errors
///
/// If one of them breaks a promise. Without miri, that is said.
pub(crate) fn models(full: bool) -> Result<()> {
    let folder = |name: &str| root().join("target").join(name).to_string_lossy().into_owned();
    let target = folder("loom");
    let mut loom = vec!["test", "-p", "sync", "--release", "--test", "loom", "--target-dir", &target];
    loom.extend(full.then_some(["--", "--include-ignored"]).into_iter().flatten());
    run_cargo(&loom, &[("RUSTFLAGS", "--cfg loom")])?;
    if let Err(skipped) = setup::for_miri() {
        println!("{skipped}");
        return Ok(());
    }
    let seeds = if full { SEEDS.1 } else { SEEDS.0 };
    let mut miri = Command::new("rustup");
    miri.args(["run", setup::MIRI_TOOLCHAIN, "cargo", "miri", "test", "-p", "sync", "-p", "hit", "--target-dir"]);
    miri.arg(folder("miri")).env("MIRIFLAGS", format!("-Zmiri-strict-provenance -Zmiri-many-seeds=0..{seeds}"));
    // Of the toolchain that runs this.
    ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"].iter().for_each(|name| {
        miri.env_remove(name);
    });
    shell::run(&mut miri)
}

/// What can be left out of the engine.
const FEATURES: [&str; 4] = ["jprobes", "kretprobes", "modules", "symbols"];

/// The tests on the model machine that need none of it.
const MODEL: [&str; 8] =
    ["--test", "model_hits", "--test", "model_registration", "--test", "model_steps", "--test", "large"];

/// Builds, lints and tests the engine with each of its features off, and with all of them.
///
/// # Errors
///
/// At the first that does not build, or fails.
pub(crate) fn features() -> Result<()> {
    let folder = root().join("target/features").to_string_lossy().into_owned();
    let sets = FEATURES.iter().map(|left_out| FEATURES.iter().filter(|f| *f != left_out).copied().collect::<Vec<_>>());
    for kept in sets.chain([Vec::new()]) {
        let has = |feature: &str| kept.contains(&feature);
        let mut features = vec!["kprobes/control".to_owned(), "arch/control".into(), "testkit/std".into()];
        features.extend(kept.iter().flat_map(|f| [format!("kprobes/{f}"), format!("host-bare/{f}")]));
        features.extend(["jprobes", "kretprobes"].iter().filter(|f| has(f)).map(|f| format!("testkit/{f}")));
        let features = features.join(",");
        let engine = ["-p", "hit", "-p", "kprobes", "-p", "arch", "-p", "host-bare", "-p", "testkit"];
        let chosen = ["--no-default-features", "--features", &features, "--target-dir", &folder];
        run_cargo(&[&["clippy"][..], &engine, &chosen, &["--", "-D", "warnings"]].concat(), &[])?;
        run_cargo(&[&["test", "--lib"][..], &engine, &chosen, &MODEL].concat(), &[])?;
    }
    Ok(())
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

/// Folders of probe modules, each a package of its own.
const MODULES: [&str; 3] = ["modules", "apps/demo-kernel/modules", "benches/hit-cost/modules"];

/// The probe modules are clean.
fn modules() -> Result<()> {
    let target = root().join("target/modules").to_string_lossy().into_owned();
    for folder in MODULES {
        let entries = std::fs::read_dir(root().join(folder))?;
        let mut manifests: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path().join("Cargo.toml"))).collect();
        manifests.retain(|manifest| manifest.exists());
        manifests.sort();
        for manifest in manifests {
            let manifest = manifest.to_string_lossy();
            run_cargo(&["fmt", "--manifest-path", &manifest, "--check"], &[])?;
            let lint = ["clippy", "--manifest-path", &manifest, "--release", "--target-dir", &target];
            run_cargo(&[&lint[..], &["--", "-D", "warnings"]].concat(), &[])?;
        }
    }
    Ok(())
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
    modules()?;
    bare()?;
    layering::run()?;
    models(false)?;
    features()?;
    test(false)?;
    torture::run_with(&["--short"])
}
