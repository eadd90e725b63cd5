//! Rust libraries that hook functions of their own process: each is wrapped into a shared library (`benches/peers`) that
//! the measured program loads. The library counts in its handler, and is asked by the program.

use anyhow::{Result, bail};

use super::Lab;
use crate::answer;
use crate::case::Case;
use crate::command::{self, limited};
use crate::samples::Samples;

/// The lock files of their packages, which say what was built.
const LOCKS: [(&str, &str); 4] = [
    ("detour", include_str!("../../../peers/detour/Cargo.lock")),
    ("retour", include_str!("../../../peers/retour/Cargo.lock")),
    ("ilhook", include_str!("../../../peers/ilhook/Cargo.lock")),
    ("kprobe", include_str!("../../../peers/kprobe/Cargo.lock")),
];

/// A crate's version.
pub(super) fn version(name: &str) -> Option<String> {
    let (_, lock) = LOCKS.iter().find(|(package, _)| *package == name)?;
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(rest.split('"').next()?.to_owned())
}

pub(super) fn measure(name: &str, case: &Case, lab: &Lab<'_>) -> Result<Samples> {
    let library = lab.installed.join("libraries/release").join(format!("libpeer_{name}.so"));
    if !library.exists() {
        bail!("benches/peers/{name} was not built");
    }
    let mut command = limited(lab.hot.path());
    command.args(lab.hot.arguments(case)).arg(format!("plugin={}", library.display()));
    answer::of(&command::output(&mut command)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_has_a_version() {
        assert!(LOCKS.iter().all(|(name, _)| version(name).is_some()));
        assert_eq!(version("unheard-of"), None);
    }
}
