//! To be written.

use super::Test;

pub(super) const TESTS: &[Test] = &[];
