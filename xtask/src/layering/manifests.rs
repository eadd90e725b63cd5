//! What every package's manifest must say.

use super::{File, Violation};

/// Every member takes the workspace's lints. The agent, outside the workspace, cannot.
pub(super) fn check(file: &File) -> Vec<Violation> {
    let lints = file.text.split("[lints]").nth(1).unwrap_or_default();
    let inherits = lints.split("\n[").next().unwrap_or_default().lines().any(|line| line.trim() == "workspace = true");
    if inherits || file.text.contains("[workspace]") {
        return Vec::new();
    }
    vec![Violation::new(&file.path, "does not take the workspace's lints ([lints] workspace = true)")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(text: &str) -> usize {
        check(&File { path: "crates/x/Cargo.toml".to_owned(), text: text.to_owned() }).len()
    }

    #[test]
    fn a_member_takes_the_lints() {
        assert_eq!(violations("[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n"), 0);
    }

    #[test]
    fn a_member_without_them_is_found() {
        assert_eq!(violations("[package]\nname = \"x\"\n"), 1);
        assert_eq!(violations("[lints]\n\n[dependencies]\nworkspace = true\n"), 1);
    }
}
