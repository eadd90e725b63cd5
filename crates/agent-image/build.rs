//! Builds the agent: a nested cargo, in its own target folder, with nothing of the outer build leaking in.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// What the agent is built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let source = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../apps/agent");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let crates = source.join("../../crates");
    for path in ["src", "build.rs", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", source.join(path).display());
    }
    for name in ["arch", "cpu", "events", "hit", "host-process", "isa", "kprobes", "sync"] {
        println!("cargo:rerun-if-changed={}", crates.join(name).join("src").display());
        println!("cargo:rerun-if-changed={}", crates.join(name).join("Cargo.toml").display());
    }
    println!("cargo:rerun-if-env-changed=KPROBE_AGENT");
    let image = out.join("agent.so");
    // A packager may bring an agent that was built elsewhere.
    if let Some(ready) = env::var_os("KPROBE_AGENT") {
        std::fs::copy(ready, image).expect("KPROBE_AGENT names a file");
        return;
    }
    let folder = out.join("agent-target");
    let mut cargo = Command::new(env::var_os("CARGO").expect("set by cargo"));
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&folder)
        .current_dir(&source);
    clean_environment(&mut cargo);
    let status = cargo.status().expect("cargo can be started again");
    assert!(status.success(), "the agent does not build");
    std::fs::copy(folder.join(TARGET).join("release/libagent.so"), image).expect("the agent was built");
}

/// The agent must be the same bytes whatever the outer build is: a test, a lint run, a coverage run.
fn clean_environment(cargo: &mut Command) {
    const PREFIXES: [&str; 5] = ["CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_BUILD_", "CARGO_FEATURE_", "CARGO_CFG_"];
    const NAMES: [&str; 17] = [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "CARGO_MAKEFLAGS",
        "MAKEFLAGS",
        "TARGET",
        "HOST",
        "PROFILE",
        "DEBUG",
        "OPT_LEVEL",
        "NUM_JOBS",
        "OUT_DIR",
        "LLVM_PROFILE_FILE",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
    ];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if NAMES.contains(&&*text) || PREFIXES.iter().any(|p| text.starts_with(p)) {
            cargo.env_remove(&name);
        }
    }
    // Set, though empty, this overrides the flags of every configuration file.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "");
}
