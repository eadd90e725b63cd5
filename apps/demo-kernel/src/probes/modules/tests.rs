//! Modules that come and go.

use crate::probes::tests::Test;

pub(crate) const TESTS: &[Test] = &[];
