//! The structures under loom's model: every interleaving of few threads and few operations.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p sync --release --test loom`.
#![cfg(loom)]

use loom::thread;
use std::sync::Arc;
use sync::primitive::{AtomicU32, AtomicU64, Ordering};
use sync::{ActiveSet, Bucket, FreeList, Ring, RingReader, Table, WINDOW};

#[test]
fn a_reader_finds_nothing_or_the_whole_entry() {
    loom::model(|| {
        let buckets: Arc<Vec<Bucket>> = Arc::new((0..2).map(|_| Bucket::new()).collect());
        let writer = {
            let b = buckets.clone();
            thread::spawn(move || {
                assert!(Table::new(&b).insert(16, 1));
                assert!(Table::new(&b).insert(32, 2));
            })
        };
        let seen = Table::new(&buckets).find(32);
        assert!(seen.is_none() || seen == Some(2));
        writer.join().unwrap();
    });
}

#[test]
fn no_element_is_out_twice() {
    loom::model(|| {
        let state = Arc::new((AtomicU64::new(0), AtomicU32::new(0), [AtomicU32::new(0), AtomicU32::new(0)]));
        let owner: Arc<[AtomicU32; 2]> = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let run = |state: Arc<(AtomicU64, AtomicU32, [AtomicU32; 2])>, owner: Arc<[AtomicU32; 2]>| {
            let list = FreeList::new(&state.0, &state.1, 2, |i| state.2.get(i as usize));
            if let Some(i) = list.pop() {
                assert_eq!(owner[i as usize].swap(1, Ordering::AcqRel), 0, "handed out twice");
                owner[i as usize].store(0, Ordering::Release);
                list.push(i);
            }
        };
        let other = {
            let (s, o) = (state.clone(), owner.clone());
            thread::spawn(move || run(s, o))
        };
        run(state, owner);
        other.join().unwrap();
    });
}

#[test]
fn records_are_whole_or_absent() {
    loom::model(|| {
        let words: Arc<(AtomicU64, AtomicU64, Vec<AtomicU64>)> =
            Arc::new((AtomicU64::new(0), AtomicU64::new(0), (0..4).map(|_| AtomicU64::new(0)).collect()));
        let producers: Vec<_> = (1..=2u64)
            .map(|k| {
                let w = words.clone();
                thread::spawn(move || Ring::new(&w.0, &w.1, &w.2).push(k, [k * 10].into_iter()))
            })
            .collect();
        let reader = RingReader::new(Ring::new(&words.0, &words.1, &words.2));
        let mut seen = 0;
        let mut take = || {
            let mut v = Vec::new();
            if let Some(tag) = reader.pop(|w| v.push(w)) {
                assert_eq!(v, [tag * 10]);
                seen += 1;
            }
        };
        take();
        let pushed = producers.into_iter().map(|p| p.join().unwrap()).filter(|&ok| ok).count();
        take();
        take();
        assert_eq!(seen, pushed);
    });
}

#[test]
fn two_threads_never_share_a_place() {
    loom::model(|| {
        let words: Arc<Vec<AtomicU64>> = Arc::new((0..WINDOW).map(|_| AtomicU64::new(0)).collect());
        let other = {
            let w = words.clone();
            thread::spawn(move || {
                let place = ActiveSet::new(&w).enter(1).unwrap();
                assert_eq!(place.load(Ordering::Relaxed), 1);
                ActiveSet::leave(place);
            })
        };
        let place = ActiveSet::new(&words).enter(2).unwrap();
        assert_eq!(place.load(Ordering::Relaxed), 2);
        ActiveSet::leave(place);
        other.join().unwrap();
    });
}
