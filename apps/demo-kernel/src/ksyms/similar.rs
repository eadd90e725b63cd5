//! "Did you mean": names that are nearly another one.

use alloc::vec::Vec;

use super::last_segment;

/// Up to `most` of `names` whose last part is near to `wanted`'s, the nearest first.
pub(crate) fn similar<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let wanted = last_segment(wanted);
    // Two letters exchanged are two that are wrong.
    let limit = (wanted.len() / 2).clamp(1, 3);
    let mut near: Vec<_> =
        names.filter_map(|name| Some((distance(wanted, last_segment(name), limit)?, name))).collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().map(|(_, name)| name).take(most).collect()
}

/// How many letters must be inserted, removed or changed; none if more than `limit`.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    // The row of the table (Wagner and Fischer's) for the letters of `a` seen so far.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (x, left) in a.bytes().zip(1..) {
        let mut diagonal = core::mem::replace(&mut row[0], left);
        for (y, at) in b.bytes().zip(1..) {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[at];
            row[at] = changed.min(row[at] + 1).min(row[at - 1] + 1);
        }
    }
    row.last().copied().filter(|distance| *distance <= limit)
}
