//! The walk over the call graph; what a function is, it does not know.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What one function leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    /// Functions that are called, jumped to or fallen into.
    pub(super) direct: BTreeSet<u64>,
    /// Where something is called that only the run knows.
    pub(super) unknown: BTreeSet<u64>,
}

/// What a walk has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How many functions were looked at.
    pub(super) reached: usize,
    /// For each function that lies outside, a shortest chain to it from a root. What it calls is not looked at.
    pub(super) outside: Vec<Vec<u64>>,
    /// Functions with calls that could not be followed, and where.
    pub(super) unknown: Vec<(u64, u64)>,
}

/// Walks from `roots`, breadth first; ends at `guarded` functions, which may lie where they like.
pub(super) fn walk(
    roots: &[u64],
    guarded: &[u64],
    inside: impl Fn(u64) -> bool,
    calls: impl Fn(u64) -> Calls,
) -> Outcome {
    let mut callers: BTreeMap<u64, Option<u64>> = roots.iter().map(|root| (*root, None)).collect();
    let mut queue: VecDeque<u64> = callers.keys().copied().collect();
    let mut outcome = Outcome::default();
    while let Some(function) = queue.pop_front() {
        outcome.reached += 1;
        if !inside(function) {
            outcome.outside.push(chain(&callers, function));
            continue;
        }
        let Calls { direct, unknown } = calls(function);
        outcome.unknown.extend(unknown.into_iter().map(|at| (function, at)));
        for callee in direct {
            if !guarded.contains(&callee) && !callers.contains_key(&callee) {
                callers.insert(callee, Some(function));
                queue.push_back(callee);
            }
        }
    }
    outcome
}

fn chain(callers: &BTreeMap<u64, Option<u64>>, function: u64) -> Vec<u64> {
    let next = |function: &u64| callers.get(function).copied().flatten();
    let mut chain: Vec<_> = std::iter::successors(Some(function), next).collect();
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 → 2 → 3 → 4, 2 → 1 (a cycle), 1 → 5 → 6.
    fn graph(function: u64) -> Calls {
        let direct: &[u64] = match function {
            1 => &[2, 5],
            2 => &[1, 3],
            3 => &[4],
            5 => &[6],
            _ => &[],
        };
        Calls { direct: direct.iter().copied().collect(), unknown: BTreeSet::new() }
    }

    #[test]
    fn all_that_is_reached_is_looked_at_once() {
        let outcome = walk(&[1], &[], |_| true, graph);
        assert_eq!(outcome, Outcome { reached: 6, ..Outcome::default() });
    }

    #[test]
    fn a_function_outside_is_found_with_the_way_to_it() {
        let outcome = walk(&[1], &[], |function| function != 4, graph);
        assert_eq!(outcome.outside, [[1, 2, 3, 4]]);
    }

    #[test]
    fn what_lies_behind_one_outside_is_not_named_again() {
        let outcome = walk(&[1], &[], |function| function < 3, graph);
        assert_eq!(outcome.outside, [vec![1, 5], vec![1, 2, 3]]);
    }

    #[test]
    fn what_is_behind_the_guard_may_lie_anywhere() {
        let outcome = walk(&[1], &[3, 5], |function| function < 3, graph);
        assert_eq!((outcome.outside.len(), outcome.reached), (0, 2));
    }

    #[test]
    fn a_root_outside_is_found() {
        assert_eq!(walk(&[1], &[], |_| false, graph).outside, [[1]]);
    }

    #[test]
    fn what_cannot_be_followed_is_listed() {
        let calls = |_| Calls { unknown: BTreeSet::from([0x10, 0x20]), ..Calls::default() };
        assert_eq!(walk(&[1], &[], |_| true, calls).unknown, [(1, 0x10), (1, 0x20)]);
    }
}
