//! The behaviour suite of `testkit`.

pub(super) fn run(_wanted: &str, _text: &[u8]) -> (usize, usize) {
    (0, 0)
}
