//! Three ways to sort.

use alloc::string::String;
use alloc::vec::Vec;

use super::Lehmer;

const NUMBERS: usize = 3000;

/// The sum of number times place, of all three results.
pub(super) fn run() -> Result<u64, String> {
    let mut random = Lehmer::new();
    let ways: [fn(&mut [usize]); 3] = [quick_sort, heap_sort, merge_sort];
    Ok(ways.into_iter().map(|sort| sorted(sort, &mut random)).map(|numbers| weigh(&numbers)).sum())
}

fn sorted(sort: fn(&mut [usize]), random: &mut Lehmer) -> Vec<usize> {
    let mut numbers = shuffled(random);
    sort(&mut numbers);
    numbers
}

#[inline(never)]
fn shuffled(random: &mut Lehmer) -> Vec<usize> {
    let mut numbers: Vec<_> = (0..NUMBERS).collect();
    for at in (1..NUMBERS).rev() {
        numbers.swap(at, random.below(at + 1));
    }
    numbers
}

#[inline(never)]
fn weigh(numbers: &[usize]) -> u64 {
    numbers.iter().enumerate().map(|(place, number)| (place * number) as u64).sum()
}

#[inline(never)]
fn quick_sort(numbers: &mut [usize]) {
    if numbers.len() > 1 {
        let (left, right) = partition(numbers);
        quick_sort(left);
        quick_sort(right);
    }
}

/// Lomuto's way; the pivot is left out of both parts.
#[inline(never)]
fn partition(numbers: &mut [usize]) -> (&mut [usize], &mut [usize]) {
    let last = numbers.len() - 1;
    numbers.swap(last / 2, last);
    let mut small = 0;
    for at in 0..last {
        if numbers[at] < numbers[last] {
            numbers.swap(at, small);
            small += 1;
        }
    }
    numbers.swap(small, last);
    let (left, right) = numbers.split_at_mut(small);
    (left, &mut right[1..])
}

#[inline(never)]
fn heap_sort(numbers: &mut [usize]) {
    for root in (0..numbers.len() / 2).rev() {
        sift_down(numbers, root);
    }
    for end in (1..numbers.len()).rev() {
        numbers.swap(0, end);
        sift_down(&mut numbers[..end], 0);
    }
}

#[inline(never)]
fn sift_down(heap: &mut [usize], mut root: usize) {
    while let Some(child) = greater_child(heap, root) {
        if heap[root] >= heap[child] {
            return;
        }
        heap.swap(root, child);
        root = child;
    }
}

#[inline(never)]
fn greater_child(heap: &[usize], root: usize) -> Option<usize> {
    let left = 2 * root + 1;
    let first = heap.get(left)?;
    Some(left + usize::from(heap.get(left + 1).is_some_and(|second| second > first)))
}

#[inline(never)]
fn merge_sort(numbers: &mut [usize]) {
    if numbers.len() > 1 {
        let (left, right) = numbers.split_at_mut(numbers.len() / 2);
        merge_sort(left);
        merge_sort(right);
        let merged = merge(left, right);
        numbers.copy_from_slice(&merged);
    }
}

#[inline(never)]
fn merge(mut left: &[usize], mut right: &[usize]) -> Vec<usize> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let (Some((l, left_rest)), Some((r, right_rest))) = (left.split_first(), right.split_first()) {
        if l <= r {
            merged.push(*l);
            left = left_rest;
        } else {
            merged.push(*r);
            right = right_rest;
        }
    }
    merged.extend_from_slice(left);
    merged.extend_from_slice(right);
    merged
}
