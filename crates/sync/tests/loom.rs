//! The structures under loom's model: every interleaving of few threads and few operations.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p sync --release --test loom`.
#![cfg(loom)]

use loom::thread;
use std::sync::Arc;
use sync::primitive::{AtomicU32, AtomicU64, Ordering};
use sync::{ActiveSet, Bucket, Claims, FreeList, Ring, RingReader, Table, WINDOW};

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

/// Words of claims, and an entry for each place: who has it.
type Area = Arc<(Vec<AtomicU64>, Vec<AtomicU64>)>;

fn area(places: usize) -> Area {
    let words = || (0..places).map(|_| AtomicU64::new(0)).collect();
    Arc::new((words(), words()))
}

/// An activation: claims a place, uses its data, finds it again, and gives it back.
fn activation(area: &Area, key: u64) -> bool {
    let claims = Claims::new(&area.0);
    let Some(place) = claims.claim(key) else { return false };
    // Relaxed: what is between a claim and the release before it must be ordered by these two alone.
    assert_eq!(area.1[place].load(Ordering::Relaxed), 0, "the data of another activation");
    area.1[place].store(key, Ordering::Relaxed);
    assert_eq!(claims.find(key), Some(place));
    assert_eq!(area.1[place].load(Ordering::Relaxed), key, "another activation has written here");
    area.1[place].store(0, Ordering::Relaxed);
    assert!(claims.release(key));
    assert_eq!(claims.find(key), None);
    true
}

#[test]
fn two_activations_never_share_a_place() {
    // Keys that begin at one place, and as many places as activations.
    loom::model(|| {
        let area = area(2);
        let other = {
            let area = area.clone();
            thread::spawn(move || assert!(activation(&area, 2), "there is a place for each"))
        };
        assert!(activation(&area, 4), "there is a place for each");
        other.join().unwrap();
        assert!(area.0.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    });
}

#[test]
fn an_activation_gets_what_another_gives_back_or_nothing() {
    loom::model(|| {
        let area = area(1);
        let other = {
            let area = area.clone();
            thread::spawn(move || activation(&area, 1))
        };
        let ours = activation(&area, 2);
        let theirs = other.join().unwrap();
        assert!(ours || theirs, "one of them was first");
    });
}

#[test]
fn an_activation_that_ends_while_another_begins_is_not_found_in_its_place() {
    loom::model(|| {
        let area = area(2);
        let held = Claims::new(&area.0).claim(2).unwrap();
        let other = {
            let area = area.clone();
            thread::spawn(move || {
                let claims = Claims::new(&area.0);
                let place = claims.claim(4).unwrap();
                assert_eq!(claims.find(4), Some(place));
            })
        };
        let claims = Claims::new(&area.0);
        assert_eq!(claims.find(2), Some(held));
        assert!(claims.release(2) && !claims.release(2));
        other.join().unwrap();
        assert!(claims.release(4));
    });
}

/// A hit whose instruction runs between two traps: the thread is in the set for each, and not in between.
#[test]
fn who_enters_again_for_what_follows_is_waited_for_while_it_is_in() {
    loom::model(|| {
        let words: Arc<Vec<AtomicU64>> = Arc::new((0..WINDOW).map(|_| AtomicU64::new(0)).collect());
        let live = Arc::new((AtomicU64::new(1), AtomicU64::new(0)));
        let thread = {
            let (words, live) = (words.clone(), live.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let place = ActiveSet::new(&words).enter(1).expect("it is in no handler");
                    assert!(ActiveSet::new(&words).enter(1).is_none(), "recursion");
                    if live.0.load(Ordering::Acquire) != 0 {
                        assert_eq!(live.1.load(Ordering::Relaxed), 0, "a handler runs after the grace period");
                    }
                    ActiveSet::leave(place);
                }
            })
        };
        // Control: takes the probe away, waits for who is in a handler, and uses its place again.
        live.0.store(0, Ordering::Release);
        for id in ActiveSet::new(&words).members() {
            while words.iter().any(|word| word.load(Ordering::Acquire) == id) {
                thread::yield_now();
            }
        }
        live.1.store(1, Ordering::Relaxed);
        thread.join().unwrap();
    });
}
