//! Checks.
pub(crate) fn run() {}
