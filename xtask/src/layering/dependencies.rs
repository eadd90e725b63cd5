//! Which of our crates may depend on which.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Violation;
use crate::shell::{cargo, output, root};

/// What may be depended on, for builds. A crate that is not listed may depend on none of ours.
const ALLOWED: &[(&str, &[&str])] = &[
    ("hit", &["sync"]),
    ("kprobes", &["hit", "sync"]),
    ("cpu", &["isa"]),
    ("arch", &["kprobes", "hit", "sync", "cpu", "isa", "events"]),
    ("module", &["kprobes", "isa"]),
    ("host-process", &["arch", "kprobes", "hit", "sync", "cpu", "isa", "symbols", "events", "loader", "agent-image"]),
    ("host-bare", &["arch", "kprobes", "hit", "sync", "isa", "events"]),
    ("host-linux", &["arch", "kprobes", "hit", "sync", "cpu", "isa", "symbols", "events"]),
    ("agent", &["host-process", "hit", "sync", "cpu", "events", "kprobes"]),
    ("demo-kernel", &["host-bare", "testkit", "loader", "cpu", "arch", "kprobes", "hit", "sync", "isa", "events"]),
    ("testkit", &["arch", "kprobes", "hit", "sync", "cpu", "isa", "events"]),
    ("torture", &["host-process", "events", "isa", "symbols", "testkit"]),
    ("kprobe", &["host-process", "agent-image", "loader", "kprobes", "hit", "sync", "isa", "symbols", "events"]),
];

/// For tests, these may also be depended on, by anyone.
const FOR_TESTS: &[&str] = &["testkit", "isa", "sync", "hit", "kprobes"];

/// What is freestanding is no member of the workspace.
const FREESTANDING: [&str; 2] = ["apps/agent/Cargo.toml", "apps/demo-kernel/Cargo.toml"];
/// Folders of probe modules, which may depend on `module` only.
const MODULES: [&str; 3] = ["modules", "apps/demo-kernel/modules", "benches/hit-cost/modules"];

/// All our own packages, as `cargo metadata` shows them.
///
/// # Errors
///
/// If cargo cannot tell.
pub(super) fn packages() -> Result<Vec<Value>> {
    let mut packages = packages_of("Cargo.toml")?;
    for manifest in FREESTANDING {
        packages.extend(packages_of(manifest)?);
    }
    for folder in MODULES {
        let entries = std::fs::read_dir(root().join(folder)).with_context(|| format!("the folder {folder}"))?;
        for manifest in entries.filter_map(|e| Some(e.ok()?.path().join("Cargo.toml"))).filter(|path| path.exists()) {
            packages.extend(packages_of(&manifest.to_string_lossy())?);
        }
    }
    Ok(packages)
}

fn packages_of(manifest: &str) -> Result<Vec<Value>> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest];
    let text = output(Command::new(cargo()).args(arguments))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata")?;
    metadata["packages"].as_array().cloned().context("cargo metadata names no packages")
}

/// The dependencies that point the wrong way.
pub(super) fn check(packages: &[Value]) -> Vec<Violation> {
    let ours: Vec<_> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut violations = Vec::new();
    for package in packages {
        let from = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            let by_module = to == "module" && is_module(package);
            if ours.contains(&to) && !by_module && !is_allowed(from, to, for_tests) {
                violations.push(Violation::new(from, format!("must not depend on {to}")));
            }
        }
    }
    violations
}

/// Whether a package is a probe module, by where it lies.
fn is_module(package: &Value) -> bool {
    package["manifest_path"].as_str().is_some_and(|path| path.contains("/modules/"))
}

fn is_allowed(from: &str, to: &str, for_tests: bool) -> bool {
    let listed = ALLOWED.iter().any(|(name, allowed)| *name == from && allowed.contains(&to));
    listed || (for_tests && FOR_TESTS.contains(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(from: &str, to: &str, kind: Value) -> Vec<Value> {
        let package = |name: &str, dependencies: Value| serde_json::json!({"name": name, "dependencies": dependencies});
        let dependency = serde_json::json!([{"name": to, "kind": kind}, {"name": "libc", "kind": null}]);
        vec![package(from, dependency), package(to, serde_json::json!([]))]
    }

    #[test]
    fn control_may_use_the_hit_path() {
        assert_eq!(check(&tree("kprobes", "hit", Value::Null)), []);
    }

    #[test]
    fn a_probe_module_may_use_the_crate_for_modules_and_nothing_else() {
        let of = |to| {
            let mut packages = tree("open-failures", to, Value::Null);
            packages[0]["manifest_path"] = "a/modules/open-failures/Cargo.toml".into();
            check(&packages).len()
        };
        assert_eq!((of("module"), of("kprobes")), (0, 1));
    }

    #[test]
    fn the_hit_path_may_not_use_control() {
        let expected = Violation::new("hit", "must not depend on kprobes");
        assert_eq!(check(&tree("hit", "kprobes", Value::Null)), [expected]);
    }

    #[test]
    fn control_may_not_use_a_host() {
        assert_eq!(check(&tree("kprobes", "host-process", Value::Null)).len(), 1);
    }

    #[test]
    fn instruction_knowledge_depends_on_nothing_of_ours() {
        assert_eq!(check(&tree("isa", "sync", Value::Null)).len(), 1);
    }

    #[test]
    fn the_test_kit_is_for_tests_only() {
        assert_eq!(check(&tree("hit", "testkit", "dev".into())), []);
        assert_eq!(check(&tree("hit", "testkit", Value::Null)).len(), 1);
    }
}
