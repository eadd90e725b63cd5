//! The structures under real threads: natively as many rounds as take a moment, under miri few, with many schedules
//! (`cargo xtask models`). Miri sees what loom's model does not: undefined behaviour, and the memory that is really there.
#![cfg(not(loom))]

use std::sync::atomic::AtomicBool;
use std::thread;
use sync::primitive::{AtomicU32, AtomicU64, Ordering};
use sync::{ActiveSet, Bucket, Claims, FreeList, Ring, RingReader, Table, WINDOW};

const ROUNDS: u64 = if cfg!(miri) { 4 } else { 20_000 };
const THREADS: u64 = 3;

fn words(n: usize) -> Vec<AtomicU64> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

#[test]
fn a_reader_finds_each_entry_whole_once_it_is_published() {
    let buckets: Vec<Bucket> = (0..64).map(|_| Bucket::new()).collect();
    let published = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for key in 1..=16 {
                assert!(Table::new(&buckets).insert(key * 16, key));
                published.store(key, Ordering::Release);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..ROUNDS.min(200) {
                    let known = published.load(Ordering::Acquire);
                    for key in 1..=16 {
                        let found = Table::new(&buckets).find(key * 16);
                        assert!(found == Some(key) || found.is_none() && key > known);
                    }
                }
            });
        }
    });
}

#[test]
fn an_element_is_out_once() {
    let links: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
    let owners: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
    let (head, used) = (AtomicU64::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let list = FreeList::new(&head, &used, 4, |i| links.get(i as usize));
                for _ in 0..ROUNDS {
                    let element = list.pop().expect("there are more than threads");
                    assert_eq!(owners[element as usize].swap(1, Ordering::AcqRel), 0, "out twice");
                    owners[element as usize].store(0, Ordering::Release);
                    list.push(element);
                }
            });
        }
    });
}

#[test]
fn a_claim_is_its_own_and_its_data_are_its_own() {
    let claims = words(4);
    let data = words(4);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (claims, data) = (Claims::new(&claims), &data);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let key = 1 + thread + THREADS * round;
                    let place = claims.claim(key).expect("there are more than threads");
                    data[place].store(key, Ordering::Relaxed);
                    assert_eq!(claims.find(key), Some(place));
                    assert_eq!(data[place].load(Ordering::Relaxed), key);
                    assert!(claims.release(key));
                }
            });
        }
    });
    assert!(claims.iter().all(|w| w.load(Ordering::Relaxed) == 0));
}

#[test]
fn what_is_pushed_is_popped_or_refused() {
    let (head, tail, data) = (AtomicU64::new(0), AtomicU64::new(0), words(64));
    let pushed = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let mut seen = 0;
    thread::scope(|scope| {
        let producers: Vec<_> = (1..=THREADS)
            .map(|thread| {
                let (head, tail, data, pushed) = (&head, &tail, &data, &pushed);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let words = [thread, round, thread ^ round];
                        if Ring::new(head, tail, data).push(thread, words.into_iter()) {
                            pushed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let reader = RingReader::new(Ring::new(&head, &tail, &data));
            let mut count = 0;
            loop {
                let last = done.load(Ordering::Acquire);
                let mut record = Vec::new();
                while reader.pop(|word| record.push(word)).is_some() {
                    assert_eq!(record[2], record[0] ^ record[1], "{record:?}");
                    count += 1;
                    record.clear();
                }
                if last {
                    return count;
                }
                thread::yield_now();
            }
        });
        producers.into_iter().for_each(|p| p.join().expect("a producer"));
        done.store(true, Ordering::Release);
        seen = reader.join().expect("the reader");
    });
    assert_eq!(seen, pushed.load(Ordering::Relaxed));
}

/// A removal as control does it: unlink, wait until each member of a snapshot has left, use the memory again.
#[test]
fn nobody_is_left_on_what_a_grace_period_has_waited_for() {
    let set = words(WINDOW);
    let place = AtomicU64::new(1);
    let freed = words(2);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 1..=2 {
            let (set, place, freed, done) = (ActiveSet::new(&set), &place, &freed, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let Some(entered) = set.enter(thread) else { continue };
                    let here = place.load(Ordering::SeqCst) as usize;
                    assert_eq!(freed[here].load(Ordering::Relaxed), 0, "used after its grace period");
                    ActiveSet::leave(entered);
                    thread::yield_now();
                }
            });
        }
        for round in 0..ROUNDS.min(500) {
            let (old, new) = ((1 + round) % 2, round % 2);
            freed[new as usize].store(0, Ordering::Relaxed);
            place.store(new, Ordering::SeqCst);
            let mut waiting: Vec<u64> = ActiveSet::new(&set).members().collect();
            while !waiting.is_empty() {
                let now: Vec<u64> = ActiveSet::new(&set).members().collect();
                waiting.retain(|thread| now.contains(thread));
                thread::yield_now();
            }
            freed[old as usize].store(1, Ordering::Relaxed);
        }
        done.store(true, Ordering::Relaxed);
    });
}
